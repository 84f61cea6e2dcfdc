"""Gradient clipping in place, a few horizontally fused calls for all gradients and no wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from oncue.optimizers.foreach import Number, clamp_max_, clamp_min_, norms
from oncue.shards import is_sharded, parts_of, sum_of_parts


def clip_by_norm(gradients: list[Tensor], limit: Number) -> None:
    """Scale each gradient so that its own L2 norm is at most `limit`.

    Formula: `g * limit / max(norm(g), limit)` (Keras, `clipnorm`).

    Args:
        gradients: The gradients, changed in place.
        limit: The largest norm.

    Example:
        >>> gradient = torch.tensor([3.0, 4.0])
        >>> clip_by_norm([gradient], 1.0)
        >>> gradient
        tensor([0.6000, 0.8000])
    """
    scales = _norms(gradients, limit)
    clamp_min_(scales, limit)
    torch._foreach_reciprocal_(scales)
    torch._foreach_mul_(scales, limit)
    torch._foreach_mul_(parts_of(gradients), scales)


def clip_by_global_norm(gradients: list[Tensor], limit: Number) -> None:
    """Scale all gradients by one number so that the norm of them together is at most `limit`.

    Formula: `g * limit / max(norm(all), limit)`; a norm that is not finite makes every gradient NaN, as in Keras
    (`global_clipnorm`).

    Args:
        gradients: The gradients, changed in place.
        limit: The largest norm.

    Example:
        >>> gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
        >>> clip_by_global_norm(gradients, 1.0)
        >>> gradients
        [tensor([0.6000]), tensor([0.8000])]
    """
    norm = torch.linalg.vector_norm(torch.stack(_norms(gradients, limit)))
    scale = limit / norm.clamp_min(limit) + (norm - norm)
    torch._foreach_mul_(parts_of(gradients), scale)


def clip_by_value(gradients: list[Tensor], limit: Number) -> None:
    """Clip every element to `[-limit, limit]`.

    Args:
        gradients: The gradients, changed in place.
        limit: The largest absolute value.

    Example:
        >>> gradient = torch.tensor([3.0, -0.5])
        >>> clip_by_value([gradient], 1.0)
        >>> gradient
        tensor([ 1.0000, -0.5000])
    """
    parts = parts_of(gradients)
    clamp_min_(parts, -limit)
    clamp_max_(parts, limit)


def _norms(gradients: list[Tensor], limit: Number) -> list[Tensor]:
    """Return the norm of each gradient; of those of which each process has a part, in one message."""
    found = norms(parts_of(gradients), in_graph=isinstance(limit, Tensor))
    if not any(map(is_sharded, gradients)):
        return found
    return list(sum_of_parts(torch.stack(found).square(), gradients).sqrt())


class Clip(NamedTuple):
    """How gradients are clipped, in place.

    Example:
        >>> gradient = torch.tensor([3.0])
        >>> Clip(clip_by_value, 1.0)([gradient])
        >>> gradient
        tensor([1.])
    """

    function: Callable[[list[Tensor], Number], None]
    limit: float

    def __call__(self, gradients: list[Tensor]) -> None:
        """Clip gradients to the limit."""
        self.function(gradients, self.limit)
