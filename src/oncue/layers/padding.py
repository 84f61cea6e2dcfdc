"""ZeroPadding1D and ZeroPadding2D: zeros around sequences and images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from oncue.core.builtin import builtin
from oncue.core.numbers import whole_of
from oncue.layers import arguments, windows
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake

Sides = tuple[int, int]


@builtin
class ZeroPadding1D(Layer, metaclass=Namesake):
    """Puts steps of zeros before and after sequences.

    Args:
        padding: How many steps, on both sides; or (before, after).
        data_format: "channels_last" for (batch, steps, features), the default, or "channels_first".
        **kwargs: `name` and `dtype`.

    Example:
        >>> ZeroPadding1D((1, 2))(torch.ones(1, 6, 3)).shape
        torch.Size([1, 9, 3])
    """

    def __init__(self, padding: Any = 1, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        before, after = arguments.sizes("ZeroPadding1D", "padding", padding, 2, 0)
        self.padding: Sides = (before, after)
        self.data_format = arguments.data_format("ZeroPadding1D", data_format)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        arguments.check_rank(self.name, inputs.shape, 3, windows.AXES[1][self.data_format])
        return F.pad(inputs, (0, 0, *self.padding) if self.data_format == "channels_last" else self.padding)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output."""
        arguments.check_rank(self.name, input_shape, 3, windows.AXES[1][self.data_format])
        return _grown(input_shape, (self.padding,), self.data_format)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "padding": self.padding, "data_format": self.data_format}


@builtin
class ZeroPadding2D(Layer, metaclass=Namesake):
    """Puts pixels of zeros around images.

    Args:
        padding: How many pixels: one number for all sides, (vertical, horizontal), or
            ((top, bottom), (left, right)).
        data_format: "channels_last" for (batch, height, width, channels), the default, or "channels_first".
        **kwargs: `name` and `dtype`.

    Example:
        >>> ZeroPadding2D((1, 2))(torch.ones(1, 6, 6, 3)).shape
        torch.Size([1, 8, 10, 3])
    """

    def __init__(self, padding: Any = (1, 1), data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        sides = (padding, padding) if whole_of(padding) is not None else tuple(padding)
        if len(sides) != 2:
            raise ValueError(
                f"`padding` of ZeroPadding2D must be a number, two of them, or ((top, bottom), (left, right)); got "
                f"{padding!r}."
            )
        (top, bottom), (left, right) = (arguments.sizes("ZeroPadding2D", "padding", side, 2, 0) for side in sides)
        self.padding: tuple[Sides, Sides] = ((top, bottom), (left, right))
        self.data_format = arguments.data_format("ZeroPadding2D", data_format)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        arguments.check_rank(self.name, inputs.shape, 4, windows.AXES[2][self.data_format])
        sides = (*self.padding[1], *self.padding[0])
        return F.pad(inputs, (0, 0, *sides) if self.data_format == "channels_last" else sides)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output."""
        arguments.check_rank(self.name, input_shape, 4, windows.AXES[2][self.data_format])
        return _grown(input_shape, self.padding, self.data_format)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "padding": self.padding, "data_format": self.data_format}


def _grown(shape: Shape, padding: tuple[Sides, ...], data_format: str) -> Shape:
    sizes = list(shape)
    for axis, side in enumerate(padding, start=1 if data_format == "channels_last" else 2):
        size = sizes[axis]
        sizes[axis] = None if size is None else size + sum(side)
    return tuple(sizes)
