"""Oncue's TensorBoard callback in real Keras's own loop, where Keras's needs TensorFlow."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import oncue


def _fit(k: Any, folder: Path) -> tuple[dict[str, list[int]], set[str]]:
    """Return each tag's steps, and the other files, of the same run under `k`."""
    layers = k.layers
    built = k.Sequential(
        [layers.Input((3,)), layers.Embedding(10, 2, name="words"), layers.Flatten(), layers.Dense(1, name="last")],
        name="m",
    )
    built.compile("sgd", "mse", metrics=["mae"])
    x, y = np.arange(24).reshape(8, 3) % 10, np.ones((8, 1), "float32")
    callback = oncue.callbacks.TensorBoard(
        folder, histogram_freq=1, write_images=True, update_freq="batch", write_grads=True, embeddings_freq=1
    )
    if not hasattr(built, "save_weights"):
        built.save_weights = lambda path: Path(path).touch()
    built.fit(x, y, epochs=2, batch_size=4, verbose=0, validation_data=(x, y), callbacks=[callback])
    steps = {}
    for run in ("train", "validation"):
        events = EventAccumulator(str(folder / run), size_guidance={"tensors": 0})
        events.Reload()
        for tag in events.Tags()["tensors"]:
            steps[f"{run}: {tag}"] = [event.step for event in events.Tensors(tag)]
    others = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and ".tf" not in path.name}
    return steps, others


def test_the_same_files_in_both_loops(keras: ModuleType, tmp_path: Path) -> None:
    ours, our_files = _fit(oncue, tmp_path / "oncue")
    theirs, their_files = _fit(keras, tmp_path / "keras")
    assert ours == theirs
    assert our_files == their_files
    assert ours["train: m/last/kernel_grad/histogram"] == [0, 1]
    assert ours["train: batch_mae"] == [1, 2, 3, 4]
    assert ours["validation: evaluation_loss_vs_iterations"] == [2, 4]
