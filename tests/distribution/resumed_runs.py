"""Runs of several processes that are interrupted, and go on when they are started again."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch

import oncue as keras
from helpers import tensor
from oncue import layers
from oncue.callbacks import (
    BackupAndRestore,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    Preempted,
    Preemption,
    TerminateOnNaN,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(45, 6)).astype("float32")
Y = RNG.normal(size=(45, 1)).astype("float32")
RANK = int(os.environ.get("RANK", "0"))
"""The number of the process that this module is imported in."""


def run(
    folder: Path,
    *more: Any,
    noise: bool = False,
    backup: str = "backup",
    every: str = "2 steps",
    clear: bool = True,
    split: float = 0.2,
    url: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Train for four epochs of five batches, with a backup and a log."""
    if clear:
        keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    hidden = [layers.Dense(5, activation="tanh"), *([layers.Dropout(0.3)] if noise else [])]
    model = keras.Sequential([layers.Input((6,)), *hidden, layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    data = options.pop("data", (X, Y))
    history = model.fit(
        *data,
        batch_size=8 if split else None,
        epochs=4,
        verbose=0,
        validation_split=split,
        callbacks=[
            BackupAndRestore(url or folder / backup, every=every),
            EarlyStopping("val_loss" if split else "loss", patience=3, restore_best_weights=True),
            CSVLogger(folder / f"{backup}.csv"),
            *more,
        ],
        **options,
    )
    log = (folder / f"{backup}.csv").read_text() if RANK == 0 else ""
    return {"history": history.history, "weights": [one.tolist() for one in model.get_weights()], "log": log}


def interrupted(folder: Path, rank: int, step: int, **options: Any) -> str:
    """Train until a process gets a signal after some steps; return how the run ended here."""

    def send(batch: int, logs: Any) -> None:
        if steps.model.optimizer.iterations == step and rank == RANK:
            os.kill(os.getpid(), signal.SIGUSR1)

    steps = LambdaCallback(on_train_batch_end=send)
    try:
        run(folder, steps, Preemption(action="raise"), **options)
    except Preempted as ended:
        return str(ended)
    return "the run ended by itself"


def exactly(folder: Path) -> dict[str, Any]:
    """To the bit, in the middle of an epoch, with noise of each process's own."""
    whole = run(folder, noise=True, backup="whole")
    ended = interrupted(folder, rank=1, step=7, noise=True)
    return {"whole": whole, "ended": ended, "resumed": run(folder, noise=True)}


def at_url(folder: Path) -> dict[str, Any]:
    """With a backup at a URL."""
    whole = run(folder, backup="whole")
    url = (folder / "states").as_uri()
    ended = interrupted(folder, rank=1, step=7, url=url)
    # The main process has written when it comes here.
    left = sorted(path.name for path in folder.glob("states/*")) if RANK == 0 else []
    resumed = run(folder, url=url)
    return {
        "whole": whole,
        "ended": ended,
        "resumed": resumed,
        "left": left,
        "after": [path.name for path in folder.glob("states/*")] if RANK == 0 else [],
    }


def noise_differs(folder: Path) -> dict[str, Any]:
    """Each process draws its own masks, and all go on with the same random state."""
    drawn: list[float] = []

    seeds = keras.random.SeedGenerator(1)
    seeded: list[float] = []

    class Notes(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                drawn.append(float(torch.rand(())))
                seeded.append(float(keras.random.uniform((), seed=seeds)))
            return x

    keras.utils.set_random_seed(1)
    model = keras.Sequential([layers.Input((6,)), Notes(), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, Y, batch_size=9, epochs=2, verbose=0)
    return {"drawn": drawn, "seeded": seeded, "after": float(torch.rand(())), "numpy": float(np.random.rand())}


def noise_of_keras(folder: Path) -> dict[str, Any]:
    """Layers of the real Keras with a seed draw for the rows of each process, in a model of theirs and in one of ours."""
    import keras as real

    noted: list[float] = []

    class Notes(real.layers.Layer):  # type: ignore[misc]
        def call(self, x: Any, training: bool = False) -> Any:
            if training:
                noted.append(float(x.detach().sum()))
            return x

    def noise() -> list[Any]:
        return [real.layers.GaussianNoise(1.0, seed=4), real.layers.Dropout(0.5, seed=5), Notes()]

    theirs = keras.Model(real.Sequential([real.layers.Input((6,)), *noise(), real.layers.Dense(1)]))
    ours = keras.Sequential([layers.Input((6,)), *noise(), layers.Dense(1)])
    found = {}
    for name, model in {"theirs": theirs, "ours": ours}.items():
        model.compile("sgd", "mse")
        noted.clear()
        # Equal rows, so that nothing but noise differs.
        model.fit(np.ones((16, 6)), np.ones((16, 1)), batch_size=8, epochs=2, verbose=0)
        found[name] = [*noted]
        noted.clear()
        model(tensor(np.ones((8, 6))), training=True)
        found[f"{name} alone"] = [*noted]
    return found


def one_stops(folder: Path) -> dict[str, Any]:
    """What a callback of one process asks for, all do after the next step."""

    def stop(batch: int, logs: Any) -> None:
        if asks.model.optimizer.iterations == 7 and RANK == 1:
            asks.model.stop_training = True

    asks = LambdaCallback(on_train_batch_end=stop)
    history = run(folder, asks)["history"]
    return {"epochs": len(history["loss"]), "steps": int(asks.model.optimizer.iterations)}


def loaded(folder: Path) -> dict[str, Any]:
    """From a loader with workers, whose rows each process loads alone."""
    pairs = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))

    def loader() -> dict[str, Any]:
        return {"data": (torch.utils.data.DataLoader(pairs, 9, shuffle=True, num_workers=2),), "split": 0.0}

    whole = run(folder, backup="whole", **loader())
    ended = interrupted(folder, rank=1, step=7, **loader())
    return {"whole": whole, "ended": ended, "resumed": run(folder, **loader())}


def other_names(folder: Path) -> dict[str, Any]:
    """The main process has made one more model in the run that went on, and another two in the one before."""

    def names(models: int) -> None:
        keras.backend.clear_session()
        for _ in range(models if RANK == 0 else 0):
            keras.Sequential([layers.Input((6,)), layers.Dense(1)])

    whole = run(folder, backup="whole")
    names(2)
    ended = interrupted(folder, rank=1, step=7, clear=False)
    names(1)
    return {"whole": whole, "ended": ended, "resumed": run(folder, clear=False)}


def not_a_number(folder: Path) -> dict[str, Any]:
    """A value that one process sees ends all."""
    y = Y.copy()
    y[3] = np.nan
    stop = TerminateOnNaN()
    history = run(folder, stop, data=(X, y), shuffle=False)["history"]
    return {"epochs": len(history["loss"]), "steps": int(stop.model.optimizer.iterations)}


def not_a_number_saved(folder: Path) -> dict[str, Any]:
    """A loss that one process alone finds not finite keeps all from saving."""
    y = Y.copy()
    y[3] = np.nan
    run_ended = interrupted(folder, rank=1, step=1, data=(X, y), shuffle=False, every="1 step")
    history = run(folder, backup="other", data=(X, y), shuffle=False, every="1 step", initial_epoch=2)["history"]
    return {"ended": run_ended, "epochs": len(history["loss"])}


def by_time(folder: Path) -> dict[str, Any]:
    """The clock of the main process says for all when to save."""
    return run(folder, every="0.01 seconds")


def interrupt_here(folder: Path) -> dict[str, Any]:
    """For a run that another number of processes goes on with."""
    return {"ended": interrupted(folder.parent, rank=0, step=7)}


def interrupt_later(folder: Path) -> dict[str, Any]:
    """Goes on with it, and is interrupted once more."""
    return {"ended": interrupted(folder.parent, rank=0, step=13)}


def resume_here(folder: Path) -> dict[str, Any]:
    """Goes on with it."""
    return run(folder.parent)


def whole_run(folder: Path) -> dict[str, Any]:
    """The same without an interruption."""
    return run(folder, backup="whole")
