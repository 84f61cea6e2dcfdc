"""Kullback-Leibler divergence and the Poisson loss.

Formulas: https://keras.io/api/losses/probabilistic_losses/.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oncue.backend import epsilon
from oncue.core.builtin import builtin
from oncue.losses.loss import LossFunctionWrapper
from oncue.losses.shapes import pair


def kl_divergence(y_true: Any, y_pred: Any) -> Tensor:
    """Return the sum of y_true log(y_true / y_pred) over the last axis, both clipped to [1e-7, 1].

    Args:
        y_true: Probabilities, shape (batch, ..., classes).
        y_pred: Probabilities of the same shape.

    Returns:
        One loss for each sample.

    Example:
        >>> kl_divergence([[0.5, 0.5]], [[0.25, 0.75]])
        tensor([0.1438])
    """
    true, pred = pair(y_true, y_pred)
    true, pred = true.clamp(epsilon(), 1.0), pred.clamp(epsilon(), 1.0)
    return (true * (true / pred).log()).sum(-1)


def poisson(y_true: Any, y_pred: Any) -> Tensor:
    """Return the mean of y_pred - y_true log(y_pred + 1e-7) over the last axis.

    Args:
        y_true: Counts, shape (batch, ...).
        y_pred: Expected counts (positive) of the same shape.

    Returns:
        One loss for each sample.

    Example:
        >>> poisson([[1.0, 0.0]], [[1.0, 3.0]])
        tensor([2.])
    """
    true, pred = pair(y_true, y_pred)
    return (pred - true * (pred + epsilon()).log()).mean(-1)


@builtin
class KLDivergence(LossFunctionWrapper):
    """Kullback-Leibler divergence; see `kl_divergence`.

    Args:
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> KLDivergence()([[0.5, 0.5]], [[0.25, 0.75]])
        tensor(0.1438)
    """

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "kl_divergence",
        dtype: str | None = None,
    ) -> None:
        super().__init__(kl_divergence, reduction, name, dtype)


@builtin
class Poisson(LossFunctionWrapper):
    """Poisson loss; see `poisson`.

    Args:
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> Poisson()([[1.0, 0.0]], [[1.0, 3.0]])
        tensor(2.)
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = "poisson", dtype: str | None = None
    ) -> None:
        super().__init__(poisson, reduction, name, dtype)
