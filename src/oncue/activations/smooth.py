"""Smooth activations: gelu, silu and others like them, and the identity."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from oncue.backend import as_tensor


def linear(x: torch.Tensor) -> torch.Tensor:
    """Return x.

    Example:
        >>> linear(torch.tensor([1.0]))
        tensor([1.])
    """
    return x


def exponential(x: torch.Tensor) -> torch.Tensor:
    """Compute `exp(x)`.

    Example:
        >>> exponential(torch.tensor([0.0]))
        tensor([1.])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return torch.exp(x)


def softplus(x: torch.Tensor) -> torch.Tensor:
    """Compute `log(exp(x) + 1)`.

    Example:
        >>> softplus(torch.tensor([0.0]))
        tensor([0.6931])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.softplus(x)


def silu(x: torch.Tensor) -> torch.Tensor:
    """Compute `x * sigmoid(x)`, also called swish (Ramachandran et al., 2017).

    Example:
        >>> silu(torch.tensor([1.0]))
        tensor([0.7311])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.silu(x)


def hard_silu(x: torch.Tensor) -> torch.Tensor:
    """Compute `x * hard_sigmoid(x)` (Howard et al., 2019).

    Example:
        >>> hard_silu(torch.tensor([1.0, 3.0]))
        tensor([0.6667, 3.0000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.hardswish(x)


def gelu(x: torch.Tensor, approximate: bool = False) -> torch.Tensor:
    """Gaussian error linear unit: x times the probability of a standard normal number below x (Hendrycks & Gimpel, 2016).

    Args:
        x: A tensor or an array.
        approximate: Whether to use the faster formula with tanh.

    Returns:
        A tensor of the shape of x.

    Example:
        >>> gelu(torch.tensor([1.0]))
        tensor([0.8413])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.gelu(x, approximate="tanh" if approximate else "none")


def mish(x: torch.Tensor) -> torch.Tensor:
    """Compute `x * tanh(softplus(x))` (Misra, 2019).

    Example:
        >>> mish(torch.tensor([1.0]))
        tensor([0.8651])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.mish(x)


def glu(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Gated linear unit: one half of x times the sigmoid of the other (Dauphin et al., 2017).

    Args:
        x: A tensor or an array.
        axis: The axis that is halved; its size must be even.

    Returns:
        A tensor half as long along the axis.

    Example:
        >>> glu(torch.tensor([1.0, 0.0]))
        tensor([0.5000])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.glu(x, axis)


def tanh_shrink(x: torch.Tensor) -> torch.Tensor:
    """Compute `x - tanh(x)`.

    Example:
        >>> tanh_shrink(torch.tensor([1.0]))
        tensor([0.2384])
    """
    x = x if isinstance(x, torch.Tensor) else as_tensor(x)
    return F.tanhshrink(x)
