"""Initializers: the initial values of weights, with Keras's names, defaults and distributions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from oncue import objects
from oncue.backend import torch_dtype
from oncue.initializers.constant import Constant, Identity, Ones, Zeros
from oncue.initializers.initializer import Initializer
from oncue.initializers.random import Orthogonal, RandomNormal, RandomUniform, TruncatedNormal
from oncue.initializers.variance_scaling import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    VarianceScaling,
)
from oncue.keras_names import beside, elsewhere
from oncue.legacy import NAMES
from oncue.naming import to_snake_case

# Other spellings, of Keras 1 and 2 too.
constant, identity, ones, zeros, one, zero = Constant, Identity, Ones, Zeros, Ones, Zeros
orthogonal, truncated_normal, variance_scaling = Orthogonal, TruncatedNormal, VarianceScaling
random_normal = normal = RandomNormal
random_uniform = uniform = RandomUniform
glorot_normal, glorot_uniform = GlorotNormal, GlorotUniform
he_normal, he_uniform = HeNormal, HeUniform
lecun_normal, lecun_uniform = LecunNormal, LecunUniform
IdentityInitializer, OrthogonalInitializer = Identity, Orthogonal

_CLASSES: tuple[type[Initializer], ...] = (
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Identity,
    LecunNormal,
    LecunUniform,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    VarianceScaling,
    Zeros,
)
_KNOWN: dict[str, Any] = {
    **{cls.__name__: cls for cls in _CLASSES},
    **{to_snake_case(cls.__name__): cls for cls in _CLASSES},
}
_KNOWN.update({other: _KNOWN[name] for other, name in NAMES["initializer"].items()})

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "IdentityInitializer",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "OrthogonalInitializer",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "constant",
    "deserialize",
    "get",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity",
    "lecun_normal",
    "lecun_uniform",
    "normal",
    "one",
    "ones",
    "orthogonal",
    "random_normal",
    "random_uniform",
    "serialize",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "zero",
    "zeros",
]
__all__ += beside("oncue.initializers", __all__)


def get(identifier: Any) -> Callable[..., torch.Tensor]:
    """Return the initializer that a name, a configuration, a class, an array or a function stands for.

    Args:
        identifier: "glorot_uniform", `{"class_name": ..., "config": ...}`, `HeNormal`, `HeNormal(seed=1)`, an array or
            tensor of the weight's shape, or a function of `(shape, dtype)`. None stays None, as in Keras.

    Returns:
        Something to be called with `(shape, dtype=...)`.

    Raises:
        ValueError: For a name that is not known.

    Example:
        >>> get("he_normal").get_config()
        {'seed': None, 'input_axes': None, 'output_axes': None}
    """
    if isinstance(identifier, (torch.Tensor, np.ndarray, np.generic)):
        return _given(identifier)
    if identifier is None:
        return None  # type: ignore[return-value]  # Keras's answer for "no initializer given"; callers ask first
    return objects.resolve("initializer", identifier, _KNOWN)  # type: ignore[no-any-return]  # one of the above


def serialize(initializer: Any) -> dict[str, Any]:
    """Return the configuration of an initializer, from which `deserialize` makes it again.

    Example:
        >>> serialize(Constant(2.0))["config"]
        {'value': 2.0}
    """
    return objects.to_config(initializer, "keras.initializers")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """Make an initializer from its configuration.

    Args:
        config: What `serialize` returned, or a name.
        custom_objects: Your own initializers by name.

    Returns:
        The initializer.

    Example:
        >>> deserialize(serialize(Constant(2.0)))((1,))
        tensor([2.])
    """
    return objects.resolve("initializer", config, _KNOWN, custom_objects)


def _given(values: Any) -> Callable[..., torch.Tensor]:
    def given_values(shape: Sequence[int], dtype: Any = None) -> torch.Tensor:
        if tuple(shape) != tuple(values.shape):
            raise ValueError(
                f"The initializer is an array of shape {tuple(values.shape)}, the weight has the shape {tuple(shape)}."
            )
        return torch.as_tensor(values).detach().to(torch_dtype(dtype)).clone()

    return given_values


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.initializers", name)
