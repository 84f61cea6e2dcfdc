"""Accuracies: how often the prediction is right.

Definitions: https://keras.io/api/metrics/accuracy_metrics/.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.losses.shapes import as_tensor, match_ranks
from oncue.metrics.mean import MeanMetricWrapper
from oncue.variable import torch_dtype


def _both(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    y_pred = as_tensor(y_pred, "y_pred")
    return as_tensor(y_true, "y_true", device=y_pred.device), y_pred


def best_class(scores: Tensor, axis: int = -1) -> Tensor:
    """Return the index of the largest value along an axis, also of truth values.

    Example:
        >>> best_class(torch.tensor([[False, True], [True, False]]))
        tensor([1, 0])
    """
    # Torch has no argmax of truth values.
    return (scores.to(torch.uint8) if scores.dtype == torch.bool else scores).argmax(axis)


# The metrics sum up truth values as they are; only the public functions turn them into floats, as Keras's do.
def _equal(y_true: Any, y_pred: Any) -> Tensor:
    true, pred = match_ranks(*_both(y_true, y_pred))
    return torch.eq(true.to(pred.dtype), pred)


def _same_side(y_true: Any, y_pred: Any, threshold: float) -> Tensor:
    true, pred = match_ranks(*_both(y_true, y_pred))
    return torch.eq(pred > threshold, true)


def _same_class(y_true: Any, y_pred: Any) -> Tensor:
    true, pred = _both(y_true, y_pred)
    return torch.eq(best_class(true), best_class(pred))


def _right_label(y_true: Any, y_pred: Any) -> Tensor:
    true, pred = _both(y_true, y_pred)
    if true.ndim == pred.ndim and true.shape[-1] == 1:
        true = true.squeeze(-1)
    # Integers beside floats are compared as they are: torch promotes them without a copy.
    return torch.eq(best_class(pred), true)


def accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """Return 1.0 where the prediction equals the target, else 0.0.

    Args:
        y_true: Labels, shape (batch, ...).
        y_pred: Predicted labels of the same shape.

    Returns:
        One number for each label.

    Example:
        >>> accuracy([1, 2, 3], [1, 2, 4])
        tensor([1., 1., 0.])
    """
    return _equal(y_true, y_pred).to(torch_dtype(None))


def binary_accuracy(y_true: Any, y_pred: Any, threshold: float = 0.5) -> Tensor:
    """Return 1.0 where the prediction is on the target's side of the threshold, else 0.0.

    Args:
        y_true: Targets 0 and 1, shape (batch, ...).
        y_pred: Probabilities of the same shape.
        threshold: Above it a prediction counts as 1.

    Returns:
        One number for each target.

    Example:
        >>> binary_accuracy([[0.0], [1.0]], [[0.2], [0.3]])
        tensor([[1.],
                [0.]])
    """
    return _same_side(y_true, y_pred, threshold).to(torch_dtype(None))


def categorical_accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """Return 1.0 where the highest score is at the target's class, else 0.0.

    Args:
        y_true: One-hot targets, shape (batch, ..., classes).
        y_pred: Scores of the same shape.

    Returns:
        One number for each sample.

    Example:
        >>> categorical_accuracy([[0, 1], [1, 0]], [[0.1, 0.9], [0.3, 0.7]])
        tensor([1., 0.])
    """
    return _same_class(y_true, y_pred).to(torch_dtype(None))


def sparse_categorical_accuracy(y_true: Any, y_pred: Any) -> Tensor:
    """Return 1.0 where the highest score is at the label, else 0.0.

    Args:
        y_true: Class labels, shape (batch, ...) or (batch, ..., 1).
        y_pred: Scores, shape (batch, ..., classes).

    Returns:
        One number for each label.

    Example:
        >>> sparse_categorical_accuracy([1, 0], [[0.1, 0.9], [0.3, 0.7]])
        tensor([1., 0.])
    """
    return _right_label(y_true, y_pred).to(torch_dtype(None))


def _among_best(labels: Tensor, scores: Tensor, k: int) -> Tensor:
    labels = labels.long()
    own = scores.gather(-1, labels.clamp(0, scores.shape[-1] - 1).unsqueeze(-1))
    inside = (labels >= 0) & (labels < scores.shape[-1])
    # Counted instead of sorted; ties count for the label, as in Keras.
    return (((scores > own).sum(-1) < k) & inside & own.squeeze(-1).isfinite()).to(torch_dtype(None))


def top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5) -> Tensor:
    """Return 1.0 where the target's class is among the `k` highest scores, else 0.0.

    Args:
        y_true: One-hot targets, shape (batch, ..., classes).
        y_pred: Scores of the same shape.
        k: How many of the highest scores count.

    Returns:
        One number for each sample.

    Example:
        >>> top_k_categorical_accuracy([[0, 0, 1]], [[0.5, 0.3, 0.2]], k=2)
        tensor([0.])
    """
    true, pred = _both(y_true, y_pred)
    return _among_best(best_class(true), pred, k)


def sparse_top_k_categorical_accuracy(y_true: Any, y_pred: Any, k: int = 5, from_sorted_ids: bool = False) -> Tensor:
    """Return 1.0 where the label is among the `k` highest scores, else 0.0.

    Args:
        y_true: Class labels, shape (batch, ...).
        y_pred: Scores, shape (batch, ..., classes), or class labels sorted from best to worst.
        k: How many of the best count.
        from_sorted_ids: Whether `y_pred` holds sorted labels instead of scores.

    Returns:
        One number for each label.

    Example:
        >>> sparse_top_k_categorical_accuracy([2], [[0.5, 0.3, 0.2]], k=2)
        tensor([0.])
    """
    true, pred = _both(y_true, y_pred)
    if true.ndim == pred.ndim and true.shape[-1] == 1:
        true = true.squeeze(-1)
    if from_sorted_ids:
        return (pred[..., :k] == true.unsqueeze(-1)).any(-1).to(torch_dtype(None))
    return _among_best(true, pred, k)


@builtin
class Accuracy(MeanMetricWrapper):
    """How often predicted labels equal the targets.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> Accuracy()([1, 2, 3, 4], [0, 2, 3, 4])
        tensor(0.7500)
    """

    _direction = "up"

    def __init__(self, name: str | None = "accuracy", dtype: Any = None) -> None:
        super().__init__(_equal, name, dtype)


@builtin
class BinaryAccuracy(MeanMetricWrapper):
    """How often a probability is on the target's side of the threshold.

    Args:
        name: The name.
        dtype: The type of the result.
        threshold: Above it a prediction counts as 1.

    Raises:
        ValueError: When the threshold isn't in [0, 1).

    Example:
        >>> BinaryAccuracy()([[1], [1], [0], [0]], [[0.98], [1], [0], [0.6]])
        tensor(0.7500)
    """

    _direction = "up"
    _options = ("threshold",)

    def __init__(self, name: str | None = "binary_accuracy", dtype: Any = None, threshold: float = 0.5) -> None:
        super().__init__(_same_side, name, dtype, threshold=threshold)
        self.threshold = threshold


@builtin
class CategoricalAccuracy(MeanMetricWrapper):
    """How often the highest score is at the class of a one-hot target.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> CategoricalAccuracy()([[0, 1], [1, 0]], [[0.1, 0.9], [0.3, 0.7]])
        tensor(0.5000)
    """

    _direction = "up"

    def __init__(self, name: str | None = "categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(_same_class, name, dtype)


@builtin
class SparseCategoricalAccuracy(MeanMetricWrapper):
    """How often the highest score is at the class label.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> SparseCategoricalAccuracy()([1, 0], [[0.1, 0.9], [0.3, 0.7]])
        tensor(0.5000)
    """

    _direction = "up"

    def __init__(self, name: str | None = "sparse_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(_right_label, name, dtype)


@builtin
class TopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the class of a one-hot target is among the `k` highest scores.

    Args:
        k: How many of the highest scores count.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> TopKCategoricalAccuracy(k=1)([[0, 1], [1, 0]], [[0.1, 0.9], [0.3, 0.7]])
        tensor(0.5000)
    """

    _direction = "up"
    _options = ("k",)

    def __init__(self, k: int = 5, name: str | None = "top_k_categorical_accuracy", dtype: Any = None) -> None:
        super().__init__(top_k_categorical_accuracy, name, dtype, k=k)
        self.k = k


@builtin
class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the class label is among the `k` highest scores.

    Args:
        k: How many of the highest scores count.
        name: The name.
        dtype: The type of the result.
        from_sorted_ids: Whether predictions are labels sorted from best to worst, instead of scores.

    Example:
        >>> SparseTopKCategoricalAccuracy(k=1)([1, 0], [[0.1, 0.9], [0.3, 0.7]])
        tensor(0.5000)
    """

    _direction = "up"

    def __init__(
        self,
        k: int = 5,
        name: str | None = "sparse_top_k_categorical_accuracy",
        dtype: Any = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(sparse_top_k_categorical_accuracy, name, dtype, k=k, from_sorted_ids=from_sorted_ids)
        self.k, self.from_sorted_ids = plain(k), from_sorted_ids

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        more = {"from_sorted_ids": True} if self.from_sorted_ids else {}
        return {**super().get_config(), "k": self.k, **more}
