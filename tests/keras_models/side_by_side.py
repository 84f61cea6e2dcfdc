"""The same Keras model twice: trained by Keras's own `fit`, and in oncue's loop."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import normal

X = normal(40, 6, seed=1)
Y = X.sum(axis=1, keepdims=True)
LABELS = (np.arange(40) % 3).astype("int64")

RTOL, ATOL = 1e-4, 2e-5
"""How far two orders of float32 arithmetic may differ after some tens of steps."""


def is_current(keras: ModuleType) -> bool:
    """Return whether this Keras is the one that the tests are written for, and not an older one with faults of its own."""
    return [int(part) for part in keras.__version__.split(".")[:2]] >= [3, 15]


def made_of(kind: Any, options: dict[str, Any]) -> Any:
    """Return an object of a class of Keras's; the test is skipped where an older release doesn't know the arguments."""
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        if "keyword argument" not in str(error):
            raise
        pytest.skip(f"this release of Keras doesn't know all of {', '.join(options)}")


def twins(keras: ModuleType, make: Callable[[Any], Any], compiled: Callable[[Any], dict[str, Any]] | None) -> list[Any]:
    """Return two equal Keras models, compiled alike with objects of their own."""
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        model = make(keras)
        if compiled is not None:
            model.compile(**compiled(keras))
        models.append(model)
    return models


def both(models: list[Any], run: Callable[[Any], Any]) -> list[Any]:
    """Return what a function returns for Keras's own loop, and for oncue's."""
    theirs, ours = models
    return [run(theirs), run(oncue.Model(ours))]


def fit(model: Any, x: Any = X, y: Any = Y, **options: Any) -> Any:
    """Return the history of a short run without shuffling."""
    arguments = {"epochs": 3, "batch_size": 8, "shuffle": False, "verbose": 0, **options}
    return model.fit(x, y, **arguments).history


def same(theirs: Any, ours: Any) -> None:
    """Compare numbers, nested alike, with names in the same order."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        theirs, ours = list(theirs.values()), list(ours.values())
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(theirs, ours, strict=True):
            same(one, other)
    else:
        assert np.shape(ours) == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=RTOL, atol=ATOL)


def values(variables: Any) -> list[Any]:
    """Return the values of Keras's variables."""
    return [np.array(variable.value.detach().cpu()) for variable in variables]


def same_models(models: list[Any]) -> None:
    """Compare the weights, the states of random generators and the optimizers of two Keras models."""
    theirs, ours = models
    same(values(theirs.variables), values(ours.variables))
    if theirs.optimizer is not None:
        same(values(theirs.optimizer.variables), values(ours.optimizer.variables))


def half_step(model: Any, data: Any) -> dict[str, Any]:
    """Train a model of the real Keras on a batch by half of its loss, as a `train_step` of its own may."""
    x, y = data
    model.zero_grad()
    y_pred = model(x, training=True)
    loss = model.compute_loss(x, y, y_pred) * 0.5
    loss.backward()
    trained = model.trainable_weights
    model.optimizer.apply([one.value.grad for one in trained], trained)
    for metric in model.metrics:
        if metric.name == "loss":
            metric.update_state(loss)
        else:
            metric.update_state(y, y_pred)
    return {metric.name: metric.result() for metric in model.metrics}
