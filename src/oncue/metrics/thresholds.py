"""Counts of right and wrong binary predictions at one or many thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from oncue.backend import epsilon
from oncue.core.numbers import number_of
from oncue.losses.shapes import as_tensor, match_ranks

LOWEST = -1e10


class Counts(NamedTuple):
    """True and false positives of a batch, and all its positives and negatives; weighted where there are weights."""

    true_positives: Tensor
    false_positives: Tensor
    positives: Tensor
    negatives: Tensor


def parse_thresholds(thresholds: Any, default: float) -> list[float]:
    """Return thresholds as a list, or refuse them.

    Args:
        thresholds: A number, a list of numbers, or None for the default.
        default: The threshold that None stands for.

    Returns:
        The thresholds.

    Raises:
        ValueError: When one is not in [0, 1].

    Example:
        >>> parse_thresholds(None, 0.5), parse_thresholds([0.2, 0.8], 0.5)
        ([0.5], [0.2, 0.8])
    """
    if thresholds is None:
        return [default]
    given = thresholds if isinstance(thresholds, (list, tuple)) or np.ndim(thresholds) else [thresholds]
    found = [number for number in map(number_of, given) if number is not None and 0 <= number <= 1]
    bad = [value for value in given if number_of(value) not in found]
    if bad or not found:
        raise ValueError(f"`thresholds` must be numbers from 0 to 1; got {bad or thresholds!r}.")
    return found


def evenly_spaced(thresholds: Sequence[float]) -> bool:
    """Return whether thresholds are 0, 1/n, 2/n, ..., 1, which lets predictions be sorted into bins.

    Example:
        >>> evenly_spaced([0.0, 0.5, 1.0]), evenly_spaced([0.2, 0.8])
        (True, False)
    """
    even = np.linspace(0.0, 1.0, len(thresholds))
    return len(thresholds) >= 3 and bool(np.allclose(thresholds, even, atol=epsilon()))


def count(
    y_true: Any,
    y_pred: Any,
    thresholds: Sequence[float],
    even: bool,
    dtype: torch.dtype,
    *,
    top_k: int | None = None,
    class_id: int | None = None,
    sample_weight: Any = None,
    multi_label: bool = False,
    label_weights: Tensor | None = None,
) -> Counts:
    """Count a batch.

    Args:
        y_true: Targets 0 and 1, shape (batch, ...).
        y_pred: Probabilities of the same shape.
        thresholds: A prediction above a threshold counts as positive at it.
        even: Whether the thresholds are evenly spaced from 0 to 1.
        dtype: The float type to compare in.
        top_k: Count only the k highest predictions of a sample as positive.
        class_id: Look at this class alone.
        sample_weight: None, or weights that broadcast to the predictions without their last axis.
        multi_label: Count each label (last axis) for itself.
        label_weights: Weights of the labels, shape (labels,).

    Returns:
        Counts of shape (thresholds,), or (thresholds, labels) with `multi_label`; positives and negatives are (), or
        (labels,).

    Raises:
        ValueError: When the shapes don't fit together.
    """
    y_pred = as_tensor(y_pred, "y_pred").to(dtype)
    y_true = as_tensor(y_true, "y_true", device=y_pred.device).to(dtype)
    y_pred, y_true = match_ranks(y_pred, y_true)
    if y_true.shape != y_pred.shape:
        raise ValueError(
            f"`y_true` and `y_pred` must have one shape; got {tuple(y_true.shape)} and {tuple(y_pred.shape)}. Integer "
            f"class "
            "labels can be made one-hot with `keras.utils.to_categorical(y, num_classes)`."
        )
    weights: Tensor | None = None
    if sample_weight is not None:
        weights = as_tensor(sample_weight, "sample_weight", device=y_pred.device).to(dtype).unsqueeze(-1)
        weights = match_ranks(y_true, weights, expand_rank_1=False)[1]
    if top_k is not None:
        best = y_pred.topk(top_k, dim=-1).indices
        y_pred = torch.full_like(y_pred, LOWEST).scatter(-1, best, y_pred.gather(-1, best))
    if class_id is not None:
        if y_pred.ndim == 1:
            raise ValueError(
                f"`class_id` needs predictions of shape (batch, classes); got `y_pred` of shape {tuple(y_pred.shape)}."
            )
        y_true, y_pred = y_true[..., class_id, None], y_pred[..., class_id, None]
    if label_weights is not None:
        label_weights = label_weights.to(y_pred).expand_as(y_pred)
        weights = label_weights if weights is None else weights * label_weights
    true = y_true.bool().to(dtype)
    false = 1.0 - true
    if weights is not None:
        weights = weights.expand_as(y_pred)
        true, false = true * weights, false * weights
    labels = y_pred.shape[-1] if multi_label else 1
    y_pred, true, false = (x.reshape(-1, labels) for x in (y_pred, true, false))
    if even:
        found = _by_bins(true, false, y_pred, thresholds)
    elif len(thresholds) == 1:
        above = y_pred > thresholds[0]
        found = (true * above).sum(0, keepdim=True), (false * above).sum(0, keepdim=True)
    else:
        marks = torch.tensor(thresholds, dtype=dtype).to(y_pred.device, non_blocking=True)
        above = (y_pred > marks.view(-1, 1, 1)).to(dtype)
        found = (above * true).sum(1), (above * false).sum(1)
    counts = Counts(*found, true.sum(0), false.sum(0))
    return counts if multi_label else Counts(*(x.squeeze(-1) for x in counts))


def _by_bins(true: Tensor, false: Tensor, y_pred: Tensor, thresholds: Sequence[float]) -> tuple[Tensor, Tensor]:
    # A prediction in bin i is above the thresholds 0 to i: one pass over the data instead of one for each threshold.
    number, labels = len(thresholds), y_pred.shape[-1]
    bins = (y_pred.clamp(0.0, 1.0) * (number - 1)).ceil() - 1
    if thresholds[0] < 0.0 or thresholds[-1] > 1.0:
        bins = bins.clamp(min=0)
    # A probability of exactly 0 is above no threshold: it goes to a bin of its own in front.
    slots = (bins.long() + 1) * labels + torch.arange(labels, device=y_pred.device)
    totals = true.new_zeros(2, (number + 1) * labels)
    totals.scatter_add_(1, slots.reshape(1, -1).expand(2, -1), torch.stack([true.reshape(-1), false.reshape(-1)]))
    above = totals.view(2, number + 1, labels)[:, 1:].flip(1).cumsum(1).flip(1)
    return above[0], above[1]
