"""Batch normalization over the rows of all processes, for whatever layer computes it by torch's functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from oncue.layers.batch_normalization import masked_moments

if TYPE_CHECKING:
    from oncue.training.parallel_step import Rows


class SynchronizedNorms(TorchFunctionMode):
    """In its block, batch normalization in training takes the mean and the variance of the rows of all processes.

    torch's `SyncBatchNorm` has no kernels for the CPU, and would have to be put in the place of the user's layers.

    Args:
        rows: Which rows of the batch are this process's.

    Attributes:
        used: Whether there was any.
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self._rows = rows
        self.used = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        replaced = _REPLACED.get(func)
        kwargs = kwargs or {}
        if replaced is None:
            return func(*args, **kwargs)
        self.used = True
        return replaced(self._rows, func, *args, **kwargs)


def _batch_norm(
    rows: Rows,
    func: Callable[..., Any],
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        found: Tensor = func(input, running_mean, running_var, weight, bias, training, momentum, eps)
        return found
    output, mean, variance, count = _normalized(rows, input, weight, bias, eps)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            unbiased = variance * (count / (count - 1).clamp(min=1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    return output


def _native_batch_norm(
    rows: Rows,
    func: Callable[..., Any],
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    if not training or running_mean is not None or running_var is not None:
        return func(input, weight, bias, running_mean, running_var, training, momentum, eps)
    output, mean, variance, _ = _normalized(rows, input, weight, bias, eps)
    return output, mean, torch.rsqrt(variance + eps)


def _masked_moments(rows: Rows, func: Callable[..., Any], x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    own = rows.own

    def summed(parts: Tensor) -> Tensor:
        total: Tensor = _Sum.apply(parts * own, rows)  # type: ignore[no-untyped-call]  # as torch declares it
        return total

    return masked_moments(x, mask, summed)


_REPLACED: dict[Any, Callable[..., Any]] = {
    F.batch_norm: _batch_norm,
    torch.native_batch_norm: _native_batch_norm,
    masked_moments: _masked_moments,
}


def _normalized(
    rows: Rows, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the normalized values, the mean and the variance of each channel (axis 1), and how many values each has."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    output, mean, variance, count = _Normalize.apply(wide, eps, rows)  # type: ignore[no-untyped-call]
    shape = (1, -1, *(1,) * (x.dim() - 2))
    if weight is not None:
        output = output * weight.view(shape)
    if bias is not None:
        output = output + bias.view(shape)
    return output.to(x.dtype), mean, variance, count


class _Normalize(torch.autograd.Function):
    """Values less their mean, by their deviation, both over all processes.

    The gradient is that of batch normalization (Ioffe & Szegedy 2015, section 3), whose two means over the batch are taken
    over all processes too, as the losses of all add up to one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float, rows: Rows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = (1, -1, *(1,) * (x.dim() - 2))
        own = rows.own
        values = own * x.numel() / x.shape[1]
        sums = rows.total_of(torch.cat([x.sum(axes) * own, torch.full((1,), values, dtype=x.dtype, device=x.device)]))
        mean, count = sums[:-1] / sums[-1], sums[-1]
        centred = x - mean.view(shape)
        variance = rows.total_of(centred.square().sum(axes) * own) / count
        deviation = torch.rsqrt(variance + eps)
        output = centred * deviation.view(shape)
        ctx.save_for_backward(output, deviation, count)
        ctx.rows, ctx.axes, ctx.shape, ctx.own = rows, axes, shape, own
        ctx.mark_non_differentiable(mean, variance, count)
        return output, mean, variance, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, None, None]:
        output, deviation, count = ctx.saved_tensors
        sums = ctx.rows.total_of(torch.stack([grad.sum(ctx.axes), (grad * output).sum(ctx.axes)]))
        first, second = (part.view(ctx.shape) / count for part in sums)
        # A row that only runs along has no part in the mean and the variance.
        return (grad - first - output * second) * deviation.view(ctx.shape) * ctx.own, None, None


class _Sum(torch.autograd.Function):
    """The sum over all processes; each of their losses depends on it, so that its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        return rows.total_of(values.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.rows.total_of(grad.clone()), None
