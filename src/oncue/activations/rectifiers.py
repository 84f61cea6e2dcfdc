"""Activations with a kink at zero: relu and its variants."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from oncue.backend import as_tensor


def relu(
    x: torch.Tensor, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> torch.Tensor:
    """Rectified linear unit: x above the threshold, `negative_slope * (x - threshold)` below it.

    Args:
        x: A tensor or an array.
        negative_slope: The slope below the threshold.
        max_value: The largest value returned; None for no bound.
        threshold: Where the function bends.

    Returns:
        A tensor of the shape of x.

    Example:
        >>> relu(torch.tensor([-2.0, 3.0, 9.0]), negative_slope=0.5, max_value=6.0)
        tensor([-1.,  3.,  6.])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    if threshold == 0.0 and max_value is None:
        return F.relu(x) if negative_slope == 0.0 else F.leaky_relu(x, negative_slope)
    above = F.threshold(x, threshold, 0.0) if threshold != 0.0 else F.relu(x)
    if max_value is not None:
        above = above.clamp(0.0, max_value)
    return above if negative_slope == 0.0 else above - negative_slope * F.relu(threshold - x)


def leaky_relu(x: torch.Tensor, negative_slope: float = 0.2) -> torch.Tensor:
    """Return x above zero and `negative_slope * x` below.

    Example:
        >>> leaky_relu(torch.tensor([-1.0, 1.0]))
        tensor([-0.2000,  1.0000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.leaky_relu(x, negative_slope)


def relu6(x: torch.Tensor) -> torch.Tensor:
    """Relu that never exceeds 6.

    Example:
        >>> relu6(torch.tensor([-1.0, 9.0]))
        tensor([0., 6.])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.relu6(x)


def elu(x: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """Exponential linear unit: `alpha * (exp(x) - 1)` below zero (Clevert et al., 2016).

    Example:
        >>> elu(torch.tensor([-1.0, 1.0]))
        tensor([-0.6321,  1.0000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.elu(x, alpha)


def celu(x: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """Continuously differentiable elu: `alpha * (exp(x / alpha) - 1)` below zero (Barron, 2017).

    Example:
        >>> celu(torch.tensor([-1.0, 1.0]), alpha=0.5)
        tensor([-0.4323,  1.0000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.celu(x, alpha)


def selu(x: torch.Tensor) -> torch.Tensor:
    """Scaled elu, which keeps activations normalized (Klambauer et al., 2017).

    Example:
        >>> selu(torch.tensor([-1.0, 1.0]))
        tensor([-1.1113,  1.0507])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.selu(x)


def threshold(x: torch.Tensor, threshold: float, default_value: float) -> torch.Tensor:
    """Return x above the threshold, and a default value at and below it.

    Example:
        >>> threshold(torch.tensor([0.5, 2.0]), 1.0, 0.0)
        tensor([0., 2.])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.threshold(x, threshold, default_value)


def soft_shrink(x: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    """Move x towards zero by the threshold, and stop at zero.

    Example:
        >>> soft_shrink(torch.tensor([-1.0, 0.2, 2.0]))
        tensor([-0.5000,  0.0000,  1.5000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.softshrink(x, threshold)


def hard_shrink(x: torch.Tensor, threshold: float = 0.5) -> torch.Tensor:
    """Return x, but zero where it is within the threshold of zero.

    Example:
        >>> hard_shrink(torch.tensor([-1.0, 0.2, 2.0]))
        tensor([-1.,  0.,  2.])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.hardshrink(x, threshold)


def sparse_plus(x: torch.Tensor) -> torch.Tensor:
    """Return 0 up to -1, x from 1 on, and `(x + 1)^2 / 4` between.

    Example:
        >>> sparse_plus(torch.tensor([-2.0, 0.0, 2.0]))
        tensor([0.0000, 0.2500, 2.0000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return torch.where(x >= 1, x, 0.25 * (x.clamp(-1, 1) + 1) ** 2)


def squareplus(x: torch.Tensor, b: float = 4) -> torch.Tensor:
    """Compute `(x + sqrt(x^2 + b)) / 2`, a smooth relu (Barron, 2021).

    Example:
        >>> squareplus(torch.tensor([0.0]))
        tensor([1.])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return (x + torch.sqrt(x**2 + b)) / 2
