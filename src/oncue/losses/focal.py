"""Focal cross-entropies, which pay less attention to what is easy (Lin et al., https://arxiv.org/abs/1708.02002)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oncue.backend import epsilon
from oncue.core.builtin import builtin
from oncue.losses.crossentropy import check_axis
from oncue.losses.fused import clipped_bce
from oncue.losses.loss import LossFunctionWrapper
from oncue.losses.shapes import pair


def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """Return binary cross-entropy times (1 - p_t)^gamma, averaged over an axis.

    Args:
        y_true: Targets in [0, 1], shape (batch, ...).
        y_pred: Probabilities, or logits, of the same shape.
        apply_class_balancing: Weigh class 1 by `alpha` and class 0 by 1 - `alpha`.
        alpha: The weight of class 1.
        gamma: How strongly easy examples are turned down; 0 leaves the cross-entropy.
        from_logits: Whether `y_pred` are logits (no sigmoid applied yet).
        label_smoothing: Squeeze targets towards 0.5 by this fraction.
        axis: The axis that is averaged over.

    Returns:
        One loss for each sample.

    Example:
        >>> binary_focal_crossentropy([[0.0, 1.0]], [[0.5, 0.5]])
        tensor([0.1733])
    """
    true, pred = pair(y_true, y_pred)
    if label_smoothing:
        true = true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        pred = pred.sigmoid()
    right = true * pred + (1.0 - true) * (1.0 - pred)
    losses = (1.0 - right) ** gamma * clipped_bce(true, pred, "none")
    if apply_class_balancing:
        losses = (true * alpha + (1.0 - true) * (1.0 - alpha)) * losses
    return losses.mean(axis)


def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: Any = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Tensor:
    """Return categorical cross-entropy times alpha (1 - p)^gamma, summed over the classes.

    Args:
        y_true: Class probabilities (one-hot), shape (batch, ..., classes).
        y_pred: Predicted probabilities (normalised here to sum to 1), or logits, of the same shape.
        alpha: The weight of the loss, or a list of one weight for each class.
        gamma: How strongly easy examples are turned down; 0 leaves the cross-entropy.
        from_logits: Whether `y_pred` are logits (no softmax applied yet).
        label_smoothing: Move this fraction of each target evenly to all classes.
        axis: The axis of the classes.

    Returns:
        One loss for each sample.

    Example:
        >>> categorical_focal_crossentropy([[0.0, 1.0]], [[0.5, 0.5]])
        tensor([0.0433])
    """
    axis = check_axis(axis)
    true, pred = pair(y_true, y_pred)
    if label_smoothing:
        true = true * (1.0 - label_smoothing) + label_smoothing / true.shape[-1]
    if from_logits:
        pred = pred.softmax(axis)
    output = (pred / pred.sum(axis, keepdim=True)).clamp(epsilon(), 1.0 - epsilon())
    weights = output.new_tensor(alpha) if isinstance(alpha, (list, tuple)) else alpha
    losses: Tensor = weights * (1.0 - output) ** gamma * -true * output.log()
    return losses.sum(axis)


@builtin
class BinaryFocalCrossentropy(LossFunctionWrapper):
    """Focal cross-entropy of binary targets; see `binary_focal_crossentropy`.

    Args:
        apply_class_balancing: Weigh class 1 by `alpha` and class 0 by 1 - `alpha`.
        alpha: The weight of class 1.
        gamma: How strongly easy examples are turned down.
        from_logits: Whether predictions are logits.
        label_smoothing: Squeeze targets towards 0.5 by this fraction.
        axis: The axis that is averaged over.
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> BinaryFocalCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]])
        tensor(0.1733)
    """

    _options = ("from_logits", "label_smoothing", "axis", "apply_class_balancing", "alpha", "gamma")

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_focal_crossentropy",
        dtype: str | None = None,
    ) -> None:
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis
        self.apply_class_balancing, self.alpha, self.gamma = apply_class_balancing, alpha, gamma
        super().__init__(
            binary_focal_crossentropy,
            reduction,
            name,
            dtype,
            apply_class_balancing=apply_class_balancing,
            alpha=alpha,
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


@builtin
class CategoricalFocalCrossentropy(LossFunctionWrapper):
    """Focal cross-entropy of one-hot targets; see `categorical_focal_crossentropy`.

    Args:
        alpha: The weight of the loss, or a list of one weight for each class.
        gamma: How strongly easy examples are turned down.
        from_logits: Whether predictions are logits.
        label_smoothing: Move this fraction of each target evenly to all classes.
        axis: The axis of the classes.
        reduction: As for `Loss`.
        name: The name.
        dtype: The float type to compute in.

    Example:
        >>> CategoricalFocalCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]])
        tensor(0.0433)
    """

    _options = ("from_logits", "label_smoothing", "axis", "alpha", "gamma")

    def __init__(
        self,
        alpha: Any = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_focal_crossentropy",
        dtype: str | None = None,
    ) -> None:
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, check_axis(axis)
        self.alpha, self.gamma = alpha, gamma
        super().__init__(
            categorical_focal_crossentropy,
            reduction,
            name,
            dtype,
            alpha=alpha,
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )
