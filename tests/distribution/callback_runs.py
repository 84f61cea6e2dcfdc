"""Runs of two processes with callbacks whose work is shared between them: each function returns what came of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

import oncue as keras
from oncue import layers
from oncue.callbacks import (
    BackupAndRestore,
    BatchSizeFinder,
    Callback,
    EarlyStopping,
    LambdaCallback,
    MixUp,
    PredictionWriter,
)
from oncue.cli import main

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")
Y = RNG.normal(size=(40, 1)).astype("float32")
RANK = int(os.environ.get("RANK", "0"))


def fit(*callbacks: Any, rate: float = 0.05, epochs: int = 3, **options: Any) -> dict[str, Any]:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([layers.Input((6,)), layers.Dense(5, activation="tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "mse")
    history = model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=list(callbacks), **options)
    return {
        "history": history.history,
        "weights": [weight.tolist() for weight in model.get_weights()],
        "journal": [str(entry) for entry in history.journal],
    }


def finder(folder: Path) -> str:
    try:
        fit(BatchSizeFinder())
    except ValueError as error:
        return str(error)
    return "it has tested sizes"


def predictions(folder: Path) -> dict[str, Any]:
    model = keras.Sequential([layers.Input((6,)), layers.Dense(2)])
    # Of the last batch one process has no row.
    written = model.predict(X[:17], batch_size=8, verbose=0, callbacks=[PredictionWriter(folder / "all.npz")])
    found = fit(PredictionWriter(folder / "{epoch}.csv", every=2), validation_split=0.2)
    names = sorted(path.name for path in folder.iterdir()) if RANK == 0 else []
    whole = np.load(folder / "all.npz")["output"].tolist() if RANK == 0 else written.tolist()
    rows = (folder / "2.csv").read_text().splitlines() if RANK == 0 else []
    return {"written": written.tolist(), "whole": whole, "names": names, "rows": len(rows), "history": found["history"]}


def mixed(folder: Path) -> dict[str, Any]:
    kept: list[Any] = []

    class Keeps(Callback):
        def change_batch(self, x: Any, y: Any, sample_weight: Any) -> Any:
            kept.append(x.tolist())
            return x, y, sample_weight

    before = fit(MixUp(1.0), Keeps(), BackupAndRestore(folder / "whole", save_freq=2))
    whole, kept = kept, []

    def cut(epoch: int, logs: Any) -> None:
        if epoch == 1:
            raise ConnectionError("power cut")

    try:
        fit(MixUp(1.0), Keeps(), BackupAndRestore(folder / "cut", save_freq=2), LambdaCallback(on_epoch_begin=cut))
    except ConnectionError:
        pass
    after = fit(MixUp(1.0), Keeps(), BackupAndRestore(folder / "cut", save_freq=2))
    return {"before": before, "after": after, "seen": whole, "again": kept}


def forked(folder: Path) -> dict[str, Any]:
    stop = EarlyStopping("loss", patience=9)
    whole = fit(stop, BackupAndRestore(folder / "one", keep="all"))
    if RANK == 0:
        assert main(["fork", str(folder / "one"), "--epoch", "2", str(folder / "two")]) == 0
    again = fit(stop, BackupAndRestore(folder / "two"))
    return {"whole": whole, "again": again}
