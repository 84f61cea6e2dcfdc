"""What TensorBoard itself reads from a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util


def _read(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


@pytest.fixture
def read() -> Callable[[Path], dict[str, list[tuple[int, Any]]]]:
    """Return the function from a run's folder to the steps and values of every tag in it."""
    return _read


@pytest.fixture
def scalars() -> Callable[[Path], dict[str, list[tuple[int, float]]]]:
    """Return the function from a run's folder to the points of every curve in it."""

    def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
        return {
            tag: [(step, float(value)) for step, value in points]
            for tag, points in _read(folder).items()
            if all(np.ndim(value) == 0 and value.dtype == np.float32 for _, value in points)
        }

    return curves
