"""Dropout by sixteen random bits for each number, which on the CPU takes less than half the time of torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

_LEAST, _LEAST_IN_GRAPH = 4096, 1024
_RATES = (0.001, 0.999)

# 2 ** 64 over the golden ratio, and the multipliers of David Stafford's thirteenth mixer, as signed numbers.
_STEP, _FIRST, _SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685


def dropout(inputs: Tensor, rate: float) -> Tensor:
    """Set a random fraction of the inputs to zero, and scale the rest up.

    The random numbers come from torch's generator. The fraction is met to within 2 ** -17, which is less than a hundred
    million draws could tell apart; rates near 0 and 1, small tensors and other devices go to torch's `dropout`. A mode for
    torch's functions sees a call of this function as one.

    Args:
        inputs: A tensor of floats.
        rate: The fraction that is dropped, from 0 to 1.

    Returns:
        A tensor of the same shape and type.

    Example:
        >>> kept = dropout(torch.ones(1000, 1000), 0.25) != 0
        >>> round(kept.float().mean().item(), 2)
        0.75
    """
    if has_torch_function_unary(inputs):
        seen: Tensor = handle_torch_function(dropout, (inputs,), inputs, rate)
        return seen
    count = _words(inputs, rate, _LEAST)
    if count is None:
        return F.dropout(inputs, rate)
    return _dropped(inputs, rate, torch.randint(-(2**63), 2**63 - 1, (count,), device=inputs.device))


def dropout_in_graph(inputs: Tensor, rate: float) -> Tensor:
    """Do as `dropout`, in a form for graphs: only one random number comes from torch's generator.

    The others are computed from it, in operations that a compiler makes one loop of: a counter from a random start, mixed
    by two multiplications, each after a fold of the word's halves. That is the `splitmix64` of Steele, Lea and Flood, "Fast
    splittable pseudorandom number generators" (2014), without its last fold.

    Args:
        inputs: A tensor of floats.
        rate: The fraction that is dropped, from 0 to 1.

    Returns:
        A tensor of the same shape and type.

    Example:
        >>> kept = dropout_in_graph(torch.ones(1000, 1000), 0.25) != 0
        >>> round(kept.float().mean().item(), 2)
        0.75
    """
    count = _words(inputs, rate, _LEAST_IN_GRAPH)
    if count is None:
        return F.dropout(inputs, rate)
    start = torch.randint(-(2**63), 2**63 - 1, (1,), device=inputs.device)
    words = torch.arange(count, device=inputs.device) * _STEP + start
    for multiplier in (_FIRST, _SECOND):
        words = (words ^ (words >> 32)) * multiplier
    return _dropped(inputs, rate, words)


def _words(inputs: Tensor, rate: float, least: int) -> int | None:
    number = inputs.numel()
    if number < least or inputs.device.type != "cpu" or not _RATES[0] <= rate <= _RATES[1]:
        return None
    return (number + 3) // 4


def _dropped(inputs: Tensor, rate: float, words: Tensor) -> Tensor:
    bits = words.view(torch.int16)[: inputs.numel()].view(inputs.shape)
    below = bits < round((1.0 - rate) * 2**16) - 2**15
    return inputs * (below.to(inputs.dtype) * (1.0 / (1.0 - rate)))
