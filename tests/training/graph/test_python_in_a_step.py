"""What Python code of a step does besides arithmetic: a graph would do it once, so that it is refused by name or watched."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal, kl_divergence

import oncue as keras
from helpers import cpu_only, normal, tensor, to_numpy
from oncue import layers
from oncue.callbacks import LambdaCallback

X = normal(20, 6)
Y = X[:, :2] * X[:, 2:4]


class Net(nn.Module):
    """A small network that calls a function of itself and of the batch in each forward pass of training."""

    def __init__(self, does: Callable[[Any, Tensor], Tensor | None], **kept: Any) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 2)
        self.does = does
        for name, value in kept.items():
            if isinstance(value, Tensor) and name.startswith("buffer"):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.one(x))
        if self.training:
            changed = self.does(self, hidden)
            hidden = hidden if changed is None else changed
        found: Tensor = self.two(hidden)
        return found


def network(does: Callable[[Any, Tensor], Any], **kept: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: keras.Model(Net(does, **{name: make() for name, make in kept.items()}))


# Refused -------------------------------------------------------------------------------------------------------------


def counts(net: Any, x: Tensor) -> Tensor:
    net.count += 1
    return x * net.count


def notes(net: Any, x: Tensor) -> None:
    net.notes.append(tuple(x.shape))


def counts_by_name(net: Any, x: Tensor) -> Tensor:
    net.table["steps"] = net.table.get("steps", 0) + 1
    return x / net.table["steps"]


def counts_in_an_object(net: Any, x: Tensor) -> Tensor:
    net.settings.steps += 1
    return x / net.settings.steps


def keeps_the_last(net: Any, x: Tensor) -> None:
    net.last = x.detach()


def replaces_a_buffer(net: Any, x: Tensor) -> Tensor:
    net.buffer_mean = net.buffer_mean * 0.9 + x.detach().mean(0) * 0.1
    return x - net.buffer_mean


def draws_by_python(net: Any, x: Tensor) -> Tensor:
    return x * random.random()


def draws_by_numpy(net: Any, x: Tensor) -> Tensor:
    return x * float(np.random.uniform())


def draws_by_its_own(net: Any, x: Tensor) -> Tensor:
    return x * float(net.draws.random())


def draws_from_its_own_generator(net: Any, x: Tensor) -> Tensor:
    return x + torch.rand(x.shape, generator=net.generator)


def seeds_torch(net: Any, x: Tensor) -> Tensor:
    torch.manual_seed(3)
    return x + torch.rand_like(x)


def decides(net: Any, x: Tensor) -> Tensor:
    return x if x.mean() > 0 else -x


def reads(net: Any, x: Tensor) -> Tensor:
    return x * float(net.one.weight.detach().mean())


def reads_as_numpy(net: Any, x: Tensor) -> Tensor:
    return x * torch.from_numpy(np.tanh(np.asarray(net.one.bias.detach())))


def skips_at_random(net: Any, x: Tensor) -> Tensor:
    return x * 2 if torch.rand(()).item() < 0.5 else x


def clips_weights(net: Any, x: Tensor) -> None:
    with torch.no_grad():
        net.two.weight.clamp_(-0.1, 0.1)


def depends_on_how_many_are_positive(net: Any, x: Tensor) -> Tensor:
    return x + x[x > 0].mean()


class Slotted:
    """An object without a dict of attributes."""

    __slots__ = ("steps",)

    def __init__(self) -> None:
        self.steps = 0


def counts_in_a_slot(net: Any, x: Tensor) -> Tensor:
    net.slotted.steps += 1
    return x * (1 if net.slotted.steps < 4 else 0)


def counts_at_itself(net: Any, x: Tensor) -> Tensor:
    counts_at_itself.steps = getattr(counts_at_itself, "steps", 0) + 1  # type: ignore[attr-defined]
    return x


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    steps = 0

    @functools.wraps(function)
    def inner(*given: Any) -> Any:
        nonlocal steps
        steps += 1
        return function(*given)

    return inner


class Halving(torch.autograd.Function):
    """A function whose gradient depends on how often it was asked for."""

    steps = 0

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        Halving.steps += 1
        return gradients[0] * (1.0 if Halving.steps < 4 else 0.5)


def counts_in_its_gradient(net: Any, x: Tensor) -> Tensor:
    found: Tensor = Halving.apply(x)  # type: ignore[no-untyped-call]
    return found


def halving() -> Any:
    Halving.steps = 0
    return network(counts_in_its_gradient)()


def takes_the_next(net: Any, x: Tensor) -> Tensor:
    return x * (1 if next(net.numbers) < 4 else 0)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a counter": (network(counts, count=lambda: 0), r"each step changes Net\.count"),
    "a list": (network(notes, notes=list), r"each step changes Net\.notes"),
    "a dict": (network(counts_by_name, table=dict), r"each step changes Net\.table"),
    "an object": (
        network(counts_in_an_object, settings=lambda: SimpleNamespace(steps=0)),
        r"each step changes Net\.settings",
    ),
    "a tensor": (network(keeps_the_last, last=lambda: None), r"each step changes Net\.last"),
    "a buffer": (network(replaces_a_buffer, buffer_mean=lambda: torch.zeros(5)), r"each step changes .*buffer_mean"),
    "an object with slots": (network(counts_in_a_slot, slotted=Slotted), r"each step changes Net\.slotted\.steps"),
    "a function of autograd": (halving, r"each step changes Halving\.steps"),
    "a function": (network(counts_at_itself), r"each step changes .*counts_at_itself"),
    "around a function": (network(counted(lambda net, x: None)), "each step changes .*(steps|closes over)"),
    "an iterator": (network(takes_the_next, numbers=itertools.count), r"may take items from Net\.numbers"),
    "random": (network(draws_by_python), "draws random numbers of Python or NumPy"),
    "NumPy's random": (network(draws_by_numpy), "draws random numbers of Python or NumPy"),
    "a generator of Python": (
        network(draws_by_its_own, draws=lambda: random.Random(1)),
        r"each step changes Net\.draws",
    ),
    "a generator of NumPy": (
        network(draws_by_its_own, draws=lambda: np.random.default_rng(1)),
        r"each step changes Net\.draws",
    ),
    "a generator of torch": (
        network(draws_from_its_own_generator, generator=lambda: torch.Generator().manual_seed(1)),
        "generator of its own",
    ),
    "a seed": (network(seeds_torch), "seeds torch's generator"),
    "a branch": (network(decides), "reads the value of a tensor"),
    "a number": (network(reads), "reads the value of a tensor"),
    "an array": (network(reads_as_numpy), "numpy"),
    "a random branch": (network(skips_at_random), "reads the value of a tensor"),
    "a weight": (network(clips_weights), r"the forward pass itself changes the weight `.*two.weight`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_would_do_once_is_refused_by_name(name: str, refused: Any) -> None:
    make, reason = REFUSED[name]
    refused(make, X, Y, reason, fit={"epochs": 2})


def hooked(register: Callable[[Any], Any]) -> Callable[[], Any]:
    def make() -> Any:
        model = network(lambda net, x: None)()
        register(next(module for module in model.modules() if isinstance(module, Net)))
        return model

    return make


HOOKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "of a weight": (lambda net: net.one.weight.register_hook(lambda g: g * 2), r"the weight `.*one.weight` has hooks"),
    "after a gradient": (
        lambda net: net.one.bias.register_post_accumulate_grad_hook(lambda weight: None),
        r"the weight `.*one.bias` has hooks",
    ),
    "forward": (lambda net: net.one.register_forward_hook(lambda layer, given, found: found * 2), "has hooks"),
    "before forward": (
        lambda net: net.two.register_forward_pre_hook(lambda layer, given: (given[0] * 2,)),
        "has hooks",
    ),
    "backward": (lambda net: net.two.register_full_backward_hook(lambda layer, given, found: None), "has hooks"),
}


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_are_refused(name: str, refused: Any) -> None:
    register, reason = HOOKS[name]
    refused(hooked(register), X, Y, reason)


def test_a_loss_that_remembers_is_refused(refused: Any) -> None:
    seen: list[int] = []

    def loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
        seen.append(1)
        return (y_true - y_pred).square().mean(-1) / len(seen)

    def make() -> Any:
        seen.clear()
        return network(lambda net, x: None)()

    refused(make, X, Y, "each step changes .*(seen|fn, loss)", loss=lambda: loss)


STEPS = 0


def test_a_loss_that_counts_in_a_global_is_refused(refused: Any) -> None:
    def loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
        global STEPS
        STEPS += 1
        return (y_true - y_pred).square().mean(-1) / STEPS

    def make() -> Any:
        global STEPS
        STEPS = 0
        return network(lambda net, x: None)()

    refused(make, X, Y, "each step changes the global `STEPS`", loss=lambda: loss)


def test_a_class_that_counts_is_refused(refused: Any) -> None:
    class Counting(layers.Layer):
        calls = 0

        def call(self, x: Tensor) -> Tensor:
            type(self).calls += 1
            return x / type(self).calls

    def make() -> Any:
        Counting.calls = 0
        return keras.Sequential([layers.Input((6,)), layers.Dense(2), Counting()])

    refused(make, X, Y, "each step changes .*calls")


def test_a_metric_that_counts_in_python_follows_the_graph(side_by_side: Any) -> None:
    class Steps(keras.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="steps")
            self.steps = 0

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
            self.steps += 1

        def result(self) -> Any:
            return torch.tensor(float(self.steps))

        def reset_state(self) -> None:
            self.steps = 0

    model = side_by_side(network(lambda net, x: None), X, Y, whole=False, metrics=lambda: [Steps()])
    assert model.history.history["steps"] == [5.0]


# Distributions -------------------------------------------------------------------------------------------------------


class Encoder(layers.Layer):
    """Draws what it gives from normal distributions, with their divergence from the standard one as a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = layers.Dense(4)

    def call(self, x: Tensor) -> Tensor:
        mean, scale = self.inner(x).chunk(2, -1)
        found = Normal(mean, scale.sigmoid())
        self.add_loss(kl_divergence(found, Normal(torch.zeros_like(mean), 1.0)).mean())
        return found.rsample()


def likelihood(y_true: Tensor, y_pred: Tensor) -> Tensor:
    return -Categorical(logits=y_pred).log_prob((y_true[:, 0] > 0).long())


DISTRIBUTIONS: dict[str, tuple[Callable[[], Any], Any]] = {
    "drawn from": (lambda: keras.Sequential([layers.Input((6,)), Encoder(), layers.Dense(2)]), lambda: "mse"),
    "a likelihood": (network(lambda net, x: None), lambda: likelihood),
    "checked all the same": (
        network(lambda net, x: x + Normal(x, 1.0, validate_args=True).log_prob(2.0 * x)),
        lambda: "mse",
    ),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_are_part_of_a_graph(name: str, side_by_side: Any) -> None:
    make, loss = DISTRIBUTIONS[name]
    side_by_side(make, X, Y, loss=loss)


def test_the_first_batch_of_a_distribution_is_checked(quick: None) -> None:
    model = network(lambda net, x: Normal(x, torch.tensor(-1.0)).log_prob(x))()
    model.compile("sgd", loss="mse", jit_compile=True)
    with (
        pytest.warns(UserWarning, match="Expected parameter scale"),
        pytest.raises(ValueError, match="Expected parameter scale"),
    ):
        model.fit(X, Y, batch_size=4, verbose=0)


# Watched -------------------------------------------------------------------------------------------------------------

FACTOR = 1.0
FACTORS = {"of": [1.0]}
ARRAY = np.ones(5, dtype="float32")


def by_a_global(net: Any, x: Tensor) -> Tensor:
    return x * FACTOR


def by_an_item(net: Any, x: Tensor) -> Tensor:
    return x * FACTORS["of"][0]


def by_an_array(net: Any, x: Tensor) -> Tensor:
    return x * torch.from_numpy(ARRAY)


def through_another(net: Any, x: Tensor) -> Tensor:
    return by_a_global(net, x)


def by_an_attribute(net: Any, x: Tensor) -> Tensor:
    return x * net.settings.factor


def by_a_tensor(net: Any, x: Tensor) -> Tensor:
    return x * net.factor


def set_global(net: Any, value: float) -> None:
    global FACTOR
    FACTOR = value


def set_item(net: Any, value: float) -> None:
    FACTORS["of"][0] = value


def set_array(net: Any, value: float) -> None:
    ARRAY[:] = value


def set_attribute(net: Any, value: float) -> None:
    net.settings.factor = value


def set_tensor(net: Any, value: float) -> None:
    net.factor.fill_(value)


def put_tensor(net: Any, value: float) -> None:
    net.factor = torch.tensor(value)


def set_function(net: Any, value: float) -> None:
    net.does = lambda net, x: x * value


def freeze(net: Any, value: float) -> None:
    net.one.weight.requires_grad_(value == 1.0)


def infer(net: Any, value: float) -> None:
    net.two.train(value == 1.0)


WATCHED: dict[str, tuple[Callable[[], Any], Callable[[Any, float], None]]] = {
    "a global": (network(by_a_global), set_global),
    "an item of a global": (network(by_an_item), set_item),
    "the values of an array": (network(by_an_array), set_array),
    "a global of a function that is called": (network(through_another), set_global),
    "an attribute of an object": (
        network(by_an_attribute, settings=lambda: SimpleNamespace(factor=1.0)),
        set_attribute,
    ),
    "the value of a tensor": (network(by_a_tensor, factor=lambda: torch.tensor(1.0)), set_tensor),
    "another tensor": (network(by_a_tensor, factor=lambda: torch.tensor(1.0)), put_tensor),
    "a function": (network(lambda net, x: x), set_function),
    "a frozen weight": (network(lambda net, x: x), freeze),
    "a part in inference mode": (
        lambda: keras.Model(Net(lambda net, x: x, two=nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 2)))),
        infer,
    ),
}


@pytest.mark.parametrize(
    ("hook", "name"),
    [
        *[("on_train_batch_begin", name) for name in WATCHED],
        ("on_epoch_begin", "a global"),
        ("on_epoch_begin", "a function"),
    ],
)
def test_what_a_callback_changes_counts_from_the_next_step(hook: str, name: str, side_by_side: Any) -> None:
    make, change = WATCHED[name]

    def changing() -> Any:
        def begin(place: int, logs: Any = None) -> None:
            net = next(module for module in callback.model.modules() if isinstance(module, Net))
            if place in (1, 2):
                change(net, 3.0 if place == 1 else 1.0)

        callback = LambdaCallback(**{hook: begin})
        return [callback]

    changed = side_by_side(make, X, Y, fit={"epochs": 3, "callbacks": changing})
    keras.utils.set_random_seed(0)
    plain = make()
    plain.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", jit_compile=False)
    keras.utils.set_random_seed(1)
    plain.fit(X, Y, batch_size=4, epochs=3, shuffle=False, verbose=0)
    assert not np.allclose(plain.get_weights()[0], changed.get_weights()[0], rtol=1e-4)


def test_what_a_loss_closes_over_is_watched(side_by_side: Any) -> None:
    factor = 1.0

    def loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
        return (y_true - y_pred).square().mean(-1) * factor

    def changing() -> Any:
        def begin(epoch: int, logs: Any) -> None:
            nonlocal factor
            factor = float(epoch)

        return [LambdaCallback(on_epoch_begin=begin)]

    model = side_by_side(
        network(lambda net, x: None), X, Y, loss=lambda: loss, fit={"epochs": 3, "callbacks": changing}
    )
    assert model.history.history["loss"][0] == 0.0


def test_what_keeps_changing_runs_eagerly(refused: Any) -> None:
    def changing() -> Any:
        return [LambdaCallback(on_train_batch_begin=lambda batch, logs: set_global(None, float(batch)))]

    refused(network(by_a_global), X, Y, "kept changing", tolerance=1e-5, fit={"epochs": 2, "callbacks": changing})


def test_a_large_array_is_refused(refused: Any) -> None:
    def large(net: Any, x: Tensor) -> Tensor:
        return x * torch.from_numpy(net.table).mean()

    refused(network(large, table=lambda: np.ones(100_000, dtype="float32")), X, Y, "shape .100000")


def test_modules_are_themselves_after_a_trace_that_failed() -> None:
    def fails(net: Any, x: Tensor) -> Tensor:
        net.last = x
        net.buffer_mean = net.buffer_mean + 1
        raise ValueError("on purpose")

    model = network(fails, last=lambda: None, buffer_mean=lambda: torch.zeros(5))()
    model.compile("sgd", "mse", jit_compile=True)
    with pytest.raises(ValueError, match="on purpose"), pytest.warns(UserWarning, match="on purpose"):
        model.fit(X, Y, verbose=0)
    net = next(module for module in model.modules() if isinstance(module, Net))
    assert type(net.buffer_mean) is Tensor and (net.last is None or type(net.last) is Tensor)
    assert all(type(weight.detach()) is Tensor and weight.grad is None for weight in net.parameters())


# Around a step and in it -----------------------------------------------------------------------------------------------


@cpu_only("it casts on the CPU")
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("first", [True, False])
def test_autocast_around_a_run_counts_in_that_run_only(first: bool) -> None:
    left = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([layers.Input((6,)), layers.Dense(5, "tanh"), layers.Dense(2)])
        model.compile("sgd", "mse", jit_compile=jit)
        losses = []
        for inside in (first, not first, first):
            with torch.autocast("cpu", torch.bfloat16) if inside else nullcontext():
                losses += model.fit(X, Y, batch_size=4, shuffle=False, verbose=0).history["loss"]
                losses.append(model.evaluate(X, Y, batch_size=4, verbose=0))
            assert bool(np.abs(model.predict(X, verbose=0)).max())
        left.append([*losses, *[weight.sum() for weight in model.get_weights()]])
    # Half the precision would be off by a thousandth.
    np.testing.assert_allclose(*left, rtol=1e-6, atol=1e-6)
    assert torch.is_autocast_cache_enabled()


def test_weights_are_cast_anew_in_each_step_where_autocast_is_around_a_run() -> None:
    model = keras.Sequential([layers.Input((6,)), layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    with torch.autocast(keras.backend.device().type, torch.bfloat16):
        losses = model.fit(X[:4], Y[:4], batch_size=4, epochs=3, verbose=0).history["loss"]
    assert losses == sorted(losses, reverse=True) and len(set(losses)) == 3


def by_rows(net: Any, x: Tensor) -> Tensor:
    return x + torch.func.vmap(lambda row: torch.tanh(row) * net.one.bias)(x)


def by_a_slope(net: Any, x: Tensor) -> Tensor:
    found: Tensor = torch.func.grad(lambda inner: torch.tanh(inner * net.one.bias).sum())(x)
    return found


@pytest.mark.parametrize("does", [by_rows, by_a_slope])
def test_functions_of_functions_are_refused_and_leave_all_as_it_was(does: Any, refused: Any) -> None:
    refused(network(does), X, Y, "computed from weights", metrics=["mae"])


@pytest.mark.usefixtures("quick")
def test_a_batch_that_a_step_writes_to_is_written_to_once() -> None:
    class Scaling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Any:
            return self.out(x.mul_(0.5) if self.training else x)

    left = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        model, x = keras.Model(Scaling()), tensor(X)
        model.compile("sgd", "mse", jit_compile=jit)
        losses = model.fit(x, tensor(Y), batch_size=4, epochs=3, shuffle=False, verbose=0).history["loss"]
        left.append([*losses, *model.get_weights()[0].ravel(), *to_numpy(x).ravel()])
    assert model.step_account.startswith("The steps ran as one compiled graph;")
    np.testing.assert_allclose(*left, rtol=1e-5)
