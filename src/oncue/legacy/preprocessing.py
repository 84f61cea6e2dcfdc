"""What Keras 1 and 2 prepared pictures, sequences and texts with: Keras 3 still has it, for code of TensorFlow's time."""

from __future__ import annotations

import importlib
from typing import Any

from oncue.legacy.preprocessing_names import PREPROCESSING


def __getattr__(name: str) -> Any:
    place = next((old for old in PREPROCESSING if old.rpartition(".")[2] == name), None)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from oncue.keras_names import load_keras

    load_keras(place)
    module = place.removeprefix("oncue.").rpartition(".")[0]
    # The names for code that was written for `tf.keras`; nothing of TensorFlow is needed.
    return getattr(importlib.import_module(f"keras._tf_keras.keras.{module}"), name)
