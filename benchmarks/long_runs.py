"""Times what a backup costs in a run that has done many epochs already: python benchmarks/long_runs.py

For each number of epochs before: microseconds that training waits for a state, milliseconds in which it is written behind, and
its size. Each figure is the minimum of several epochs. The state has a History of five values, a journal of an entry for each
epoch, and the rows of a CSVLogger.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from oncue.callbacks import CallbackList, CSVLogger, History
from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.training_state import TrainingState

NAMES = ("accuracy", "learning_rate", "loss", "val_accuracy", "val_loss")


def measured(epochs: int, folder: Path, limit: int, measured_epochs: int = 50) -> tuple[float, float, int]:
    history, logger = History(), CSVLogger(folder / f"{epochs}.csv")
    callbacks, snapshot, path = CallbackList([history, logger]), Snapshot(), folder / "state"
    callbacks.journal.limit = limit
    callbacks.on_train_begin()

    def one(epoch: int) -> None:
        callbacks.on_epoch_begin(epoch)
        data = {"before": 0.1, "after": 0.1 / (epoch + 1)}
        callbacks.journal.write("Mine", "noted", epoch=epoch, data=data)
        callbacks.on_epoch_end(epoch, {name: 1.0 / (epoch + place + 1) for place, name in enumerate(NAMES)})

    for epoch in range(epochs):
        one(epoch)
    waits, writes = [], []
    for epoch in range(epochs, epochs + measured_epochs):
        one(epoch)
        began = time.perf_counter()
        parts = {
            "callbacks": {"History": history.state_dict(), "CSVLogger": logger.state_dict()},
            "journal": callbacks.journal.state_dict(),
        }
        frozen = TrainingState({}, epoch=epoch, parts=parts).freeze(snapshot)
        taken = time.perf_counter()
        frozen.write(path)
        waits.append(taken - began)
        writes.append(time.perf_counter() - taken)
    callbacks.close()
    return min(waits) * 1e6, min(writes) * 1e3, path.stat().st_size


def main() -> None:
    print("| epochs before | training waits, us | written in, ms | bytes |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for epochs in (10, 1000, 10_000, 100_000):
            waits, writes, size = measured(epochs, Path(folder), limit=100_000)
            print(f"| {epochs} | {waits:.0f} | {writes:.1f} | {size} |")


if __name__ == "__main__":
    main()
