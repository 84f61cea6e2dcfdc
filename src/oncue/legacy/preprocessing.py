"""What Keras 1 and 2 prepared pictures, sequences and texts with: Keras 3 still has it, for code of TensorFlow's time."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from oncue.legacy.preprocessing_names import PREPROCESSING

_NEEDS = {
    **dict.fromkeys(("DirectoryIterator", "ImageDataGenerator"), "PIL"),
    **dict.fromkeys(
        (
            *("apply_affine_transform", "apply_channel_shift", "random_channel_shift"),
            *("random_rotation", "random_shear", "random_shift", "random_zoom"),
        ),
        "scipy",
    ),
}
"""What a helper can't do without, beside Keras."""


def __getattr__(name: str) -> Any:
    place = next((old for old in PREPROCESSING if old.rpartition(".")[2] == name), None)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from oncue.keras_names import load_keras

    if name in _NEEDS and find_spec(_NEEDS[name]) is None:
        raise ImportError(
            f"`{name}` needs {_NEEDS[name]}, which is not installed; run `pip install 'oncue[preprocessing]'`."
        )
    load_keras(place)
    module = place.removeprefix("oncue.").rpartition(".")[0]
    # The names for code that was written for `tf.keras`; nothing of TensorFlow is needed.
    return getattr(importlib.import_module(f"keras._tf_keras.keras.{module}"), name)
