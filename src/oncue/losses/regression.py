"""Losses of regression: squared, absolute, relative and logarithmic errors, Huber, log-cosh.

Formulas: https://keras.io/api/losses/regression_losses/.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from oncue.backend import epsilon
from oncue.core.builtin import builtin
from oncue.losses.loss import LossFunctionWrapper
from oncue.losses.shapes import pair


def mean_squared_error(y_true: Any, y_pred: Any) -> Tensor:
    """Return the mean of (y_true - y_pred)² over the last axis.

    Args:
        y_true: Targets, shape (batch, ...).
        y_pred: Predictions of the same shape.

    Returns:
        One loss for each sample.

    Example:
        >>> mean_squared_error([[0.0, 0.0]], [[1.0, 3.0]])
        tensor([5.])
    """
    true, pred = pair(y_true, y_pred)
    return (true - pred).square().mean(-1)


def mean_absolute_error(y_true: Any, y_pred: Any) -> Tensor:
    """Return the mean of |y_true - y_pred| over the last axis.

    Args:
        y_true: Targets, shape (batch, ...).
        y_pred: Predictions of the same shape.

    Returns:
        One loss for each sample.

    Example:
        >>> mean_absolute_error([[0.0, 0.0]], [[1.0, 3.0]])
        tensor([2.])
    """
    true, pred = pair(y_true, y_pred)
    return (true - pred).abs().mean(-1)


def mean_absolute_percentage_error(y_true: Any, y_pred: Any) -> Tensor:
    """Return the mean of 100 |y_true - y_pred| / max(|y_true|, 1e-7) over the last axis.

    Args:
        y_true: Targets, shape (batch, ...).
        y_pred: Predictions of the same shape.

    Returns:
        One loss for each sample, in percent.

    Example:
        >>> mean_absolute_percentage_error([[2.0, 4.0]], [[1.0, 4.0]])
        tensor([25.])
    """
    true, pred = pair(y_true, y_pred)
    return 100.0 * ((true - pred).abs() / true.abs().clamp(min=epsilon())).mean(-1)


def mean_squared_logarithmic_error(y_true: Any, y_pred: Any) -> Tensor:
    """Return the mean of (log(y_true + 1) - log(y_pred + 1))² over the last axis; negative numbers count as 1e-7.

    Args:
        y_true: Targets, shape (batch, ...).
        y_pred: Predictions of the same shape.

    Returns:
        One loss for each sample.

    Example:
        >>> mean_squared_logarithmic_error([[0.0]], [[1.0]])
        tensor([0.4805])
    """
    true, pred = pair(y_true, y_pred)
    least = epsilon()
    return ((pred.clamp(min=least) + 1.0).log() - (true.clamp(min=least) + 1.0).log()).square().mean(-1)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Tensor:
    """Return the mean over the last axis of e²/2 where |e| <= delta, else delta |e| - delta²/2.

    Args:
        y_true: Targets, shape (batch, ...).
        y_pred: Predictions of the same shape.
        delta: Where the square turns into a line, in the target's units.

    Returns:
        One loss for each sample (P. J. Huber, Robust estimation of a location parameter, 1964).

    Example:
        >>> huber([[0.0, 0.0]], [[1.0, 3.0]])
        tensor([1.5000])
    """
    true, pred = pair(y_true, y_pred)
    if not delta > 0:
        error = (pred - true).abs()
        return (delta * error - 0.5 * delta**2).mean(-1)
    if true.shape != pred.shape:
        true, pred = true + torch.zeros_like(pred), pred + torch.zeros_like(true)
    return F.huber_loss(pred, true, reduction="none", delta=delta).mean(-1)


def log_cosh(y_true: Any, y_pred: Any) -> Tensor:
    """Return the mean of log(cosh(y_pred - y_true)) over the last axis.

    Computed as e + softplus(-2e) - log 2, which doesn't overflow.

    Args:
        y_true: Targets, shape (batch, ...).
        y_pred: Predictions of the same shape.

    Returns:
        One loss for each sample.

    Example:
        >>> log_cosh([[0.0]], [[1.0]])
        tensor([0.4338])
    """
    true, pred = pair(y_true, y_pred)
    error = pred - true
    return (error + F.softplus(-2.0 * error) - math.log(2.0)).mean(-1)


@builtin
class MeanSquaredError(LossFunctionWrapper):
    """Mean squared error; see `mean_squared_error`.

    Args:
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> MeanSquaredError()([[0.0, 0.0]], [[1.0, 3.0]])
        tensor(5.)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_squared_error",
        dtype: str | None = None,
    ) -> None:
        super().__init__(mean_squared_error, reduction, name, dtype)


@builtin
class MeanAbsoluteError(LossFunctionWrapper):
    """Mean absolute error; see `mean_absolute_error`.

    Args:
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> MeanAbsoluteError()([[0.0, 0.0]], [[1.0, 3.0]])
        tensor(2.)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_absolute_error",
        dtype: str | None = None,
    ) -> None:
        super().__init__(mean_absolute_error, reduction, name, dtype)


@builtin
class MeanAbsolutePercentageError(LossFunctionWrapper):
    """Mean absolute error in percent of the target; see `mean_absolute_percentage_error`.

    Args:
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> MeanAbsolutePercentageError()([[2.0, 4.0]], [[1.0, 4.0]])
        tensor(25.)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_absolute_percentage_error",
        dtype: str | None = None,
    ) -> None:
        super().__init__(mean_absolute_percentage_error, reduction, name, dtype)


@builtin
class MeanSquaredLogarithmicError(LossFunctionWrapper):
    """Mean squared error of the logarithms; see `mean_squared_logarithmic_error`.

    Args:
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> MeanSquaredLogarithmicError()([[0.0]], [[1.0]])
        tensor(0.4805)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "mean_squared_logarithmic_error",
        dtype: str | None = None,
    ) -> None:
        super().__init__(mean_squared_logarithmic_error, reduction, name, dtype)


@builtin
class Huber(LossFunctionWrapper):
    """Squared error near zero, absolute error far away; see `huber`.

    Args:
        delta: Where the square turns into a line.
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> Huber()([[0.0, 0.0]], [[1.0, 3.0]])
        tensor(1.5000)
    """

    _options = ("delta",)

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "huber_loss",
        dtype: str | None = None,
    ) -> None:
        self.delta = delta
        super().__init__(huber, reduction, name, dtype, delta=delta)


@builtin
class LogCosh(LossFunctionWrapper):
    """Logarithm of the hyperbolic cosine of the error; see `log_cosh`.

    Args:
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> LogCosh()([[0.0]], [[1.0]])
        tensor(0.4338)
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = "log_cosh", dtype: str | None = None
    ) -> None:
        super().__init__(log_cosh, reduction, name, dtype)
