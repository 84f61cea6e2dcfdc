"""Correlations along an axis.

Definitions: https://keras.io/api/metrics/regression_metrics/.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oncue.backend import epsilon
from oncue.core.builtin import builtin
from oncue.losses.shapes import pair
from oncue.metrics.mean import MeanMetricWrapper


def pearson_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """Return Pearson's correlation of target and prediction along an axis.

    Args:
        y_true: Targets, shape (batch, ...).
        y_pred: Predictions of the same shape.
        axis: The axis of the series.

    Returns:
        One number for each series, NaN for constant ones.

    Example:
        >>> pearson_correlation([[0.0, 1.0, 2.0]], [[1.0, 3.0, 5.0]])
        tensor([1.])
    """
    true, pred = pair(y_true, y_pred)
    true = true - true.mean(axis, keepdim=True)
    pred = pred - pred.mean(axis, keepdim=True)
    spread = true.square().mean(axis).sqrt() * pred.square().mean(axis).sqrt()
    return (true * pred).mean(axis) / spread


def concordance_correlation(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """Return Lin's concordance correlation along an axis, as Keras computes it.

    Args:
        y_true: Targets, shape (batch, ...).
        y_pred: Predictions of the same shape.
        axis: The axis of the series.

    Returns:
        One number for each series (L. Lin, A concordance correlation coefficient to evaluate reproducibility, 1989).

    Example:
        >>> concordance_correlation([[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]])
        tensor([1.0000])
    """
    true, pred = pair(y_true, y_pred)
    mean_true, mean_pred = true.mean(axis, keepdim=True), pred.mean(axis, keepdim=True)
    variances = (true - mean_true).square().mean(axis, keepdim=True)
    variances = variances + (pred - mean_pred).square().mean(axis, keepdim=True)
    together = (true - mean_pred) * (pred - mean_pred)
    return (2.0 * together / (variances + (mean_true - mean_pred).square() + epsilon())).mean(axis)


@builtin
class PearsonCorrelation(MeanMetricWrapper):
    """Mean of Pearson's correlations.

    Args:
        name: The name.
        dtype: The type of the result.
        axis: The axis of the series.

    Example:
        >>> PearsonCorrelation()([[0.0, 1.0, 2.0]], [[1.0, 3.0, 5.0]])
        tensor(1.)
    """

    _direction = "up"
    _options = ("axis",)

    def __init__(self, name: str | None = "pearson_correlation", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(pearson_correlation, name, dtype, axis=axis)
        self.axis = axis


@builtin
class ConcordanceCorrelation(MeanMetricWrapper):
    """Mean of Lin's concordance correlations.

    Args:
        name: The name.
        dtype: The type of the result.
        axis: The axis of the series.

    Example:
        >>> ConcordanceCorrelation()([[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]])
        tensor(1.0000)
    """

    _direction = "up"
    _options = ("axis",)

    def __init__(self, name: str | None = "concordance_correlation", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(concordance_correlation, name, dtype, axis=axis)
        self.axis = axis
