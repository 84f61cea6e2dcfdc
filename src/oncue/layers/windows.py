"""The arithmetic of sliding windows, and the conversion between Keras's order of axes (channels last) and torch's (first)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from oncue.layers.arguments import Shape, check_rank

AXES = {
    1: {"channels_last": "(batch, steps, features)", "channels_first": "(batch, features, steps)"},
    2: {
        "channels_last": "(batch, height, width, channels)",
        "channels_first": "(batch, channels, height, width)",
    },
}


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Return how much "same" pads before and after an axis, as TensorFlow does: the odd one goes after.

    Args:
        size: The length of the axis.
        window: The extent of the window, dilation counted.
        stride: The step of the window.

    Returns:
        The padding before and after.

    Example:
        >>> same_padding(5, 2, 1), same_padding(5, 3, 2)
        ((0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def padded(
    x: torch.Tensor,
    padding: str,
    windows: Sequence[int],
    strides: Sequence[int],
    fill: float = 0.0,
    symmetric: bool = True,
) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Pad a tensor with the channels at axis 1 where the operation itself can't, and return what it can.

    Args:
        x: The tensor.
        padding: "valid", "same" or "causal".
        windows: The extent of the window along each axis, dilation counted.
        strides: Its step along each axis.
        fill: What is put in.
        symmetric: Whether the operation can pad evenly by itself.

    Returns:
        The tensor and the padding that is left to the operation.
    """
    none = (0,) * len(windows)
    if padding == "valid":
        return x, none
    if padding == "causal":
        sides = [(window - 1, 0) for window in windows]
    else:
        sides = [same_padding(*axis) for axis in zip(x.shape[2:], windows, strides, strict=True)]
    if symmetric and all(before == after for before, after in sides):
        return x, tuple(before for before, _ in sides)
    if any(before or after for before, after in sides):
        x = F.pad(x, [part for side in reversed(sides) for part in side], value=fill)
    return x, none


def output_size(size: int | None, window: int, stride: int, padding: str) -> int | None:
    """Return the length of an axis after a window has slid over it.

    Example:
        >>> output_size(28, 3, 1, "valid"), output_size(5, 2, 2, "same")
        (26, 3)
    """
    if size is None:
        return None
    return (size - window) // stride + 1 if padding == "valid" else -(-size // stride)


def output_shape(
    layer: Any, input_shape: Shape, windows: Sequence[int], strides: Sequence[int], channels: int | None
) -> Shape:
    """Return the shape after a window has slid over all axes but batch and channels.

    Args:
        layer: The layer, with `name`, `padding` and `data_format`.
        input_shape: The input's shape.
        windows: The extent of the window along each axis.
        strides: Its step along each axis.
        channels: The number of channels of the output; None for as many as came.

    Returns:
        The output's shape.

    Raises:
        ValueError: For another number of axes, or a window that is larger than the input.
    """
    rank = len(windows)
    check_rank(layer.name, input_shape, rank + 2, AXES[rank][layer.data_format])
    last = layer.data_format == "channels_last"
    spatial = input_shape[1:-1] if last else input_shape[2:]
    out = tuple(output_size(*axis, layer.padding) for axis in zip(spatial, windows, strides, strict=True))
    if any(size is not None and size <= 0 for size in out):
        raise ValueError(
            f"The window {tuple(windows)} of '{layer.name}' is larger than its input of shape {tuple(input_shape)}. "
            f"Take a smaller one, or padding='same'."
        )
    if channels is None:
        channels = input_shape[-1] if last else input_shape[1]
    return (input_shape[0], *out, channels) if last else (input_shape[0], channels, *out)


def channels_first(x: torch.Tensor, data_format: str) -> torch.Tensor:
    """Return a view with the channels at axis 1, where torch wants them."""
    return x if data_format == "channels_first" else x.movedim(-1, 1)


def restored(x: torch.Tensor, data_format: str) -> torch.Tensor:
    """Return a view with the channels where the layer keeps them."""
    return x if data_format == "channels_first" else x.movedim(1, -1)
