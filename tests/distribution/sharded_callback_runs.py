"""A run with each built-in callback, whose processes have parts of each weight: what came of it, in the run and in files."""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distribution.equal_runs import X, Y, state_of
from distribution.sharded_runs import checked, sharded

import oncue as keras
from helpers import HopefulTrial, RemoteService
from oncue import callbacks as built_in, layers
from oncue.core.process import process

PICTURES = X.reshape(-1, 2, 3, 1)
Make = Callable[[Path], Any]
WEIGHTS = {"save_weights_only": True, "monitor": "loss"}
TABLE: dict[str, Make] = {
    "BackupAndRestore": lambda folder: built_in.BackupAndRestore(folder / "backup", delete_checkpoint=False),
    "BaseLogger": lambda folder: built_in.BaseLogger(),
    "Callback": lambda folder: built_in.Callback(),
    "Control": lambda folder: built_in.Control(folder / "control"),
    "CSVLogger": lambda folder: built_in.CSVLogger(folder / "log.csv"),
    "DeviceStats": lambda folder: built_in.DeviceStats(),
    "EarlyStopping": lambda folder: built_in.EarlyStopping(
        "loss", patience=0, min_delta=0.3, restore_best_weights=True
    ),
    "Freeze": lambda folder: built_in.Freeze("first", until_epoch=2),
    "GradientNorms": lambda folder: built_in.GradientNorms(by_weight=True),
    "History": lambda folder: built_in.History(),
    "JournalLogger": lambda folder: built_in.JournalLogger(folder / "journal.jsonl", weights_freq=1),
    "LambdaCallback": lambda folder: built_in.LambdaCallback(on_epoch_end=lambda epoch, logs: None),
    "LearningRateFinder": lambda folder: built_in.LearningRateFinder(1e-5, 1e-2, steps=20),
    "LearningRateScheduler": lambda folder: built_in.LearningRateScheduler(lambda epoch, rate: rate * 0.8),
    "ModelCheckpoint": lambda folder: built_in.ModelCheckpoint(folder / "{epoch}.weights.h5", keep=1, **WEIGHTS),
    "OptunaPruning": lambda folder: built_in.OptunaPruning(HopefulTrial(), "loss"),
    "PredictionWriter": lambda folder: built_in.PredictionWriter(folder / "{epoch}.csv"),
    "Preemption": lambda folder: built_in.Preemption(),
    "Profile": lambda folder: built_in.Profile((1, 2), folder / "profile"),
    "ProgbarLogger": lambda folder: built_in.ProgbarLogger(),
    "RayTuneReport": lambda folder: built_in.RayTuneReport(report=lambda numbers: None),
    "ReduceLROnPlateau": lambda folder: built_in.ReduceLROnPlateau("loss", patience=0, factor=0.5, min_delta=0.3),
    "RemoteMonitor": lambda folder: built_in.RemoteMonitor("http://127.0.0.1:9"),
    "RunFolder": lambda folder: built_in.RunFolder(folder / "run", resume=True),
    "StopAtThreshold": lambda folder: built_in.StopAtThreshold("loss", 9.0, times=2),
    "SwapEMAWeights": lambda folder: built_in.SwapEMAWeights(),
    "TensorBoard": lambda folder: built_in.TensorBoard(folder / "logs", histogram_freq=1, write_images=True),
    "TerminateOnNaN": lambda folder: built_in.TerminateOnNaN(action="rollback"),
    "Throughput": lambda folder: built_in.Throughput(),
    "TimeLimit": lambda folder: built_in.TimeLimit(100),
    "Tracker": lambda folder: built_in.Tracker(RemoteService()),
    "WeightAverage": lambda folder: built_in.WeightAverage(0.5),
}
NOISE = {"MixUp": lambda folder: built_in.MixUp(), "CutMix": lambda folder: built_in.CutMix()}
"""They draw other numbers on other processes."""
REFUSED = {"BatchSizeFinder": lambda folder: built_in.BatchSizeFinder(max_size=8)}


def of_layers() -> Any:
    parts = [layers.Input((2, 3, 1)), layers.Flatten(), layers.Dense(5, "tanh", name="first"), layers.Dense(1)]
    return keras.Sequential(parts)


def of_modules() -> Any:
    parts = {
        "flat": torch.nn.Flatten(),
        "first": torch.nn.Linear(6, 5),
        "bent": torch.nn.Tanh(),
        "last": torch.nn.Linear(5, 1),
    }
    return keras.Model(torch.nn.Sequential(OrderedDict(parts)))


def sharded_by_the_user() -> Any:
    from torch.distributed.fsdp import fully_shard

    model = of_modules()
    for layer in (model.module.first, model.module):
        fully_shard(layer)
    return model


def one(make: Make, folder: Path, build: Callable[[], Any]) -> dict[str, Any]:
    """Train for three epochs with a callback."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    model = build()
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9, use_ema=True), "mse", metrics=["mae"])
    with warnings.catch_warnings():
        # A server that isn't there, and what a finder has to say.
        warnings.simplefilter("ignore")
        history = model.fit(
            PICTURES, Y, batch_size=4, epochs=3, verbose=0, callbacks=[make(folder)], validation_split=0.2
        )
    found = {"history": history.history, "epochs": history.epoch, **state_of(checked(model))}
    if process.group is not None:
        process.group.together("the end of a run")
    # Parts of states have names of their own.
    found["files"] = sorted({path.relative_to(folder).parts[0] for path in folder.rglob("*")})
    return found


def all_callbacks(folder: Path, build: Callable[[], Any] = of_layers) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, make in {**TABLE, **NOISE, **REFUSED}.items():
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        try:
            found[name] = one(make, own, build)
        except ValueError as error:
            found[name] = f"{type(error).__name__}: {error}"
            continue
        measured = ("gradient_norm", "loss", "mae", "val_loss", "val_mae", "learning_rate")
        found[name]["names"] = sorted(found[name]["history"])
        found[name]["history"] = {
            key: values
            for key, values in found[name]["history"].items()
            if key.startswith(measured) and np.isfinite(values).all()
        }
        if name in NOISE:
            found[name] = [found[name]["names"], found[name]["epochs"], found[name]["files"]]
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def all_callbacks_of_modules(folder: Path) -> dict[str, Any]:
    return all_callbacks(folder, of_modules)


def all_callbacks_of_one(folder: Path) -> dict[str, Any]:
    """A process alone, whose weights are sharded all the same."""
    torch.distributed.init_process_group("gloo")
    found = all_callbacks(folder, sharded_by_the_user)
    torch.distributed.destroy_process_group()
    return found


sharded_all_callbacks = sharded(all_callbacks)
