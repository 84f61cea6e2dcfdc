"""TimeLimit: a run stops in time, and continues when it is started again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue as keras
from helpers import Clock, normal
from oncue.callbacks import BackupAndRestore, Callback, TimeLimit

X = normal(24, 3)
Y = X.sum(axis=1, keepdims=True)


class Steps(Callback):
    """Makes every batch, of training and of validation, take so many seconds."""

    def __init__(self, clock: Clock, seconds: float, back_at: int = -1) -> None:
        super().__init__()
        self.clock, self.seconds, self.back_at, self.done = clock, seconds, back_at, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.done += 1
        self.clock.now += self.seconds if self.done != self.back_at else -50.0

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.clock.now += self.seconds


def fit(*callbacks: Any, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile("adam", loss="mse")
    model.fit(X, Y, batch_size=6, epochs=3, verbose=0, callbacks=list(callbacks), **options)
    return model


@pytest.mark.parametrize("limit", [5.5, 7.5, 9.5, 14.5, 18.5, 20.5, 24.5])
def test_it_stops_in_time_and_resumes(limit: float, tmp_path: Path) -> None:
    expected = fit(validation_data=(X, Y))
    clock, count = Clock(), 0
    while True:
        began = clock.now
        steps = Steps(clock, 1.0)
        stop = TimeLimit(limit, clock=clock)
        model = fit(stop, steps, BackupAndRestore(tmp_path), validation_data=(X, Y))
        count += 1
        if not model.history.journal.of("stop"):
            break
        # Another step of a second, and the save, would not have been over in time.
        assert clock.now - began <= limit and model.stop_training and count < 30
    assert count > 1 or limit > 24
    assert model.history.history == expected.history.history and model.history.epoch == [0, 1, 2]
    for mine, its in zip(model.get_weights(), expected.get_weights(), strict=True):
        assert np.array_equal(mine, its)


def test_the_epoch_under_way_is_left_where_it_is(tmp_path: Path) -> None:
    clock = Clock()
    model = fit(TimeLimit(7.5, clock=clock), Steps(clock, 1.0), BackupAndRestore(tmp_path))
    assert model.history.epoch == [0] and list(tmp_path.glob("state-*"))
    assert "the state was saved" in str(model.history.journal[-1])


def test_without_a_backup_the_epoch_is_ended() -> None:
    clock = Clock()
    steps = Steps(clock, 1.0)
    model = fit(TimeLimit(6.5, clock=clock), steps)
    assert model.history.epoch == [0, 1] and steps.done == 6 and model.history.journal.of("stop")


def test_a_clock_that_is_set_back(tmp_path: Path) -> None:
    clock = Clock()
    steps = Steps(clock, 1.0, back_at=3)
    model = fit(TimeLimit(40.0, clock=clock), steps, BackupAndRestore(tmp_path))
    assert steps.done == 12 and not model.history.journal.of("stop")


@pytest.mark.parametrize("limit", ["11", "2 epochs", 0, -1, None, True, "eleven hours"])
def test_bad_times_are_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="of TimeLimit must be|TimeLimit"):
        TimeLimit(limit)


def test_words() -> None:
    assert TimeLimit("11 hours").limit == 11 * 3600 and TimeLimit("30 min").limit == 1800
