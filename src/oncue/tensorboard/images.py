"""Weights as pictures, in PNG files made with the standard library."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncue.tensorboard.summaries import image

_MOST = 3
_COLOURS = {1: 0, 3: 2, 4: 6}  # PNG's numbers for grey, red-green-blue, and the same with opacity


def pictures(tag: str, weight: NDArray[Any]) -> Any:
    """Return a weight as an image summary, or None when it has no shape for one.

    A vector is one column; a matrix is shown with its longer side across; of three axes the last counts the pictures, of four
    the third is the colours and the last counts the pictures. At most 3 pictures are shown, as in Keras.

    Args:
        tag: The summary's name.
        weight: The numbers, in Keras's order of axes.

    Returns:
        A summary value, or None.

    Example:
        >>> [int(text) for text in pictures("kernel/image", np.ones((5, 2))).tensor.string_val[:2]]
        [5, 2]
    """
    stack = _stacked(np.squeeze(weight))
    if stack is None or not stack.size:
        return None
    grey = _as_bytes(stack)
    _, height, width, _ = grey.shape
    return image(tag, width, height, [png(picture) for picture in grey[:_MOST]])


def _stacked(weight: NDArray[Any]) -> NDArray[Any] | None:
    """Return pictures as (number, height, width, colours)."""
    if weight.ndim == 0:
        return weight.reshape(1, 1, 1, 1)
    if weight.ndim == 1:
        return weight.reshape(1, -1, 1, 1)
    if weight.ndim == 2:
        return (weight.T if weight.shape[0] > weight.shape[1] else weight)[None, :, :, None]
    if weight.ndim == 3:
        return weight.transpose(2, 0, 1)[:, :, :, None]
    if weight.ndim == 4 and weight.shape[2] in _COLOURS:
        return weight.transpose(3, 0, 1, 2)
    return None


def _as_bytes(stack: NDArray[Any]) -> NDArray[np.uint8]:
    values = np.nan_to_num(stack.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    if low == high:
        return np.full(stack.shape, 128, np.uint8)
    grey: NDArray[np.uint8] = np.rint((values - low) / (high - low) * 255).astype(np.uint8)
    return grey


def png(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture as a PNG file (RFC 2083).

    Args:
        picture: Of shape (height, width, colours), with 1, 3 or 4 colours.

    Example:
        >>> png(np.zeros((2, 3, 1), np.uint8))[1:4]
        b'PNG'
    """
    height, width, colours = picture.shape
    rows = np.zeros((height, 1 + width * colours), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = picture.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[colours], 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
