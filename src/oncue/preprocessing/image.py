"""Pictures: Keras's functions, and the `ImageDataGenerator` of Keras 1 and 2."""

from __future__ import annotations

from typing import Any

from oncue.keras_names import elsewhere


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.preprocessing.image", name)
