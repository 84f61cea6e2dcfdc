from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from helpers import normal, tensor, to_numpy
from oncue import activations, constraints, regularizers

# Keras's sparsemax on torch adds up sums of sums, and its rows don't sum to 1; ours follows the paper.
NAMES = [name for name in activations.__all__ if name not in ("get", "serialize", "deserialize", "sparsemax")]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "relu": [
        {"negative_slope": 0.2},
        {"max_value": 1.0},
        {"threshold": 0.5},
        {"negative_slope": 0.2, "max_value": 1.0, "threshold": 0.5},
        {"threshold": -0.5},
        {"max_value": 6.0, "negative_slope": 0.1},
    ],
    "threshold": [{"threshold": 0.3, "default_value": -1.0}],
    "gelu": [{"approximate": True}],
    "softmax": [{"axis": 0}, {"axis": None}],
    "log_softmax": [{"axis": 0}],
    "glu": [{"axis": 0}],
    "elu": [{"alpha": 0.3}],
    "celu": [{"alpha": 0.3}],
    "squareplus": [{"b": 2}],
    "soft_shrink": [{"threshold": 0.1}],
    "hard_shrink": [{"threshold": 0.1}],
}
X = normal(4, 6) * 3
W = normal(5, 3, seed=1)


def test_there_are_as_many(keras: ModuleType) -> None:
    public = {name for name in dir(keras.activations) if not name.startswith("_")}
    assert public <= set(activations.__all__)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(keras: ModuleType, name: str) -> None:
    theirs, ours = getattr(keras.activations, name), getattr(activations, name)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    defaults = [parameter.default for parameter in inspect.signature(theirs).parameters.values()]
    assert [parameter.default for parameter in inspect.signature(ours).parameters.values()] == defaults
    for options in [*([] if name == "threshold" else [{}]), *OPTIONS.get(name, [])]:
        results = []
        for function in (theirs, ours):
            x = tensor(X.copy()).requires_grad_()
            y = function(x, **options)
            (y * tensor(torch.arange(y.numel())).reshape(y.shape)).sum().backward()
            results.append((to_numpy(y), to_numpy(x.grad)))
        np.testing.assert_allclose(results[1][0], results[0][0], atol=1e-6)
        np.testing.assert_allclose(results[1][1], results[0][1], atol=1e-4)


REGULARIZERS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("L1", (), {}),
    ("L2", (0.3,), {}),
    ("L1L2", (), {"l1": 0.1}),
    ("l2", (), {}),
    ("OrthogonalRegularizer", (0.5,), {}),
    ("OrthogonalRegularizer", (), {"mode": "columns"}),
]


@pytest.mark.parametrize(("name", "args", "kwargs"), REGULARIZERS)
def test_regularizers(keras: ModuleType, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    theirs, ours = getattr(keras.regularizers, name)(*args, **kwargs), getattr(regularizers, name)(*args, **kwargs)
    assert float(ours(tensor(W))) == pytest.approx(float(theirs(tensor(W))), rel=1e-5)
    assert ours.get_config() == pytest.approx(theirs.get_config())
    assert type(keras.regularizers.deserialize(regularizers.serialize(ours))) is type(theirs)


@pytest.mark.parametrize("name", ["l1", "l2", "L1L2", "l1l2", "orthogonal_regularizer"])
def test_regularizers_by_name(keras: ModuleType, name: str) -> None:
    expected = float(keras.regularizers.get(name)(tensor(W)))
    assert float(regularizers.get(name)(tensor(W))) == pytest.approx(expected, rel=1e-5)


CONSTRAINTS: list[tuple[str, dict[str, Any]]] = [
    ("MaxNorm", {"max_value": 1.0}),
    ("MaxNorm", {"axis": [0, 1]}),
    ("max_norm", {"max_value": 0.5, "axis": 1}),
    ("NonNeg", {}),
    ("UnitNorm", {}),
    ("MinMaxNorm", {"min_value": 2.0, "max_value": 3.0, "rate": 0.5}),
]


@pytest.mark.parametrize(("name", "kwargs"), CONSTRAINTS)
def test_constraints(keras: ModuleType, name: str, kwargs: dict[str, Any]) -> None:
    theirs, ours = getattr(keras.constraints, name)(**kwargs), getattr(constraints, name)(**kwargs)
    found, expected = ours(tensor(W)), theirs(tensor(W))
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), atol=1e-6)
    assert constraints.serialize(ours) == keras.constraints.serialize(theirs)
