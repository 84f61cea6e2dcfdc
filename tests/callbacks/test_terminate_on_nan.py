"""TerminateOnNaN: what it looks at, when, and what an epoch that it ends may not do."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue
import oncue as keras
from helpers import PowerCut
from oncue.callbacks import Callback, CallbackList, EarlyStopping, LambdaCallback, TerminateOnNaN
from oncue.core.monitor import MonitorError

X = np.ones((12, 2), dtype="float32")
Y = np.zeros((12, 1), dtype="float32")


def targets(bad: int | None, value: float = float("nan")) -> np.ndarray:
    y = Y.copy()
    if bad is not None:
        y[2 * bad] = value
    return y


def model(metrics: Any = None, rate: Any = 0.01) -> Any:
    made = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    made.compile(oncue.optimizers.SGD(rate), loss="mse", metrics=metrics)
    return made


class Batches(Callback):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.heard.append(f"batch {batch}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.heard.append(f"epoch {epoch}")

    def on_train_end(self, logs: Any = None) -> None:
        self.heard.append("end")


def fit(callbacks: list[Any], y: Any, made: Any = None, **options: Any) -> Any:
    made = model() if made is None else made
    made.fit(X, y, batch_size=2, shuffle=False, verbose=0, callbacks=callbacks, **options)
    return made


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_it_stops_after_the_batch(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    batches = Batches()
    made = fit([batches, TerminateOnNaN()], targets(2, value), epochs=3)
    assert batches.heard == ["batch 0", "batch 1", "batch 2", "epoch 0", "end"]
    assert capsys.readouterr().out == "Batch 2: Invalid loss, terminating training\n"
    assert made.stop_training


def test_nothing_happens_while_all_is_finite(capsys: pytest.CaptureFixture[str]) -> None:
    batches = Batches()
    fit([batches, TerminateOnNaN(monitor="*")], Y, epochs=2, validation_data=(X, Y))
    assert len(batches.heard) == 2 * 7 + 1
    assert capsys.readouterr().out == ""


def test_every_looks_at_each_nth_batch_and_at_the_end_of_the_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    fit([TerminateOnNaN(every=4)], targets(1), epochs=3)
    assert capsys.readouterr().out == "Batch 3: Invalid loss, terminating training\n"
    fit([TerminateOnNaN(every=4)], targets(4))
    assert capsys.readouterr().out == "Epoch 1: Invalid loss, terminating training\n"
    batches = Batches()
    fit([batches, TerminateOnNaN(every=100)], targets(1), epochs=3)
    assert capsys.readouterr().out == "Epoch 1: Invalid loss, terminating training\n"
    assert batches.heard[-2:] == ["epoch 0", "end"]


def test_raise_error_ends_the_run_without_on_train_end() -> None:
    batches = Batches()
    with pytest.raises(RuntimeError, match=r"NaN or Inf loss encountered at batch 2\. Loss value: nan\. Terminating"):
        fit([batches, TerminateOnNaN(raise_error=True)], targets(2), epochs=3)
    assert "end" not in batches.heard


def test_a_value_of_validation(capsys: pytest.CaptureFixture[str]) -> None:
    bad = (X, targets(0))
    fit([TerminateOnNaN()], Y, epochs=2, validation_data=bad)
    assert capsys.readouterr().out == ""
    for monitor in ("val_loss", ["loss", "val_loss"], "*"):
        batches = Batches()
        fit([batches, TerminateOnNaN(monitor=monitor)], Y, epochs=2, validation_data=bad)
        assert capsys.readouterr().out == "Epoch 1: Invalid val_loss, terminating training\n"
        assert batches.heard[-2:] == ["epoch 0", "end"]


def test_a_metric_by_name_and_by_star(capsys: pytest.CaptureFixture[str]) -> None:
    def root(y_true: Any, y_pred: Any) -> Any:
        return (y_true - 1.0).sqrt()

    for monitor in ("root", "*"):
        fit([TerminateOnNaN(monitor=monitor)], Y, made=model(metrics=[root]))
        assert capsys.readouterr().out == "Batch 0: Invalid root, terminating training\n"


def test_words_among_the_logs_are_passed_over() -> None:
    put = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(note="fine"))
    assert not fit([put, TerminateOnNaN(monitor="*")], Y).stop_training


def test_the_epoch_that_it_ends_is_never_best() -> None:
    # The batch whose loss overflows teaches nothing (rate 0), so the value of validation stays finite, and improves.
    values = iter([5.0, 4.0, 1.0])

    def better(epoch: int, logs: Any) -> None:
        logs["val_loss"] = next(values)
        if epoch == 1:
            seen.append(stop.best)

    seen: list[Any] = []
    stop = EarlyStopping(patience=9, restore_best_weights=True)
    made = model(rate=0.0)
    callbacks = CallbackList([TerminateOnNaN(), LambdaCallback(on_epoch_end=better), stop], model=made, verbose=0)
    made.fit(X, Y, batch_size=2, epochs=2, verbose=0, callbacks=callbacks)
    assert (stop.best, stop.best_epoch) == (4.0, 1)
    values = iter([5.0])
    made.fit(X, targets(5, 3e38), batch_size=2, shuffle=False, verbose=0, callbacks=callbacks)
    assert stop.best is None
    (entry,) = [entry for entry in callbacks.journal.of("stop") if entry.callback == "TerminateOnNaN"]
    assert (entry.epoch, entry.batch) == (0, 5)
    assert entry.data == {"not_finite": "loss", "value": "inf", "unit": "batch", "index": 5}


def test_a_misspelt_name_is_refused_before_the_first_step() -> None:
    made = model()
    before = made.get_weights()
    with pytest.raises(MonitorError, match="Did you mean `loss`"):
        fit([TerminateOnNaN(monitor="los")], Y, made=made)
    assert all(np.array_equal(one, other) for one, other in zip(before, made.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "name"), [({"every": 0}, "every"), ({"monitor": []}, "monitor"), ({"monitor": 3}, "monitor")]
)
def test_bad_arguments(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` of TerminateOnNaN"):
        TerminateOnNaN(**arguments)


class Poison(keras.callbacks.Callback):
    """Makes the weights of a model useless, so often, at one batch."""

    def __init__(self, epoch: int, batch: int, times: int = 1) -> None:
        super().__init__()
        self.at, self.times, self.begun, self.rates = (epoch, batch), times, [], []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch
        self.begun.append(epoch)
        self.rates.append(float(self.model.optimizer.learning_rate))

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == self.at and self.times > 0:
            self.times -= 1
            self.model.set_weights([weight * np.nan for weight in self.model.get_weights()])


def rolled(poison: Poison, *callbacks: Any, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(12, 2))
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
    guard = keras.callbacks.TerminateOnNaN(action="rollback", **options)
    model.fit(x, x[:, :1], batch_size=4, epochs=4, verbose=0, callbacks=[poison, guard, *callbacks])
    return model


@pytest.mark.parametrize("at", [(0, 0), (0, 2), (2, 0), (2, 1), (3, 2)])
def test_a_rollback_ends_as_if_nothing_had_happened(at: tuple[int, int]) -> None:
    expected = rolled(Poison(-1, -1), factor=1)
    poison = Poison(*at)
    model = rolled(poison, factor=1)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), expected.get_weights(), strict=True))
    assert model.history.history == expected.history.history and model.history.epoch == [0, 1, 2, 3]
    assert poison.begun == sorted([*range(4), at[0]])
    assert [entry.kind for entry in model.history.journal if entry.callback == "TerminateOnNaN"] == ["rollback"]


def test_a_rollback_lowers_the_learning_rate_each_time() -> None:
    poison = Poison(1, 1, times=2)
    model = rolled(poison, factor=0.5, limit=2)
    assert poison.begun == [0, 1, 1, 1, 2, 3]
    assert poison.rates == pytest.approx([0.1, 0.1, 0.05, 0.025, 0.025, 0.025])
    assert np.isfinite(model.history.history["loss"]).all()


def test_after_so_many_rollbacks_it_stops(capsys: pytest.CaptureFixture[str]) -> None:
    poison = Poison(1, 1, times=99)
    model = rolled(poison, limit=2)
    assert poison.begun == [0, 1, 1, 1] and model.stop_training
    assert "Invalid loss, terminating training" in capsys.readouterr().out


def test_files_contain_nothing_of_an_undone_epoch(tmp_path: Path) -> None:
    def run(name: str, poison: Poison) -> list[str]:
        folder = tmp_path / name
        saver = keras.callbacks.ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True)
        rolled(poison, saver, keras.callbacks.CSVLogger(folder / "log.csv"), factor=1)
        return [(folder / "log.csv").read_text(), *sorted(path.name for path in folder.iterdir())]

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert run("a", Poison(2, 1)) == run("b", Poison(-1, -1))


def test_a_rollback_in_a_resumed_run(tmp_path: Path) -> None:
    expected = rolled(Poison(-1, -1), factor=1)
    with pytest.raises(ConnectionError):
        rolled(Poison(-1, -1), PowerCut(2), keras.callbacks.BackupAndRestore(tmp_path), factor=1)
    poison = Poison(2, 1)
    model = rolled(poison, keras.callbacks.BackupAndRestore(tmp_path), factor=1)
    assert poison.begun == [2, 2, 3]
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), expected.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"action": "undo"}, "must be 'stop', 'raise' or 'rollback'; got 'undo'"),
        ({"factor": 0}, "`factor` of TerminateOnNaN must be a number above 0"),
        ({"limit": 0}, "`limit`"),
    ],
)
def test_bad_arguments_of_a_rollback(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        keras.callbacks.TerminateOnNaN(**options)


def test_a_rollback_in_a_loop_that_cannot() -> None:
    guard = keras.callbacks.TerminateOnNaN(action="rollback")
    with pytest.raises(ValueError, match=r"works in `fit` of oncue's models"):
        keras.callbacks.CallbackList([guard], model=model()).on_train_begin()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_rollback_that_would_have_to_set_the_rate_of_a_schedule(wrapped: bool) -> None:
    def run(**options: Any) -> Any:
        schedule = oncue.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
        made = model(rate=schedule)
        if wrapped:
            made.optimizer = oncue.optimizers.LossScaleOptimizer(made.optimizer)
        guard = TerminateOnNaN(action="rollback", limit=2, **options)
        y = targets(3)
        with (
            pytest.raises(TypeError, match=r"factor=0\.5\) sets the learning rate, but a .*use `factor=1\.0`")
            if not options
            else contextlib.nullcontext()
        ):
            made.fit(X, y, batch_size=2, shuffle=False, verbose=0, callbacks=[guard])
        return made

    assert int(run().optimizer.iterations) == 0
    undone = [entry for entry in run(factor=1.0).history.journal if entry.kind == "rollback"]
    assert undone[-1].data["rollback"] == 2
