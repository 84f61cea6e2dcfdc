"""Storms of Ctrl-C in one process, and what a run could leave behind in it."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import oncue as keras
from oncue.callbacks import BackupAndRestore, Callback, CSVLogger, ModelCheckpoint, Preemption, TensorBoard
from oncue.checkpoints.lock import FolderLock

X = np.ones((8, 3), "float32")


def model() -> Any:
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.1), keras.layers.Dense(1)])
    made.compile("adam", "mse", metrics=["mae"])
    return made


def train(made: Any, folder: Path, *more: Callback) -> None:
    callbacks = [
        BackupAndRestore(folder / "backup", save_freq=1),
        ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True, keep=1),
        CSVLogger(folder / "log.csv"),
        TensorBoard(folder / "events", write_graph=False),
        Preemption(),
        *more,
    ]
    made.fit(X, X[:, :1], validation_data=(X, X[:, :1]), batch_size=4, epochs=2, verbose=0, callbacks=callbacks)


def held(folder: Path) -> list[str]:
    """Return the locks in a folder that somebody has; one is waited for as long as a state is being written."""
    found = []
    for path in folder.rglob("*.lock"):
        lock, end = FolderLock(path.parent, path.name), time.monotonic() + 60
        while not lock.acquire():
            if time.monotonic() > end:
                found.append(path.name)
                break
        lock.release()
    return found


def left(folder: Path, made: Any) -> dict[str, Any]:
    """Return what a run could have left behind."""
    return {
        "locks": held(folder),
        "handlers": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "modes": torch._C._len_torch_function_stack() + torch._C._len_torch_dispatch_stack(),
        "threads": threading.active_count(),
        "runs": made._runs,
        "training": made.training,
    }


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/dev/fd"))


def _ignored(number: int, frame: Any) -> None:
    """Be called for an alarm that was still on its way when the storm was over."""


class AtCall:
    """Sends SIGINT when the main thread calls its n-th function, and then many times more, soon after one another."""

    def __init__(self, place: int, storm: float) -> None:
        self.place, self.storm, self.calls = place, storm, 0

    def __enter__(self) -> AtCall:
        self._alarm = signal.signal(signal.SIGALRM, self._again)
        sys.settrace(self._count)
        return self

    def _again(self, number: int, frame: Any) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.setitimer(signal.ITIMER_REAL, self.storm)

    def _count(self, frame: Any, event: str, argument: Any) -> None:
        self.calls += 1
        if self.calls == self.place:
            if self.storm:
                signal.setitimer(signal.ITIMER_REAL, self.storm)
            signal.raise_signal(signal.SIGINT)

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)
        signal.signal(signal.SIGALRM, _ignored)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._alarm)


def interrupted(made: Any, folder: Path, place: int, storm: float) -> bool:
    """Run with a Ctrl-C at a call; return whether there was such a call."""
    try:
        with AtCall(place, storm) as at:
            try:
                train(made, folder)
            finally:
                signal.signal(signal.SIGALRM, _ignored)
    except KeyboardInterrupt:
        return True
    return at.calls >= place


def campaign(folder: Path, places: list[int], chance: random.Random) -> int:
    made = model()
    train(made, folder / "first")
    clean, count = left(folder / "first", made), 0
    open_before = descriptors()
    for place in places:
        storm = chance.choice([0, 2e-5, 1e-4, 1e-3])
        at = folder / str(place)
        count += interrupted(made, at, place, storm)
        found = left(at, made)
        wrong = {name: value for name, value in found.items() if value != clean[name]}
        assert not wrong, f"at call {place}, then every {storm} s: {wrong}"
    # Nothing locks out the next run.
    train(made, at)
    end = time.monotonic() + 60
    while descriptors() > open_before and time.monotonic() < end:
        time.sleep(0.1)
    assert descriptors() <= open_before
    return count


def calls_of_a_run(folder: Path) -> int:
    made = model()
    train(made, folder / "warm")
    with AtCall(0, 0) as at:
        train(made, folder / "counted")
    return at.calls
