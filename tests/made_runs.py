"""Runs of any length, made by calling the hooks of a list without a model."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import torch

from oncue.callbacks import Callback, CallbackList, CSVLogger, JournalLogger


class Decides(Callback):
    """Notes decisions of every kind."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        period = max(1, (self.params or {})["epochs"] // 6)
        if epoch and epoch % period == 0:
            before, after = 0.1 * 0.5 ** (epoch // period - 1), 0.1 * 0.5 ** (epoch // period)
            self._decided(
                "learning_rate",
                "plateau",
                **{"before": before, "after": after, "optimizer": "", "monitor": "val_loss", "value": 0.5},
                **{"best": 0.4, "min_delta": 0.0, "direction": "down", "wait": 3},
            )
        if epoch % (2 * period) == 0:
            self._decided(
                "best", "best_file", path=f"best-{epoch}.keras", monitor="val_loss", score=logs["val_loss"], before=None
            )


class Weights:
    """The tensors of a model that learns: those of a layer spread out, half of another's become zeros."""

    stop_training = False

    def __init__(self) -> None:
        self.part = 0.0

    def tensors(self) -> dict[str, torch.Tensor]:
        body = torch.linspace(-1, 1, 101) * (0.5 + self.part)
        return {"body.weight": body, "body.bias": body[:5] + 1, "head.weight": torch.relu(body - self.part * 0.4)}


def values(epoch: int, epochs: int) -> dict[str, float]:
    """Return the logs of an epoch of a run that overfits a little, with one value far from all others."""
    part, noise = epoch / max(epochs - 1, 1), random.Random(epoch).gauss(0, 0.01)
    loss = 2.3 * math.exp(-5 * part) + 0.05 + abs(noise)
    validation = 2.3 * math.exp(-5 * part) + 0.2 + 0.3 * max(0.0, part - 0.6) + abs(noise)
    if epoch == epochs // 2 and epochs > 10:
        validation = 90.0
    accuracy = 1 - 0.8 * math.exp(-6 * part) - abs(noise)
    rate = 0.1 * 0.5 ** (6 * epoch // epochs)
    return {
        "loss": loss,
        "accuracy": accuracy,
        "grad_norm": 3 * loss,
        "val_loss": validation,
        "val_accuracy": accuracy - 0.03,
        "learning_rate": rate,
    }


def make(folder: Path, epochs: int, stop_after: int | None = None) -> Path:
    """Leave a run in a folder: interrupted and resumed in its middle.

    Args:
        folder: The folder.
        epochs: How many epochs.
        stop_after: Leave it interrupted after so many.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = epochs // 2
    state = None
    for first, last in ((0, half), (half, epochs if stop_after is None else stop_after)):
        logger, weights = JournalLogger(folder / "journal.jsonl", max(1, epochs // 40)), Weights()
        log = CSVLogger(folder / "log.csv", append=first > 0)
        listed = CallbackList([Decides(), logger, log], model=weights, epochs=epochs)
        try:
            with listed.run():
                listed.on_train_begin()
                if state is not None:
                    logger.load_state_dict(state)
                for epoch in range(first, last):
                    weights.part = epoch / epochs
                    listed.on_epoch_begin(epoch)
                    listed.on_epoch_end(epoch, values(epoch, epochs))
                state = logger.state_dict()
                if last < epochs:
                    # What comes after the state was saved is taken back.
                    listed.on_epoch_begin(last)
                    listed.on_epoch_end(last, values(last, epochs))
                    raise KeyboardInterrupt
                listed.on_train_end()
        except KeyboardInterrupt:
            pass
    return folder
