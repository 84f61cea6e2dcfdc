"""Layers of several inputs: Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from oncue import backend
from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.layers.arguments import Shape
from oncue.layers.layer import Layer
from oncue.layers.real_keras import Namesake
from oncue.legacy import call_as


class _Merge(Layer):
    supports_masking = True
    _takes_several = True
    _makes_masks = False

    def build(self, input_shape: Any) -> None:
        """Check that there are several inputs."""
        several = isinstance(input_shape, (list, tuple)) and all(
            isinstance(part, (list, tuple)) for part in input_shape
        )
        if not several or not input_shape:
            raise ValueError(
                f"'{self.name}' merges a list of inputs; got one of shape {input_shape}. Use `layer([a, b])`."
            )

    def call(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Compute the output."""
        if not isinstance(inputs, (list, tuple)):
            raise ValueError(
                f"'{self.name}' merges a list of inputs; got {type(inputs).__name__}. Use `layer([a, b])`."
            )
        return self._merged(_same_rank(inputs))

    def _merged(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """Return the shape to which all inputs broadcast."""
        return functools.reduce(self._broadcast, (tuple(shape) for shape in input_shape))

    def _broadcast(self, one: Shape, two: Shape) -> Shape:
        if len(one) < len(two):
            one, two = two, one
        # Missing axes come after the batch, as in Keras.
        two = (two[0], *(1,) * (len(one) - len(two)), *two[1:])
        sizes: list[int | None] = []
        for a, b in zip(one, two, strict=True):
            if a is not None and b is not None and a != b and 1 not in (a, b):
                raise ValueError(f"'{self.name}' can't merge inputs of shapes {one} and {two}.")
            sizes.append(b if a == 1 else a if b == 1 or b is None or a == b else b if a is None else a)
        return tuple(sizes)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return where any of the inputs holds something, if all have masks."""
        masks = _masks_given(inputs, previous_mask)
        present = [mask for mask in masks if mask is not None]
        return functools.reduce(torch.logical_or, present) if present and len(present) == len(masks) else None


@builtin
class Add(_Merge, metaclass=Namesake):
    """The sum of its inputs.

    Example:
        >>> Add()([torch.tensor([[1.0]]), torch.tensor([[2.0]])])
        tensor([[3.]])
    """

    def _merged(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return functools.reduce(torch.add, inputs)


@builtin
class Subtract(_Merge, metaclass=Namesake):
    """The first input less the second.

    Example:
        >>> Subtract()([torch.tensor([[1.0]]), torch.tensor([[2.0]])])
        tensor([[-1.]])
    """

    def build(self, input_shape: Any) -> None:
        """Check that there are two inputs."""
        super().build(input_shape)
        if len(input_shape) != 2:
            raise ValueError(f"'{self.name}' subtracts the second of two inputs; got {len(input_shape)} inputs.")

    def _merged(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return inputs[0] - inputs[1]


@builtin
class Multiply(_Merge, metaclass=Namesake):
    """The product of its inputs; what a mask leaves out counts as 1, and gives 0 where all inputs leave it out.

    Example:
        >>> Multiply()([torch.tensor([[3.0]]), torch.tensor([[2.0]])])
        tensor([[6.]])
    """

    def _merged(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        masks = [_spread_mask(part) for part in inputs]
        factors = [
            part if mask is None else part.masked_fill(~mask, 1) for part, mask in zip(inputs, masks, strict=True)
        ]
        product = functools.reduce(torch.mul, factors)
        present = [mask for mask in masks if mask is not None]
        if len(present) < len(masks):
            return product
        return product.masked_fill(~functools.reduce(torch.logical_or, present), 0)


@builtin
class Average(_Merge, metaclass=Namesake):
    """The mean of its inputs.

    Example:
        >>> Average()([torch.tensor([[1.0]]), torch.tensor([[2.0]])])
        tensor([[1.5000]])
    """

    def _merged(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return functools.reduce(torch.add, inputs) / len(inputs)


@builtin
class Maximum(_Merge, metaclass=Namesake):
    """The largest of its inputs at each place; what a mask leaves out gives way to the other inputs.

    Example:
        >>> Maximum()([torch.tensor([[1.0]]), torch.tensor([[2.0]])])
        tensor([[2.]])
    """

    def _merged(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return _extreme(torch.maximum, inputs)


@builtin
class Minimum(_Merge, metaclass=Namesake):
    """The smallest of its inputs at each place; what a mask leaves out gives way to the other inputs.

    Example:
        >>> Minimum()([torch.tensor([[1.0]]), torch.tensor([[2.0]])])
        tensor([[1.]])
    """

    def _merged(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return _extreme(torch.minimum, inputs)


@builtin
class Concatenate(_Merge, metaclass=Namesake):
    """Its inputs one after the other along an axis.

    Args:
        axis: The axis; the others must have the same sizes.
        **kwargs: `name` and `dtype`.

    Example:
        >>> Concatenate()([torch.tensor([[1.0]]), torch.tensor([[2.0]])])
        tensor([[1., 2.]])
    """

    _makes_masks = False

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = plain(axis)

    def call(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Compute the output."""
        if len({part.dim() for part in inputs}) != 1:
            self.compute_output_shape([tuple(part.shape) for part in inputs])
        try:
            return torch.cat(list(inputs), self.axis)
        except RuntimeError:
            self.compute_output_shape([tuple(part.shape) for part in inputs])
            raise

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """Return the shape with the sizes along the axis added up."""
        first = list(input_shape[0])
        axis = self.axis % len(first)
        for other in input_shape[1:]:
            if len(other) != len(first) or any(
                a != b and None not in (a, b) for n, (a, b) in enumerate(zip(first, other, strict=True)) if n != axis
            ):
                raise ValueError(
                    f"'{self.name}' requires inputs with matching shapes except for the concatenation axis {self.axis}; the "
                    f"shapes are {[tuple(shape) for shape in input_shape]}."
                )
        sizes = [shape[axis] for shape in input_shape]
        first[axis] = None if None in sizes else sum(sizes)
        return tuple(first)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return the masks joined likewise; an input without one counts as full."""
        masks = _masks_given(inputs, previous_mask)
        if all(mask is None for mask in masks):
            return None
        full = []
        for part, mask in zip(inputs, masks, strict=True):
            if mask is None:
                mask = torch.ones_like(backend.as_tensor(part), dtype=torch.bool)
            rest = tuple(part.shape)[mask.dim() :]
            full.append(mask.bool().view(*mask.shape, *(1,) * len(rest)).expand(*mask.shape, *rest))
        return torch.cat(full, self.axis).any(-1)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        return {**super().get_config(), "axis": self.axis}


def _same_rank(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    rank = max(part.dim() for part in inputs)
    return [
        part if part.dim() == rank else part.view(part.shape[0], *(1,) * (rank - part.dim()), *part.shape[1:])
        for part in inputs
    ]


def _masks_given(inputs: Any, masks: Any) -> list[torch.Tensor | None]:
    """Return the mask of each input.

    Raises:
        ValueError: If there isn't one input, or None, for each.
    """
    if masks is None:
        return [None] * len(inputs)
    if not isinstance(masks, (list, tuple)):
        raise ValueError(f"`mask` should be a list. Received: mask={masks}")
    if not isinstance(inputs, (list, tuple)):
        raise ValueError(f"`inputs` should be a list. Received: inputs={inputs}")
    if len(inputs) != len(masks):
        raise ValueError(
            f"The lists `inputs` and `mask` should have the same length; got {len(inputs)} inputs and {len(masks)} masks."
        )
    return [None if mask is None else backend.as_tensor(mask) for mask in masks]


def _mask_of(tensor: torch.Tensor) -> torch.Tensor | None:
    mask: torch.Tensor | None = getattr(tensor, "_keras_mask", None)
    return mask


def _spread_mask(tensor: torch.Tensor) -> torch.Tensor | None:
    """Return the mask on a tensor with one value for each of the tensor's."""
    mask = _mask_of(tensor)
    if mask is None:
        return None
    mask = mask.bool().view(*mask.shape, *(1,) * (tensor.dim() - mask.dim()))
    return mask.expand(tensor.shape)


def _extreme(
    choose: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], inputs: Sequence[torch.Tensor]
) -> torch.Tensor:
    found, found_mask = inputs[0], _spread_mask(inputs[0])
    for part in inputs[1:]:
        mask = _spread_mask(part)
        if mask is not None:
            part = torch.where(mask, part, found)
        if found_mask is not None:
            found = torch.where(found_mask, found, part)
        found_mask = None if mask is None or found_mask is None else found_mask | mask
        found = choose(found, part)
    return found


def add(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """Return `Add(**kwargs)(inputs)`."""
    return Add(**kwargs)(inputs)


def subtract(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """Return `Subtract(**kwargs)(inputs)`."""
    return Subtract(**kwargs)(inputs)


def multiply(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """Return `Multiply(**kwargs)(inputs)`."""
    return Multiply(**kwargs)(inputs)


def average(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """Return `Average(**kwargs)(inputs)`."""
    return Average(**kwargs)(inputs)


def maximum(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """Return `Maximum(**kwargs)(inputs)`."""
    return Maximum(**kwargs)(inputs)


def minimum(inputs: Sequence[Any], **kwargs: Any) -> Any:
    """Return `Minimum(**kwargs)(inputs)`."""
    return Minimum(**kwargs)(inputs)


def concatenate(inputs: Sequence[Any], axis: int = -1, **kwargs: Any) -> Any:
    """Return `Concatenate(axis, **kwargs)(inputs)`."""
    return Concatenate(axis, **kwargs)(inputs)


call_as(__name__)
