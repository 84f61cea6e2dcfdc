"""What a graph would get wrong without a word is refused by name, or seen and traced again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import oncue as keras
from helpers import normal
from oncue import layers
from oncue.callbacks import LambdaCallback

pytestmark = pytest.mark.usefixtures("quick")

X, Y = normal(48, 6), normal(48, 1, seed=1)
FACTOR = 1.0
SETTINGS = {"power": 2.0}


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))


class Around(nn.Module):
    """A module around a network; what it does besides is said by subclasses."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.before(x))  # type: ignore[no-any-return]

    def before(self, x: Tensor) -> Tensor:
        return x


class Counting(Around):
    def before(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * (1.0 if self.calls % 2 else 0.5)


class ReadingAValue(Around):
    def before(self, x: Tensor) -> Tensor:
        return x / float(x.abs().max())


class MakingATensor(Around):
    def __init__(self) -> None:
        super().__init__()
        self.table = np.ones(20_000, np.float32)

    def before(self, x: Tensor) -> Tensor:
        return x * torch.from_numpy(self.table)[:6]


class Reading(nn.Module):
    """Uses a weight that was computed from another one before."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()
        self.turned = self.inner[0].weight.t()

    def forward(self, x: Tensor) -> Any:
        return self.inner[1:](x @ self.turned + self.inner[0].bias)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return gradient @ weight, 2.0 * gradient.t() @ x


class OwnGradient(Around):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner[1:](Doubled.apply(x, self.inner[0].weight) + self.inner[0].bias)  # type: ignore[no-any-return, no-untyped-call]


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a counter": (Counting, r"each step changes Counting\.calls"),
    "a value": (ReadingAValue, r"reads the value of a tensor.*`return x / float\(x\.abs\(\)\.max\(\)\)`"),
    "made outside": (MakingATensor, r"it makes a tensor of shape \(20000,\) from other values than tensors"),
    "a view": (Reading, "was computed from weights before the step"),
}


def trained(make: Callable[[], nn.Module], jit: bool, loss: Any = "mse", callbacks: Any = (), **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Model(make())
    model.compile(options.pop("optimizer", "adam"), loss, jit_compile=jit)
    keras.utils.set_random_seed(1)
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, shuffle=False, callbacks=list(callbacks), **options)
    return model


def stand_ins(model: nn.Module) -> Iterator[str]:
    for name, part in model.named_modules():
        for key, value in {**vars(part), **part._parameters, **part._buffers}.items():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, FakeTensor):
                    yield f"{name}.{key}"


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_would_get_wrong_is_refused_by_name(name: str) -> None:
    make, reason = REFUSED[name]
    eager = trained(make, False)
    with pytest.warns(UserWarning, match=reason):
        model = trained(make, True)
    for one, other in zip(eager.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(eager.module.modules(), model.module.modules(), strict=True):
        assert {k: v for k, v in vars(one).items() if isinstance(v, (int, list))} == {
            k: v for k, v in vars(other).items() if isinstance(v, (int, list))
        }
    assert not list(stand_ins(model))
    assert model.step_account.startswith("The steps ran eagerly")


def test_gradients_of_the_users_own_are_those_of_the_eager_step() -> None:
    eager = trained(OwnGradient, False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = trained(OwnGradient, True)
    for one, other in zip(eager.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert "ran as one compiled graph" in model.step_account or caught


def scaled(y: Tensor, y_pred: Tensor) -> Tensor:
    return FACTOR * _helper(y, y_pred)


def _helper(y: Tensor, y_pred: Tensor) -> Tensor:
    return (y - y_pred).abs().pow(SETTINGS["power"]).mean(-1)


class Held:
    factor = 1.0


def closure() -> tuple[Any, Any]:
    held = Held()
    factor = 1.0

    def loss(y: Tensor, y_pred: Tensor) -> Tensor:
        return ((y - y_pred) ** 2 * factor * held.factor).mean(-1)

    def change(name: str) -> None:
        nonlocal factor
        if name == "closure":
            factor = 0.0
        else:
            held.factor = 0.0

    return loss, change


@pytest.mark.parametrize("what", ["global", "item", "closure", "object"])
@pytest.mark.parametrize("when", ["on_epoch_begin", "on_train_batch_end"])
def test_what_a_function_reads_counts_from_the_next_step(what: str, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for jit in (False, True):
        loss, change = closure()
        if what in ("global", "item"):
            loss = scaled

        def turn(index: int, logs: Any = None, change: Any = change) -> None:
            if index != 1:
                return
            if what == "global":
                monkeypatch.setitem(globals(), "FACTOR", 0.0)
            elif what == "item":
                monkeypatch.setitem(SETTINGS, "power", 1.0)
            else:
                change(what)

        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            model = trained(network, jit, loss, [LambdaCallback(**{when: turn})], optimizer=keras.optimizers.SGD(0.1))
        weights.append(model.get_weights())
        monkeypatch.undo()
    assert "as one compiled graph" in model.step_account
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("held", ["regularizer", "constraint", "loss"])
def test_what_a_callback_sets_on_an_object_that_a_layer_holds_counts_from_the_next_step(held: str) -> None:
    class Setting(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            layer = self.model.layers[0]
            if batch == 1 and held == "regularizer":
                layer.kernel_regularizer.l2 = 0.0
            elif batch == 1 and held == "constraint":
                layer.kernel_constraint.max_value = 0.1
            elif batch == 1:
                self.model.loss.delta = 0.01

    weights = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        dense = layers.Dense(
            4, kernel_regularizer=keras.regularizers.L2(0.5), kernel_constraint=keras.constraints.MaxNorm(2)
        )
        model = keras.Sequential([layers.Input((6,)), dense, layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1), keras.losses.Huber(1.0), jit_compile=jit)
        model.fit(X, Y, batch_size=16, epochs=2, verbose=0, shuffle=False, callbacks=[Setting()])
        weights.append(model.get_weights())
    assert "compiled graph" in model.step_account
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_loss_scale_that_changes_counts_from_the_next_step() -> None:
    weights = []
    for jit in (False, True):
        optimizer = keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1), initial_scale=4.0, dynamic_growth_steps=2
        )
        model = trained(network, jit, optimizer=optimizer)
        assert float(model.optimizer.dynamic_scale) == 4.0 * 2**3
        weights.append(model.get_weights())
    assert "as one compiled graph" in model.step_account
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_large_array_is_refused_and_a_small_one_watched() -> None:
    class Table(Around):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.array = np.ones(size, np.float32)

        def before(self, x: Tensor) -> Tensor:
            return x * torch.tensor(self.array)[:6]

    with pytest.warns(UserWarning, match=r"a NumPy array of shape \(20000,\).*register_buffer"):
        trained(lambda: Table(20_000), True)

    class Halving(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                self.model.module.array[:3] = 0.0

    weights = []
    for jit in (False, True):
        model = trained(lambda: Table(6), jit, callbacks=[Halving()])
        weights.append(model.get_weights())
    assert "as one compiled graph" in model.step_account
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_graph_that_is_too_large_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.training.graph.traced_graph.MOST_NODES", 20)
    with pytest.warns(UserWarning, match=r"its graph has \d+ operations \(of more than 20, compiling takes longer"):
        trained(network, True)


def test_weights_that_share_memory_are_refused() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
            self.second.weight.data = self.first.weight.data.view(6, 6)
            self.last = nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Any:
            return self.last(self.second(torch.tanh(self.first(x))))

    with pytest.warns(UserWarning, match=r"two of its tensors, of shapes \(6, 6\) and \(6, 6\), share memory"):
        trained(Tied, True)


def test_one_weight_in_two_places_is_one_weight() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
            self.second.weight = self.first.weight
            self.last = nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Any:
            return self.last(self.second(torch.tanh(self.first(x))))

    eager, model = trained(Tied, False), trained(Tied, True)
    assert "as one compiled graph" in model.step_account
    for one, other in zip(eager.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_failure_in_the_trace_leaves_everything_as_it_was() -> None:
    class Failing(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.cache: list[Any] = []
            self.state = self.add_weight(shape=(6,), initializer="ones", trainable=False)

        def call(self, x: Tensor) -> Tensor:
            if isinstance(x, FakeTensor):
                self.cache.append(x)
                raise ValueError("can't be traced")
            return x * self.state

    keras.utils.set_random_seed(0)
    failing = Failing()
    model = keras.Sequential([layers.Input((6,)), failing, layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=True)
    with pytest.warns(UserWarning, match=r"can't be traced, at `raise ValueError"):
        model.fit(X, Y, batch_size=16, verbose=0)
    assert failing.cache == [] and not list(stand_ins(model))
    assert all(parameter.grad is None or not isinstance(parameter.grad, FakeTensor) for parameter in model.parameters())


def test_what_keeps_changing_runs_eagerly() -> None:
    class Turning(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.layers[0].rate = 0.5 / (epoch + 1)

    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((6,)), layers.Dropout(0.5), layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=True)
    with pytest.warns(UserWarning, match="what it depends on kept changing, so that it would be made again and again"):
        model.fit(X, Y, batch_size=16, epochs=8, verbose=0, callbacks=[Turning()])
    assert model._plan.graphs.steps["train"].graphs == 6


def pairs_of(first: Any, second: Any) -> Any:
    """A model that takes two inputs by name, which count differently."""

    class Pair(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs["p"]) - 2.0 * self.dense(inputs["q"])

    keras.utils.set_random_seed(0)
    return Pair()


def test_a_dict_whose_keys_come_in_another_order_is_the_same_batch() -> None:
    p, q = X[:16], normal(16, 6, seed=2)
    found = []
    for jit in (False, True):
        model = pairs_of(p, q)
        model.compile("sgd", "mse", jit_compile=jit)
        values = [model.evaluate(data, Y[:16], verbose=0) for data in ({"p": p, "q": q}, {"q": q, "p": p})]
        values += [model.train_on_batch(data, Y[:16]) for data in ({"p": p, "q": q}, {"q": q, "p": p})]
        predicted = [model.predict(data, verbose=0) for data in ({"p": p, "q": q}, {"q": q, "p": p})]
        np.testing.assert_allclose(predicted[0], predicted[1], rtol=1e-5)
        found.append(values)
    assert found[0][0] == pytest.approx(found[0][1])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


@pytest.mark.parametrize("hook", ["weight", "all modules"])
def test_a_hook_that_comes_later_counts_from_the_next_step(hook: str) -> None:
    class Hooking(keras.callbacks.Callback):
        handle: Any = None

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch != 1 or self.handle is not None:
                return
            if hook == "weight":
                self.handle = next(self.model.parameters()).register_hook(lambda gradient: gradient * 0.0)
            else:
                halved = nn.modules.module.register_module_forward_hook
                self.handle = halved(lambda module, inputs, output: output * 0.5)

        def on_train_end(self, logs: Any = None) -> None:
            self.handle.remove()

    eager = trained(network, False, callbacks=[Hooking()])
    with pytest.warns(UserWarning, match="has hooks|there are hooks of all modules"):
        model = trained(network, True, callbacks=[Hooking()])
    for one, other in zip(eager.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_hooks_of_a_torch_optimizer_are_called(when: str) -> None:
    weights, calls = [], []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        made = network()
        inner, count = torch.optim.SGD(made.parameters(), lr=0.1), [0]

        def scale(optimizer: Any, args: Any, kwargs: Any, count: Any = count) -> None:
            count[0] += 1
            for parameter in optimizer.param_groups[0]["params"]:
                parameter.grad.mul_(0.5)

        class Hooking(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None, inner: Any = inner, scale: Any = scale) -> None:
                if batch == 1 and self.model.optimizer.iterations == 2:
                    inner.register_step_pre_hook(scale)

        if when == "before":
            inner.register_step_pre_hook(scale)
        model = keras.Model(made)
        model.compile(inner, "mse", jit_compile=jit)
        model.fit(
            X, Y, batch_size=16, epochs=2, verbose=0, shuffle=False, callbacks=[Hooking()] if when != "before" else []
        )
        weights.append(model.get_weights())
        calls.append(count[0])
    assert calls[0] == calls[1] == (6 if when == "before" else 4)
    assert "a compiled graph" in model.step_account
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_first_batch_that_is_not_finite_is_no_reason_to_refuse() -> None:
    x = X.copy()
    x[0] = np.nan
    keras.utils.set_random_seed(0)
    model = keras.Model(network())
    model.compile("adam", "mse", jit_compile=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(x, Y, batch_size=16, verbose=0, shuffle=False)
    assert "as one compiled graph" in model.step_account


def reading(model: Any, name: str) -> Callable[..., Tensor]:
    def loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
        return (y_true - y_pred).square().mean() * (1.0 + float(getattr(model.optimizer, name)))

    return loss


@pytest.mark.parametrize("name", ["learning_rate", "iterations", "momentum"])
def test_a_loss_that_reads_a_number_of_the_optimizer_is_refused(name: str) -> None:
    found = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Model(network())
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
        model.compile(keras.optimizers.SGD(schedule, momentum=0.5), reading(model, name), jit_compile=jit)
        with (
            pytest.warns(UserWarning, match=rf"it reads `optimizer\.{name}`.*float\(getattr") if jit else nullcontext()
        ):
            model.fit(X, Y, batch_size=16, epochs=2, verbose=0, shuffle=False)
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_metric_that_reads_the_rate_follows_the_graph() -> None:
    found = []
    for jit in (False, True):
        optimizer = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5))

        def rate(y_true: Tensor, y_pred: Tensor, optimizer: Any = optimizer) -> Any:
            return optimizer.learning_rate

        keras.utils.set_random_seed(0)
        model = keras.Model(network())
        model.compile(optimizer, "mse", metrics=[rate], jit_compile=jit)
        found.append(model.fit(X, Y, batch_size=16, epochs=2, verbose=0, shuffle=False).history["rate"])
    assert found[0][0] > 3 * found[0][1]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    assert "with the rest after it" in model.step_account


def test_another_thread_may_read_the_rate_while_a_step_is_traced() -> None:
    model, seen = keras.Model(network()), []

    def loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(lambda: float(model.optimizer.learning_rate)).result(timeout=60))
        return (y_true - y_pred).square().mean()

    model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model.fit(X, Y, batch_size=16, verbose=0)
    assert set(seen) == {0.5}


class ByTheLastLoss(keras.Model):
    """A model whose loss depends on what the history of its run has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def call(self, x: Tensor) -> Any:
        return self.inner(x)

    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, **others: Any) -> Tensor:
        known = self.history.history.get("loss", [0.0])
        return (y - y_pred).square().mean() * (1.0 + known[-1])


def test_what_a_step_reads_of_the_history_counts_from_the_next_epoch() -> None:
    found = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        model = ByTheLastLoss()
        model.compile("sgd", "mse", jit_compile=jit)
        found.append(model.fit(X, Y, batch_size=16, epochs=3, verbose=0, shuffle=False).history["loss"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    assert model.step_account.startswith("The steps ran as one compiled graph")


def test_a_prediction_that_is_traced_runs_the_model_no_more_often() -> None:
    class Moving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.kept = network(), [torch.ones(6)]

        def forward(self, x: Tensor) -> Any:
            with torch.no_grad():
                self.kept[0].mul_(0.5)
            return self.inner(x * self.kept[0])

    found = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Model(Moving())
        model.compile("sgd", "mse", jit_compile=jit)
        found.append(model.predict(X, batch_size=16, verbose=0))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
