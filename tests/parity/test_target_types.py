"""Targets of every type beside the real Keras: truth values, small integers and floats, as columns and as vectors."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import oncue
from helpers import tensor, to_numpy

DRAWN = np.random.default_rng(0)
LABELS = DRAWN.integers(0, 3, 12)
SCORES = DRAWN.dirichlet(np.ones(3), 12).astype("float32")
SIDES, CHANCES = DRAWN.integers(0, 2, 12), DRAWN.uniform(0.05, 0.95, (12, 1)).astype("float32")

TYPES = ("bool", "int8", "uint8", "int16", "int32", "float16", "float64")
ONE_HOT = (
    "mse",
    "huber",
    "categorical_crossentropy",
    "categorical_hinge",
    "kl_divergence",
    "cosine_similarity",
    "dice",
)
BINARY = ("mae", "binary_crossentropy", "hinge", "poisson", "binary_focal_crossentropy", "tversky")


def losses_and_metrics(home: Any, losses: tuple[str, ...], metrics: list[Any], y: NDArray[Any], p: Any) -> list[float]:
    found = []
    for name in losses:
        loss = home.losses.get(name)
        found.append(float(np.mean(to_numpy(loss(tensor(y), tensor(p))))))
    for metric in metrics:
        metric.update_state(tensor(y), tensor(p))
        found.append(float(np.sum(to_numpy(metric.result()))))
    return found


@pytest.mark.parametrize("dtype", TYPES)
def test_one_hot_targets(keras: ModuleType, dtype: str) -> None:
    y = np.eye(3)[LABELS].astype(dtype)
    found, expected = (
        losses_and_metrics(
            home,
            ONE_HOT,
            [
                home.metrics.CategoricalAccuracy(),
                home.metrics.TopKCategoricalAccuracy(2),
                home.metrics.OneHotIoU(3, [0]),
                home.metrics.AUC(),
                home.metrics.F1Score(),
                home.metrics.CategoricalCrossentropy(),
            ],
            y,
            SCORES,
        )
        for home in (oncue, keras)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", TYPES)
def test_binary_targets(keras: ModuleType, dtype: str) -> None:
    found, expected = (
        losses_and_metrics(
            home,
            BINARY,
            [
                home.metrics.BinaryAccuracy(),
                home.metrics.Precision(),
                home.metrics.BinaryIoU(),
                home.metrics.BinaryCrossentropy(),
            ],
            SIDES[:, None].astype(dtype),
            CHANCES,
        )
        for home in (oncue, keras)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("dtype", TYPES[1:])
@pytest.mark.parametrize("column", [False, True])
def test_labels(keras: ModuleType, dtype: str, column: bool) -> None:
    y = LABELS.astype(dtype)
    found, expected = (
        losses_and_metrics(
            home,
            ("sparse_categorical_crossentropy",),
            [home.metrics.SparseCategoricalAccuracy(), home.metrics.SparseTopKCategoricalAccuracy(2)],
            y[:, None] if column else y,
            SCORES,
        )
        for home in (oncue, keras)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("metric", ["accuracy", "categorical_accuracy"])
def test_truth_values_in_fit(keras: ModuleType, metric: str) -> None:
    found = []
    for home in (oncue, keras):
        model = home.Sequential([home.Input((3,)), home.layers.Dense(3, "softmax", kernel_initializer="ones")])
        model.compile("sgd", "categorical_crossentropy", metrics=[metric])
        history = model.fit(SCORES, np.eye(3, dtype=bool)[LABELS], batch_size=12, verbose=0).history
        found.append(
            [history["loss"][0], history[metric][0], *model.evaluate(SCORES, np.eye(3, dtype=bool)[LABELS], verbose=0)]
        )
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
