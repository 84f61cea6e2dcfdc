"""What callbacks cost: dispatch beside direct method calls, and the full stack beside bare `fit`.

python benchmarks/dispatch.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from training_step import keras_layers, seconds
from workloads import WORKLOADS

import oncue as keras
from oncue.callbacks import Callback, CallbackList
from oncue.core.logs import Logs


class Nothing(Callback):
    """Overrides no hook."""


class OneHook(Callback):
    """Overrides the hook at the end of a batch, and does nothing in it."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Do nothing."""


class ReadsLoss(Callback):
    """Reads the loss after every batch."""

    last = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keep the loss."""
        self.last = logs["loss"]


def microseconds(call: Callable[[], object], number: int = 20_000) -> float:
    """Return the time of one call, the best of seven."""
    return min(timeit.repeat(call, number=number, repeat=7)) / number * 1e6


def dispatch_rows() -> list[str]:
    """Return the rows on dispatch to ten callbacks."""
    logs = Logs({"loss": 0.5})
    nothing = CallbackList([Nothing() for _ in range(10)])
    ten = [OneHook() for _ in range(10)]
    listening = CallbackList(ten)

    def direct() -> None:
        for callback in ten:
            callback.on_train_batch_end(0, logs)

    none = microseconds(lambda: nothing.on_train_batch_end(0, logs))
    one, by_hand = microseconds(lambda: listening.on_train_batch_end(0, logs)), microseconds(direct)
    return [
        f"| ten callbacks that override nothing | {none:.2f} µs per batch |",
        f"| ten that override one batch hook | {one:.2f} µs, {one / by_hand:.2f} times ten direct calls |",
    ]


def import_row() -> str:
    """Return the row on the time of importing the callbacks, in fresh processes."""
    code = "import time; start = time.perf_counter(); import oncue.callbacks; print(time.perf_counter() - start)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(7)
    ]
    return f"| `import oncue.callbacks` | {statistics.median(times) * 1e3:.0f} ms |"


def stack_row(rounds: int) -> str:
    """Return the row on the full stack of callbacks, on the MLP."""
    workload = WORKLOADS[0]
    x, y = workload.data()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def way(callbacks: Callable[[], list[Any]]) -> Callable[[], object]:
        model = keras_layers(workload)
        model.compile("adam", loss, metrics=["accuracy"])
        return lambda: model.fit(
            x, y, batch_size=128, epochs=3, validation_data=(x[:1280], y[:1280]), verbose=0, callbacks=callbacks()
        )

    with tempfile.TemporaryDirectory() as folder:

        def stack() -> list[Any]:
            wanted: list[Any] = [ReadsLoss(), keras.callbacks.CSVLogger(Path(folder) / "log.csv")]
            for name, arguments in (
                ("EarlyStopping", {"patience": 100, "restore_best_weights": True}),
                ("ReduceLROnPlateau", {"patience": 50}),
                ("TensorBoard", {"log_dir": f"{folder}/logs", "write_graph": False}),
            ):
                if hasattr(keras.callbacks, name):
                    wanted.append(getattr(keras.callbacks, name)(**arguments))
            return wanted

        bare, full = way(list), way(stack)
        bare(), full()
        ratios = []
        for _ in range(rounds):
            plain = seconds(bare)
            ratios.append(seconds(full) / plain)
        names = ", ".join(type(callback).__name__ for callback in stack())
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"| {names} | {middle:.3f} times bare `fit` (middle half {low:.2f} to {high:.2f}) |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print("| what | cost |\n|---|---|")
    print("\n".join([*dispatch_rows(), import_row(), stack_row(options.rounds)]))


if __name__ == "__main__":
    main()
