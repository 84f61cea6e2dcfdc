"""Whether cost grows: time and memory per step with the number of steps, dispatch with the number of callbacks.

    python benchmarks/growth.py                        up to 10^5 steps
    python benchmarks/growth.py --steps 1000000        up to 10^6

Two runs of the tiny step, each in its own process: one with many epochs of a thousand steps, with History, CSVLogger,
TensorBoard and a callback that reads the loss of every batch; and one with a single epoch. There is a row for each power
of ten; its processor time is the median over the last ten groups of a hundred steps.
"""

from __future__ import annotations

import argparse
import gc
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dispatch import OneHook, microseconds

import oncue as keras
from oncue.callbacks import Callback, CallbackList
from oncue.core.logs import Logs

EPOCH, BATCH, HUNDRED = 1000, 4, 100


class ReadsLoss(Callback):
    """Reads the loss after every batch."""

    last = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.last = logs["loss"]


class Watch(Callback):
    """Measures the time of every hundred steps, and memory at every power of ten."""

    def __init__(self) -> None:
        super().__init__()
        self.done, self.begun = 0, 0.0
        self.last: list[float] = []
        self.rows: list[str] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.done += 1
        if self.done % HUNDRED:
            return
        now = time.process_time()
        if self.begun:
            self.last = [*self.last[-9:], (now - self.begun) / HUNDRED * 1e6]
        if self.done in (10**3, 10**4, 10**5, 10**6):
            gc.collect()
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
            objects = len(gc.get_objects())
            self.rows.append(
                f"| {self.done} | {statistics.median(self.last):.0f} | {resident:.1f} | {peak:.1f} | {objects} |"
            )
            # Flushed, since the next row may be minutes away.
            print(self.rows[-1], flush=True)
        self.begun = time.process_time()


def run(steps: int, one_epoch: bool) -> list[str]:
    """Train the tiny step for a number of steps; print the rows as they come, and return them."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    epoch = steps if one_epoch else EPOCH
    x = np.random.default_rng(0).random((epoch * BATCH, 8), dtype=np.float32)
    y = x.sum(1, keepdims=True)
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        callbacks: list[Any] = [watch]
        if not one_epoch:
            callbacks += [
                ReadsLoss(),
                keras.callbacks.CSVLogger(f"{folder}/log.csv"),
                keras.callbacks.TensorBoard(f"{folder}/logs", write_graph=False),
            ]
        model.fit(x, y, batch_size=BATCH, epochs=steps // epoch, verbose=0, callbacks=callbacks)
    return watch.rows


def dispatch_rows() -> list[str]:
    """Return the rows for a batch's hook with up to 1000 callbacks, compared with a loop of direct calls."""
    rows = []
    logs = Logs({"loss": 0.5})
    for count in (1, 10, 100, 1000):
        callbacks = [OneHook() for _ in range(count)]
        listening = CallbackList(callbacks)

        def direct(callbacks: list[OneHook] = callbacks) -> None:
            for callback in callbacks:
                callback.on_train_batch_end(0, logs)

        # The first 256 calls are timed callback by callback.
        for _ in range(300):
            listening.on_train_batch_end(0, logs)
        number = max(100, 20_000 // count)
        ours = microseconds(lambda run=listening: run.on_train_batch_end(0, logs), number)  # type: ignore[misc]
        direct_calls = microseconds(direct, number)
        rows.append(f"| {count} | {ours:.2f} | {ours / count:.3f} | {ours / direct_calls:.2f} |")
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--kind", choices=("epochs", "one-epoch"), help="only this run, in this process")
    options = parser.parse_args()
    if options.kind:
        print("| steps done | µs per step | resident, MB | peak, MB | objects |\n|---|---|---|---|---|", flush=True)
        run(options.steps, options.kind == "one-epoch")
        return
    for kind, title in (("epochs", "Epochs of 1000 steps, with callbacks"), ("one-epoch", "One epoch")):
        print(f"\n{title}\n", flush=True)
        command = [sys.executable, __file__, "--steps", str(options.steps), "--kind", kind]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"failed: {title}")
    print("\nA batch's hook\n\n| callbacks | µs | µs for each | vs direct calls |\n|---|---|---|---|")
    print("\n".join(dispatch_rows()))


if __name__ == "__main__":
    main()
