"""Runs whose processes have parts of each weight, of which one is killed in or around a save, and which then go on.

    python tests/distribution/sharded_kills.py FOLDER KILLS [FIRST]

The processes are forked. FIRST leaves out the kills before that one, to kill in parts. What is printed is a line of JSON for
each kill: where it was, what the others said, and how far what the run came to in the end, on two, one or three processes, is
from one that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from processes import free_port, variables

import oncue as keras
from oncue import layers
from oncue.callbacks import BackupAndRestore
from oncue.checkpoints.store import Store
from oncue.core.files import sync_folder
from oncue.core.process import process
from oncue.distribution.group import Group

MAIN = ("before the state", "the state written", "the parts there", "the state named", "before deleting", "deleted")
OTHER = ("before the part", "the part written", "the part named", "told")
ANY = ("a step",)
SAVES = 8
"""How many saves a run makes, of two steps each."""
BOUND = 240.0
"""Seconds after which processes are taken to wait for ever."""
X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


class Kill:
    """Kills the process when it comes to a place for the n-th time."""

    def __init__(self, place: str, count: int) -> None:
        self.place, self.count = place, count

    def at(self, place: str) -> None:
        """Say that the process is at a place."""
        if place and place == self.place:
            self.count -= 1
            if self.count < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, before: str, after: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function with a place before and one after it."""

        def called(*args: Any, **kwargs: Any) -> Any:
            self.at(before)
            found = function(*args, **kwargs)
            self.at(after)
            return found

        return called

    def part(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `Store.commit_part` with its places."""

        def called(own: Store, name: str, write: Callable[[Path], object]) -> None:
            self.at("before the part")
            function(own, name, self.around("", "the part written", write))
            self.at("the part named")

        return called

    def patches(self) -> list[Any]:
        """Return what puts the places into a run."""
        return [
            mock.patch.object(Store, "commit_part", self.part(Store.commit_part)),
            mock.patch.object(Store, "commit", self.around("before the state", "", Store.commit)),
            mock.patch.object(
                Group,
                "wait_until_told",
                self.around("the state written", "the parts there", Group.wait_until_told),
            ),
            mock.patch.object(Group, "tell", self.around("", "told", Group.tell)),
            mock.patch("oncue.checkpoints.store.sync_folder", self.around("the state named", "", sync_folder)),
            mock.patch.object(Store, "_remove", self.around("before deleting", "deleted", Store._remove)),
        ]


def train(folder: Path, kill: Kill | None) -> list[Any]:
    """Train for four epochs, and return what came of it."""
    keras.utils.set_random_seed(3)
    if os.environ["WORLD_SIZE"] != "1":
        keras.distribution.initialize(timeout=60.0)
        keras.distribution.set_distribution(keras.distribution.DataParallel(shard_weights=True, min_shard_size=0))
    model = keras.Sequential([layers.Input((4,)), layers.Dense(5, activation="tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    kill = kill or Kill("", 0)
    for patch in kill.patches():
        patch.start()
    callbacks = [
        BackupAndRestore(folder / "backup", every="2 steps"),
        keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: kill.at("a step")),
    ]
    history = model.fit(X, Y, batch_size=10, epochs=4, verbose=0, callbacks=callbacks)
    return [history.history["loss"], *(one.tolist() for one in model.get_weights())]


def together(folder: Path, size: int, killed: int = -1, kill: Kill | None = None) -> list[str]:
    """Train on some processes, which are forked, and return what each wrote down."""
    port, children = free_port(), []
    for rank in range(size):
        pid = os.fork()
        if pid:
            children.append(pid)
            continue
        os.environ.update(variables(rank, size, port))
        found = ""
        try:
            found = json.dumps(train(folder, kill if rank == killed else None))
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
            if not isinstance(error, RuntimeError):
                traceback.print_exc()
        (folder / f"found {rank}").write_text(found)
        if process.group is not None:
            process.group.leave()
        os._exit(0)
    # One that waits for ever is a fault, which its missing words show.
    deadline = time.monotonic() + BOUND
    for pid in children:
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
    return [path.read_text() if path.exists() else "" for path in (folder / f"found {rank}" for rank in range(size))]


def main() -> None:
    torch.set_num_threads(1)
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    whole = folder / "whole"
    whole.mkdir(parents=True)
    expected = json.loads(together(whole, 1)[0])
    draw = random.Random(0)
    places = [(0, place) for place in (*MAIN, *ANY)] + [(1, place) for place in (*OTHER, *ANY)]
    for number in range(kills):
        rank, place = places[number % len(places)]
        count, size = draw.randrange(1, SAVES - 1), (2, 1, 3)[number % 3]
        if number < first:
            continue
        own = folder / f"kill {number}"
        own.mkdir()
        said = together(own, 2, rank, Kill(place, count))
        for path in own.glob("found *"):
            path.unlink()
        resumed = together(own, size)
        found = {"place": f"{place}, {count} times before, process {rank}", "size": size, "said": said[1 - rank]}
        try:
            pairs = [
                zip(np.ravel(a), np.ravel(b), strict=True)
                for a, b in zip(json.loads(resumed[0]), expected, strict=True)
            ]
            found["difference"] = max(abs(float(a) - float(b)) for pair in pairs for a, b in pair)
        except ValueError:
            found["difference"] = float("inf")
            found["resumed"] = resumed
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
