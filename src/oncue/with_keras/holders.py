"""Keras's layers that are given other layers: they take those of oncue, too."""

from __future__ import annotations

import functools
from typing import Any

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
