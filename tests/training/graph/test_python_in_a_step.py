"""What Python code of a step does besides arithmetic: a graph would do it once, so that it is refused by name or watched."""

from __future__ import annotations

import array
import contextvars
import ctypes
import functools
import io
import itertools
import logging
import os
import random
import socket
import sys
import time
import types
import warnings
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
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


def writes_a_note(net: Any, x: Tensor) -> Tensor:
    net.notes.write("a step ")
    return x / len(net.notes.getvalue())


def derives_something_itself(net: Any, x: Tensor) -> None:
    net.two(x.detach()).sum().backward()


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
    "a file in memory": (network(writes_a_note, notes=io.StringIO), r"each step changes Net\.notes"),
    "gradients of the forward pass": (network(derives_something_itself), "the gradient of the weight `.*two.weight`"),
    "a weight": (network(clips_weights), r"the forward pass itself changes the weight `.*two.weight`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_would_do_once_is_refused_by_name(name: str, refused: Any) -> None:
    make, reason = REFUSED[name]
    refused(make, X, Y, reason, fit={"epochs": 2})


# What reaches outside -------------------------------------------------------------------------------------------------


def prints(net: Any, x: Tensor) -> None:
    print("a step", end="")


def logs(net: Any, x: Tensor) -> None:
    logging.getLogger("of_a_user").warning("a step")


def appends_to_a_file(net: Any, x: Tensor) -> None:
    with open(net.path, "a") as file:
        file.write("a step")


def reads_a_file(net: Any, x: Tensor) -> Tensor:
    return x * float(Path(net.path).read_text() or 1)


def writes_to_an_open_file(net: Any, x: Tensor) -> None:
    net.file.write("a step")


def looks_for_a_file(net: Any, x: Tensor) -> Tensor:
    return x * (2 if os.path.exists(net.path + ".switch") else 1)


def reads_the_clock(net: Any, x: Tensor) -> Tensor:
    return x * (2 if time.time() < 0 else 1)


def reads_the_date(net: Any, x: Tensor) -> Tensor:
    return x * (2 if datetime.now().year < 0 else 1)


def asks_another_process(net: Any, x: Tensor) -> None:
    net.socket.send(b"a step")


OUTSIDE: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "print": (prints, r"calls `print`, .* at `print\(\"a step\", end=\"\"\)` \(test_python_in_a_step.py"),
    "a log": (logs, r"calls `\w+\.\w+`, .* at `logging.getLogger"),
    "a file": (appends_to_a_file, r"calls `open`, .* at `with open"),
    "a file that is read": (reads_a_file, r"calls `open`, .* at `return x \* float"),
    "an open file": (writes_to_an_open_file, r"calls `TextIOWrapper.write`, .* at `net.file.write"),
    "whether there is a file": (looks_for_a_file, r"calls `os.stat`, .* at `return x"),
    "the clock": (reads_the_clock, r"calls `time.time`, .* at `return x"),
    "the date": (reads_the_date, r"calls `datetime.now`, .* at `return x"),
    "another process": (asks_another_process, r"calls `socket.send`, .* at `net.socket.send"),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_reaches_outside_is_refused_by_name(name: str, refused: Any, tmp_path: Path) -> None:
    does, reason = OUTSIDE[name]
    path = tmp_path / "file"
    path.touch()
    logging.getLogger("of_a_user").addHandler(handler := logging.StreamHandler())
    first, second = socket.socketpair()
    try:
        with path.open("w") as file, first, second:
            kept = {"path": lambda: str(path), "file": lambda: file, "socket": lambda: first}
            refused(network(does, **kept), X, Y, reason, fit={"epochs": 2})
    finally:
        logging.getLogger("of_a_user").removeHandler(handler)


def test_what_is_read_in_the_first_call_alone_is_kept(side_by_side: Any, tmp_path: Path) -> None:
    (tmp_path / "factor").write_text("0.5")

    def reads_once(net: Any, x: Tensor) -> Tensor:
        if net.factor is None:
            net.factor = float((tmp_path / "factor").read_text())
        return x * net.factor

    side_by_side(network(reads_once, factor=lambda: None), X, Y)


def test_a_warning_does_not_reach_outside(side_by_side: Any) -> None:
    class Warns(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            warnings.warn("a step", FutureWarning, stacklevel=1)
            return io.StringIO("0.5").read() and x

    with pytest.warns(FutureWarning, match="a step"):
        side_by_side(lambda: keras.Model(nn.Sequential(nn.Linear(6, 2), Warns())), X, Y)


def test_a_profile_function_of_the_user_stays(side_by_side: Any) -> None:
    calls: list[str] = []

    def profile(frame: Any, event: str, argument: Any) -> None:
        calls.append(event)

    sys.setprofile(profile)
    try:
        side_by_side(network(lambda net, x: None), X, Y)
        assert sys.getprofile() is profile and calls
    finally:
        sys.setprofile(None)


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


# Made once -----------------------------------------------------------------------------------------------------------


def masks(net: Any, x: Tensor) -> Tensor:
    if net.mask is None:
        net.mask = (torch.arange(x.shape[1]) % 2).to(x.dtype)
    return x * net.mask


def masks_by_shape(net: Any, x: Tensor) -> Tensor:
    if x.shape[1] not in net.masks:
        net.masks[x.shape[1]] = torch.arange(float(x.shape[1]))
    found: Tensor = x * net.masks[x.shape[1]]
    return found


MADE_ONCE = {
    "a mask": network(masks, mask=lambda: None),
    "a dict of masks": network(masks_by_shape, masks=dict),
}


@pytest.mark.parametrize("name", MADE_ONCE)
def test_what_is_made_in_the_first_call_is_part_of_the_graph(name: str, side_by_side: Any) -> None:
    model = side_by_side(MADE_ONCE[name], X, Y, fit={"epochs": 2})
    assert model._plan.graphs.steps["train"].eager_batches == 0


@pytest.mark.parametrize("name", MADE_ONCE)
def test_a_run_with_what_is_made_once_resumes_bit_for_bit(name: str, quick: None, tmp_path: Any) -> None:
    def trained(stop: int | None, folder: Any) -> Any:
        def interrupt(batch: int, logs: Any) -> None:
            if stop == batch:
                raise KeyboardInterrupt

        keras.utils.set_random_seed(0)
        model = MADE_ONCE[name]()
        model.compile("adam", "mse", jit_compile=True)
        backup = keras.callbacks.BackupAndRestore(folder, save_freq=1)
        with pytest.raises(KeyboardInterrupt) if stop is not None else nullcontext():
            watch = LambdaCallback(on_train_batch_end=interrupt)
            model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[backup, watch])
        return model.get_weights()

    expected = trained(None, tmp_path / "whole")
    trained(2, tmp_path / "parts")
    for one, other in zip(trained(None, tmp_path / "parts"), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def draws_a_mask(net: Any, x: Tensor) -> Tensor:
    if net.mask is None:
        net.mask = (torch.rand(x.shape[1]) > 0.5).to(x.dtype)
    return x * net.mask


def begins_otherwise(net: Any, x: Tensor) -> Tensor:
    begun, net.begun = net.begun, True
    return x if begun else 2 * x


@pytest.mark.parametrize(
    ("make", "name"),
    [(network(draws_a_mask, mask=lambda: None), "mask"), (network(begins_otherwise, begun=bool), "begun")],
)
def test_a_first_call_that_is_another_one_is_refused(make: Any, name: str, refused: Any) -> None:
    refused(make, X, Y, rf"each step changes Net\.{name}")


def test_a_layer_that_is_built_in_training_is_named(quick: None) -> None:
    class Later(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last, self.first = layers.Dense(2), layers.Dense(2), layers.Dense(2), True

        def call(self, x: Tensor) -> Any:
            return self.last(self.one(x) if self.first else self.two(x))

    def trained(jit: bool) -> Any:
        keras.backend.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        model = Later()
        model.compile("sgd", "mse", jit_compile=jit)
        switch = LambdaCallback(on_train_batch_end=lambda batch, logs: setattr(model, "first", batch < 2))
        with pytest.warns(
            UserWarning, match="a layer is built in the middle of training|Gradients do not exist"
        ) as seen:
            model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=[switch])
        assert any("a layer is built in the middle" in str(one.message) for one in seen) is jit
        return model.get_weights()

    for one, other in zip(trained(True), trained(False), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


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
    # torch's compiler turns the checks of distributions off for the rest of the process, so they are asked for here.
    model = network(lambda net, x: Normal(x, torch.tensor(-1.0), validate_args=True).log_prob(x))()
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


def by_a_module(net: Any, x: Tensor) -> Tensor:
    found: Tensor = net.settings.parts["act"](x)
    return found


def set_module(net: Any, value: float) -> None:
    net.settings.parts["act"].negative_slope = value


def by_a_large_array(net: Any, x: Tensor) -> Tensor:
    return x * float(net.table.mean())


def set_large_array(net: Any, value: float) -> None:
    net.table[:] = value


def by_bytes(net: Any, x: Tensor) -> Tensor:
    return x * net.settings[1]


def set_bytes(net: Any, value: float) -> None:
    net.settings[1] = int(value)


class Reached:
    """An object whose attributes are found by a function of its own, and of which one is set from elsewhere."""

    __slots__ = ("__table",)

    def __init__(self) -> None:
        self.__table = {"factor": 1.0}

    def __getattr__(self, name: str) -> Any:
        return self.__table[name]

    def set(self, value: float) -> None:
        self.__table = {"factor": value}


def set_reached(net: Any, value: float) -> None:
    net.settings.set(value)


def times(x: Tensor, factor: float) -> Tensor:
    return x * factor


def by_a_function_it_keeps(net: Any, x: Tensor) -> Tensor:
    found: Tensor = net.settings(x)
    return found


def set_argument(net: Any, value: float) -> None:
    net.settings.keywords["factor"] = value


class ReferredTo:
    factor = 1.0


REFERRED_TO = ReferredTo()


def by_a_reference(net: Any, x: Tensor) -> Tensor:
    return x * net.settings().factor


def set_referred_to(net: Any, value: float) -> None:
    net.settings().factor = value


SHOWN = {"factor": 1.0}


def by_a_view(net: Any, x: Tensor) -> Tensor:
    return x * net.settings["factor"]


def set_shown(net: Any, value: float) -> None:
    SHOWN["factor"] = value


def by_a_method_of_a_dict(net: Any, x: Tensor) -> Tensor:
    return x * net.settings("factor")


def by_values_of_a_dict(net: Any, x: Tensor) -> Tensor:
    return x * next(iter(net.settings))


class OfItsClass(type):
    factor = 1.0


class HasNone(metaclass=OfItsClass): ...


def by_a_metaclass(net: Any, x: Tensor) -> Tensor:
    return x * HasNone.factor


def set_metaclass(net: Any, value: float) -> None:
    OfItsClass.factor = value


def by_a_number_of_c(net: Any, x: Tensor) -> Tensor:
    return x * net.settings.value


def set_number_of_c(net: Any, value: float) -> None:
    net.settings.value = value


def edited(net: Any, x: Tensor) -> Tensor:
    return x * 1.0


def edit(net: Any, value: float) -> None:
    # As a notebook does when a file is edited.
    one, three = (lambda net, x: x * 1.0), (lambda net, x: x * 3.0)
    net.does.__code__ = (one if value == 1.0 else three).__code__


def by_a_default(net: Any, x: Tensor, factor: float = 1.0) -> Tensor:
    return x * factor


def set_default(net: Any, value: float) -> None:
    net.does.__defaults__ = (value,)


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
    "a module inside an object": (
        network(by_a_module, settings=lambda: SimpleNamespace(parts={"act": nn.LeakyReLU(1.0)})),
        set_module,
    ),
    "a large array": (network(by_a_large_array, table=lambda: np.ones(40_000, dtype="float32")), set_large_array),
    "bytes": (network(by_bytes, settings=lambda: bytearray([0, 1])), set_bytes),
    "an array of Python": (network(by_bytes, settings=lambda: array.array("d", [0.0, 1.0])), set_bytes),
    "what an object finds itself": (network(by_an_attribute, settings=Reached), set_reached),
    "an argument of a partial": (
        network(by_a_function_it_keeps, settings=lambda: functools.partial(times, factor=1.0)),
        set_argument,
    ),
    "what a weak reference is to": (
        network(by_a_reference, settings=lambda: weakref.ref(REFERRED_TO)),
        set_referred_to,
    ),
    "what a view of a dict shows": (network(by_a_view, settings=lambda: types.MappingProxyType(SHOWN)), set_shown),
    "what a method of a dict gives": (network(by_a_method_of_a_dict, settings=lambda: SHOWN.get), set_shown),
    "values of a dict": (network(by_values_of_a_dict, settings=lambda: SHOWN.values()), set_shown),
    "a view of bytes": (network(by_bytes, settings=lambda: memoryview(bytearray([0, 1]))), set_bytes),
    "a masked array": (network(by_bytes, settings=lambda: np.ma.array([0.0, 1.0])), set_bytes),
    "an attribute of a metaclass": (network(by_a_metaclass), set_metaclass),
    "a number of C": (network(by_a_number_of_c, settings=lambda: ctypes.c_float(1.0)), set_number_of_c),
    "the code of a function": (network(edited), edit),
    "a default of a function": (network(by_a_default), set_default),
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


PACKAGE, INSIDE = types.ModuleType("of_a_user"), types.ModuleType("of_a_user.settings")
exec("class Config:\n    factor = 1.0\n", vars(INSIDE))
PACKAGE.settings = INSIDE  # type: ignore[attr-defined]
CONTEXT = contextvars.ContextVar("CONTEXT", default=1.0)
TREE: dict[str, Any] = {"value": [1.0]}
for _ in range(20):
    TREE = {"inside": TREE}
ROWS = [{"value": 1.0} for _ in range(2000)]


def by_the_name_of_a_package() -> float:
    found: float = PACKAGE.settings.FACTOR
    return found


def by_an_import() -> float:
    from of_a_user.settings import FACTOR  # type: ignore[import-not-found]

    return float(FACTOR)


def by_an_import_of_a_module() -> float:
    import of_a_user.settings as settings  # type: ignore[import-not-found]

    return float(settings.FACTOR)


def by_a_class_of_a_package() -> float:
    found: float = PACKAGE.settings.Config.factor
    return found


def by_a_context_variable() -> float:
    return CONTEXT.get()


def by_what_is_deep() -> float:
    found: Any = TREE
    for _ in range(20):
        found = found["inside"]
    return float(found["value"][0])


def by_one_of_many() -> float:
    return ROWS[1500]["value"]


class Scaled:
    factor = 1.0
    whole = 1.0

    @property
    def read(self) -> float:
        return FACTOR

    @classmethod
    def of_class(cls) -> float:
        return cls.whole


def around(value: Any) -> Callable[[], float]:
    return lambda: float(value.FACTOR)


def by_a_property(scaled: Scaled) -> Callable[[], float]:
    return lambda: scaled.read


def set_inside(value: float) -> None:
    INSIDE.FACTOR = value  # type: ignore[attr-defined]


def set_tree(value: float) -> None:
    found: Any = TREE
    while "inside" in found:
        found = found["inside"]
    found["value"][0] = value


SETTINGS: dict[str, tuple[Callable[[], Callable[[], float]], Callable[[float], Any]]] = {
    "a module of a module": (lambda: by_the_name_of_a_package, set_inside),
    "an import of a name": (lambda: by_an_import, set_inside),
    "an import of a module": (lambda: by_an_import_of_a_module, set_inside),
    "a module around a function": (lambda: around(INSIDE), set_inside),
    "a class of another module": (
        lambda: by_a_class_of_a_package,
        lambda value: setattr(vars(INSIDE)["Config"], "factor", value),
    ),
    "the class of a method": (lambda: Scaled.of_class, lambda value: setattr(Scaled, "whole", value)),
    "a property": (lambda: by_a_property(Scaled()), lambda value: set_global(None, value)),
    "a context variable": (lambda: by_a_context_variable, CONTEXT.set),
    "what is deep in a global": (lambda: by_what_is_deep, set_tree),
    "one of many": (lambda: by_one_of_many, lambda value: ROWS[1500].update(value=value)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_seen_wherever_a_loss_reads_them(
    name: str, side_by_side: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "of_a_user", PACKAGE)
    monkeypatch.setitem(sys.modules, "of_a_user.settings", INSIDE)
    make, change = SETTINGS[name]
    change(1.0)
    factor = make()

    def loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
        return (y_true - y_pred).square().mean(-1) * factor()

    def changing() -> Any:
        return [LambdaCallback(on_epoch_begin=lambda epoch, logs: change(float(epoch)))]

    try:
        model = side_by_side(
            network(lambda net, x: None), X, Y, loss=lambda: loss, fit={"epochs": 2, "callbacks": changing}
        )
    finally:
        change(1.0)
    first, second = model.history.history["loss"]
    assert first == 0.0 and second > 0.0


def test_an_epsilon_that_a_callback_sets_is_seen(side_by_side: Any) -> None:
    def changing() -> Any:
        return [
            LambdaCallback(on_epoch_begin=lambda epoch, logs: keras.backend.set_epsilon(1e-7 if epoch < 1 else 1.0))
        ]

    def make() -> Any:
        return keras.Sequential([layers.Input((6,)), layers.Dense(2, "sigmoid")])

    try:
        model = side_by_side(make, X, Y**2, loss="poisson", fit={"epochs": 2, "callbacks": changing})
    finally:
        keras.backend.set_epsilon(1e-7)
    first, second = model.history.history["loss"]
    assert second < first - 0.1


class Teacher(nn.Module):
    """A network that a loss uses, and that no model has."""

    def __init__(self, does: Callable[[Any, Tensor], Any] = lambda teacher, x: x) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 2))
        self.factor, self.calls = 1.0, 0
        self.last: Tensor | None = None
        self.does = does
        self.register_buffer("mean", torch.zeros(3))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.inner(self.does(self, x)) * self.factor
        return found


@dataclass
class Held:
    """A plain object that has a list of modules."""

    parts: list[nn.Module]


def replace_a_weight(teacher: Teacher) -> None:
    teacher.inner[0].weight = nn.Parameter(torch.ones(3, 2), requires_grad=False)


LESSONS: dict[str, Callable[[Teacher], Any]] = {
    "an attribute": lambda teacher: setattr(teacher, "factor", 3.0),
    "inference mode": lambda teacher: teacher.eval(),
    "a rate of a module inside": lambda teacher: setattr(teacher.inner[1], "p", 0.9),
    "a weight": replace_a_weight,
    "the values of a weight": lambda teacher: teacher.inner[0].weight.data.mul_(3.0),
}


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("name", LESSONS)
def test_modules_of_a_loss_are_watched(name: str, held: bool, side_by_side: Any) -> None:
    lesson, teachers = LESSONS[name], list[Teacher]()
    losses = []

    def make_loss() -> Any:
        torch.manual_seed(3)
        teachers[:] = [teacher := Teacher()]
        if held:
            box = Held([teacher])
            return lambda y_true, y_pred: (box.parts[0](y_true) - box.parts[0](y_pred)).square().mean(-1)
        return lambda y_true, y_pred: (teacher(y_true) - teacher(y_pred)).square().mean(-1)

    def changing(at: int) -> Any:
        def begin(batch: int, logs: Any) -> None:
            if batch == at:
                lesson(teachers[0])

        return lambda: [LambdaCallback(on_train_batch_begin=begin)]

    for at in (2, -1):
        model = side_by_side(network(lambda net, x: None), X, Y, loss=make_loss, fit={"callbacks": changing(at)})
        losses.append(model.history.history["loss"][0])
    assert abs(losses[0] - losses[1]) > 1e-3


def counts_calls(teacher: Any, x: Tensor) -> Tensor:
    teacher.calls += 1
    teacher.last = x
    return x * (1.0 if teacher.calls < 4 else 0.5)


def keeps_what_it_got(teacher: Any, x: Tensor) -> Tensor:
    teacher.last = x
    return x


def replaces_its_mean(teacher: Any, x: Tensor) -> Tensor:
    teacher.mean = teacher.mean * 0.9 + 0.1
    return x * teacher.mean.mean()


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (counts_calls, r"each step changes Teacher\.calls"),
        (keeps_what_it_got, r"each step changes Teacher\.last"),
        (replaces_its_mean, r"each step changes Teacher\._buffers\.mean"),
    ],
)
def test_what_a_module_of_a_loss_remembers_is_refused(does: Any, reason: str, refused: Any) -> None:
    teachers = []

    def make_loss() -> Any:
        torch.manual_seed(3)
        teachers.append(teacher := Teacher(does))
        return lambda y_true, y_pred: (y_true - teacher(y_pred)).square().mean(-1)

    refused(network(lambda net, x: None), X, Y, reason, loss=make_loss)
    eager, traced = teachers
    assert eager.calls == traced.calls
    assert all(type(tensor) is Tensor for tensor in (traced.mean, traced.last) if tensor is not None)


@pytest.mark.parametrize("of_weight", [False, True])
def test_hooks_of_a_module_of_a_loss_are_refused(of_weight: bool, refused: Any) -> None:
    def make_loss() -> Any:
        torch.manual_seed(3)
        teacher = Teacher()
        if of_weight:
            teacher.inner[0].weight.requires_grad_().register_hook(lambda gradient: gradient * 2)
        else:
            teacher.inner[0].register_forward_hook(lambda module, given, found: found * 2)
        return lambda y_true, y_pred: (y_true - teacher(y_pred)).square().mean(-1)

    reason = r"the weight `Linear\.weight` has hooks" if of_weight else "`Linear` has hooks"
    refused(network(lambda net, x: None), X, Y, reason, loss=make_loss)


IDENTITIES = itertools.count()


class Numbered(Net):
    """A network that takes a number when it is made, and has an iterator that its steps leave alone."""

    def __init__(self) -> None:
        super().__init__(lambda net, x: None)
        self.identity = next(IDENTITIES)
        self.batches = iter([1, 2, 3])


def test_an_iterator_that_no_function_takes_from_is_left_alone(side_by_side: Any) -> None:
    side_by_side(lambda: keras.Model(Numbered()), X, Y)


def test_iterators_that_functions_take_from_are_refused(refused: Any) -> None:
    def loss(y_true: Tensor, y_pred: Tensor) -> Tensor:
        return (y_true - y_pred).square().mean(-1) * next(factors)

    factors = itertools.cycle([1.0, 2.0])
    # Two runs of as many steps, and evaluations: the second begins where the first did.
    refused(network(lambda net, x: None), X[:16], Y[:16], "may take items from `factors` around", loss=lambda: loss)


def test_arrays_that_are_too_large_to_be_compared_are_refused_where_a_function_reads_them(
    refused: Any, side_by_side: Any
) -> None:
    def table() -> Any:
        return np.ones(3_000_000)

    refused(network(by_a_large_array, table=table), X, Y, r"may read Net\.table, an array of 23 MiB.*register_buffer")
    side_by_side(network(lambda net, x: None, rows=table), X, Y)


def test_what_keeps_changing_runs_eagerly(refused: Any) -> None:
    def changing() -> Any:
        return [LambdaCallback(on_train_batch_begin=lambda batch, logs: set_global(None, float(batch)))]

    refused(network(by_a_global), X, Y, "kept changing", tolerance=1e-5, fit={"epochs": 2, "callbacks": changing})


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
