"""Activations of bounded range: sigmoids, tanhs, softmaxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from oncue.backend import as_tensor


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Compute `1 / (1 + exp(-x))`.

    Example:
        >>> sigmoid(torch.tensor([0.0]))
        tensor([0.5000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return torch.sigmoid(x)


def hard_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Compute `x / 6 + 1 / 2` within 0 and 1.

    Example:
        >>> hard_sigmoid(torch.tensor([-3.0, 0.0, 3.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.hardsigmoid(x)


def sparse_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Compute `(x + 1) / 2` within 0 and 1 (Blondel et al., 2019).

    Example:
        >>> sparse_sigmoid(torch.tensor([-3.0, 0.0, 3.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return (0.5 * (x + 1)).clamp(0.0, 1.0)


def log_sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Compute the logarithm of `sigmoid(x)`.

    Example:
        >>> log_sigmoid(torch.tensor([0.0]))
        tensor([-0.6931])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.logsigmoid(x)


def tanh(x: torch.Tensor) -> torch.Tensor:
    """Compute the hyperbolic tangent.

    Example:
        >>> tanh(torch.tensor([1.0]))
        tensor([0.7616])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return torch.tanh(x)


def hard_tanh(x: torch.Tensor) -> torch.Tensor:
    """Return x within -1 and 1.

    Example:
        >>> hard_tanh(torch.tensor([-2.0, 0.5]))
        tensor([-1.0000,  0.5000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.hardtanh(x)


def softsign(x: torch.Tensor) -> torch.Tensor:
    """Compute `x / (|x| + 1)`.

    Example:
        >>> softsign(torch.tensor([1.0]))
        tensor([0.5000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.softsign(x)


def softmax(x: torch.Tensor, axis: int | Sequence[int] | None = -1) -> torch.Tensor:
    """Turn numbers into probabilities: `exp(x) / sum(exp(x))`.

    Args:
        x: A tensor or an array.
        axis: The axis or axes along which they sum to 1; None for all.

    Returns:
        A tensor of the shape of x.

    Example:
        >>> softmax(torch.tensor([0.0, 0.0]))
        tensor([0.5000, 0.5000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return torch.softmax(x, axis) if isinstance(axis, int) else _along_several(torch.softmax, x, axis)


def log_softmax(x: torch.Tensor, axis: int | Sequence[int] | None = -1) -> torch.Tensor:
    """Compute the logarithm of `softmax(x, axis)`.

    Example:
        >>> log_softmax(torch.tensor([0.0, 0.0]))
        tensor([-0.6931, -0.6931])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return torch.log_softmax(x, axis) if isinstance(axis, int) else _along_several(torch.log_softmax, x, axis)


def sparsemax(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Turn numbers into probabilities many of which are zero (Martins & Astudillo, 2016).

    Args:
        x: A tensor or an array.
        axis: The axis along which they sum to 1.

    Returns:
        `max(x - t, 0)`, with t such that the sum is 1.

    Example:
        >>> sparsemax(torch.tensor([2.0, 1.5, 0.0]))
        tensor([0.7500, 0.2500, 0.0000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    ordered = x.sort(dim=axis, descending=True).values
    shape = [1] * x.ndim
    shape[axis] = -1
    count = torch.arange(1, x.shape[axis] + 1, device=x.device, dtype=x.dtype).view(shape)
    sums = ordered.cumsum(axis)
    supported = ordered * count > sums - 1
    size = supported.sum(axis, keepdim=True)
    return (x - (sums.gather(axis, size - 1) - 1) / size).clamp(min=0)


def _along_several(
    function: Callable[[torch.Tensor, int], torch.Tensor], x: torch.Tensor, axes: Sequence[int] | None
) -> torch.Tensor:
    """Apply a function of one axis to several joined; None stands for all of them."""
    chosen = range(x.ndim) if axes is None else sorted(axis % x.ndim for axis in axes)
    kept = [axis for axis in range(x.ndim) if axis not in chosen]
    moved = x.permute([*kept, *chosen])
    outputs = function(moved.flatten(len(kept)), -1).reshape(moved.shape)
    return outputs.permute([[*kept, *chosen].index(axis) for axis in range(x.ndim)])
