"""`hosts.Keras`: oncue's callbacks in the loop of the real Keras."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import oncue
from helpers import Ends, cpu_only
from oncue import hosts
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    Preemption,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TensorBoard,
    TerminateOnNaN,
)

pytestmark = [cpu_only("Keras's own loop"), pytest.mark.filterwarnings("ignore::UserWarning:keras")]

X = np.linspace(-1, 1, 96, dtype="float32").reshape(32, 3)
Y = X.sum(axis=1, keepdims=True)
DATA = {"validation_data": (X, Y), "verbose": 0, "shuffle": False, "batch_size": 16}


def model(rate: float = 0.1) -> Any:
    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])
    made.compile(keras.optimizers.SGD(rate), "mse", metrics=["mae"])
    return made


def callbacks_in(folder: Path) -> list[Any]:
    folder.mkdir()
    return [
        CSVLogger(folder / "log.csv"),
        EarlyStopping(patience=1, min_delta=1e-3, restore_best_weights=True),
        LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        ModelCheckpoint(folder / "{epoch}.keras", save_best_only=True),
        ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True),
        TensorBoard(folder / "logs"),
        TerminateOnNaN(),
        Preemption(),
    ]


def test_the_same_as_in_our_fit(tmp_path: Path) -> None:
    ours = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(1, kernel_initializer="ones")])
    ours.compile(oncue.optimizers.SGD(0.1), "mse", metrics=["mae"])
    fitted = ours.fit(X, Y, epochs=20, callbacks=callbacks_in(tmp_path / "ours"), **DATA)
    theirs = model()
    adapter = hosts.Keras(callbacks_in(tmp_path / "theirs"))
    theirs.fit(X, Y, epochs=20, callbacks=adapter, **DATA)
    history = adapter.history
    assert history.epoch == fitted.epoch
    assert set(history.history) == set(fitted.history)
    for name, values in fitted.history.items():
        np.testing.assert_allclose(history.history[name], values, rtol=1e-4, atol=1e-7)
    kinds = [[(e.kind, e.callback, e.epoch) for e in one.journal if e.kind != "note"] for one in (history, fitted)]
    assert kinds[0] == kinds[1]
    files = [sorted(path.name for path in (tmp_path / one).glob("*.*")) for one in ("ours", "theirs")]
    assert files[0] == files[1]
    np.testing.assert_allclose(theirs.get_weights()[0], np.asarray(ours.get_weights()[0]), rtol=1e-4)
    assert "It was stopped by EarlyStopping" in history.explain()


class Break(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends a run by an error that only Keras knows of."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        raise self.error


@pytest.mark.parametrize("listed", [False, True])
def test_a_run_that_ends_well(listed: bool) -> None:
    before, ends = signal.getsignal(signal.SIGTERM), Ends()
    adapter = hosts.Keras(ends, Preemption())
    model().fit(X, Y, callbacks=[adapter, keras.callbacks.Callback()] if listed else adapter, **DATA)
    assert ends.heard == ["end", "close"]
    assert signal.getsignal(signal.SIGTERM) is before
    assert adapter.history.history["loss"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_of_others_in_a_block(error: type[BaseException]) -> None:
    before, ends = signal.getsignal(signal.SIGTERM), Ends()
    adapter = hosts.Keras(ends, Preemption())
    with pytest.raises(error), adapter:
        model().fit(X, Y, callbacks=[*adapter, Break(error)], **DATA)
    assert ends.heard == [error.__name__, "close"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_error_of_others_without_a_block() -> None:
    """Then the end comes when nobody has the adapter any more."""
    before, ends = signal.getsignal(signal.SIGTERM), Ends()

    def run() -> None:
        adapter = hosts.Keras(ends, Preemption())
        with pytest.raises(RuntimeError):
            model().fit(X, Y, callbacks=[*adapter, Break(RuntimeError)], **DATA)

    run()
    sys.last_value = None  # type: ignore[assignment]
    gc.collect()
    assert ends.heard == ["AbandonedRun", "close"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_adapter_is_used_again_after_an_error() -> None:
    ends = Ends()
    adapter = hosts.Keras(ends)
    with pytest.raises(RuntimeError):
        model().fit(X, Y, callbacks=[*adapter, Break(RuntimeError)], **DATA)
    model().fit(X, Y, callbacks=adapter, **DATA)
    assert ends.heard == ["AbandonedRun", "close", "end", "close"]


def test_an_error_of_ours_closes_at_once() -> None:
    class Fail(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise RuntimeError("ours")

    before, ends = signal.getsignal(signal.SIGTERM), Ends()
    adapter = hosts.Keras(ends, Preemption(), Fail())
    with pytest.raises(RuntimeError, match="ours"):
        model().fit(X, Y, callbacks=adapter, **DATA)
    assert ends.heard == ["RuntimeError", "close"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_hooks_of_batches_come_one_after_the_other() -> None:
    """Keras calls a callback that isn't in a list in threads."""
    import threading

    heard: list[Any] = []

    class Tell(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            heard.append((batch, threading.current_thread() is threading.main_thread()))

    for callbacks in (hosts.Keras(Tell()), [hosts.Keras(Tell())]):
        heard.clear()
        model().fit(X, Y, epochs=2, callbacks=callbacks, **DATA)
        assert heard == [(0, True), (1, True)] * 2


def test_evaluate_and_predict() -> None:
    before, ends = signal.getsignal(signal.SIGTERM), Ends()
    adapter, made = hosts.Keras(ends, Preemption()), model()
    made.evaluate(X, Y, verbose=0, callbacks=adapter)
    made.predict(X, verbose=0, callbacks=adapter)
    assert ends.heard == ["close", "close"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("callback", "text"),
    [
        (lambda: BackupAndRestore("backup"), r"keras\.callbacks\.BackupAndRestore"),
        (SwapEMAWeights, r"keras\.callbacks\.SwapEMAWeights"),
        (lambda: ModelCheckpoint("a.keras", asynchronous=True), "asynchronous=True"),
        (lambda: TerminateOnNaN(action="rollback"), "needs all that the loop needs to continue"),
    ],
)
def test_what_keras_lacks_is_refused_when_it_is_made(callback: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        hosts.Keras(callback())


def backed_up(folder: Path, fails: int | None = None, epochs: int = 6) -> tuple[Any, Any]:
    """Fit with a backup; it fails after an epoch, when Keras would save its part."""

    class Backup(keras.callbacks.BackupAndRestore):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == fails:
                raise RuntimeError("the power cut")
            super().on_epoch_end(epoch, logs)

    made = model()
    adapter = hosts.Keras(
        EarlyStopping(patience=9, restore_best_weights=True),
        ReduceLROnPlateau(patience=0, factor=0.5, min_delta=0.3),
        Backup(folder),
    )
    made.fit(X, Y, epochs=epochs, callbacks=adapter, **DATA)
    return made, adapter.history


def test_the_state_of_callbacks_is_beside_the_backup_of_keras(tmp_path: Path) -> None:
    whole, expected = backed_up(tmp_path / "whole")
    for place in (1, 2, 4):
        # Where each state had been written, and the backup had not.
        with pytest.raises(RuntimeError, match="the power cut"):
            backed_up(tmp_path / "cut", fails=place)
        assert len(list((tmp_path / "cut").glob("oncue_callbacks-*"))) <= 3
    made, found = backed_up(tmp_path / "cut")
    assert found.epoch == expected.epoch
    for name, values in expected.history.items():
        assert found.history[name] == pytest.approx(values, rel=1e-6), name
    np.testing.assert_allclose(made.get_weights()[0], whole.get_weights()[0], rtol=1e-6)
    assert "ReduceLROnPlateau" in found.explain()
    # Keras deletes the folder when all is done.
    assert not (tmp_path / "cut").exists()


def test_which_backups_of_keras_are_refused(tmp_path: Path) -> None:
    one = keras.callbacks.BackupAndRestore(tmp_path, save_freq=3)
    with pytest.raises(
        ValueError, match="`save_freq` of the `BackupAndRestore` for `hosts.Keras` must be 'epoch'; got 3"
    ):
        hosts.Keras(one)
    two = [keras.callbacks.BackupAndRestore(tmp_path) for _ in range(2)]
    with pytest.raises(ValueError, match="takes one `keras.callbacks.BackupAndRestore`"):
        hosts.Keras(*two)


def test_it_has_no_business_in_our_fit() -> None:
    made = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(1)])
    made.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"is for Keras's `fit`"):
        made.fit(X, Y, verbose=0, callbacks=hosts.Keras(EarlyStopping("loss")))


def test_a_plateau() -> None:
    adapter = hosts.Keras(ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=10))
    made = model()
    made.fit(X, Y, epochs=3, callbacks=adapter, **DATA)
    assert adapter.history.history["learning_rate"] == pytest.approx([0.1, 0.1, 0.05])
    assert float(made.optimizer.learning_rate) == pytest.approx(0.025)
