"""What saving and reading a model of 200 MB takes of each process's memory, and how much of the files each reads."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from distribution.sharded_runs import sharded

import oncue as keras
from oncue import layers
from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.writer import Writer
from oncue.saving import formats

WIDTH, DEPTH = 2048, 12
WHOLE = WIDTH * WIDTH * DEPTH * 4
"""The bytes of the model."""


def of_200_mb() -> Any:
    parts = [layers.Dense(WIDTH, use_bias=False, kernel_initializer="ones") for _ in range(DEPTH)]
    model = keras.Sequential([layers.Input((WIDTH,)), *parts])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    rows = np.zeros((3, WIDTH), "float32")
    model.fit(rows, rows, batch_size=3, verbose=0)
    return model


def _told(file: str, name: str) -> int:
    lines = Path("/proc/self", file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def measured(action: Callable[[], object]) -> dict[str, float]:
    """Return how far the memory rises while something is done, and how much is read, as parts of the model."""
    gc.collect()
    # The peak begins anew.
    Path("/proc/self/clear_refs").write_text("5")
    memory, read = _told("status", "VmRSS:"), _told("io", "rchar:")
    action()
    return {
        "memory": (_told("status", "VmHWM:") - memory) * 1024 / WHOLE,
        "read": (_told("io", "rchar:") - read) / WHOLE,
    }


def _saves(folder: Path) -> dict[str, Any]:
    model, found = of_200_mb(), {}
    for name in ("whole.safetensors", "whole.keras", "whole.weights.h5"):
        # As ModelCheckpoint with `asynchronous=True` saves.
        snapshot, writer = Snapshot(), Writer("a save")

        def save(name: str = name, snapshot: Any = snapshot, writer: Any = writer) -> None:
            weights_only = not name.endswith(".keras")
            write = formats.prepare_save(model, folder / name, weights_only=weights_only, snapshot=snapshot)
            writer.submit(write)
            del write
            writer.wait()

        found[f"later {name}"] = measured(save)
        del snapshot, writer
        save_now = model.save if name.endswith(".keras") else model.save_weights
        found[f"now {name}"] = measured(partial(save_now, folder / name))
        model.evaluate(np.zeros((3, WIDTH)), np.zeros((3, WIDTH)), verbose=0)
    return found


def _parts(folder: Path) -> dict[str, Any]:
    model = of_200_mb()
    return {"parts": measured(lambda: model.save_weights(folder.parent / "saved.shards"))}


def _reads(folder: Path) -> dict[str, Any]:
    model = of_200_mb()
    return {"parts": measured(lambda: model.load_weights(folder.parent / "saved.shards"))}


sharded_saves, sharded_parts, sharded_reads = sharded(_saves), sharded(_parts), sharded(_reads)
