"""The mean of a loss over a whole batch in as few torch operations as possible.

Each function here returns what its namesake returns, averaged over everything, or None where the short way would
give another number than the long one, which the caller then takes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

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
    if y_pred.ndim < 2 or axis not in (-1, y_pred.ndim - 1) or y_pred.shape[-1] == 1:
        return None
    target = _same_shape(y_true, y_pred)
    if target is None:
        return None
    target, y_pred = _rows(target), _rows(y_pred)
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
    if ignore_class is not None or y_pred.ndim < 2 or axis not in (-1, y_pred.ndim - 1):
        return None
    labels = y_true.squeeze(-1) if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1 else y_true
    if labels.shape != y_pred.shape[:-1]:
        return None
    if labels.dtype != torch.int64:
        labels = labels.long()
    if from_logits:
        return label_losses(labels, y_pred, "mean")
    labels, y_pred = labels.flatten(), _rows(y_pred)
    right = (y_pred.gather(1, labels.unsqueeze(1)) / y_pred.sum(1, keepdim=True)).clamp(epsilon(), 1.0 - epsilon())
    return -right.log().mean()


def label_losses(labels: Tensor, logits: Tensor, reduction: str) -> Tensor:
    """Return torch's cross-entropy of class labels, whatever axes come before that of the classes, which is the last one.

    A mode for torch's functions sees a call of this function as one.

    Args:
        labels: Class labels, int64, of the shape of the logits without their last axis.
        logits: The logits.
        reduction: "mean" or "none".

    Example:
        >>> label_losses(torch.tensor([[1]]), torch.zeros(1, 1, 2), "none")
        tensor([[0.6931]])
    """
    if has_torch_function_unary(logits):
        seen: Tensor = handle_torch_function(label_losses, (logits,), labels, logits, reduction)
        return seen
    # Labels are indices here and never to be skipped, so torch's default of skipping -100 is moved out of reach.
    losses = F.cross_entropy(_rows(logits), labels.flatten(), ignore_index=-(2**31), reduction=reduction)
    return losses if reduction == "mean" else losses.view(labels.shape)


def label_losses_in_graph(labels: Tensor, logits: Tensor, reduction: str) -> Tensor:
    """Do as `label_losses`, in a form that takes twice as many passes over the logits by itself, and fewer if it is compiled.

    Example:
        >>> label_losses_in_graph(torch.tensor([[1]]), torch.zeros(1, 1, 2), "none")
        tensor([[0.6931]])
    """
    losses = (logits.logsumexp(-1, keepdim=True) - logits.gather(-1, labels.unsqueeze(-1))).squeeze(-1)
    return losses.mean() if reduction == "mean" else losses


def _rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim == 2 else tensor.reshape(-1, tensor.shape[-1])
