"""Checks of what layers are given, and the parts of a configuration that many layers share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from oncue import backend, constraints, initializers, regularizers
from oncue.core.numbers import number_of, whole_of
from oncue.core.suggest import unknown

Shape = tuple[int | None, ...]


def count(layer: str, name: str, value: Any, least: int = 1) -> int:
    """Return a whole number that must be at least `least`.

    Raises:
        ValueError: For anything else.

    Example:
        >>> count("Dense", "units", 3)
        3
    """
    number = whole_of(value)
    if number is None or number < least:
        raise ValueError(
            f"`{name}` of {layer} must be a whole number of {least} or more; got {value!r} of type "
            f"{type(value).__name__}."
        )
    return number


def sizes(layer: str, name: str, value: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """Return one whole number for each of `rank` axes; a single one counts for all.

    Raises:
        ValueError: For another number of numbers, or numbers that are too small.

    Example:
        >>> sizes("Conv2D", "kernel_size", 3, 2)
        (3, 3)
    """
    given = (value,) * rank if whole_of(value) is not None else value
    if not isinstance(given, (tuple, list)) or len(given) != rank:
        wanted = "a whole number" if rank == 1 else f"a whole number or {rank} of them"
        raise ValueError(f"`{name}` of {layer} must be {wanted}; got {value!r} of type {type(value).__name__}.")
    return tuple(count(layer, name, part, least) for part in given)


def one_of(layer: str, name: str, value: Any, known: Sequence[str]) -> str:
    """Return one of the known names, without regard to case.

    Raises:
        ValueError: For another name; the nearest one is suggested.

    Example:
        >>> one_of("Conv2D", "padding", "SAME", ("valid", "same"))
        'same'
    """
    word = value.lower() if isinstance(value, str) else value
    if word not in known:
        raise unknown(f"`{name}` of {layer}", value, known)
    return str(word)


def data_format(layer: str, value: Any) -> str:
    """Return "channels_last" or "channels_first"; for None what `config.set_image_data_format` says.

    Example:
        >>> data_format("Conv2D", None)
        'channels_last'
    """
    formats = ("channels_last", "channels_first")
    return backend.image_data_format() if value is None else one_of(layer, "data_format", value, formats)


def fraction(layer: str, name: str, value: Any) -> float:
    """Return a number from 0 to 1.

    Raises:
        ValueError: For anything else.

    Example:
        >>> fraction("Dropout", "rate", 0.5)
        0.5
    """
    number = number_of(value)
    if number is None or not 0 <= number <= 1:
        raise ValueError(
            f"`{name}` of {layer} must be a number from 0 to 1; got {value!r} of type {type(value).__name__}."
        )
    return number


def noise_shape(value: Any) -> tuple[int | None, ...]:
    """Return the shape of a mask of dropout.

    Raises:
        ValueError: For anything else than whole numbers of 1 or more, or None where the size is the input's.

    Example:
        >>> noise_shape([None, 1])
        (None, 1)
    """
    sizes = None if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    whole = None if sizes is None else [None if size is None else whole_of(size) for size in sizes]
    if (
        sizes is None
        or whole is None
        or any(given is not None and (size is None or size < 1) for given, size in zip(sizes, whole, strict=True))
    ):
        raise ValueError(
            "Invalid value received for argument `noise_shape`. Expected a tuple or list of positive integers, or None where "
            f"the size is the input's; got {value!r}."
        )
    return tuple(whole)


def check_rank(layer: str, shape: Sequence[int | None], rank: int, axes: str) -> None:
    """Refuse an input with another number of axes.

    Args:
        layer: The layer's name, for the message.
        shape: The shape that came.
        rank: The number of axes there must be.
        axes: What they mean, such as "(batch, height, width, channels)".

    Raises:
        ValueError: For another number of axes.
    """
    if len(shape) != rank:
        hint = ""
        if len(shape) == rank - 1:
            hint = " If only the channel axis is missing, add it with `x[..., None]`."
        elif len(shape) == rank + 1:
            hint = " Use `Flatten` or `Reshape` to join axes."
        raise ValueError(f"'{layer}' expects {rank} axes {axes}; got an input of shape {tuple(shape)}.{hint}")


def known_size(layer: str, shape: Sequence[int | None], axis: int = -1) -> int:
    """Return the size of an axis that must be known before weights can be made.

    Raises:
        ValueError: When it is None.

    Example:
        >>> known_size("dense", (None, 4))
        4
    """
    size = shape[axis] if shape else None
    if size is None:
        raise ValueError(
            f"'{layer}' needs to know the size of axis {axis} of its input to make its weights; got the shape "
            f"{tuple(shape)}. Give it in `Input(shape)`."
        )
    return size


def check_size(layer: str, shape: Sequence[int | None], axis: int, size: int) -> None:
    """Refuse an input whose axis is not as long as the weights were made for.

    Raises:
        ValueError: For another size.
    """
    if shape[axis] != size:
        raise ValueError(
            f"'{layer}' was built for inputs of size {size} along axis {axis}; got an input of shape {tuple(shape)}, "
            f"of size {shape[axis]} there, which is incompatible with the layer."
        )


def like_weight(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return x in the dtype of a weight, as Keras casts inputs; autocast does its own casting."""
    if x.dtype == weight.dtype or (x.is_floating_point() and torch.is_autocast_enabled(x.device.type)):
        return x
    if x.is_complex() and not weight.is_complex():
        raise ValueError(
            "The input holds complex numbers, of which only the real part would count; pass `torch.view_as_real(x)`, or its "
            "absolute values."
        )
    return x.to(weight.dtype)


def serialized(module: Any, thing: Any) -> Any:
    """Return a configuration by the `serialize` of a module such as `regularizers`; None for None."""
    return None if thing is None else module.serialize(thing)


def weight_config(layer: Any, *roles: str) -> dict[str, Any]:
    """Return the configuration of the initializers, regularizers and constraints of a layer's weights.

    Args:
        layer: The layer, with attributes such as `kernel_initializer`.
        roles: The weights, in the order of Keras: "kernel", "bias".

    Returns:
        A part of the layer's configuration.
    """
    config: dict[str, Any] = {}
    for role in roles:
        config[f"{role}_initializer"] = initializers.serialize(getattr(layer, f"{role}_initializer"))
    for kind, module in (("regularizer", regularizers), ("constraint", constraints)):
        for role in roles:
            config[f"{role}_{kind}"] = serialized(module, getattr(layer, f"{role}_{kind}"))
    return config
