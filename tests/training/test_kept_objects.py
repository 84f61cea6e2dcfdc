"""Schedulers, further optimizers and generators that callbacks and models hold go on where they were."""

from __future__ import annotations

import random
import sys
import warnings
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
from oncue.training.kept_objects import KeptObjects

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

    with pytest.warns(UserWarning, match="`OwnState.factor`.*would begin anew.*is of type object"):
        train(build, BackupAndRestore(tmp_path / "backup"))


def test_what_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        train(CASES["a state of its own"], BackupAndRestore(tmp_path / "backup"), PowerCut(2))
    with pytest.warns(UserWarning, match=r"state of `OwnState.factor` \(a Factor\), which the script hasn't"):
        train(lambda: (make_torch()[0],), BackupAndRestore(tmp_path / "backup"))


class Holds(Callback):
    """Holds something, and calls it when an epoch begins."""

    def __init__(self, held: Any, use: Callable[[Any, int], Any] = lambda held, epoch: None) -> None:
        super().__init__()
        self.held, self.use = held, use

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        drawn = self.use(self.held, epoch)
        if drawn is not None:
            self.model.module.bias.data.add_(0.01 * drawn)


class Refuses:
    def state_dict(self) -> Any:
        raise NotImplementedError("there is none")

    def load_state_dict(self, state: Any) -> None:
        raise NotImplementedError("there is none")


class BeginsLater:
    def state_dict(self) -> Any:
        return {"count": self.count}

    def load_state_dict(self, state: Any) -> None:
        self.count = state["count"]


class TakesArguments:
    def __init__(self) -> None:
        self.inside = random.Random(0)

    def state_dict(self, model: Any) -> Any:
        return {}

    def load_state_dict(self, state: Any, model: Any) -> None:
        pass


class StandsForAnother:
    @property
    def __dict__(self) -> Any:
        raise RuntimeError("working outside of a context")

    @property
    def __class__(self) -> Any:
        raise RuntimeError("working outside of a context")


class Fails(list[Any]):
    def __iter__(self) -> Any:
        raise OSError("the file is gone")


def of_held(make: Callable[[], Any], use: Callable[[Any, int], Any] = lambda held, epoch: None) -> Callable[[], Any]:
    return lambda: (make_torch()[0], Holds(make(), use))


def counts(held: Any, epoch: int) -> None:
    held.count = epoch


@pytest.mark.parametrize(
    ("make", "use", "said"),
    [
        (Refuses, lambda held, epoch: None, "NotImplementedError: there is none"),
        (BeginsLater, counts, "'BeginsLater' object has no attribute 'count'"),
        (TakesArguments, lambda held, epoch: held.inside.random(), None),
        (StandsForAnother, lambda held, epoch: None, None),
        (lambda: Fails([random.Random(0)]), lambda held, epoch: list.__getitem__(held, 0).random(), None),
        (lambda: {object(): random.Random(0)}, lambda held, epoch: next(iter(held.values())).random(), None),
        (lambda: {random.Random(0)}, lambda held, epoch: next(iter(held)).random(), None),
    ],
)
def test_no_object_of_another_kind_ends_a_run(make: Any, use: Any, said: str | None, tmp_path: Path) -> None:
    build = of_held(make, use)
    whole = train(build, epochs=3)
    for cut in ([PowerCut(1)], []):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                assert train(build, BackupAndRestore(tmp_path / "backup"), *cut, epochs=3) == whole
            except ConnectionError:
                assert cut
        texts = [str(one.message) for one in caught]
        assert len(texts) == (said is not None) and all(said in text and "`Holds.held`" in text for text in texts)


def test_a_state_that_cannot_be_kept_any_more_is_left_out(tmp_path: Path) -> None:
    class Seen(OwnState.Factor):
        def state_dict(self) -> Any:
            return dict(vars(self))

    def changes(held: Any, epoch: int) -> float:
        held[0].best = Path("best")
        return float(held[1].normal())

    build = of_held(lambda: [Seen(), np.random.default_rng(0)], changes)
    whole = train(build, epochs=4)
    with (
        pytest.warns(
            UserWarning, match=r"state of `Holds.held\[0\]` \(a Seen\) is left out.*is of type PosixPath"
        ) as caught,
        pytest.raises(ConnectionError),
    ):
        train(build, BackupAndRestore(tmp_path / "backup"), PowerCut(2))
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=r"`Holds.held\[0\]`"):
        assert train(build, BackupAndRestore(tmp_path / "backup"), epochs=4) == whole


def test_a_state_that_is_not_taken_is_named(tmp_path: Path) -> None:
    class Edited(OwnState.Factor):
        def load_state_dict(self, state: Any) -> None:
            self.value = state["rate"]

    def build(kind: type) -> Any:
        kind.__name__ = "Factor"
        return make_torch()[0], Holds(kind())

    with pytest.raises(ConnectionError):
        train(lambda: build(OwnState.Factor), BackupAndRestore(tmp_path / "backup"), PowerCut(1))
    with pytest.warns(UserWarning, match=r"`Holds.held` \(a Factor\) can't be put back.*begins anew: KeyError: 'rate'"):
        train(lambda: build(Edited), BackupAndRestore(tmp_path / "backup"))


def test_an_optimizer_of_other_weights_that_is_not_built_begins_anew(tmp_path: Path) -> None:
    def build() -> Any:
        probe = layers.Dense(1)
        probe.build((None, 4))

        def update(optimizer: Any, epoch: int) -> None:
            optimizer.apply([torch.ones_like(one.value) for one in probe.weights], probe.weights)

        return make_torch()[0], Holds(oncue.optimizers.Adam(name="of_probe"), update)

    whole = train(build)
    with pytest.raises(ConnectionError):
        train(build, BackupAndRestore(tmp_path / "backup"), PowerCut(2))
    with pytest.warns(
        UserWarning, match="`Holds.held`.*begins anew.*`of_probe` updates weights that aren't the model's"
    ):
        assert train(build, BackupAndRestore(tmp_path / "backup")) == whole


def test_a_set_of_several_is_named_before_training(tmp_path: Path) -> None:
    build = of_held(lambda: {random.Random(0), random.Random(1)})
    with pytest.warns(UserWarning, match="`Holds.held` is a set of several .* Hold them in a list"):
        train(build, BackupAndRestore(tmp_path / "backup"), epochs=1)


def test_many_plain_things_are_not_looked_at() -> None:
    model, _ = make_torch()
    texts = [str(number) for number in range(1000)]
    held = [[[*texts] for _ in range(300)] for _ in range(2)]
    callbacks = [Holds(held), Holds(np.random.default_rng(0))]
    assert list(KeptObjects(model, callbacks).state()) == ["Holds#2.held"]
    calls = 0

    def count(*event: Any) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        KeptObjects(model, callbacks)
    finally:
        sys.setprofile(None)
    # Of 600,000.
    assert calls < 200_000


def test_a_tensor_in_loss_weights_has_the_value_that_a_callback_gave_it(tmp_path: Path) -> None:
    def fit(folder: str, *further: Callback) -> Any:
        oncue.utils.set_random_seed(0)
        inputs, factor = layers.Input((4,)), torch.tensor(1.0)
        model = oncue.Model(inputs, [layers.Dense(1, name="a")(inputs), layers.Dense(1, name="b")(inputs)])
        model.compile("sgd", ["mse", "mse"], loss_weights=[factor, 1.0])

        def anneal(epoch: int, logs: Any) -> None:
            if epoch == 1:
                factor.fill_(0.1)

        callbacks = [BackupAndRestore(tmp_path / folder), LambdaCallback(on_epoch_begin=anneal), *further]
        return model.fit(X, [Y, Y], epochs=4, verbose=0, callbacks=callbacks).history

    whole = fit("whole")
    with pytest.raises(ConnectionError):
        fit("cut", PowerCut(2))
    assert fit("cut") == whole
