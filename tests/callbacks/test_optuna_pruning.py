"""OptunaPruning: what a trial is told, and how a run ends that is pruned; tests/search has the real package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import HopefulTrial, PowerCut, small_model
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CallbackList,
    EarlyStopping,
    LambdaCallback,
    OptunaPruning,
)
from oncue.core.ranks import Ranks

X = np.random.default_rng(0).normal(size=(12, 2)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


class TrialPruned(Exception):
    pass


class Trial:
    """Keeps what it is told, and is pruned at a value."""

    def __init__(self, prune_at: int | None = None, *directions: str) -> None:
        self.told: dict[int, float] = {}
        self.prune_at = prune_at
        self.study = SimpleNamespace(directions=[SimpleNamespace(name=one) for one in directions or ("MINIMIZE",)])

    def report(self, value: float, step: int) -> None:
        assert step not in self.told
        self.told[step] = value

    def should_prune(self) -> bool:
        return self.prune_at is not None and len(self.told) > self.prune_at


@pytest.fixture(autouse=True)
def optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", SimpleNamespace(TrialPruned=TrialPruned))


def fit(*callbacks: Any, model: Any = None, **options: Any) -> Any:
    options = {"epochs": 5, "validation_data": (X, Y), "batch_size": 4, "verbose": 0, **options}
    oncue.utils.set_random_seed(1)
    return (model or small_model()).fit(X, Y, callbacks=list(callbacks), **options)


def test_a_trial_is_told_each_epoch() -> None:
    trial = Trial()
    history = fit(OptunaPruning(trial))
    assert trial.told == dict(enumerate(history.history["val_loss"]))
    assert not history.journal


def test_each_validation_amid_epochs() -> None:
    trial = Trial()
    history = fit(OptunaPruning(trial), validation_freq="2 steps", epochs=3)
    first, second, last = (one["val_loss"] for one in history.validations)
    # The third is that of an epoch's end.
    assert trial.told == {0: first, 1: second, 2: history.history["val_loss"][1], 3: last}


def test_a_pruned_run_ends_well_before_it_raises() -> None:
    heard: list[str] = []

    class Ends(Callback):
        def on_train_end(self, logs: Any = None) -> None:
            heard.append("end")

        def on_exception(self, exception: BaseException) -> None:
            heard.append("exception")

        def close(self) -> None:
            heard.append("close")

    model = small_model()
    rates = [0.1, 0.1, 5.0, 5.0]
    worse = LambdaCallback(on_epoch_begin=lambda epoch, logs: setattr(model.optimizer, "learning_rate", rates[epoch]))
    with pytest.raises(TrialPruned, match="val_loss was .*, value 4 of the run"):
        fit(Ends(), worse, EarlyStopping(patience=9, restore_best_weights=True), OptunaPruning(Trial(3)), model=model)
    assert heard == ["end", "close"]
    history = model.history
    assert history.epoch == [0, 1, 2, 3]
    assert "It was stopped by OptunaPruning after epoch 4: Optuna prunes the trial" in history.explain()
    # What EarlyStopping kept is in the model.
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(min(history.history["val_loss"]), rel=1e-5)


def test_a_second_fit_with_the_same_object() -> None:
    pruning = OptunaPruning(Trial(1))
    with pytest.raises(TrialPruned):
        fit(pruning)
    pruning.trial = trial = Trial()
    fit(pruning)
    assert len(trial.told) == 5


@pytest.mark.parametrize("again", [False, True], ids=["the same trial", "another one"])
def test_a_resumed_run_tells_what_was_told_before(tmp_path: Path, again: bool) -> None:
    first = Trial()
    with pytest.raises(ConnectionError):
        fit(OptunaPruning(first), BackupAndRestore(tmp_path), PowerCut(2))
    second = Trial(3) if again else AlreadyTold(3, first.told)
    with pytest.raises(TrialPruned):
        fit(OptunaPruning(second), BackupAndRestore(tmp_path, delete_checkpoint=False))
    whole = Trial()
    fit(OptunaPruning(whole), epochs=4)
    assert second.told == whole.told
    # A run that was pruned is still so when it is asked once more.
    with pytest.raises(TrialPruned):
        fit(OptunaPruning(Trial()), BackupAndRestore(tmp_path))


class AlreadyTold(Trial):
    """Warns of what it knows, as Optuna does."""

    def __init__(self, prune_at: int, told: dict[int, float]) -> None:
        super().__init__(prune_at)
        self.told = dict(told)

    def report(self, value: float, step: int) -> None:
        import warnings

        if step in self.told:
            warnings.warn(
                f"The reported value is ignored because this `step` {step} is already reported.", stacklevel=2
            )
        else:
            super().report(value, step)


def test_the_main_process_decides_for_all() -> None:
    class Other(Ranks):
        main = False  # type: ignore[assignment]

        def broadcast(self, value: Any) -> Any:
            return True

    callbacks = CallbackList([OptunaPruning(None)], model=small_model())
    callbacks.group = Other()
    with pytest.raises(TrialPruned), callbacks.run():
        callbacks.on_train_begin()
        callbacks.on_epoch_begin(0)
        callbacks.on_epoch_end(0, {"val_loss": 1.0})
        assert callbacks.model.stop_training
        callbacks.on_train_end()


def test_loops_that_do_not_say_when_all_is_closed() -> None:
    listed = CallbackList([OptunaPruning(Trial(0))], model=small_model())
    alone = OptunaPruning(Trial(0))
    alone.set_model(small_model())
    for calls in (listed, alone):
        calls.on_train_begin()
        calls.on_epoch_begin(0)
        calls.on_epoch_end(0, {"val_loss": 1.0})
        with pytest.raises(TrialPruned):
            calls.on_train_end()


def test_an_error_of_the_run_comes_first() -> None:
    class Fails(Callback):
        def on_train_end(self, logs: Any = None) -> None:
            raise ConnectionError("power cut")

    with pytest.raises(ConnectionError):
        fit(OptunaPruning(Trial(0)), Fails())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OptunaPruning(None), "got None"),
        (lambda: OptunaPruning(Trial(None, "MINIMIZE", "MAXIMIZE")), "got minimize and maximize"),
        (lambda: OptunaPruning(Trial(None, "MAXIMIZE")), "got maximize"),
    ],
)
def test_mistakes(make: Any, words: str) -> None:
    model = small_model()
    before = model.get_weights()
    wanted = r"OptunaPruning needs a `trial` of optuna.create_study\(direction='minimize'\) for `val_loss` alone; "
    with pytest.raises(ValueError, match=wanted + words):
        fit(make(), model=model)
    assert all((one == other).all() for one, other in zip(before, model.get_weights(), strict=True))


def test_a_trial_without_a_study() -> None:
    assert fit(OptunaPruning(HopefulTrial())).epoch == [0, 1, 2, 3, 4]
