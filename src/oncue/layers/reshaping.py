"""Layers that only put numbers in another shape: Flatten, Reshape, Permute, RepeatVector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.layers import arguments
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake


class _Shaping(Layer):
    def _output_spec(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, str]:
        # These keep the dtype of their input, which need not be the layer's; only a mixed policy casts it.
        kind = args[0].dtype
        if "float" in kind and self.compute_dtype != self.variable_dtype:
            kind = self.compute_dtype
        return self.compute_output_shape(args[0].shape), kind


@builtin
class Flatten(_Shaping, metaclass=Namesake):
    """Joins all axes but the batch into one.

    Args:
        data_format: "channels_last" (the default) or "channels_first", for which the channels are moved last before.
        **kwargs: `name` and `dtype`.

    Example:
        >>> Flatten()(torch.ones(2, 3, 4)).shape
        torch.Size([2, 12])
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = arguments.data_format("Flatten", data_format)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        if inputs.dim() == 1:
            return inputs[:, None]
        if self.data_format == "channels_first" and inputs.dim() > 2:
            inputs = inputs.movedim(1, -1)
        return inputs.flatten(1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return (batch, the product of the other sizes)."""
        return (input_shape[0], _product(input_shape[1:]))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "data_format": self.data_format}


@builtin
class Reshape(_Shaping, metaclass=Namesake):
    """Gives each sample another shape.

    Args:
        target_shape: The new shape without the batch axis; one size may be -1, to be filled in.
        **kwargs: `name` and `dtype`.

    Raises:
        ValueError: For more than one -1, or a shape of another number of elements.

    Example:
        >>> Reshape((2, -1))(torch.ones(5, 6)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(self, target_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.target_shape = tuple(int(size) for size in target_shape)
        if self.target_shape.count(-1) > 1 or min(self.target_shape, default=0) < -1:
            raise ValueError(
                f"`target_shape` of Reshape must be whole numbers, at most one of them -1; got {self.target_shape}."
            )

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        return inputs.reshape(inputs.shape[0], *self.target_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the new shape with the batch axis."""
        total = _product(input_shape[1:])
        rest = math.prod(size for size in self.target_shape if size != -1)
        if total is None:
            return (input_shape[0], *(None if size == -1 else size for size in self.target_shape))
        if total != rest and (-1 not in self.target_shape or rest == 0 or total % rest):
            raise ValueError(
                f"'{self.name}' can't give the shape {self.target_shape} to samples of shape {tuple(input_shape[1:])}: "
                f"they have {total} elements."
            )
        return (input_shape[0], *(total // rest if size == -1 else size for size in self.target_shape))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "target_shape": self.target_shape}


@builtin
class Permute(_Shaping, metaclass=Namesake):
    """Puts the axes in another order.

    Args:
        dims: The new order, counted from 1 (the batch axis is left where it is): (2, 1) swaps the first two.
        **kwargs: `name` and `dtype`.

    Raises:
        ValueError: When `dims` is not 1, 2, ... in some order.

    Example:
        >>> Permute((2, 1))(torch.ones(5, 3, 4)).shape
        torch.Size([5, 4, 3])
    """

    def __init__(self, dims: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dims = tuple(plain(dims))
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(
                f"`dims` of Permute must be the numbers 1 to {len(self.dims)} in some order; got {dims!r}."
            )

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        if inputs.dim() != len(self.dims) + 1:
            self.compute_output_shape(tuple(inputs.shape))
        return inputs.permute(0, *self.dims)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape in the new order.

        Raises:
            ValueError: For an input with another number of axes.
        """
        if len(input_shape) != len(self.dims) + 1:
            raise ValueError(
                f"'{self.name}' orders {len(self.dims)} axes besides the batch; got an input of shape {tuple(input_shape)}."
            )
        return (input_shape[0], *(input_shape[axis] for axis in self.dims))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "dims": self.dims}


@builtin
class RepeatVector(_Shaping, metaclass=Namesake):
    """Repeats each sample along a new axis of steps.

    Args:
        n: How often.
        **kwargs: `name` and `dtype`.

    Raises:
        ValueError: For n that isn't a positive whole number.

    Example:
        >>> RepeatVector(3)(torch.ones(5, 4)).shape
        torch.Size([5, 3, 4])
    """

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = arguments.count("RepeatVector", "n", n)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute the output."""
        arguments.check_rank(self.name, inputs.shape, 2, "(batch, features)")
        return inputs[:, None].repeat(1, self.n, 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return (batch, n, features)."""
        arguments.check_rank(self.name, input_shape, 2, "(batch, features)")
        return (input_shape[0], self.n, input_shape[1])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "n": self.n}


def _product(sizes: Sequence[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None
