"""In-place arithmetic on lists of tensors, with a number that is a float in eager steps and a tensor in a graph.

`torch._foreach_mul_` and `_foreach_div_` take either by themselves. The forms here are those for which torch takes a float
only, or reads the tensor's value at once; with a float each is one pass. In a graph the passes are fused anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Number = float | Tensor
"""A float, or a tensor without axes whose value a graph reads at each call."""

Tensors = list[Tensor]
Slots = Mapping[str, Tensors]
Numbers = Mapping[str, Any]
"""Each a `Number`, by its name."""

Rule = Callable[[Tensors, Tensors, Slots, Numbers], None]
"""Updates parameters in place by their gradients, their slots by name, and the numbers of the update by name.

Slots are changed in place too, gradients aren't."""


def lerp_(tensors: list[Tensor], ends: list[Tensor], share: Number) -> None:
    """Move each tensor towards its end: `t += share * (end - t)`.

    Example:
        >>> mean = torch.tensor([1.0])
        >>> lerp_([mean], [torch.tensor([3.0])], torch.tensor(0.5))
        >>> mean
        tensor([2.])
    """
    if isinstance(share, Tensor):
        torch._foreach_add_(tensors, torch._foreach_mul(torch._foreach_sub(ends, tensors), share))
    else:
        torch._foreach_lerp_(tensors, ends, share)


def plus(tensors: list[Tensor], number: Number) -> list[Tensor]:
    """Return new tensors, with a number added to each element.

    Example:
        >>> plus([torch.tensor([1.0])], torch.tensor(0.5))
        [tensor([1.5000])]
    """
    return list(torch._foreach_add(tensors, _for_each(tensors, number)))


def add_(tensors: list[Tensor], number: Number) -> None:
    """Add a number to each element.

    Example:
        >>> root = torch.tensor([1.0])
        >>> add_([root], torch.tensor(0.5))
        >>> root
        tensor([1.5000])
    """
    torch._foreach_add_(tensors, _for_each(tensors, number))


def add_scaled_(tensors: list[Tensor], others: list[Tensor], scale: Number) -> None:
    """Add a multiple of others: `t += scale * other`.

    Example:
        >>> weight = torch.tensor([1.0])
        >>> add_scaled_([weight], [torch.tensor([3.0])], torch.tensor(-0.5))
        >>> weight
        tensor([-0.5000])
    """
    if isinstance(scale, Tensor):
        torch._foreach_add_(tensors, torch._foreach_mul(others, scale))
    else:
        torch._foreach_add_(tensors, others, alpha=scale)


def add_square_(tensors: list[Tensor], others: list[Tensor], scale: Number) -> None:
    """Add a multiple of squares: `t += scale * other ** 2`.

    Example:
        >>> square = torch.tensor([1.0])
        >>> add_square_([square], [torch.tensor([3.0])], torch.tensor(0.5))
        >>> square
        tensor([5.5000])
    """
    if isinstance(scale, Tensor):
        torch._foreach_addcmul_(tensors, torch._foreach_mul(others, scale), others)
    else:
        torch._foreach_addcmul_(tensors, others, others, value=scale)


def add_quotient_(tensors: list[Tensor], numerators: list[Tensor], denominators: list[Tensor], scale: Number) -> None:
    """Add a multiple of quotients: `t += scale * numerator / denominator`.

    Example:
        >>> weight = torch.tensor([1.0])
        >>> add_quotient_([weight], [torch.tensor([3.0])], [torch.tensor([2.0])], torch.tensor(-1.0))
        >>> weight
        tensor([-0.5000])
    """
    if isinstance(scale, Tensor):
        torch._foreach_addcdiv_(tensors, torch._foreach_mul(numerators, scale), denominators)
    else:
        torch._foreach_addcdiv_(tensors, numerators, denominators, value=scale)


def norms(tensors: list[Tensor], in_graph: bool) -> list[Tensor]:
    """Return the L2 norm of each tensor.

    Args:
        tensors: The tensors.
        in_graph: Whether a compiler is to fuse it with what surrounds it, which torch's one kernel for all prevents.

    Example:
        >>> norms([torch.tensor([3.0, 4.0])], in_graph=True)
        [tensor(5.)]
    """
    return [torch.linalg.vector_norm(tensor) for tensor in tensors] if in_graph else list(torch._foreach_norm(tensors))


def clamp_min_(tensors: list[Tensor], least: Number) -> None:
    """Raise what is below a number to it.

    Example:
        >>> norm = torch.tensor([0.5, 2.0])
        >>> clamp_min_([norm], torch.tensor(1.0))
        >>> norm
        tensor([1., 2.])
    """
    torch._foreach_clamp_min_(tensors, _for_each(tensors, least))


def clamp_max_(tensors: list[Tensor], most: Number) -> None:
    """Lower what is above a number to it.

    Example:
        >>> gradient = torch.tensor([0.5, 2.0])
        >>> clamp_max_([gradient], torch.tensor(1.0))
        >>> gradient
        tensor([0.5000, 1.0000])
    """
    torch._foreach_clamp_max_(tensors, _for_each(tensors, most))


def _for_each(tensors: list[Tensor], number: Number) -> Any:
    # Of a single tensor torch would read the value; of one for each it doesn't.
    return [number] * len(tensors) if isinstance(number, Tensor) else number
