"""Data out of folders and arrays, and what Keras 2 prepared data with."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from oncue.keras_names import elsewhere

if TYPE_CHECKING:
    from oncue.preprocessing import image as image, sequence as sequence, text as text
    from oncue.preprocessing.folders import (
        image_dataset_from_directory as image_dataset_from_directory,
        text_dataset_from_directory as text_dataset_from_directory,
    )
    from oncue.preprocessing.windows import timeseries_dataset_from_array as timeseries_dataset_from_array

_HOME = {
    "image_dataset_from_directory": "folders",
    "text_dataset_from_directory": "folders",
    "timeseries_dataset_from_array": "windows",
}
_MODULES = ("image", "sequence", "text")

__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"oncue.preprocessing.{name}")
    if name not in _HOME:
        return elsewhere("oncue.preprocessing", name)
    found = getattr(importlib.import_module(f"oncue.preprocessing.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
