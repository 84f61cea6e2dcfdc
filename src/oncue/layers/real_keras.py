"""The real Keras: how its models and layers are recognized, without importing it."""

from __future__ import annotations

import sys
from typing import Any

import torch


def is_keras_model(thing: Any) -> bool:
    """Return whether an object is a model of the real Keras, of any backend.

    Example:
        >>> is_keras_model(torch.nn.Linear(2, 1))
        False
    """
    kind = getattr(sys.modules.get("keras"), "Model", None)
    return isinstance(kind, type) and isinstance(thing, kind)


def clone_keras_model(model: Any, input_tensors: Any, clone_function: Any) -> Any:
    """Return what Keras's own `clone_model` makes of a model of the real Keras."""
    return sys.modules["keras"].models.clone_model(model, input_tensors, clone_function)


def refuse_real_keras(part: torch.nn.Module) -> None:
    """Refuse a layer of the real Keras inside a model of oncue.

    As a module it works, but for what Keras's own `fit` does with it: it isn't told that it is being trained, so that dropout
    and batch normalization would be off, and its regularizers and constraints would count for nothing.

    Args:
        part: A module that is to become a part of a model.

    Raises:
        TypeError: When it is such a layer, or has one inside.

    Example:
        >>> refuse_real_keras(torch.nn.Linear(2, 1))
    """
    kind = getattr(sys.modules.get("keras"), "Layer", None)
    if not isinstance(kind, type):
        return
    # A model of Keras that oncue trains is in the dict of the model around it.
    found: Any = next(
        (
            module
            for module in part.modules()
            if isinstance(module, kind) or (module is not part and is_keras_model(vars(module).get("keras_model")))
        ),
        None,
    )
    if found is not None:
        raise TypeError(
            f"{found.name!r}, a {type(found).__name__} of the real Keras, can't be a part of a model of oncue's layers: "
            "dropout and batch normalization would not be told that they are trained, and regularizers and constraints would "
            "not count. Make the whole model of Keras's layers, and train that one with oncue: "
            "`oncue.Model(keras.Sequential([...]))`; or take oncue's layers, which have the same names and arguments."
        )
