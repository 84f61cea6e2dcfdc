"""Hinge losses, for targets -1 and 1 (0 and 1 are turned into them).

Formulas: https://keras.io/api/losses/hinge_losses/.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oncue.core.builtin import builtin
from oncue.losses.loss import LossFunctionWrapper
from oncue.losses.shapes import pair


def _margins(y_true: Any, y_pred: Any) -> Tensor:
    true, pred = pair(y_true, y_pred)
    # Decided on the device: whether all labels are 0 or 1 is never read.
    zero_one = ((true == 0) | (true == 1)).all()
    true = torch.where(zero_one, 2.0 * true - 1.0, true)
    return (1.0 - true * pred).clamp(min=0.0)


def hinge(y_true: Any, y_pred: Any) -> Tensor:
    """Return the mean of max(1 - y_true y_pred, 0) over the last axis.

    Args:
        y_true: Targets -1 and 1, or 0 and 1, shape (batch, ...).
        y_pred: Predictions of the same shape.

    Returns:
        One loss for each sample.

    Example:
        >>> hinge([[-1.0, 1.0]], [[0.5, 0.5]])
        tensor([1.])
    """
    return _margins(y_true, y_pred).mean(-1)


def squared_hinge(y_true: Any, y_pred: Any) -> Tensor:
    """Return the mean of max(1 - y_true y_pred, 0)² over the last axis.

    Args:
        y_true: Targets -1 and 1, or 0 and 1, shape (batch, ...).
        y_pred: Predictions of the same shape.

    Returns:
        One loss for each sample.

    Example:
        >>> squared_hinge([[-1.0, 1.0]], [[0.5, 0.5]])
        tensor([1.2500])
    """
    return _margins(y_true, y_pred).square().mean(-1)


def categorical_hinge(y_true: Any, y_pred: Any) -> Tensor:
    """Return max(highest wrong score - right score + 1, 0).

    Args:
        y_true: One-hot targets, shape (batch, ..., classes).
        y_pred: Scores of the same shape.

    Returns:
        One loss for each sample.

    Example:
        >>> categorical_hinge([[0.0, 1.0]], [[0.5, 0.7]])
        tensor([0.8000])
    """
    true, pred = pair(y_true, y_pred)
    right = (true * pred).sum(-1)
    wrong = ((1.0 - true) * pred).amax(-1)
    return (wrong - right + 1.0).clamp(min=0.0)


@builtin
class Hinge(LossFunctionWrapper):
    """Hinge loss; see `hinge`.

    Args:
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> Hinge()([[-1.0, 1.0]], [[0.5, 0.5]])
        tensor(1.)
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = "hinge", dtype: str | None = None
    ) -> None:
        super().__init__(hinge, reduction, name, dtype)


@builtin
class SquaredHinge(LossFunctionWrapper):
    """Squared hinge loss; see `squared_hinge`.

    Args:
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> SquaredHinge()([[-1.0, 1.0]], [[0.5, 0.5]])
        tensor(1.2500)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "squared_hinge",
        dtype: str | None = None,
    ) -> None:
        super().__init__(squared_hinge, reduction, name, dtype)


@builtin
class CategoricalHinge(LossFunctionWrapper):
    """Hinge loss of several classes; see `categorical_hinge`.

    Args:
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> CategoricalHinge()([[0.0, 1.0]], [[0.5, 0.7]])
        tensor(0.8000)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_hinge",
        dtype: str | None = None,
    ) -> None:
        super().__init__(categorical_hinge, reduction, name, dtype)
