"""Models of the real Keras in oncue's training loop. Keras, which is an extra, is imported only by what is used here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oncue.with_keras.acceleration import accelerate as accelerate
    from oncue.with_keras.files import load_model as load_model
    from oncue.with_keras.model import KerasModel as KerasModel

_NAMES = {"KerasModel": "model", "accelerate": "acceleration", "load_model": "files"}

__all__ = ["KerasModel", "accelerate", "load_model"]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"oncue.with_keras.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'oncue.with_keras' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
