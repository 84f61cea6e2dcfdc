"""Losses of regression: squared, absolute, relative and logarithmic errors, Huber, log-cosh, cosine similarity.

Formulas: https://keras.io/api/losses/regression_losses/.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from oncue.backend import epsilon
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
    y_true, y_pred = pair(y_true, y_pred)
    return (y_true - y_pred).square().mean(-1)


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
    y_true, y_pred = pair(y_true, y_pred)
    return (y_true - y_pred).abs().mean(-1)


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
    y_true, y_pred = pair(y_true, y_pred)
    return 100.0 * ((y_true - y_pred).abs() / y_true.abs().clamp(min=epsilon())).mean(-1)


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
    y_true, y_pred = pair(y_true, y_pred)
    least = epsilon()
    return ((y_pred.clamp(min=least) + 1.0).log() - (y_true.clamp(min=least) + 1.0).log()).square().mean(-1)


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
    y_true, y_pred = pair(y_true, y_pred)
    if not delta > 0:
        error = (y_pred - y_true).abs()
        return (delta * error - 0.5 * delta**2).mean(-1)
    return F.huber_loss(*torch.broadcast_tensors(y_pred, y_true), reduction="none", delta=delta).mean(-1)


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
    y_true, y_pred = pair(y_true, y_pred)
    error = y_pred - y_true
    return (error + F.softplus(-2.0 * error) - math.log(2.0)).mean(-1)


def unit_vectors(x: Tensor, axis: int) -> Tensor:
    """Return x / |x| along an axis; zero vectors stay zero."""
    return F.normalize(x, dim=axis, eps=epsilon())


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """Return minus the cosine of the angle between target and prediction: -1 for the same direction, 1 for the
    opposite.

    Args:
        y_true: Targets, shape (batch, ...).
        y_pred: Predictions of the same shape.
        axis: The axis of the vectors.

    Returns:
        One loss for each vector.

    Example:
        >>> cosine_similarity([[0.0, 2.0]], [[0.0, 1.0]])
        tensor([-1.])
    """
    y_true, y_pred = pair(y_true, y_pred)
    return -(unit_vectors(y_true, axis) * unit_vectors(y_pred, axis)).sum(axis)


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


class CosineSimilarity(LossFunctionWrapper):
    """Minus the cosine of the angle between target and prediction; see `cosine_similarity`.

    Args:
        axis: The axis of the vectors.
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> CosineSimilarity()([[0.0, 2.0]], [[0.0, 1.0]])
        tensor(-1.)
    """

    _options = ("axis",)

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "cosine_similarity",
        dtype: str | None = None,
    ) -> None:
        self.axis = axis
        super().__init__(cosine_similarity, reduction, name, dtype, axis=axis)
