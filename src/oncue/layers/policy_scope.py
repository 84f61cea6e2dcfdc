"""A layer run in the dtype of its policy: inputs cast, torch's autocast around it, outputs cast."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from oncue import backend
from oncue.nested import map_leaves

if TYPE_CHECKING:
    from oncue.layers.layer import Layer


class _Running(threading.local):
    """What this thread runs; torch.compile can trace it, unlike a ContextVar."""

    # Whether a layer with a mixed policy is running. Only inside one does a plain policy turn autocast off: elsewhere,
    # autocast was turned on by `compile(precision=...)` or by the user, for all layers.
    mixed: bool = False


running = _Running()


def run_in_policy(layer: Layer, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a layer in the dtype of its policy.

    Args:
        layer: The layer.
        run: What runs it.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Returns:
        What `run` returned; of oncue's own layers, other than models, in the type of the computations, as in Keras.

    Example:
        >>> from oncue import layers
        >>> layer = layers.Dense(2, activation="softmax", dtype="mixed_bfloat16")
        >>> layer.build((None, 3))
        >>> run_in_policy(layer, layer.forward, (layer.kernel.new_ones(1, 3),), {}).dtype
        torch.bfloat16
    """
    compute = layer._computed
    mixed = layer._is_mixed and layer.autocast
    casts = layer.autocast and layer._casts_floats

    def cast(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not leaf.is_floating_point() or leaf.dtype == compute:
            return leaf
        mask = getattr(leaf, "_keras_mask", None)
        leaf = leaf.to(compute)
        if mask is not None:
            leaf._keras_mask = mask
        return leaf

    inside = mixed or running.mixed
    # Under an autocast that was turned on for all layers, torch chooses the types of what else would be in 32 bits.
    if casts and (inside or compute != torch.float32 or not torch.is_autocast_enabled(_device_type(layer))):
        args = tuple(map_leaves(cast, arg) for arg in args)
        kwargs = {name: map_leaves(cast, value) for name, value in kwargs.items()}
    if not inside:
        return run(*args, **kwargs)
    before, running.mixed = running.mixed, True
    try:
        with torch.autocast(_device_type(layer), compute if mixed else None, enabled=mixed):
            outputs = run(*args, **kwargs)
    finally:
        running.mixed = before
    return map_leaves(cast, outputs) if casts and layer._casts_outputs else outputs


def _device_type(layer: Layer) -> str:
    return (layer._placed() or backend.device()).type
