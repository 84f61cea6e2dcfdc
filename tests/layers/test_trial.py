"""What runs only to find shapes leaves nothing behind: not in layers, not in modules, not in random generators."""

from __future__ import annotations

import random
import threading
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


LARGE = 2**19
"""How many floats are more than what is copied at once."""


def test_large_tensors_are_copied_only_when_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda self, **given: copied.append(self.nbytes) or clone(self, **given))
    vectors = nn.Embedding(2**17, 4)
    vectors.requires_grad_(False)
    module = Holder(vectors=vectors, trained=nn.Linear(2**10, 2**10), small=torch.zeros(3), large=torch.zeros(LARGE))
    for index in range(40):
        module.register_buffer(f"buffer_{index}", torch.zeros(2**17))
    module.to(tensor(X).device)
    copied.clear()
    with Trial(module):
        module(tensor(X))
    # Up to 16 MiB of buffers, and what is small.
    assert max(copied) == 2**19 and sum(copied) <= 2**24 + 2**12
    copied.clear()
    with Trial(module):
        module.large[3] = 1
        module.buffer_39.view(2, -1)[1].add_(1)
    assert copied.count(LARGE * 4) == 1 and sum(size > 2**19 for size in copied) == 1
    assert not module.large.any() and not module.buffer_39.any()


def adds_one(table: torch.Tensor) -> None:
    table.add_(1.0)


def scripted(table: torch.Tensor) -> None:
    script: Any = torch.jit.script
    script(adds_one)(table)


def resized(table: torch.Tensor) -> None:
    table = table.data if table.requires_grad else table
    table.resize_(LARGE + 5)
    table.fill_(3.0)


def statistics(table: torch.Tensor) -> None:
    # An operation that doesn't say what it writes.
    x = torch.ones(2, LARGE, device=table.device)
    torch.native_batch_norm(x, None, None, table, torch.ones_like(table), True, 0.5, 1e-3)


def at_inference(table: torch.Tensor) -> None:
    with torch.inference_mode():
        table.mul_(2.0)
        table[:3] = 0.0


WRITES: dict[str, Callable[[torch.Tensor], Any]] = {
    "in place": lambda table: table.add_(1.0),
    "an item": lambda table: table.__setitem__(7, 5.0),
    "a view": lambda table: table.view(2, -1)[1, 3:9].zero_(),
    "past autograd": lambda table: table.data.mul_(2.0),
    "out": lambda table: torch.add(table, 1.0, out=table),
    "several": lambda table: torch._foreach_mul_([torch.ones(1), table], 2.0),
    "a part": lambda table: table.index_add_(0, torch.tensor([1], device=table.device), table[7:8].clone()),
    "put": lambda table: table.index_put_((torch.tensor([1], device=table.device),), table[7:8].clone()),
    "random numbers": lambda table: nn.init.normal_(table),
    "an optimizer": lambda table: torch._fused_sgd_(
        [table],
        [table.clone()],
        [],
        weight_decay=0.0,
        momentum=0.0,
        lr=1.0,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    ),
    "new memory": lambda table: setattr(table, "data", torch.zeros_like(table)),
    "another shape": lambda table: setattr(table, "data", table[:3]),
    "another size": resized,
    "other axes": lambda table: table.unsqueeze_(0),
    "a script": scripted,
    "statistics": statistics,
    "inference mode": at_inference,
    "a vectorized function": lambda table: torch.func.vmap(lambda part: part.add_(1.0))(table.view(4, -1)),
}


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated", "ignore:`torch.jit.script` is not supported")
@pytest.mark.parametrize("kind", ["buffer", "attribute", "frozen", "trained"])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_large_tensors_are_put_back_however_they_are_written(write: Callable[[torch.Tensor], Any], kind: str) -> None:
    values = tensor(np.arange(LARGE, dtype="float32"))
    held = {
        "buffer": nn.Buffer(values.clone()),
        "attribute": values.clone(),
        "frozen": nn.Parameter(values.clone(), requires_grad=False),
        "trained": nn.Parameter(values.clone()),
    }[kind]
    module = Holder(table=held)
    with Trial(module), torch.no_grad():
        write(module.table)
        changed = module.table.detach().reshape(-1)
        assert changed.shape != values.shape or write is WRITES["other axes"] or not torch.equal(changed, values)
    assert module.table is held and held.shape == values.shape and torch.equal(held.detach(), values)
    assert held.untyped_storage().nbytes() == LARGE * 4


def test_weights_of_layers_of_oncue_are_put_back() -> None:
    class Doubles(layers.Layer):  # type: ignore[misc]  # imported when first asked for
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(4, kernel_initializer="ones")

        def call(self, inputs: torch.Tensor) -> Any:
            outputs = self.dense(inputs)
            with torch.no_grad():
                self.dense.kernel.mul_(2.0)
            return outputs

    for way in WAYS.values():
        layer = Doubles()
        model = way(layer)
        model.compile("sgd", "mse")
        begins: list[float] = []
        begin = oncue.callbacks.LambdaCallback(
            on_train_begin=lambda logs, layer=layer, begins=begins: begins.append(to_numpy(layer.dense.kernel).max())
        )
        model.fit(X, Y, verbose=0, callbacks=[begin])
        assert begins == [1] and to_numpy(layer.dense.kernel).max() > 1.5


def test_what_build_writes_stays() -> None:
    class Around(layers.Layer):  # type: ignore[misc]  # imported when first asked for
        def __init__(self) -> None:
            super().__init__()
            self.line, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def build(self, input_shape: Any) -> None:
            nn.init.constant_(self.line.weight, 0.25)
            self.line.bias = nn.Parameter(torch.full_like(self.line.bias, 3.0))
            self.norm.running_mean.fill_(2.0)
            self.norm.momentum = 0.5

        def call(self, inputs: torch.Tensor) -> Any:
            with torch.no_grad():
                self.line.weight.add_(1.0)
                self.norm.running_mean.add_(1.0)
            return self.norm(self.line(inputs))

    for way in WAYS.values():
        layer = Around()
        way(layer)._build_on(tensor(X))
        assert to_numpy(layer.line.weight).max() == to_numpy(layer.line.weight).min() == 0.25
        assert to_numpy(layer.line.bias).max() == 3 and to_numpy(layer.norm.running_mean).max() == 2
        assert layer.norm.momentum == 0.5


def test_a_weight_that_a_call_makes_is_made_once() -> None:
    class Late(layers.Layer):  # type: ignore[misc]  # imported when first asked for
        ready = False

        def call(self, inputs: torch.Tensor) -> Any:
            if not self.ready:
                self.scale = self.add_weight(shape=(), initializer="ones")
                self.ready = True
            return inputs * self.scale

    for way in WAYS.values():
        layer = Late()
        model = way(layer)
        model.compile("sgd", "mse")
        model.fit(X, Y, verbose=0)
        assert layer.ready and len(layer.weights) == 1


@cpu_only("NumPy writes into the memory of the host")
def test_what_numpy_writes_is_put_back_or_said() -> None:
    array, table, file = np.zeros(5), np.zeros(LARGE), np.zeros(LARGE, dtype=object)
    memory, shared = np.zeros(5), np.zeros((LARGE, 2), "int64").T
    small = torch.from_numpy(memory)
    module = Holder(array=array, table=table, items={"file": file}, small=small, shared=shared)
    with Trial(module):
        array[1] = memory[2] = file[3] = 1
    assert not array.any() and not small.any() and not file.any()
    with pytest.warns(
        UserWarning, match=r"`Holder.table`, `Holder.shared` were changed while .* `self.training` is true"
    ):
        with Trial(module):
            table[-1] = shared[1, -1] = 1


@cpu_only("a file is mapped into the memory of the host")
def test_a_large_mapped_array_is_left_alone_as_files_are(tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.zeros(LARGE))
    module = Holder(file=np.load(tmp_path / "large.npy", mmap_mode="r+"))
    with Trial(module):
        module.file[3] = 1
    assert module.file[3] == 1


def test_what_another_thread_writes_is_put_back_or_said() -> None:
    module = Holder(small=tensor(np.zeros(3)), large=tensor(np.zeros(LARGE)))

    def write() -> None:
        module.small.add_(1)
        module.large.add_(1)

    with pytest.warns(UserWarning, match=r"`Holder.large` was changed while the model was only run to find shapes"):
        with Trial(module):
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
    assert not module.small.any()


def test_what_failed_says_nothing_more() -> None:
    module = Holder(table=np.zeros(LARGE), buffer=nn.Buffer(tensor(np.zeros(LARGE))))
    with pytest.raises(ZeroDivisionError), Trial(module):
        module.table[0] = 1
        module.buffer.add_(1)
        raise ZeroDivisionError
    assert not module.buffer.any()


def test_trials_may_be_inside_each_other() -> None:
    module = Holder(large=tensor(np.zeros(LARGE)), small=tensor(np.zeros(3)))
    with Trial(module):
        module.large.add_(1)
        with Trial(module):
            module.large.add_(1)
            module.small.add_(1)
        assert module.large.unique().tolist() == [1] and not module.small.any()
        module.small.add_(1)
    assert not module.large.any() and not module.small.any()


def test_what_was_compiled_runs_eagerly_in_a_trial_and_compiled_after_it() -> None:
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(4, 1)
            self.register_buffer("count", torch.zeros(LARGE))

        def forward(self, x: torch.Tensor) -> Any:
            self.count.add_(1)
            return self.line(x)

    module = Counts().to(tensor(X).device)
    run = torch.compile(module, backend=backend)
    with torch.no_grad():
        with Trial(run):
            run(tensor(X))
        assert not compiled and not module.count.any()
        run(tensor(X))
        assert len(compiled) == 1
        with Trial(run):
            run(tensor(X))
    assert module.count.unique().tolist() == [1]
    torch._dynamo.reset()


def test_operations_that_run_python_functions_run_in_a_trial() -> None:
    module = Holder(large=tensor(np.ones(LARGE)))
    with Trial(module), torch.no_grad():
        found = torch.cond(module.large.sum() > 0, lambda x: x + 1, lambda x: x - 1, (module.large,))
        module.large.zero_()
    assert found.max() == 2 and module.large.min() == 1
    torch._dynamo.reset()


class Pair(torch.Tensor):
    """A tensor that consists of two others."""

    one: torch.Tensor
    two: torch.Tensor

    @staticmethod
    def __new__(cls, one: torch.Tensor, two: torch.Tensor) -> Pair:
        made = torch.Tensor._make_wrapper_subclass(cls, one.shape, dtype=one.dtype, device=one.device)
        made.one, made.two = one, two
        return made

    def __tensor_flatten__(self) -> Any:
        return ["one", "two"], None

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def run(name: str) -> Any:
            return func(*[getattr(arg, name) if isinstance(arg, cls) else arg for arg in args], **(kwargs or {}))

        one, two = run("one"), run("two")
        return args[0] if one is args[0].one else cls(one, two)


class Asked(torch.Tensor):
    """A tensor that notes what is asked of it."""

    asked: list[Any] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.asked.append(func)
        return super().__torch_function__(func, types, args, kwargs or {})


def test_tensors_of_derived_classes() -> None:
    zeros = tensor(np.zeros(LARGE))
    module = Holder(pair=Pair(zeros.clone(), zeros.clone()), own=zeros.clone().as_subclass(Asked), plain=zeros.clone())
    Asked.asked.clear()
    with Trial(module):
        pass
    assert not Asked.asked
    with Trial(module):
        module.pair.add_(1)
        module.own.add_(1)
        assert module.pair.one.max() == 1
    assert not module.pair.one.any() and not module.pair.two.any()
    assert not module.own.as_subclass(torch.Tensor).any()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_tensors_without_memory_of_their_own() -> None:
    dense = tensor(np.eye(3))
    module = Holder(
        sparse=dense.to_sparse(), rows=dense.to_sparse_csr(), meta=torch.empty(3, device="meta"), none=torch.empty(0)
    )
    with torch.inference_mode():
        module.inference = tensor(np.zeros(LARGE))
    with Trial(module), torch.inference_mode():
        module.inference.add_(1)
        module.meta.add_(1)
    assert not module.inference.any()
    with pytest.warns(UserWarning, match="`Holder.sparse` was changed"), Trial(module):
        module.sparse.mul_(2)


def test_a_tensor_that_shares_its_memory_with_itself_is_put_back() -> None:
    module = Holder(expanded=tensor(np.zeros(1)).expand(LARGE))
    with Trial(module):
        module.expanded[:1].add_(1)
    assert not module.expanded.any()


def test_without_the_name_all_is_copied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.torch_private._DispatchMode", None)
    module = Holder(large=tensor(np.zeros(LARGE)))
    with Trial(module), torch.no_grad():
        module.large.add_(1)
        module.line.weight.add_(1)
    assert not module.large.any() and module.line.weight.max() < 1


def test_large_containers_get_their_items_back() -> None:
    numbers, words = list(range(200_000)), {f"word {index}": index for index in range(5000)}
    tensors = [torch.zeros(2) for _ in range(5000)]
    module = Holder(numbers=numbers, words=words, tensors=tensors)
    with Trial(module):
        numbers[7], words["word 7"] = 0, 0
        tensors[4321].add_(1)
        numbers.append(1)
        words["new"] = 1
    assert numbers == list(range(200_000)) and not tensors[4321].any()
    assert words == {f"word {index}": index for index in range(5000)}


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
