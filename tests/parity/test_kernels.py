"""Kernels beside those of the real Keras, as a layer's attribute: shapes, values, arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from helpers import to_numpy
from oncue import layers

MADE: dict[str, tuple[Callable[[Any], Any], tuple[int, ...], tuple[str, ...]]] = {
    "Conv1D": (lambda home: home.Conv1D(4, 3), (2, 9, 2), ("kernel",)),
    "Conv2D": (lambda home: home.Conv2D(4, (2, 3), groups=2), (2, 8, 9, 2), ("kernel",)),
    "SimpleRNN": (lambda home: home.SimpleRNNCell(4), (2, 3), ("kernel", "recurrent_kernel")),
    "LSTM": (lambda home: home.LSTMCell(4), (2, 3), ("kernel", "recurrent_kernel")),
    "GRU": (lambda home: home.GRUCell(4), (2, 3), ("kernel", "recurrent_kernel")),
    "Dense": (lambda home: home.Dense(4), (2, 3), ("kernel",)),
}


def built(name: str) -> Any:
    make, shape, _ = MADE[name]
    layer = make(layers)
    layer.build((None, *shape[1:]))
    return layer


@pytest.mark.parametrize("name", MADE)
def test_shapes_beside_keras(keras: ModuleType, name: str) -> None:
    make, shape, kernels = MADE[name]
    theirs, ours = make(keras.layers), built(name)
    theirs.build((None, *shape[1:]))
    ours.set_weights(theirs.get_weights())
    for attribute in kernels:
        expected, found = getattr(theirs, attribute), getattr(ours, attribute)
        assert tuple(found.shape) == tuple(expected.shape)
        np.testing.assert_array_equal(to_numpy(found.detach()), to_numpy(expected))
        np.testing.assert_array_equal(to_numpy((found * 2).detach()), to_numpy(expected * 2))
        assert found[0].shape == expected[0].shape
        assert float(torch.linalg.norm(found.detach())) == pytest.approx(float(np.linalg.norm(to_numpy(expected))))
