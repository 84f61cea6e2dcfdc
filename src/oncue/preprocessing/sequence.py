"""Sequences: `pad_sequences`, and the `TimeseriesGenerator` of Keras 2."""

from __future__ import annotations

from typing import Any

from oncue.keras_names import elsewhere


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.preprocessing.sequence", name)
