"""Schedulers, further optimizers and generators that callbacks and models hold go on where they were."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import oncue
from helpers import PowerCut, to_numpy
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, LambdaCallback, LearningRateScheduler, TerminateOnNaN

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)
GLOBAL = np.random.default_rng(3)


def make_torch(momentum: float = 0.9) -> Any:
    oncue.utils.set_random_seed(0)
    module = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=momentum)
    model = oncue.Model(module)
    model.compile(optimizer, nn.MSELoss())
    return model, optimizer


def train(build: Callable[[], Any], *callbacks: Any, epochs: int = 4) -> Any:
    model, *own = build()
    history = model.fit(X, Y, epochs=epochs, batch_size=8, verbose=0, callbacks=[*own, *callbacks])
    state = [to_numpy(tensor).tolist() for tensor in model.state_dict().values()]
    return history.history["loss"], state


class Steps(Callback):
    """Steps a scheduler that is an attribute, in a list."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__()
        self.held = [scheduler]

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.held[0].step()


class Watches(Callback):
    """Steps a ReduceLROnPlateau of torch, which is made when training begins."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.plateau = lr_scheduler.ReduceLROnPlateau(
            self.model.optimizer.torch_optimizer, factor=0.1, patience=1, threshold=10.0, threshold_mode="abs"
        )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.plateau.step(logs["loss"])


def stepped(make: Callable[[Any], Any]) -> Callable[[], Any]:
    def build() -> Any:
        model, optimizer = make_torch()
        return model, Steps(make(optimizer))

    return build


def closed_over() -> Any:
    model, optimizer = make_torch()
    scheduler = lr_scheduler.SequentialLR(
        optimizer, [lr_scheduler.ConstantLR(optimizer, 0.1), lr_scheduler.ExponentialLR(optimizer, 0.5)], milestones=[1]
    )
    return model, LambdaCallback(on_epoch_end=lambda epoch, logs: scheduler.step())


def of_model() -> Any:
    model, optimizer = make_torch()
    model.scheduler = lr_scheduler.StepLR(optimizer, 2, 0.1)
    return model, LambdaCallback(on_epoch_end=partial(lambda held, epoch, logs: held.scheduler.step(), model))


def behind_oncue() -> Any:
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential([layers.Input((4,)), layers.Dense(1)])
    model.compile(oncue.optimizers.Adam(0.05), "mse")
    model.optimizer.build(model.trainable_variables)
    return model, Steps(lr_scheduler.LambdaLR(model.optimizer.torch_optimizer, lambda step: 0.9**step))


class TwoOptimizers(oncue.Model):
    """Trains its two layers by an optimizer each, one of oncue, which is built by its first update, and one of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = layers.Dense(4), layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.last(self.first(inputs))

    def train_step(self, data: Any) -> Any:
        x, y = data
        loss = ((self(x, training=True) - y) ** 2).mean()
        self.zero_grad()
        loss.backward()
        self.optimizer.apply([one.value.grad for one in self.last.weights], self.last.weights)
        self.further.apply([one.value.grad for one in self.first.weights], self.first.weights)
        self.of_torch.step()
        return {"loss": loss.detach()}


def two_optimizers() -> Any:
    oncue.utils.set_random_seed(0)
    model = TwoOptimizers()
    model(X)
    model.compile(oncue.optimizers.SGD(0.01), "mse")
    model.optimizer.build(model.last.weights)
    model.further = oncue.optimizers.Adam(0.01)
    model.of_torch = torch.optim.SGD([model.last.weights[0].value], lr=0.001, momentum=0.9)
    return (model,)


def generators() -> Any:
    model, _ = make_torch()
    global GLOBAL
    GLOBAL = np.random.default_rng(3)
    python, old, torch_s = random.Random(1), np.random.RandomState(2), torch.Generator().manual_seed(3)

    class Noise(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            drawn = python.random() + old.normal() + GLOBAL.normal() + float(torch.rand((), generator=torch_s))
            self.model.module.bias.data.add_(0.01 * drawn)

    return model, Noise()


def drawn_rates() -> Any:
    model, _ = make_torch()
    generator = np.random.default_rng(0)
    return model, LearningRateScheduler(lambda epoch: generator.uniform(0.001, 0.1))


class OwnState(Callback):
    """Holds what has a `state_dict`, as a `torch.amp.GradScaler` has."""

    class Factor:
        def __init__(self) -> None:
            self.value = 1.0

        def state_dict(self) -> Any:
            return {"value": self.value}

        def load_state_dict(self, state: Any) -> None:
            self.value = state["value"]

    def __init__(self) -> None:
        super().__init__()
        self.factor = self.Factor()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.factor.value *= 0.9
        self.model.module.bias.data.add_(0.01 * self.factor.value)


CASES: dict[str, Callable[[], Any]] = {
    "StepLR": stepped(lambda optimizer: lr_scheduler.StepLR(optimizer, 2, 0.5)),
    "MultiStepLR": stepped(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 5, 7], 0.5)),
    "OneCycleLR": stepped(lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)),
    "ReduceLROnPlateau": lambda: (make_torch()[0], Watches()),
    "SequentialLR in a closure": closed_over,
    "of the model": of_model,
    "LambdaLR behind an optimizer of oncue": behind_oncue,
    "two optimizers": two_optimizers,
    "generators": generators,
    "a schedule that draws": drawn_rates,
    "a state of its own": lambda: (make_torch()[0], OwnState()),
}


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_has_them_as_they_were(name: str, tmp_path: Path) -> None:
    build = CASES[name]
    whole = train(build)
    for cut in (PowerCut(2), PowerCut(1, 2)):
        freq: Any = 1 if name != "two optimizers" else "epoch"
        with pytest.raises(ConnectionError):
            train(build, BackupAndRestore(tmp_path / str(cut.at), save_freq=freq), cut)
        assert train(build, BackupAndRestore(tmp_path / str(cut.at), save_freq=freq)) == whole


def test_a_generator_that_the_data_draw_from_too(tmp_path: Path) -> None:
    def run(*callbacks: Any) -> Any:
        model, _ = make_torch()
        generator = np.random.default_rng(5)

        def batches() -> Any:
            while True:
                x = generator.normal(size=(8, 4)).astype("float32")
                yield x, x.sum(axis=1, keepdims=True)

        class Noise(Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.model.module.bias.data.add_(0.01 * generator.normal())

        return model.fit(batches(), steps_per_epoch=3, epochs=3, verbose=0, callbacks=[Noise(), *callbacks]).history

    whole = run()
    for cut in (PowerCut(2), PowerCut(1, 2)):
        with pytest.raises(ConnectionError):
            run(BackupAndRestore(tmp_path / str(cut.at), save_freq=1), cut)
        assert run(BackupAndRestore(tmp_path / str(cut.at), save_freq=1)) == whole


class DivergesOnce(Callback):
    """Makes the second epoch fail at its first try."""

    epoch, done = 0, False

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch, self.done) == (self.at, 1, False):
            self.done = True
            next(self.model.parameters()).data.fill_(float("nan"))

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.at = epoch


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("name", ["OneCycleLR", "ReduceLROnPlateau", "generators", "a state of its own"])
def test_an_epoch_that_is_undone_leaves_no_trace_in_them(name: str, epoch: int) -> None:
    back = TerminateOnNaN(action="rollback", factor=1.0)
    found = train(CASES[name], DivergesOnce(epoch), back, epochs=3)
    assert found == train(CASES[name], epochs=3)


def test_what_cannot_be_kept_is_named_before_training(tmp_path: Path) -> None:
    class Opaque(OwnState.Factor):
        def state_dict(self) -> Any:
            return {"value": object()}

    def build() -> Any:
        callback = OwnState()
        callback.factor = Opaque()
        return make_torch()[0], callback

    with pytest.warns(UserWarning, match="`OwnState.factor`.*is of type object.*would begin anew"):
        train(build, BackupAndRestore(tmp_path / "backup"))


def test_what_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        train(CASES["a state of its own"], BackupAndRestore(tmp_path / "backup"), PowerCut(2))
    with pytest.warns(UserWarning, match=r"state of `OwnState.factor` \(a Factor\), which the script hasn't"):
        train(lambda: (make_torch()[0],), BackupAndRestore(tmp_path / "backup"))
