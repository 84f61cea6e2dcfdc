"""Small data sets for trying out models."""

from __future__ import annotations

from typing import Any

from oncue.datasets import digits, fashion_mnist, mnist
from oncue.keras_names import elsewhere

__all__ = ["digits", "fashion_mnist", "mnist"]


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.datasets", name)
