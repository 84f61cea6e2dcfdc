"""Small files in place of the data sets that scripts load, and scripts with oncue, or Keras, in their imports."""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from oncue.datasets import boston_housing, imdb, mnist, reuters

SCRIPTS = Path(__file__).parent / "generations" / "scripts"
GENERATIONS = ("keras_1", "keras_2", "tf_keras", "keras_3")


def _lists(count: int, most: int) -> Any:
    random = np.random.default_rng(count)
    made = np.empty(count, dtype=object)
    for at in range(count):
        made[at] = random.integers(1, most, size=4 + at % 9).tolist()
    return made


def _files() -> dict[str, tuple[Any, dict[str, Any]]]:
    random = np.random.default_rng(0)
    digits, labels = random.integers(0, 256, (48, 28, 28), dtype="uint8"), (np.arange(48) % 10).astype("uint8")
    return {
        "mnist.npz": (
            mnist,
            {"x_train": digits[:40], "y_train": labels[:40], "x_test": digits[40:], "y_test": labels[40:]},
        ),
        "imdb.npz": (
            imdb,
            {
                "x_train": _lists(16, 40),
                "y_train": np.arange(16) % 2,
                "x_test": _lists(8, 40),
                "y_test": np.arange(8) % 2,
            },
        ),
        "reuters.npz": (reuters, {"x": _lists(40, 30), "y": np.arange(40) % 4}),
        "boston_housing.npz": (boston_housing, {"x": random.random((12, 13)), "y": random.random(12)}),
    }


def put_data(home: Path, monkeypatch: Any) -> None:
    """Put the files into a cache, and tell the loaders their hashes."""
    (home / "datasets").mkdir()
    for name, (module, arrays) in _files().items():
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        (home / "datasets" / name).write_bytes(buffer.getvalue())
        monkeypatch.setattr(module, "_SHA256", hashlib.sha256(buffer.getvalue()).hexdigest())
    monkeypatch.setenv("KERAS_HOME", str(home))


def with_oncue(source: str) -> str:
    """Return a script that imports oncue in place of Keras and TensorFlow."""
    source = re.sub(r"^(\s*)import tensorflow as tf\b", r"\1import oncue as tf", source, flags=re.M)
    source = re.sub(r"^(\s*)import keras$", r"\1import oncue as keras", source, flags=re.M)
    return re.sub(r"^(\s*)(import|from) (?:tensorflow|keras)\b(?!_)", r"\1\2 oncue", source, flags=re.M)


def with_keras(source: str) -> str:
    """Return a script for tf.keras that imports the real Keras."""
    tf = r"\1import keras, types; tf = types.SimpleNamespace(keras=keras)"
    source = re.sub(r"^(\s*)import tensorflow as tf\b", tf, source, flags=re.M)
    source = re.sub(r"^(\s*)from tensorflow import keras", r"\1import keras", source, flags=re.M)
    return re.sub(r"^(\s*)from tensorflow\.keras", r"\1from keras", source, flags=re.M)
