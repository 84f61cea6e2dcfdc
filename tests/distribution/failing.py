"""Runs on several processes of which one fails, is killed or hangs, and what the others see of it.

    python tests/distribution/failing.py [--resumed] FOLDER SIZE CASE...

A case is "FAULT PLACE PROCESS", such as "raise batch 1". For each, the processes are forked and told to train; each writes down
how its run ended. With --resumed all are then started again without the fault, and write down what they come to in the end.
What is printed is a line of JSON for each case: its name, and what its processes have found.
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import os
import signal
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from processes import free_port, variables

import oncue as keras
from oncue import layers

TIMEOUT = 15.0
"""Seconds after which a process that hangs is given up; one that only shares a busy machine doesn't take as long."""
FAULTS = ("raise", "interrupt", "term", "full", "leave", "kill", "stop", "sleep")
HANGS = ("stop", "sleep")
SILENT = ("leave", "kill", *HANGS)
PLACES = (
    "meeting",
    "start",
    "train_begin",
    "data",
    "step",
    "batch_begin",
    "batch",
    "epoch_begin",
    "epoch",
    "validation",
    "validation_data",
    "metric",
    "save",
    "predict",
    "between",
)
OWN = ("step", "save")
"""Places of which a model has a method of its own; only then, because the rest is quicker and more usual."""
AT_ONCE = 4
X = np.random.default_rng(0).normal(size=(48, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


class Fault:
    """What goes wrong on one process, once."""

    def __init__(self, kind: str, place: str, folder: Path, mine: bool) -> None:
        self.kind, self.place, self.folder, self.mine = kind, place, folder, mine
        self.updates = 0

    def at(self, place: str) -> None:
        """Let it go wrong, if this is the place and the process."""
        if place != self.place or not self.mine:
            return
        self.mine = False
        (self.folder / "fault").write_text(str(time.time()))
        if self.kind == "raise":
            raise ValueError("this is the fault")
        if self.kind == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.kind == "sleep":
            time.sleep(1000)
        number = {
            "interrupt": signal.SIGINT,
            "term": signal.SIGTERM,
            "kill": signal.SIGKILL,
            "stop": signal.SIGSTOP,
        }.get(self.kind)
        if number is None:
            os._exit(3)
        os.kill(os.getpid(), number)
        # A signal to oneself comes at once, or when the next line of Python runs.
        time.sleep(0.01)


class Told(keras.callbacks.Callback):
    """Goes wrong in hooks, and notes which ends of a run it was told of."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        self.fault = fault
        self.ends: list[str] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.fault.at("train_begin")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.fault.at("epoch_begin")

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 3:
            self.fault.at("batch_begin")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 3:
            self.fault.at("batch")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            self.fault.at("validation")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.fault.at("epoch")

    def on_exception(self, exception: BaseException) -> None:
        self.ends.append("on_exception")

    def close(self) -> None:
        self.ends.append("close")


class Model(keras.Sequential):
    """Goes wrong in its own step, or while it is saved."""

    fault: Fault

    def train_step(self, data: Any) -> Any:
        found = super().train_step(data)
        if self.optimizer.iterations == 5:
            self.fault.at("step")
        return found

    def save_weights(self, *arguments: Any, **options: Any) -> None:
        self.fault.at("save")
        super().save_weights(*arguments, **options)


class Metric(keras.metrics.MeanAbsoluteError):
    """Goes wrong when it is updated in a step."""

    def update_state(self, *arguments: Any, **options: Any) -> None:
        super().update_state(*arguments, **options)
        self.fault.updates += 1
        if self.fault.updates == 6:
            self.fault.at("metric")


def batches(fault: Fault, place: str) -> Iterator[Any]:
    index = 0
    while True:
        index += 1
        if index == 9:
            fault.at(place)
        first = 8 * index % len(X)
        yield X[first : first + 8], Y[first : first + 8]


def train(fault: Fault, folder: Path) -> list[Any]:
    """Do what a script does, and return what came of it."""
    new_group = dist.new_group

    def amid(*arguments: Any, **options: Any) -> Any:
        fault.at("meeting")
        return new_group(*arguments, **options)

    dist.new_group = amid
    keras.distribution.initialize(timeout=TIMEOUT if fault.kind in HANGS else 60.0)
    fault.at("start")
    keras.utils.set_random_seed(0)
    own = fault.place in OWN
    made = (Model if own else keras.Sequential)([layers.Input((4,)), layers.Dense(3), layers.Dense(1)])
    if own:
        made.fault = fault
    metric = Metric() if fault.place == "metric" else keras.metrics.MeanAbsoluteError()
    if fault.place == "metric":
        metric.fault = fault
    made.compile("sgd", "mse", metrics=[metric])
    told = Told(fault)
    callbacks: list[Any] = [
        keras.callbacks.CSVLogger(folder / "log.csv"),
        told,
        keras.callbacks.ModelCheckpoint(folder / "kept.weights.h5", save_weights_only=True),
        keras.callbacks.BackupAndRestore(folder / "backup", save_freq=4),
    ]
    try:
        history = made.fit(
            batches(fault, "data"),
            steps_per_epoch=6,
            epochs=3,
            validation_data=batches(fault, "validation_data"),
            validation_steps=3,
            verbose=0,
            callbacks=callbacks,
        )
        fault.at("between")
        made.predict(
            X, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_predict_begin=lambda *_: fault.at("predict"))]
        )
    except BaseException:
        (folder / f"ends{os.environ['RANK']}").write_text(json.dumps(told.ends))
        raise
    weights = b"".join(weight.tobytes() for weight in made.get_weights())
    return [zlib.crc32(weights), history.history, (folder / "log.csv").read_text()]


def run(case: str, rank: int, folder: Path, again: bool) -> NoReturn:
    """Train in this process, write down how it ended, and end the process as the interpreter does."""
    kind, place, failing = case.split()
    found: dict[str, Any] = {"error": "", "text": ""}
    try:
        found["came_to"] = train(Fault(kind, place, folder, rank == int(failing) and not again), folder)
    except BaseException as error:
        found = {"error": type(error).__name__, "text": str(error)}
        sys.last_value = error  # type: ignore[assignment]  # the interpreter does so, at the end of a script
    found["ended"] = time.time()
    (folder / f"{'again' if again else ''}{rank}.json").write_text(json.dumps(found))
    sys.exit(1 if found["error"] else 0)


def start(case: str, size: int, folder: Path, again: bool = False) -> list[int]:
    """Start the processes of a case, which need no imports."""
    folder.mkdir(parents=True, exist_ok=again)
    port, children = free_port(), []
    for rank in range(size):
        child = os.fork()
        if child:
            children.append(child)
            continue
        os.environ.update(variables(rank, size, port))
        log = os.open(folder / f"log{rank}", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        run(case, rank, folder, again)
    return children


class Started:
    """The processes of a case."""

    def __init__(self, case: str, size: int, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.children = start(case, size, folder)
        self.gone: dict[int, float] = {}
        self.status: dict[int, int] = {}

    def look(self) -> bool:
        """Take note of those that have ended; return whether all have but one that hangs, because it was told to."""
        for rank, child in enumerate(self.children):
            if rank in self.gone:
                continue
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                self.gone[rank], self.status[rank] = time.time(), os.waitstatus_to_exitcode(status)
        kind, _, failing = self.case.split()
        left = set(range(len(self.children))) - set(self.gone)
        return left <= ({int(failing)} if kind in HANGS else set())

    def result(self) -> dict[str, Any]:
        """Kill those that are left, and return how each has ended."""
        for rank, child in enumerate(self.children):
            if rank not in self.gone:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        fault = self.folder / "fault"
        since = float(fault.read_text()) if fault.exists() else 0.0
        found = []
        for rank in range(len(self.children)):
            said, ends = self.folder / f"{rank}.json", self.folder / f"ends{rank}"
            one = json.loads(said.read_text()) if said.exists() else {"error": None, "text": ""}
            one["seconds"] = one.pop("ended", since) - since
            one["gone"] = self.gone[rank] - since if rank in self.gone else None
            one["status"] = self.status.get(rank)
            one["ends"] = json.loads(ends.read_text()) if ends.exists() else []
            one["log"] = (self.folder / f"log{rank}").read_text()
            found.append(one)
        return {"case": self.case, "folder": str(self.folder), "processes": found}


def resumed(children: list[int], size: int, folder: Path) -> list[Any]:
    """Return what each process of a case that was started again, without the fault, comes to; or its error."""
    for child in children:
        os.waitpid(child, 0)
    found = [json.loads((folder / f"again{rank}.json").read_text()) for rank in range(size)]
    return [one.get("came_to", one["text"]) for one in found]


def main() -> None:
    arguments = sys.argv[1:]
    again = arguments[0] == "--resumed"
    folder, size, *cases = arguments[again:]
    torch.set_num_threads(1)
    # A shell's background job, which ignores Ctrl-C, would hand that on to the processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Torch's optimizers import it, for most of the time that a case takes.
    importlib.import_module("torch._dynamo")
    # Else the end of each process looks through all that was imported before, and copies it.
    gc.freeze()
    for index in range(0, len(cases), AT_ONCE):
        group = [
            Started(case, int(size), Path(folder) / str(index + number))
            for number, case in enumerate(cases[index : index + AT_ONCE])
        ]
        # Much more than they take on a machine that isn't busy; each is measured from its fault on.
        deadline = time.time() + 600.0
        while not all([one.look() for one in group]) and time.time() < deadline:
            time.sleep(0.02)
        results = [one.result() for one in group]
        restarted = [start(one.case, int(size), one.folder, again=True) for one in group] if again else []
        for place, (one, result) in enumerate(zip(group, results, strict=True)):
            if again:
                result["resumed"] = resumed(restarted[place], int(size), one.folder)
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
