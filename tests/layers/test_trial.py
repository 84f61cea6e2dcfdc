"""What runs only to find shapes leaves nothing behind: not in layers, not in modules, not in random generators."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import oncue
from helpers import cpu_only, tensor, to_numpy
from oncue import layers
from oncue.layers.trial import Trial

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


class Counter(layers.Layer):  # type: ignore[misc]  # imported when first asked for
    """Counts its calls in a weight, in a number and in a list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calls, self.seen = 0, []

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen.append(len(inputs))
        self.count.assign_add(1.0)
        self.scale.assign_add(1.0)
        return inputs + 0 * self.scale

    def counts(self) -> tuple[float, float, int, int]:
        return float(self.count), float(self.scale.detach()) - 1, self.calls, len(self.seen)


class Wrapped(oncue.Model):
    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.first, self.last = layer, layers.Dense(1)

    def call(self, inputs: torch.Tensor) -> Any:
        return self.last(self.first(inputs))


def functional(layer: Any) -> Any:
    inputs = layers.Input((4,))
    return oncue.Model(inputs, layers.Dense(1)(layer(inputs)))


WAYS: dict[str, Callable[[Any], Any]] = {
    "Sequential with an Input": lambda layer: oncue.Sequential([layers.Input((4,)), layer, layers.Dense(1)]),
    "Sequential": lambda layer: oncue.Sequential([layer, layers.Dense(1)]),
    "functional": functional,
    "subclass": Wrapped,
    "nested": lambda layer: oncue.Sequential([layers.Input((4,)), oncue.Sequential([layer]), layers.Dense(1)]),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_layers_count_the_batches_and_nothing_else(way: Any) -> None:
    layer = Counter()
    model = way(layer)
    if layer.built:
        assert layer.counts() == (0, 0, 0, 0)
        layer.compute_output_shape((None, 4))
        model.summary(print_fn=lambda text: None)
        assert layer.counts() == (0, 0, 0, 0)
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(X, Y, batch_size=8, validation_data=(X, Y), verbose=0)
    assert layer.counts() == (8, 8, 8, 8)
    model.evaluate(X, Y, batch_size=8, verbose=0)
    model.predict(X, batch_size=8, verbose=0)
    model.train_on_batch(X, Y)
    assert layer.counts() == (17, 17, 17, 17)


class Module(nn.Module):
    """A torch module with state of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 1)
        self.fixed = nn.Parameter(torch.zeros(()), requires_grad=False)
        self.register_buffer("changed", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))
        self.generator, self.own = np.random.default_rng(0), random.Random(0)
        self.array, self.last, self.by_size = np.zeros(1), None, {}
        self.recent: deque[int] = deque(maxlen=2)

    def forward(self, x: torch.Tensor) -> Any:
        self.changed += 1
        self.replaced = self.replaced + 1
        self.fixed.data += 1
        self.array += 1
        self.last = x
        self.by_size[len(x)] = self.by_size.get(len(x), 0) + 1
        self.recent.append(len(x))
        self.late = getattr(self, "late", 0) + 1
        self.drawn = self.generator.normal(), self.own.random()
        return self.line(x)

    def counts(self) -> list[float]:
        counted = [self.changed, self.replaced, self.fixed, self.array[0], getattr(self, "late", 0)]
        return [float(to_numpy(value)) for value in [*counted, sum(self.by_size.values())]]


@pytest.mark.parametrize(
    "way",
    [
        oncue.Model,
        lambda module: oncue.Sequential([module]),
        lambda module: oncue.Sequential([layers.Input((4,)), module]),
    ],
)
def test_torch_modules_count_the_batches_and_nothing_else(way: Any) -> None:
    module = Module()
    model = way(module)
    assert module.counts() == [0] * 6 and module.last is None and not module.recent
    model.compile("sgd", "mse")
    model.fit(X, Y, batch_size=8, verbose=0)
    assert module.counts() == [4] * 6 and list(module.recent) == [8, 8]
    numbers = random.Random(0)
    assert module.drawn == (np.random.default_rng(0).normal(size=4)[-1], [numbers.random() for _ in range(4)][-1])


def test_training_inside_a_trial_moves_no_statistics() -> None:
    model = oncue.Sequential(
        [layers.Input((4,)), layers.BatchNormalization(), nn.BatchNorm1d(4), layers.Dropout(0.5, seed=1)]
    )
    before = [tensor.clone() for tensor in model.state_dict().values()]
    with Trial(model):
        model(tensor(X), training=True)
    for one, two in zip(before, model.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    first = model(tensor(X), training=True)
    with Trial(model):
        model(tensor(X), training=True)
    assert not torch.equal(first, model(tensor(X), training=True))


class Draws(layers.Layer):  # type: ignore[misc]  # imported when first asked for
    noisy = True

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(shape=(input_shape[-1], 4))

    def call(self, inputs: torch.Tensor) -> Any:
        if self.noisy:
            torch.rand(3), np.random.rand(), random.random()
        return inputs @ self.kernel


class Still(Draws):
    noisy = False


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_only_weights_draw_random_numbers(way: Any) -> None:
    found = []
    for kind in (Draws, Still):
        oncue.utils.set_random_seed(0)
        model = way(oncue.Sequential([kind(), kind()]))
        model._build_on(tensor(X))
        drawn = [torch.rand(1).item(), np.random.rand(), random.random()]
        found.append(([float(np.sum(weight)) for weight in model.get_weights()], drawn))
    assert found[0] == found[1]
    assert len(set(found[0][0])) >= 3


def test_what_a_call_builds_stays() -> None:
    class Late(layers.Layer):  # type: ignore[misc]  # imported when first asked for
        def __init__(self) -> None:
            super().__init__()
            self.ready = False

        def call(self, inputs: torch.Tensor) -> Any:
            if not self.ready:
                self.inner, self.line, self.ready = layers.Dense(4), nn.Linear(4, 4), True
                self.line.to(inputs.device)
            return self.line(self.inner(inputs))

    model = oncue.Sequential([layers.Input((4,)), Late(), Late(), layers.Dense(1)])
    before = [(layer.inner, layer.line) for layer in model.layers[:2]]
    assert not torch.equal(before[0][1].weight, before[1][1].weight)
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    assert [(layer.inner, layer.line) for layer in model.layers[:2]] == before


def test_lazy_modules_draw_different_weights() -> None:
    model = oncue.Model(nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(4)))
    model.predict(X, verbose=0)
    first, second = model.module
    assert not torch.equal(first.weight, second.weight)


def test_gradients_of_before_can_still_be_taken() -> None:
    layer, scale = layers.BatchNormalization(), tensor(np.ones(4, "float32"), requires_grad=True)
    outputs = layer(tensor(X) * scale, training=True)
    oncue.Sequential([layers.Input((4,)), layer, Draws()]).compute_output_shape((None, 4))
    with Trial(layer):
        layer(tensor(X), training=True)
    outputs.sum().backward()
    assert scale.grad is not None


class Holder(nn.Module):
    """A module around a line, with what a test puts in it."""

    def __init__(self, **held: Any) -> None:
        super().__init__()
        self.line = nn.Linear(4, 1)
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> Any:
        return self.line(x)


@cpu_only("a file is mapped into the memory of the host")
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_memory_that_can_only_be_read_is_not_written(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.full((10, 4), np.nan, "float32"))

    def mapped() -> torch.Tensor:
        return torch.from_numpy(np.load(tmp_path / "vectors.npy", mmap_mode="r"))

    frozen = nn.Embedding.from_pretrained(mapped(), freeze=True)
    module = Holder(
        plain=mapped(),
        buffer=nn.Buffer(mapped()),
        frozen=frozen,
        array=np.load(tmp_path / "vectors.npy", mmap_mode="r"),
    )
    model = oncue.Model(module)
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    assert torch.isnan(module.plain).all()


def test_large_things_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    class Untouched(list[Any]):
        def copy(self) -> Any:
            raise AssertionError

        __iter__ = None  # type: ignore[assignment]  # nothing may look at the items

    cloned: list[int] = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(
        torch.Tensor, "clone", lambda self, **given: cloned.append(self.numel()) or clone(self, **given)
    )
    vectors = nn.Embedding(2**17, 4)
    vectors.requires_grad_(False)
    many = [nn.Buffer(torch.zeros(2**17)) for _ in range(40)]
    module = Holder(items=Untouched(range(200_000)), vectors=vectors, small=torch.zeros(3))
    for index, buffer in enumerate(many):
        module.register_buffer(f"buffer_{index}", buffer)
    with Trial(module):
        module(tensor(X))
    assert sorted(set(cloned)) == [3, 2**17] and sum(cloned) * 4 <= 2**24 + 12


def test_large_containers_get_their_items_back() -> None:
    numbers, words = list(range(5000)), {f"word {index}": index for index in range(5000)}
    module = Holder(numbers=numbers, words=words)
    with Trial(module):
        numbers[7], words["word 7"] = 0, 0
        numbers.append(1)
        words["new"] = 1
    assert numbers == list(range(5000)) and words == {f"word {index}": index for index in range(5000)}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_containers_may_contain_themselves_and_tensors_be_nested() -> None:
    around: list[Any] = [1]
    around.append(around)
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    module = Holder(around=around, nested=nested, table={"around": around})
    with Trial(module):
        around.append(2)
        module.late = around
    assert len(around) == 2 and around[1] is around and not hasattr(module, "late")


class MakesInList(oncue.Model):  # type: ignore[misc]  # imported when first asked for
    def __init__(self) -> None:
        super().__init__()
        self.first, self.made, self.others = layers.Dense(4), False, []

    def call(self, inputs: torch.Tensor) -> Any:
        inputs = self.first(inputs)
        if not self.made:
            self.others += [layers.Dense(4), layers.Dense(1)]
            self.made = True
        for layer in self.others:
            inputs = layer(inputs)
        return inputs


def test_layers_that_the_first_call_puts_in_a_list_are_made_once_and_trained() -> None:
    model = MakesInList()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    assert len(model.others) == 2 and len(model.trainable_variables) == 6

    class Inner(layers.Layer):  # type: ignore[misc]  # imported when first asked for
        def __init__(self) -> None:
            super().__init__()
            self.lines, self.size = [], None

        def call(self, inputs: torch.Tensor) -> Any:
            if self.size is None:
                self.size = inputs.shape[-1]
                self.lines = [layers.Dense(self.size)]
            return self.lines[0](inputs)

    for way in WAYS.values():
        inner = Inner()
        outer = way(inner)
        outer.compile("sgd", "mse")
        outer.fit(X, Y, verbose=0)
        assert inner.size == 4 and len(outer.trainable_variables) == 4


def test_parts_that_the_first_call_puts_in_a_container_of_modules_are_made_once() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.ready = nn.ModuleList(), False

        def forward(self, x: torch.Tensor) -> Any:
            if not self.ready:
                self.heads.append(nn.Linear(4, 1).to(x.device))
                self.ready = True
            return self.heads[0](x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line, self.inner, self.first = nn.Linear(4, 4), Inner(), True

        def forward(self, x: torch.Tensor) -> Any:
            self.first = False
            return self.inner(self.line(x))

    module = Outer()
    model = oncue.Model(module)
    model.compile("sgd", "mse")
    begins: list[torch.Tensor] = []
    begin = oncue.callbacks.LambdaCallback(
        on_train_begin=lambda logs: begins.append(module.inner.heads[0].weight.detach().clone())
    )
    model.fit(X, Y, verbose=0, callbacks=[begin])
    assert len(module.inner.heads) == 1 and module.inner.ready and not module.first
    assert not torch.equal(begins[0], module.inner.heads[0].weight)
