"""The runs of `resumed_runs`, and more of that kind, in which each process has a part of each weight."""

from __future__ import annotations

import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from distribution import resumed_runs
from distribution.resumed_runs import RANK, interrupted, run
from distribution.sharded_runs import sharded

import oncue as keras
from oncue import layers
from oncue.cli import main
from oncue.core.process import process


def exactly(folder: Path) -> dict[str, Any]:
    return sharded(resumed_runs.exactly)(folder)


def at_url(folder: Path) -> dict[str, Any]:
    return sharded(resumed_runs.at_url)(folder)


def not_a_number(folder: Path) -> dict[str, Any]:
    return sharded(resumed_runs.not_a_number)(folder)


def by_time(folder: Path) -> dict[str, Any]:
    return sharded(resumed_runs.by_time)(folder)


def whole_run(folder: Path) -> dict[str, Any]:
    return sharded(resumed_runs.whole_run)(folder)


def interrupt_here(folder: Path) -> dict[str, Any]:
    return sharded(resumed_runs.interrupt_here)(folder)


def resume_here(folder: Path) -> dict[str, Any]:
    return sharded(resumed_runs.resume_here)(folder)


def kept(folder: Path) -> dict[str, Any]:
    """States that stay for runs that go on from them, also on one process."""
    keras.distribution.set_distribution(keras.distribution.DataParallel(shard_weights=True, min_shard_size=0))

    def train(name: str, **options: Any) -> list[Any]:
        keras.utils.set_random_seed(3)
        model = keras.Sequential([layers.Input((4,)), layers.Dense(5, activation="tanh"), layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.01), "mse")
        x = np.arange(80).reshape(20, 4).astype("float32") / 80
        saver = keras.callbacks.BackupAndRestore(folder / name, **options)
        history = model.fit(x, x[:, :1], batch_size=5, epochs=4, verbose=0, callbacks=[saver])
        return [history.history["loss"], *(one.tolist() for one in model.get_weights())]

    whole = train("one", keep=2, delete_checkpoint=False)
    left = sorted(path.name for path in (folder / "one").iterdir())
    if RANK == 0:
        assert main(["fork", str(folder / "one"), "--epoch", "3", str(folder / "two")]) == 0
    process.group.together("a fork")
    return {"whole": whole, "again": train("two"), "left": left}


def slow_disks(folder: Path) -> dict[str, Any]:
    """States that are left out while the one before is written, where the disk of one process is slow."""
    keras.distribution.set_distribution(keras.distribution.DataParallel(shard_weights=True, min_shard_size=0))
    x, fsync = np.arange(80).reshape(20, 4).astype("float32") / 80, os.fsync
    found: dict[str, Any] = {}
    for slow in (0, 1):

        def slowly(descriptor: int, slow: int = slow) -> None:
            if slow == RANK and threading.current_thread() is not threading.main_thread():
                time.sleep(0.2)
            fsync(descriptor)

        def train(slow: int = slow) -> Any:
            keras.utils.set_random_seed(3)
            model = keras.Sequential([layers.Input((4,)), layers.Dense(5, activation="tanh"), layers.Dense(1)])
            model.compile(keras.optimizers.Adam(0.01), "mse")
            saver = keras.callbacks.BackupAndRestore(
                folder / f"slow-{slow}", save_freq=1, when_busy="skip", delete_checkpoint=False
            )
            return model.fit(x, x[:, :1], batch_size=5, epochs=3, verbose=0, callbacks=[saver])

        with mock.patch.object(os, "fsync", slowly):
            history = train()
        skipped = [[one.epoch, one.batch] for one in history.journal if one.what == "backup_skipped"]
        left = sorted(path.name for path in (folder / f"slow-{slow}").glob("state-*"))
        again = train().history["loss"] == history.history["loss"]
        found[str(slow)] = {"skipped": skipped, "left": left, "again": again}
    return found


def _begun(folder: Path, change: str) -> Path:
    """Let a run be interrupted, and do something to the parts of its newest state."""
    keras.distribution.set_distribution(keras.distribution.DataParallel(shard_weights=True, min_shard_size=0))
    interrupted(folder, rank=1, step=7)
    newest = max(
        (folder / "backup").glob("state-*.part-1.safetensors"), key=lambda path: int(path.name.split(".")[0][6:])
    )
    process.group.together("a change of files")
    if RANK == 0:
        if change == "missing":
            newest.unlink()
        elif change == "damaged":
            content = bytearray(newest.read_bytes())
            content[len(content) // 2] ^= 1
            newest.write_bytes(content)
        else:
            older = newest.with_name(f"state-{int(newest.name.split('.')[0][6:]) - 1}.part-1.safetensors")
            newest.write_bytes(older.read_bytes())
    process.group.together("a change of files")
    return newest


def _used_instead(folder: Path, change: str) -> dict[str, Any]:
    keras.distribution.set_distribution(keras.distribution.DataParallel(shard_weights=True, min_shard_size=0))
    whole = run(folder, backup="whole")
    newest = _begun(folder, change)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        resumed = run(folder)
    return {
        "name": newest.name,
        "said": [str(one.message) for one in said if "is used instead" in str(one.message)],
        "weights": resumed["weights"] == whole["weights"],
        "left": sorted(path.name for path in folder.glob("backup/*")),
    }


def missing_part(folder: Path) -> dict[str, Any]:
    return _used_instead(folder, "missing")


def damaged_part(folder: Path) -> dict[str, Any]:
    return _used_instead(folder, "damaged")


def part_of_another_state(folder: Path) -> dict[str, Any]:
    return _used_instead(folder, "other")
