"""Small data sets for trying out models."""

from __future__ import annotations

from typing import Any

from oncue.datasets import (
    boston_housing,
    california_housing,
    cifar10,
    cifar100,
    digits,
    fashion_mnist,
    imdb,
    mnist,
    reuters,
)
from oncue.keras_names import elsewhere

__all__ = [
    "boston_housing",
    "california_housing",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "imdb",
    "mnist",
    "reuters",
]


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.datasets", name)
