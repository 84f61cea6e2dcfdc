"""The real Keras: how its models, layers and symbolic tensors are recognized, without importing it, and taken in."""

from __future__ import annotations

import sys
from typing import Any

import torch

from oncue.core.builtin import is_builtin
from oncue.keras_names import load_keras
from oncue.nested import flatten, map_leaves


def _kind(name: str) -> type | None:
    kind = getattr(sys.modules.get("keras"), name, None)
    return kind if isinstance(kind, type) else None


def symbol_kind() -> type | None:
    """Return the class of Keras's symbolic tensors, once Keras is imported."""
    return _kind("KerasTensor")


def is_keras_model(thing: Any) -> bool:
    """Return whether an object is a model of the real Keras, of any backend.

    Example:
        >>> is_keras_model(torch.nn.Linear(2, 1))
        False
    """
    kind = _kind("Model")
    return kind is not None and issubclass(type(thing), kind)


def is_keras_layer(thing: Any) -> bool:
    """Return whether an object is a layer or a model of the real Keras."""
    kind = _kind("Layer")
    return kind is not None and issubclass(type(thing), kind)


class Namesake(type):
    """The class of layers that a layer of the real Keras with the same name passes for.

    So `isinstance(layer, layers.BatchNormalization)` finds those in a model of Keras's, too, which it is to freeze. Only
    classes that oncue asks for no more than Keras's have are of it.
    """

    def __instancecheck__(cls, instance: Any) -> bool:
        if super().__instancecheck__(instance):
            return True
        # Not for classes that users derive.
        return is_builtin(cls) and is_keras_layer(instance) and type(instance).__name__ == cls.__name__


def is_symbol_of_keras(thing: Any) -> bool:
    """Return whether an object is a symbolic tensor of the real Keras. Those of oncue pass for one, and are none."""
    kind = _kind("KerasTensor")
    return kind is not None and issubclass(type(thing), kind)


def own_symbols(value: Any) -> Any:
    """Return nested values with oncue's symbolic tensors in place of those of the real Keras."""
    if "keras" not in sys.modules or not any(map(is_symbol_of_keras, flatten(value))):
        return value
    from oncue.with_keras.symbols import translated

    return map_leaves(lambda leaf: translated(leaf) if is_symbol_of_keras(leaf) else leaf, value)


def adopted(part: Any) -> Any:
    """Return a layer of the real Keras as one of oncue; anything else as it is.

    Args:
        part: What is to become a part of a layer or a model.
    """
    inner = vars(part).get("keras_model") if isinstance(part, torch.nn.Module) else None
    if not is_keras_layer(part) and not is_keras_model(inner):
        return part
    from oncue.with_keras.layer import KerasLayer

    return KerasLayer.of(part if inner is None else inner)


def layer_of_keras(kind: str, /, *args: Any, **kwargs: Any) -> Any:
    """Return a layer of Keras's class of a name, as one of oncue.

    Args:
        kind: The public name of the class.
        *args: Its arguments.
        **kwargs: The same.
    """
    inside = [vars(part)["keras_layer"] if "keras_layer" in getattr(part, "__dict__", {}) else part for part in args]
    return adopted(getattr(load_keras(f"oncue.layers.{kind}").layers, kind)(*inside, **kwargs))


def clone_keras_model(model: Any, input_tensors: Any, clone_function: Any) -> Any:
    """Return what Keras's own `clone_model` makes of a model of the real Keras."""
    return sys.modules["keras"].models.clone_model(model, input_tensors, clone_function)


def refuse_real_keras(part: torch.nn.Module) -> None:
    """Refuse a layer of the real Keras inside a module of torch.

    As a module it works, but for what Keras's own `fit` does with it: it isn't told that it is being trained, so that dropout
    and batch normalization would be off, and its regularizers and constraints would count for nothing.

    Args:
        part: A module that is to become a part of a model.

    Raises:
        TypeError: When it is such a layer, or has one inside.

    Example:
        >>> refuse_real_keras(torch.nn.Linear(2, 1))
    """
    if _kind("Layer") is None:
        return
    # A model of Keras that oncue trains is in the dict of the model around it.
    found: Any = next(
        (
            module
            for module in part.modules()
            if is_keras_layer(module) or (module is not part and is_keras_model(vars(module).get("keras_model")))
        ),
        None,
    )
    if found is not None:
        raise TypeError(
            f"{found.name!r}, a {type(found).__name__} of the real Keras, can't be a part of a module of torch: dropout and "
            "batch normalization would not be told that they are trained, and regularizers and constraints would not count. "
            "Derive the class around it from `oncue.layers.Layer` or `oncue.Model`, or make the whole model of Keras's layers."
        )
