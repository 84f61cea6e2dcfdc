"""A training run with all callbacks that leave something behind, killed at random moments until it is done.

    python tests/crash/campaign.py FOLDER KILLS [SEED]

It prints one line that sums up, and exits with 1 when a run that was killed didn't end as one that was not.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

import oncue as keras
from oncue import layers
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TensorBoard,
    TerminateOnNaN,
)

EPOCHS = 12


class Slow(Callback):
    """Gives a kill the time to come in the middle of things."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        time.sleep(0.004)


def train(folder: Path) -> None:
    """Train as a script does that knows nothing of kills."""
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    model = keras.Sequential(
        [
            layers.Input((3,), name="in"),
            layers.Dense(8, name="a"),
            layers.Dropout(0.2, name="d"),
            layers.Dense(1, name="b"),
        ],
        name="m",
    )
    model.compile(keras.optimizers.Adam(0.05), "mse", metrics=["mae"])
    stop = EarlyStopping("val_loss", patience=9, restore_best_weights=True)
    history = model.fit(
        x,
        y,
        batch_size=6,
        epochs=EPOCHS,
        validation_split=0.2,
        verbose=0,
        callbacks=[
            Slow(),
            BackupAndRestore(folder / "backup", save_freq=3, delete_checkpoint=False),
            TerminateOnNaN(),
            stop,
            ReduceLROnPlateau("val_loss", patience=1, factor=0.7),
            ModelCheckpoint(folder / "{epoch:02d}.safetensors", save_weights_only=True, keep=2, asynchronous=True),
            ModelCheckpoint(
                folder / "best-{val_loss:.5f}.weights.h5", save_best_only=True, save_weights_only=True, keep="best 1"
            ),
            CSVLogger(folder / "log.csv"),
            TensorBoard(folder / "events", update_freq=4),
        ],
    )
    notes = [(entry.epoch, entry.batch, entry.kind, Path(entry.text).name) for entry in history.journal]
    result = {
        "history": repr(history.history),
        "journal": repr([note for note in notes if note[2] != "resume"]),
        "weights": digest(b"".join(weight.tobytes() for weight in model.get_weights())),
        "optimizer": digest(b"".join(tensor.detach().cpu().numpy().tobytes() for tensor in model.optimizer.variables)),
        "stopped": repr((stop.stopped_epoch, stop.best_epoch)),
    }
    (folder / "result").write_text("\n".join(f"{name}: {value}" for name, value in result.items()))


def digest(content: bytes) -> str:
    """Return the SHA-256 digest of bytes."""
    return hashlib.sha256(content).hexdigest()


def outcome(folder: Path) -> dict[str, str]:
    """Return everything that a run left, part by part: files by their digests, events without their times."""
    parts = dict(line.split(": ", 1) for line in (folder / "result").read_text().splitlines())
    parts["csv"] = digest((folder / "log.csv").read_bytes())
    for path in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.h5")):
        parts[f"file {path.name}"] = digest(path.read_bytes())
    parts["names"] = repr(sorted(path.name for path in folder.iterdir() if path.name not in ("backup", "events")))
    for path in sorted((folder / "events").rglob("*tfevents*")):
        name = f"events {path.parent.name}"
        parts[name] = parts.get(name, "") + digest(b"".join(events(path)))
    return parts


def events(path: Path) -> list[bytes]:
    """Return the events of a file, without their times."""
    reader, found = PyRecordReader_New(str(path)), []
    while True:
        try:
            reader.GetNext()
        except errors.OutOfRangeError:
            return found
        event = Event.FromString(reader.record())
        event.wall_time = 0.0
        found.append(event.SerializeToString(deterministic=True))


def start(folder: Path) -> int:
    """Train in a process of its own, which needs no imports; return its number."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(folder)
            code = 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return child


def main(root: Path, kills: int, seed: int) -> int:
    """Kill runs a number of times, and compare each with an uninterrupted run."""
    torch.set_num_threads(1)
    chance, done, runs = random.Random(seed), 0, 0
    straight = root / "straight"
    straight.mkdir(parents=True)
    # So that the children have every module that a run imports when it needs it.
    train(root / "first")
    assert os.waitpid(start(straight), 0)[1] == 0
    expected = outcome(straight)
    while done < kills:
        runs += 1
        folder = root / f"killed-{runs}"
        folder.mkdir()
        while True:
            child = start(folder)
            # Without a backup a run would start from scratch, and TensorBoard's earlier files would remain.
            while not any((folder / "backup").glob("state-*")):
                time.sleep(0.002)
            if done < kills:
                time.sleep(chance.uniform(0.02, 0.6))
                os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
            if not os.WIFSIGNALED(status):
                break
            done += 1
        found = outcome(folder) if status == 0 else {"status": str(status)}
        wrong = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
        if wrong:
            print(f"seed {seed}, {done} kills, run {runs} differs in: {', '.join(wrong)}")
            for name in wrong:
                print(f"  {name}\n    unbroken: {expected.get(name)}\n    killed:   {found.get(name)}")
            return 1
        shutil.rmtree(folder)
    print(f"seed {seed}: {done} kills in {runs} runs; {len(expected)} parts of each equal those of an unbroken run")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0))
