"""Keras's layers that are given other layers, and optimizers that are given others: they take those of oncue, too."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Any

from oncue import optimizers
from oncue.core.builtin import is_builtin
from oncue.layers import serialize
from oncue.layers.foreign_layer import ForeignLayer
from oncue.layers.layer import Layer


@functools.cache
def holder(kind: Any) -> Any:
    """Return a class of Keras's layers that takes oncue's layers as arguments; it passes for that class in all else.

    Args:
        kind: The class.
    """

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *map(_theirs, args), **{name: _theirs(value) for name, value in kwargs.items()})

    # Keras writes into files where a class is found.
    return type(kind)(kind.__name__, (kind,), {**{name: vars(kind)[name] for name in _NAMES}, "__init__": __init__})


_NAMES = ("__doc__", "__module__")


@functools.cache
def optimizer_holder(kind: Any) -> Any:
    """Return a class of Keras's that takes oncue's optimizers for its own; it passes for that class in all else.

    Args:
        kind: The class: `OptimizerMap` or `MultiOptimizer`.
    """

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        own = _Translation()
        kind.__init__(self, *map(own, args), **{name: own(value) for name, value in kwargs.items()})

    added: dict[str, Any] = {**{name: vars(kind)[name] for name in _NAMES}, "__init__": __init__}
    if "__setitem__" in vars(kind):
        added["__setitem__"] = lambda self, key, value: kind.__setitem__(self, key, _Translation()(value))
    return type(kind)(kind.__name__, (kind,), added)


class _Translation:
    """Gives Keras's own optimizer for one of oncue's, the same one each time."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, Any]] = {}

    def __call__(self, value: Any) -> Any:
        """Return an argument with optimizers of Keras's in place of oncue's; a function that gives one gives those."""
        if isinstance(value, dict):
            return {name: self(item) for name, item in value.items()}
        if inspect.isroutine(value):
            return lambda variable: self(value(variable))
        of_keras = sys.modules["keras"].optimizers.OptimizerMap
        if isinstance(value, of_keras):
            # Keras writes its own class into files.
            return of_keras(value.default_optimizer, dict(value.items()))
        if not isinstance(value, optimizers.Optimizer):
            return value
        if id(value) not in self._known:
            self._known[id(value)] = value, _of_keras(value)
        return self._known[id(value)][1]


def _of_keras(optimizer: Any) -> Any:
    config = optimizers.serialize(optimizer)
    why = "it is of a class that Keras doesn't know" if config["module"] != "keras.optimizers" else ""
    why = "it has trained already" if optimizer.iterations > 0 else why
    if why:
        raise TypeError(
            f"'{optimizer.name}', a {type(optimizer).__name__}, can't be put into an optimizer of Keras's: {why}. Give one "
            "such as `keras.optimizers.Adam(0.001)`, before its first step."
        )
    import keras

    return keras.optimizers.deserialize(config)


def _theirs(value: Any) -> Any:
    """Return Keras's own layer for one of oncue's, by its configuration; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return [_theirs(item) for item in value]
    if isinstance(value, ForeignLayer):
        return vars(value)["keras_layer"]
    if not issubclass(type(value), Layer):
        return value
    if not is_builtin(type(value)) or value.built:
        why = "it has its weights already" if is_builtin(type(value)) else "it is a layer of your own"
        raise TypeError(
            f"'{value.name}', a {type(value).__name__} of oncue's, can't be put into a layer of Keras's: {why}. Derive your "
            "own from `keras.layers.Layer` of the real Keras, and give a layer that isn't built."
        )
    import keras

    return keras.saving.deserialize_keras_object(serialize(value))
