"""How the losses of the samples become one number: weights, masks and reductions."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from oncue.core.suggest import unknown
from oncue.losses.shapes import as_tensor, floats, match_ranks

MEANS = frozenset({"sum_over_batch_size", "mean", "mean_with_sample_weight"})
REDUCTIONS = MEANS | {"sum", "none"}


Divisor = Tensor | Literal["rows", "nothing"]
"""What the losses of a batch's samples are divided by to become one number: a sum that depends on masks or weights, by which
they haven't been divided yet; or, already, the number of rows (times what is equal for all), or nothing."""


def check_reduction(reduction: str | None) -> str | None:
    """Return a reduction's name, or refuse it.

    Args:
        reduction: One of `REDUCTIONS`, None (the same as "none"), or Keras 2's "auto".

    Returns:
        The reduction; "auto" becomes "sum_over_batch_size".

    Raises:
        ValueError: For any other value.

    Example:
        >>> check_reduction("sum")
        'sum'
    """
    if reduction == "auto":
        return "sum_over_batch_size"
    if reduction is not None and reduction not in REDUCTIONS:
        raise unknown("`reduction`", reduction, REDUCTIONS)
    return reduction


def mask_weights(sample_weight: Any, mask: Any, dtype: torch.dtype, reduction: str | None) -> Tensor | None:
    """Join a mask into the sample weights.

    Under a mean, the entries that count weigh total/valid, so that the mean is taken over the valid ones only.

    Args:
        sample_weight: Weights of the samples, or None.
        mask: True (or 1) where an entry counts, or None.
        dtype: The float type of the result.
        reduction: The reduction that follows.

    Returns:
        The weights to multiply with, or None when there are neither weights nor a mask.

    Example:
        >>> mask_weights(None, torch.tensor([True, False]), torch.float32, "mean")
        tensor([2., 0.])
    """
    if mask is None:
        return None if sample_weight is None else floats(sample_weight, "sample_weight", dtype)
    weights = as_tensor(mask, "mask").to(dtype)
    if reduction in ("mean", "sum_over_batch_size"):
        # A mask without a single valid entry has only zeros to scale, so any finite divisor will do.
        weights = weights * (weights.numel() / weights.sum().clamp(min=1.0))
    if sample_weight is None:
        return weights
    weights, given = match_ranks(weights, floats(sample_weight, "sample_weight", dtype, weights.device))
    return given * weights


def _aligned(weights: Tensor, values: Tensor) -> Tensor:
    """Return weights with an axis for each of the losses', or refuse them; broadcasting would pair other axes."""
    if values.ndim == 0:
        return weights
    aligned = weights.reshape(*weights.shape, *[1] * (values.ndim - weights.ndim))
    if aligned.ndim > values.ndim or any(
        mine not in (1, other) for mine, other in zip(aligned.shape, values.shape, strict=True)
    ):
        raise ValueError(
            f"`sample_weight` of shape {tuple(weights.shape)} doesn't fit losses of shape {tuple(values.shape)}: give one "
            "weight for each sample, of shape (samples,), or one for each loss."
        )
    return aligned


def reduce_weighted(values: Tensor, sample_weight: Any, mask: Any, reduction: str | None) -> Tensor:
    """Weigh the losses of the samples and reduce them, as Keras does.

    Args:
        values: Losses, one for each sample (and time step), or a scalar.
        sample_weight: None, or weights that broadcast against `values`.
        mask: None, or a mask of the shape of `values`.
        reduction: "sum_over_batch_size" and "mean" divide by the number of values, "mean_with_sample_weight" by the
            sum of the weights, "sum" doesn't divide, "none" and None return the weighted values.

    Returns:
        A scalar, or the weighted values.

    Example:
        >>> reduce_weighted(torch.tensor([1.0, 3.0]), [1.0, 0.0], None, "sum_over_batch_size")
        tensor(0.5000)
    """
    weights: Tensor | None = None
    if sample_weight is not None or mask is not None:
        weights = mask_weights(sample_weight, mask, values.dtype, reduction)
    if weights is not None:
        if weights.device != values.device:
            weights = weights.to(values.device)
        values, weights = match_ranks(values, weights)
        if weights.shape != values.shape:
            weights = _aligned(weights, values)
        values = values * weights
    if reduction is None or reduction == "none" or values.ndim == 0:
        return values
    if reduction == "sum" or values.numel() == 0:
        return values.sum()
    if reduction == "mean_with_sample_weight" and weights is not None:
        divisor = weights.sum()
        safe = torch.where(divisor == 0, torch.ones_like(divisor), divisor)
        return torch.where(divisor == 0, torch.zeros_like(divisor), values.sum() / safe)
    return values.mean()


def reduce_apart(values: Tensor, sample_weight: Any, mask: Any, reduction: str | None) -> tuple[Tensor, Divisor]:
    """Weigh the losses of the samples and reduce them, but leave a sum undivided whose divisor depends on masks or weights.

    Args:
        values: As for `reduce_weighted`.
        sample_weight: As for `reduce_weighted`.
        mask: As for `reduce_weighted`.
        reduction: As for `reduce_weighted`.

    Returns:
        The sum, and what it is to be divided by; or the loss, and what it was divided by, in a word.

    Example:
        >>> reduce_apart(torch.tensor([1.0, 3.0]), None, torch.tensor([True, False]), "sum_over_batch_size")
        (tensor(1.), tensor(1.))
        >>> reduce_apart(torch.tensor([1.0, 3.0]), None, None, "sum_over_batch_size")
        (tensor(2.), 'rows')
    """
    weights = None
    if reduction == "mean_with_sample_weight":
        weights = mask_weights(sample_weight, mask, values.dtype, reduction)
    elif reduction != "sum" and mask is not None:
        weights = as_tensor(mask, "mask").to(values.dtype)
    if weights is None:
        return reduce_weighted(values, sample_weight, mask, reduction), "nothing" if reduction == "sum" else "rows"
    if values.ndim == 0:
        return values * weights.sum(), weights.sum()
    # A sum of 16 bits may be too large for them.
    wide = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    return reduce_weighted(wide, sample_weight, mask, "sum"), weights.sum(dtype=wide.dtype)
