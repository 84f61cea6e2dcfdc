"""Dropout by sixteen random bits for each number, which on the CPU takes less than half the time of torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

_LEAST, _LEAST_IN_GRAPH = 4096, 1024
_RATES = (0.001, 0.999)

# Odd numbers by which 32 bits are mixed well: each bit that goes in changes nearly half of those that come out.
_FIRST, _SECOND = 2146121005, -2073254261


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
    words = torch.randint(-(2**63), 2**63 - 1, (count,), device=inputs.device)
    bits = words.view(torch.int16)[: inputs.numel()].view(inputs.shape)
    below = bits < round((1.0 - rate) * 2**16) - 2**15
    return inputs * (below.to(inputs.dtype) * (1.0 / (1.0 - rate)))


def dropout_in_graph(inputs: Tensor, rate: float) -> Tensor:
    """Do as `dropout`, in a form for graphs: only some random numbers come from torch's generator.

    Those are one for each place along the first axes and one for each place along the last axes. A number of the inputs has
    the sum of its two, mixed by two multiplications, each after a fold of the upper bits: operations that a compiler makes
    part of the loop around them, where a draw for each number would be a loop of its own.

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
    if _words(inputs, rate, _LEAST_IN_GRAPH) is None:
        return F.dropout(inputs, rate)
    shape = inputs.shape
    first = min(range(len(shape)), key=lambda axis: shape[:axis].numel() + shape[axis:].numel())
    count = shape[:first].numel()
    drawn = torch.randint(-(2**31), 2**31, (count + shape[first:].numel(),), dtype=torch.int32, device=inputs.device)
    bits = drawn[:count].view(*shape[:first], *[1] * (len(shape) - first)) + drawn[count:].view(shape[first:])
    # What is shifted in are copies of the sign.
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) * _FIRST
    bits = (bits ^ ((bits >> 15) & 0x1FFFF)) * _SECOND
    below = bits < round((1.0 - rate) * 2**32) - 2**31
    return inputs * (below.to(inputs.dtype) * (1.0 / (1.0 - rate)))


def _words(inputs: Tensor, rate: float, least: int) -> int | None:
    number = inputs.numel()
    if number < least or inputs.device.type != "cpu" or not _RATES[0] <= rate <= _RATES[1]:
        return None
    return (number + 3) // 4
