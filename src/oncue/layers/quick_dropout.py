"""Dropout by sixteen random bits for each number, which on the CPU takes less than half the time of torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST, _LEAST_IN_GRAPH = 4096, 1024
_RATES = (0.001, 0.999)

# 2 ** 64 over the golden ratio, and the multipliers of David Stafford's thirteenth mixer, as signed numbers.
_STEP, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685


def dropout(inputs: Tensor, rate: float, in_graph: bool | None = None) -> Tensor:
    """Set a random fraction of the inputs to zero, and scale the rest up.

    The random numbers come from torch's generator. In a graph only one does, from which the others are computed, in
    operations that a compiler makes one loop of: a counter from a random start, mixed by two multiplications, each after a
    fold of the word's halves. That is the `splitmix64` of Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators" (2014), without its last fold.

    The fraction is met to within 2 ** -17, which is less than a hundred million draws could tell apart; rates near 0 and 1,
    small tensors and other devices go to torch's `dropout`.

    Args:
        inputs: A tensor of floats.
        rate: The fraction that is dropped, from 0 to 1.
        in_graph: Whether this becomes part of a compiled graph; None where it is so while a compiler traces.

    Returns:
        A tensor of the same shape and type.

    Example:
        >>> kept = dropout(torch.ones(1000, 1000), 0.25) != 0
        >>> round(kept.float().mean().item(), 2)
        0.75
    """
    if in_graph is None:
        in_graph = torch.compiler.is_compiling()
    number, device = inputs.numel(), inputs.device
    least = _LEAST_IN_GRAPH if in_graph else _LEAST
    if number < least or device.type != "cpu" or not _RATES[0] <= rate <= _RATES[1]:
        return F.dropout(inputs, rate)
    count = (number + 3) // 4
    words = torch.randint(-(2**63), 2**63 - 1, (1 if in_graph else count,), device=device)
    if in_graph:
        words = torch.arange(count, device=device) * _STEP + words
        for multiplier in (_FIRST, _SECOND):
            words = (words ^ (words >> 32)) * multiplier
    below = words.view(torch.int16)[:number].view(inputs.shape) < round((1.0 - rate) * 2**16) - 2**15
    return inputs * (below.to(inputs.dtype) * (1.0 / (1.0 - rate)))
