"""Losses of overlap, for segmentation: Dice and Tversky (https://arxiv.org/abs/1706.05721)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oncue.backend import epsilon
from oncue.core.builtin import builtin
from oncue.losses.loss import LossFunctionWrapper
from oncue.losses.shapes import pair

Axes = int | tuple[int, ...] | list[int] | None


def _total(x: Tensor, axis: Axes) -> Tensor:
    return x.sum() if axis is None else x.sum(tuple(axis) if isinstance(axis, list) else axis)


def dice(y_true: Any, y_pred: Any, axis: Axes = None) -> Tensor:
    """Return 1 - 2 sum(y_true y_pred) / (sum(y_true) + sum(y_pred)).

    Args:
        y_true: Masks, shape (batch, ...).
        y_pred: Predictions of the same shape.
        axis: The axes that are summed over; all of them when None.

    Returns:
        A scalar, or one loss for each entry of the other axes.

    Example:
        >>> dice([[1.0, 0.0]], [[1.0, 1.0]])
        tensor(0.3333)
    """
    true, pred = pair(y_true, y_pred)
    return 1 - 2.0 * _total(true * pred, axis) / (_total(true, axis) + _total(pred, axis) + epsilon())


def tversky(y_true: Any, y_pred: Any, alpha: float = 0.5, beta: float = 0.5, axis: Axes = None) -> Tensor:
    """Return 1 - Tversky index, which weighs the two kinds of errors separately.

    Args:
        y_true: Masks, shape (batch, ...).
        y_pred: Predictions of the same shape.
        alpha: The weight of what is in `y_true` and not predicted (as Keras computes it).
        beta: The weight of what is predicted and not in `y_true`.
        axis: The axes that are summed over; all of them when None.

    Returns:
        A scalar, or one loss for each entry of the other axes.

    Example:
        >>> tversky([[1.0, 0.0]], [[1.0, 1.0]])
        tensor(0.3333)
    """
    true, pred = pair(y_true, y_pred)
    both = _total(true * pred, axis)
    missed = _total((1 - pred) * true, axis)
    invented = _total(pred * (1 - true), axis)
    return 1 - both / (both + missed * alpha + invented * beta + epsilon())


@builtin
class Dice(LossFunctionWrapper):
    """Dice loss; see `dice`.

    Args:
        reduction: As for `Loss`.
        name: The name.
        axis: The axes that are summed over.
        dtype: The float type to compute in.

    Example:
        >>> Dice()([[1.0, 0.0]], [[1.0, 1.0]])
        tensor(0.3333)
    """

    _options = ("axis",)

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "dice",
        axis: Axes = None,
        dtype: str | None = None,
    ) -> None:
        self.axis = axis
        super().__init__(dice, reduction, name, dtype, axis=axis)


@builtin
class Tversky(LossFunctionWrapper):
    """Tversky loss; see `tversky`.

    Args:
        alpha: The weight of what is in the target and not predicted.
        beta: The weight of what is predicted and not in the target.
        reduction: As for `Loss`.
        name: The name.
        axis: The axes that are summed over.
        dtype: The float type to compute in.

    Example:
        >>> Tversky()([[1.0, 0.0]], [[1.0, 1.0]])
        tensor(0.3333)
    """

    _options = ("alpha", "beta", "axis")

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "tversky",
        axis: Axes = None,
        dtype: str | None = None,
    ) -> None:
        self.alpha, self.beta, self.axis = alpha, beta, axis
        super().__init__(tversky, reduction, name, dtype, alpha=alpha, beta=beta, axis=axis)
