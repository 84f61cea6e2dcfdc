"""Trains in one way, in its own process: reads requests as JSON lines from stdin, and answers each on stdout.

    {"do": "make", "workload": "mlp32", "steps": 100}       makes the model and the data
    {"do": "train", "validation": false}                    trains one epoch, and answers with its seconds
    {"do": "go", "epochs": 3}                               trains this many more, within the same `fit`
    {"do": "end"}                                           ends that `fit`
    {"do": "call", "what": "evaluate"}                      evaluates or predicts once
    {"do": "memory"}                                        answers with the peak resident memory since the imports, in MB
    {"do": "idle", "epochs": 1}                             trains under torch's profiler: how long the host waits
    {"do": "profile", "epochs": 1, "steps": 100}            trains under Python's profiler: calls and time by library

The answer to a request that fails is `{"error": ...}`.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import importlib
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from typing import Any

from ways import KERAS_WAYS, WAYS
from ways.pace import Finished, Pace
from workloads import KERAS_MODELS, WORKLOADS


class Worker:
    """Serves requests.

    Args:
        way: The way's name.
        device: "cpu" or "cuda".
        answers: The stream for answers.
    """

    def __init__(self, way: str, device: str, answers: Any) -> None:
        self.way, self.device, self.answers = (WAYS | KERAS_WAYS)[way], device, answers
        for name in self.way.imports:
            importlib.import_module(name)
        self.torch = sys.modules.get("torch")
        if self.torch is not None:
            self.torch.set_num_threads(1)
            # Dead units leave denormal numbers in Adam's moments, which are a hundred times slower to compute with, so that
            # times would depend on how long a way has trained already. XLA flushes them by default.
            self.torch.set_flush_denormal(True)
        self.make = importlib.import_module(f"ways.{self.way.module}").make
        self.trained: Any = None
        self.imported = peak()
        self.folder = tempfile.TemporaryDirectory()

    def run(self) -> None:
        self.answer({"ready": True})
        while (order := self.order()) is not None:
            try:
                self.answer(getattr(self, f"do_{order.pop('do')}")(**order))
            # Any error of a library is reported in its row of the table.
            except Exception as error:
                traceback.print_exc()
                self.answer({"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:150] or '-'}"})

    def order(self) -> dict[str, Any] | None:
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def answer(self, values: dict[str, Any]) -> None:
        self.answers.write(json.dumps(values) + "\n")
        self.answers.flush()

    def settle(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def do_make(self, workload: str, steps: int) -> dict[str, Any]:
        self.trained = None
        if "torch._dynamo" in sys.modules:
            # As if in a new process: once a size has changed within a process, torch compiles code for arbitrary sizes.
            self.torch._dynamo.reset()
        gc.collect()
        size = dataclasses.replace((WORKLOADS | KERAS_MODELS)[workload], steps=steps)
        self.trained = self.make(size, self.device, self.folder.name, **self.way.settings)
        return {}

    def do_train(self, validation: bool) -> dict[str, Any]:
        def ask(taken: tuple[float, float]) -> int | None:
            self.answer({"wall": taken[0], "cpu": taken[1]})
            order = self.order()
            if order is None or order["do"] == "end":
                return None
            return order["epochs"]

        try:
            self.trained.train(Pace(ask, self.settle), validation)
        except Finished:
            return {}
        raise RuntimeError("the run ended by itself")

    def do_call(self, what: str) -> dict[str, Any]:
        wall, cpu = time.perf_counter(), time.process_time()
        getattr(self.trained, what)()
        self.settle()
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    def do_memory(self) -> dict[str, Any]:
        return {"megabytes": peak() - self.imported}

    def do_idle(self, epochs: int) -> dict[str, Any]:
        from host_idle import host_idle

        turns = iter([epochs, None])
        with tempfile.TemporaryDirectory() as folder:
            return host_idle(self.trained, lambda taken: next(turns), self.settle, folder)

    def do_profile(self, epochs: int, steps: int) -> dict[str, Any]:
        from profiles import profiled

        return profiled(self.trained, epochs, steps, self.settle)


def peak() -> float:
    """Return the peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Serve requests until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("way", choices=WAYS | KERAS_WAYS)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    # Output of libraries must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    Worker(options.way, options.device, answers).run()


if __name__ == "__main__":
    main()
