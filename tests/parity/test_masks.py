"""What layers make of masked inputs beside the real Keras: values and masks, over every combination of masks."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from helpers import tensor, to_numpy
from oncue import layers, metrics

Mask = NDArray[np.bool_] | None

MASKS: dict[str, Mask] = {
    "none": None,
    "some": np.array([[1, 1, 0, 0], [1, 0, 1, 1]], bool),
    "others": np.array([[0, 1, 1, 0], [1, 1, 0, 0]], bool),
    "nothing": np.zeros((2, 4), bool),
    "a row": np.array([[0, 0, 0, 0], [1, 1, 1, 0]], bool),
}


def masked(values: NDArray[Any], mask: Mask) -> torch.Tensor:
    made = tensor(values)
    if mask is not None:
        made._keras_mask = tensor(mask)  # type: ignore[attr-defined]  # as Keras's layers leave it
    return made


def same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), atol=1e-5)
    masks = [getattr(outputs, "_keras_mask", None) for outputs in (found, expected)]
    assert (masks[0] is None) == (masks[1] is None)
    if masks[0] is not None:
        np.testing.assert_array_equal(to_numpy(masks[0]), to_numpy(masks[1]))


ELEMENTWISE = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")


@pytest.mark.parametrize(
    ("name", "arguments", "width"),
    [
        *((name, {}, width) for name in ELEMENTWISE for width in (3, 1)),
        *(("Concatenate", {"axis": axis}, 3) for axis in (-1, 0, 1)),
        ("Concatenate", {}, 1),
    ],
)
def test_merged(keras: ModuleType, name: str, arguments: dict[str, Any], width: int) -> None:
    drawn = np.random.default_rng(0)
    parts = [drawn.normal(size=shape).astype("float32") for shape in ((2, 4, 3), (2, 4, width), (2, 4, 3))]
    for masks in itertools.product(MASKS.values(), repeat=2):
        results = []
        for home in (layers, keras.layers):
            inputs = [masked(part, mask) for part, mask in zip(parts, masks, strict=False)]
            results.append(getattr(home, name)(**arguments)(inputs))
        same(*results)
    if name != "Subtract":
        three = (MASKS["some"], MASKS["others"], None)
        same(
            *(
                getattr(home, name)()([masked(p, m) for p, m in zip(parts, three, strict=True)])
                for home in (layers, keras.layers)
            )
        )


@pytest.mark.parametrize("axis", [-1, 1, (1, 2), [2]])
@pytest.mark.parametrize("shape", [(2, 4, 3), (2, 4, 1), (1, 4, 3), (4, 3)])
def test_softmax(keras: ModuleType, axis: Any, shape: tuple[int, ...]) -> None:
    drawn = np.random.default_rng(0)
    inputs = drawn.normal(size=(2, 4, 3)).astype("float32")
    for mask in (drawn.random(shape) > 0.4, np.zeros(shape, bool), drawn.random(shape).astype("float32")):
        found, expected = (
            home.Softmax(axis=axis)(tensor(inputs), mask=tensor(mask)) for home in (layers, keras.layers)
        )
        np.testing.assert_allclose(to_numpy(found), to_numpy(expected), atol=1e-6)


def test_softmax_refuses_a_mask_that_does_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"`mask` of .* must broadcast.*\(2, 4\).*\(2, 4, 3\).*mask\[\.\.\., None\]"):
        layers.Softmax()(tensor(np.zeros((2, 4, 3), "float32")), mask=tensor(np.ones((2, 4), bool)))


@pytest.mark.parametrize("dtype", [None, "float64"])
@pytest.mark.parametrize("given", ["float32", "float64"])
@pytest.mark.parametrize("weights", [None, (8,), (8, 1)])
def test_an_ignored_class_in_a_metric(keras: ModuleType, dtype: Any, given: str, weights: Any) -> None:
    drawn = np.random.default_rng(0)
    labels, outputs = np.array([0, 1, 2, 1, 1, 2, 1, 0]), np.exp(drawn.normal(size=(8, 3))).astype(given)
    factors = None if weights is None else drawn.uniform(size=weights)
    results = []
    for home in (metrics, keras.metrics):
        metric = home.MeanMetricWrapper(home.sparse_categorical_crossentropy, dtype=dtype, ignore_class=0)
        metric.update_state(tensor(labels), tensor(outputs), None if factors is None else tensor(factors))
        results.append(to_numpy(metric.result()))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
