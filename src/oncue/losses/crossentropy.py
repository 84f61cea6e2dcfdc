"""Cross-entropies: binary, categorical and sparse categorical.

Formulas: https://keras.io/api/losses/probabilistic_losses/; probabilities are clipped to [1e-7, 1 - 1e-7].
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from oncue.backend import epsilon
from oncue.core.builtin import builtin
from oncue.core.numbers import whole_of
from oncue.losses.fused import clipped_bce, label_losses
from oncue.losses.loss import LossFunctionWrapper
from oncue.losses.shapes import as_tensor, pair


def check_axis(axis: int) -> int:
    """Return the axis of the classes, or refuse True and False, which are integers to Python."""
    number = whole_of(axis)
    if number is None:
        raise ValueError(f"`axis` must be an integer such as -1; got {axis!r} of type {type(axis).__name__}.")
    return number


def _same_shape(y_true: Tensor, y_pred: Tensor, loss: str, hint: str) -> None:
    if y_true.shape != y_pred.shape:
        raise ValueError(
            f"`{loss}` needs `y_true` and `y_pred` of one shape; got {tuple(y_true.shape)} and {tuple(y_pred.shape)}. "
            + hint
        )


def binary_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Tensor:
    """Return -(y log p + (1 - y) log(1 - p)), averaged over an axis.

    Args:
        y_true: Targets in [0, 1], shape (batch, ...).
        y_pred: Probabilities, or logits, of the same shape.
        from_logits: Whether `y_pred` are logits (no sigmoid applied yet).
        label_smoothing: Squeeze targets towards 0.5 by this fraction, in [0, 1].
        axis: The axis that is averaged over.

    Returns:
        One loss for each sample.

    Raises:
        ValueError: When the shapes differ.

    Example:
        >>> binary_crossentropy([[0.0, 1.0]], [[0.5, 0.5]])
        tensor([0.6931])
    """
    true, pred = pair(y_true, y_pred)
    _same_shape(true, pred, "binary_crossentropy", "For class labels use 'sparse_categorical_crossentropy'.")
    if label_smoothing:
        true = true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        return F.binary_cross_entropy_with_logits(pred, true, reduction="none").mean(axis)
    return clipped_bce(true, pred, "none").mean(axis)


def log_probabilities(y_pred: Tensor, from_logits: bool, axis: int) -> Tensor:
    """Return the logarithms of class probabilities, which are normalised and clipped first."""
    if from_logits:
        return F.log_softmax(y_pred, dim=axis)
    return (y_pred / y_pred.sum(axis, keepdim=True)).clamp(epsilon(), 1.0 - epsilon()).log()


def categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, label_smoothing: float = 0.0, axis: int = -1
) -> Tensor:
    """Return -sum(y log p) over the classes, for targets given as class probabilities (one-hot).

    Args:
        y_true: Class probabilities, shape (batch, ..., classes).
        y_pred: Predicted probabilities (normalised here to sum to 1), or logits, of the same shape.
        from_logits: Whether `y_pred` are logits (no softmax applied yet).
        label_smoothing: Move this fraction of each target evenly to all classes, in [0, 1].
        axis: The axis of the classes.

    Returns:
        One loss for each sample.

    Raises:
        ValueError: When the shapes differ.

    Example:
        >>> categorical_crossentropy([[0.0, 1.0]], [[0.5, 0.5]])
        tensor([0.6931])
    """
    axis = check_axis(axis)
    true, pred = pair(y_true, y_pred)
    _same_shape(
        true,
        pred,
        "categorical_crossentropy",
        "For integer class labels use 'sparse_categorical_crossentropy', or make them one-hot with "
        "`keras.utils.to_categorical(y, num_classes)`.",
    )
    if label_smoothing:
        true = true * (1.0 - label_smoothing) + label_smoothing / true.shape[-1]
    return -(true * log_probabilities(pred, from_logits, axis)).sum(axis)


def sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, from_logits: bool = False, ignore_class: int | None = None, axis: int = -1
) -> Tensor:
    """Return -log p[y], for targets given as integer class labels.

    The probability of the right class is picked out before anything else is computed: no one-hot tensor is made.

    Args:
        y_true: Class labels in [0, classes), shape (batch, ...) or (batch, ..., 1).
        y_pred: Predicted probabilities (normalised here to sum to 1), or logits, shape (batch, ..., classes).
        from_logits: Whether `y_pred` are logits (no softmax applied yet).
        ignore_class: A label whose entries count nothing, such as 255 for void pixels; None when there is none.
        axis: The axis of the classes.

    Returns:
        One loss for each label.

    Raises:
        ValueError: When the shapes don't fit together.

    Example:
        >>> sparse_categorical_crossentropy([1], [[0.75, 0.25]])
        tensor([1.3863])
    """
    axis = check_axis(axis)
    pred = as_tensor(y_pred, "y_pred")
    if not pred.is_floating_point():
        pred = pred.float()
    labels = as_tensor(y_true, "y_true", device=pred.device)
    if labels.ndim == pred.ndim and labels.shape[axis] == 1:
        labels = labels.squeeze(axis)
    expected = list(pred.shape)
    del expected[axis]
    if list(labels.shape) != expected:
        raise ValueError(
            f"`sparse_categorical_crossentropy` needs `y_true` of shape {tuple(expected)} for `y_pred` of shape "
            f"{tuple(pred.shape)}; got {tuple(labels.shape)}. For one-hot targets use 'categorical_crossentropy'."
        )
    labels = labels if labels.dtype == torch.int64 else labels.long()
    valid: Tensor | None = None
    if ignore_class is not None:
        valid = labels != ignore_class
        labels = labels * valid
    if from_logits:
        losses = label_losses(labels, pred.movedim(axis, -1), "none")
    else:
        right = (pred.gather(axis, labels.unsqueeze(axis)) / pred.sum(axis, keepdim=True)).squeeze(axis)
        losses = -right.clamp(epsilon(), 1.0 - epsilon()).log()
    if valid is not None:
        losses = torch.where(valid, losses, torch.zeros((), dtype=losses.dtype, device=losses.device))
        losses._keras_mask = valid  # type: ignore[attr-defined]  # Keras's way to hand a mask on
    return losses


@builtin
class BinaryCrossentropy(LossFunctionWrapper):
    """Cross-entropy of binary targets; see `binary_crossentropy`.

    Args:
        from_logits: Whether predictions are logits (no sigmoid applied yet).
        label_smoothing: Squeeze targets towards 0.5 by this fraction.
        axis: The axis that is averaged over.
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> BinaryCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]])
        tensor(0.6931)
    """

    _options = ("from_logits", "label_smoothing", "axis")

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
        dtype: str | None = None,
    ) -> None:
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis
        super().__init__(
            binary_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


@builtin
class CategoricalCrossentropy(LossFunctionWrapper):
    """Cross-entropy of one-hot targets; see `categorical_crossentropy`.

    Args:
        from_logits: Whether predictions are logits (no softmax applied yet).
        label_smoothing: Move this fraction of each target evenly to all classes.
        axis: The axis of the classes.
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> CategoricalCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]])
        tensor(0.6931)
    """

    _options = ("from_logits", "label_smoothing", "axis")

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
        dtype: str | None = None,
    ) -> None:
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, check_axis(axis)
        super().__init__(
            categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


@builtin
class SparseCategoricalCrossentropy(LossFunctionWrapper):
    """Cross-entropy of integer class labels; see `sparse_categorical_crossentropy`.

    Args:
        from_logits: Whether predictions are logits (no softmax applied yet).
        ignore_class: A label whose entries count nothing; None when there is none.
        reduction: As for `Loss`.
        axis: The axis of the classes.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> SparseCategoricalCrossentropy()([1], [[0.5, 0.5]])
        tensor(0.6931)
    """

    _options = ("from_logits", "ignore_class", "axis")

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: str | None = None,
    ) -> None:
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, check_axis(axis)
        super().__init__(
            sparse_categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )
