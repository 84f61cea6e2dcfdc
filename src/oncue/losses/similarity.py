"""Cosine similarity.

Formula: https://keras.io/api/losses/regression_losses/#cosinesimilarity-class.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from oncue.backend import epsilon
from oncue.core.builtin import builtin
from oncue.losses.loss import LossFunctionWrapper
from oncue.losses.shapes import pair


def unit_vectors(x: Tensor, axis: int) -> Tensor:
    """Return x / |x| along an axis; zero vectors stay zero."""
    return F.normalize(x, dim=axis, eps=epsilon())


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """Return minus the cosine of the angle between target and prediction.

    It is -1 for the same direction, and 1 for the opposite.

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
    true, pred = pair(y_true, y_pred)
    return -(unit_vectors(true, axis) * unit_vectors(pred, axis)).sum(axis)


@builtin
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
