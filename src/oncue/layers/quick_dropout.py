"""Dropout that draws sixteen random bits for each number, which on the CPU takes less than half the time of torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST = 4096
_RATES = (0.001, 0.999)


def dropout(inputs: Tensor, rate: float) -> Tensor:
    """Set a random share of the inputs to zero, and scale the rest up.

    The random numbers come from torch's generator. The share is met to within 2 ** -17, which is less than a hundred
    million draws could tell apart; rates near 0 and 1, small tensors and other devices go to torch's `dropout`.

    Args:
        inputs: A tensor of floats.
        rate: The share that is dropped, from 0 to 1.

    Returns:
        A tensor of the same shape and type.

    Example:
        >>> kept = dropout(torch.ones(1000, 1000), 0.25) != 0
        >>> round(kept.float().mean().item(), 2)
        0.75
    """
    number = inputs.numel()
    if number < _LEAST or inputs.device.type != "cpu" or not _RATES[0] <= rate <= _RATES[1]:
        return F.dropout(inputs, rate)
    words = torch.randint(-(2**63), 2**63 - 1, ((number + 3) // 4,))
    below = words.view(torch.int16)[:number].view(inputs.shape) < round((1.0 - rate) * 2**16) - 2**15
    return inputs * (below.to(inputs.dtype) * (1.0 / (1.0 - rate)))
