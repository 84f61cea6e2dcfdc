"""TerminateOnNaN: what it looks at, when, and what an epoch that it ends may not do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oncue
from oncue.callbacks import Callback, CallbackList, EarlyStopping, LambdaCallback, TerminateOnNaN
from oncue.core.monitor import MonitorError

X = np.ones((12, 2), dtype="float32")
Y = np.zeros((12, 1), dtype="float32")


def targets(bad: int | None, value: float = float("nan")) -> np.ndarray:
    y = Y.copy()
    if bad is not None:
        y[2 * bad] = value
    return y


def model(metrics: Any = None, rate: float = 0.01) -> Any:
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
    assert entry.data == {"not_finite": "loss", "value": "inf"}


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
