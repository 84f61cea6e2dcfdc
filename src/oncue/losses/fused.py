"""The mean of a loss over a whole batch in as few torch operations as possible.

Each function here returns what its namesake returns, averaged over everything, or None where the short way would
give another number than the long one, which the caller then takes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from oncue.backend import epsilon

MeanLoss = Callable[..., Tensor | None]


def _same_shape(y_true: Tensor, y_pred: Tensor) -> Tensor | None:
    if y_true.shape != y_pred.shape:
        # A vector beside a column is the one mismatch that Keras corrects; all others are left to the long way.
        if y_true.ndim == 1 and y_pred.ndim == 2 and y_pred.shape[1] == 1:
            y_true = y_true.unsqueeze(1)
        if y_true.shape != y_pred.shape:
            return None
    if y_true.dtype == y_pred.dtype:
        return y_true
    return None if y_true.is_complex() else y_true.to(y_pred.dtype)


def clipped_bce(target: Tensor, output: Tensor, reduction: str) -> Tensor:
    """Return torch's binary cross-entropy of clipped probabilities, also inside autocast, where torch refuses it."""
    output = output.clamp(epsilon(), 1.0 - epsilon())
    if torch.is_autocast_enabled(output.device.type):
        with torch.autocast(output.device.type, enabled=False):
            return F.binary_cross_entropy(output, target, reduction=reduction)
    return F.binary_cross_entropy(output, target, reduction=reduction)


def mean_squared_error(y_true: Tensor, y_pred: Tensor) -> Tensor | None:
    """Return the mean squared error."""
    target = _same_shape(y_true, y_pred)
    return None if target is None else F.mse_loss(y_pred, target)


def mean_absolute_error(y_true: Tensor, y_pred: Tensor) -> Tensor | None:
    """Return the mean absolute error."""
    target = _same_shape(y_true, y_pred)
    return None if target is None else F.l1_loss(y_pred, target)


def huber(y_true: Tensor, y_pred: Tensor, delta: float = 1.0) -> Tensor | None:
    """Return the mean Huber loss."""
    target = _same_shape(y_true, y_pred)
    return None if target is None or not delta > 0 else F.huber_loss(y_pred, target, delta=delta)


def binary_crossentropy(
    y_true: Tensor, y_pred: Tensor, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Tensor | None:
    """Return the mean binary cross-entropy."""
    target = _same_shape(y_true, y_pred)
    if target is None:
        return None
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + 0.5 * label_smoothing
    return F.binary_cross_entropy_with_logits(y_pred, target) if from_logits else clipped_bce(target, y_pred, "mean")


def categorical_crossentropy(
    y_true: Tensor, y_pred: Tensor, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Tensor | None:
    """Return the mean cross-entropy of class probabilities."""
    if y_pred.ndim != 2 or axis not in (-1, 1) or y_pred.shape[1] == 1:
        return None
    target = _same_shape(y_true, y_pred)
    if target is None:
        return None
    if from_logits:
        return F.cross_entropy(y_pred, target, label_smoothing=label_smoothing)
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / target.shape[1]
    logs = (y_pred / y_pred.sum(1, keepdim=True)).clamp(epsilon(), 1.0 - epsilon()).log()
    return (target * logs).sum() / -len(target)


def sparse_categorical_crossentropy(
    y_true: Tensor, y_pred: Tensor, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Tensor | None:
    """Return the mean cross-entropy of class labels."""
    if ignore_class is not None or y_pred.ndim != 2 or axis not in (-1, 1):
        return None
    labels = y_true.squeeze(1) if y_true.ndim == 2 and y_true.shape[1] == 1 else y_true
    if labels.ndim != 1 or labels.shape[0] != y_pred.shape[0]:
        return None
    if labels.dtype != torch.int64:
        labels = labels.long()
    if from_logits:
        # Labels are indices here and never to be skipped, so torch's default of skipping -100 is moved out of reach.
        return F.cross_entropy(y_pred, labels, ignore_index=-(2**31))
    right = (y_pred.gather(1, labels.unsqueeze(1)) / y_pred.sum(1, keepdim=True)).clamp(epsilon(), 1.0 - epsilon())
    return -right.log().mean()
