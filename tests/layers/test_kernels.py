"""Kernels that torch keeps in another order of axes are read and changed in Keras's order, wherever they are reached."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor, to_numpy
from oncue import layers

MADE: dict[str, tuple[Callable[[Any], Any], tuple[int, ...], tuple[str, ...]]] = {
    "Conv1D": (lambda home: home.Conv1D(4, 3), (2, 9, 2), ("kernel",)),
    "Conv2D": (lambda home: home.Conv2D(4, (2, 3), groups=2), (2, 8, 9, 2), ("kernel",)),
    "SimpleRNN": (lambda home: home.SimpleRNNCell(4), (2, 3), ("kernel", "recurrent_kernel")),
    "LSTM": (lambda home: home.LSTMCell(4), (2, 3), ("kernel", "recurrent_kernel")),
    "GRU": (lambda home: home.GRUCell(4), (2, 3), ("kernel", "recurrent_kernel")),
}


def built(name: str) -> Any:
    make, shape, _ = MADE[name]
    layer = make(layers)
    layer.build((None, *shape[1:]))
    return layer


@pytest.mark.parametrize("name", MADE)
def test_what_changes_them(name: str) -> None:
    layer = built(name)
    for attribute in MADE[name][2]:
        kernel = getattr(layer, attribute)
        values = np.random.default_rng(0).normal(size=kernel.shape).astype("float32")

        def holds(expected: Any, attribute: str = attribute) -> None:
            np.testing.assert_allclose(to_numpy(getattr(layer, attribute)), expected, rtol=1e-6)
            index = [weight.name for weight in layer.weights].index(attribute)
            np.testing.assert_allclose(layer.get_weights()[index], expected, rtol=1e-6)

        kernel.assign(values)
        holds(values)
        kernel.data.mul_(2)
        holds(values * 2)
        with torch.no_grad():
            kernel.div_(2)
        holds(values)
        kernel[0] = 3.0
        holds(values := np.concatenate([np.full_like(values[:1], 3), values[1:]]))
        kernel += 1
        holds(values + 1)
        kernel.data = tensor(values)
        holds(values)
        with pytest.raises(ValueError, match="must have the shape"):
            kernel.assign(values.T[..., None])


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)), lambda layer: layer.double()]
)
def test_copies_and_moves_keep_them(way: Any) -> None:
    layer = built("Conv2D")
    again = way(layer)
    np.testing.assert_array_equal(to_numpy(again.kernel), to_numpy(layer.kernel))
    again.kernel.assign(np.zeros(again.kernel.shape))
    assert not again.stored("kernel").any() and (again is layer or bool(layer.stored("kernel").any()))


def test_an_augmented_assignment_at_the_layer_keeps_the_weight() -> None:
    layer = built("Conv1D")
    before, stored = to_numpy(layer.kernel), layer.stored("kernel")
    layer.kernel *= 2
    np.testing.assert_array_equal(to_numpy(layer.kernel), before * 2)
    assert layer.stored("kernel") is stored and len(layer.weights) == 2


def test_gradients_and_freezing() -> None:
    layer = built("Conv2D")
    layer(tensor(np.ones((1, 8, 9, 2), "float32"))).sum().backward()
    assert layer.kernel.grad.shape == layer.kernel.shape
    layer.kernel.grad = None
    assert layer.stored("kernel").grad is None
    layer.kernel.requires_grad = False
    assert not layer.stored("kernel").requires_grad and not layer.kernel.trainable
    layer.kernel.requires_grad_(True)
    assert layer.kernel.requires_grad


def test_a_layer_of_the_user_reads_the_kernel_of_a_layer_inside() -> None:
    class Tied(layers.Layer):  # type: ignore[misc]  # imported when first asked for
        def __init__(self) -> None:
            super().__init__()
            self.window = layers.Conv1D(2, 1, use_bias=False)

        def call(self, inputs: torch.Tensor) -> Any:
            return torch.matmul(self.window(inputs), self.window.kernel[0].T)

    model = oncue.Sequential([layers.Input((5, 3)), Tied()])
    model.compile("sgd", "mse")
    before = model.get_weights()[0]
    model.fit(np.ones((4, 5, 3)), np.zeros((4, 5, 3)), verbose=0)
    assert model.output_shape == (None, 5, 3) and not np.array_equal(before, model.get_weights()[0])
