"""Activations: functions of one tensor, by Keras's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from oncue import objects
from oncue.activations.rectifiers import (
    celu,
    elu,
    hard_shrink,
    leaky_relu,
    relu,
    relu6,
    selu,
    soft_shrink,
    sparse_plus,
    squareplus,
    threshold,
)
from oncue.activations.smooth import (
    exponential,
    gelu,
    glu,
    hard_silu,
    linear,
    mish,
    silu,
    softplus,
    tanh_shrink,
)
from oncue.activations.squashing import (
    hard_sigmoid,
    hard_tanh,
    log_sigmoid,
    log_softmax,
    sigmoid,
    softmax,
    softsign,
    sparse_sigmoid,
    sparsemax,
    tanh,
)
from oncue.keras_names import elsewhere

Activation = Callable[..., torch.Tensor]
swish, hard_swish = silu, hard_silu

_FUNCTIONS: tuple[Activation, ...] = (
    celu,
    elu,
    exponential,
    gelu,
    glu,
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    leaky_relu,
    linear,
    log_sigmoid,
    log_softmax,
    mish,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    soft_shrink,
    softmax,
    softplus,
    softsign,
    sparse_plus,
    sparse_sigmoid,
    sparsemax,
    squareplus,
    tanh,
    tanh_shrink,
    threshold,
)
_KNOWN: dict[str, Any] = {
    **{function.__name__: function for function in _FUNCTIONS},
    "swish": silu,
    "hard_swish": hard_silu,
}

__all__ = [
    "celu",
    "deserialize",
    "elu",
    "exponential",
    "gelu",
    "get",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "squareplus",
    "swish",
    "tanh",
    "tanh_shrink",
    "threshold",
]


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.activations", name)


def get(identifier: Any) -> Activation:
    """Return the activation that a name, a configuration, a function or a layer stands for.

    Args:
        identifier: "relu", None (linear), a function of a tensor, a layer, or a `torch.nn.Module`.

    Returns:
        A function of a tensor.

    Raises:
        ValueError: For a name that is not known; the nearest one is named.

    Example:
        >>> get("relu").__name__, get(None).__name__
        ('relu', 'linear')
    """
    if identifier is None:
        return linear
    if isinstance(identifier, dict):
        return _from_config(identifier, None)
    return objects.resolve("activation", identifier, _KNOWN)  # type: ignore[no-any-return]  # one of the above


def serialize(activation: Any) -> Any:
    """Return how an activation is written in a configuration: the name of one of ours, else a dict.

    Example:
        >>> serialize(relu)
        'relu'
    """
    name = getattr(activation, "__name__", None)
    if name in _KNOWN and _KNOWN[name] is activation:
        return name
    if isinstance(activation, torch.nn.Module):
        from oncue import layers

        return layers.serialize(activation)
    return objects.to_config(activation, "keras.activations")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Activation:
    """Return the activation of a configuration.

    Args:
        config: What `serialize` returned.
        custom_objects: Your own functions by name.

    Returns:
        A function of a tensor.

    Example:
        >>> deserialize("tanh").__name__
        'tanh'
    """
    if isinstance(config, dict):
        return _from_config(config, custom_objects)
    return objects.resolve("activation", config, _KNOWN, custom_objects)  # type: ignore[no-any-return]  # as above


def _from_config(config: dict[str, Any], custom_objects: dict[str, Any] | None) -> Activation:
    if str(config.get("module", "")) == "keras.layers":
        from oncue import layers

        return layers.deserialize(config, custom_objects)  # type: ignore[no-any-return]  # a layer, which is callable
    return objects.resolve("activation", config, _KNOWN, custom_objects)  # type: ignore[no-any-return]  # as above
