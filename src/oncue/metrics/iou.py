"""Intersection over union, from a matrix of how often each class was taken for which.

Definitions: https://keras.io/api/metrics/segmentation_metrics/.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oncue.backend import epsilon
from oncue.core.builtin import builtin
from oncue.core.numbers import plain, whole
from oncue.core.warn import warn
from oncue.losses.shapes import as_tensor
from oncue.metrics.accuracies import best_class
from oncue.metrics.metric import Metric


@builtin
class IoU(Metric):
    """Mean intersection over union of some classes.

    Args:
        num_classes: The number of classes.
        target_class_ids: The classes whose mean is taken.
        name: The name.
        dtype: The type of the counts; "int" by default, which cuts fractions off weights.
        ignore_class: A label whose entries don't count; None when there is none.
        sparse_y_true: Whether targets are class labels, not one-hot.
        sparse_y_pred: Whether predictions are class labels, not scores.
        axis: The axis of the classes.

    Raises:
        ValueError: When a class is out of range.

    Example:
        >>> IoU(num_classes=2, target_class_ids=[0])([0, 0, 1, 1], [0, 1, 0, 1])
        tensor(0.3333)
    """

    _direction = "up"

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Any,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(name=name, dtype="int" if dtype is None else dtype)
        num_classes = whole(type(self).__name__, "num_classes", num_classes, least=1)
        target_class_ids = plain(target_class_ids)
        if max(target_class_ids) >= num_classes or min(target_class_ids) < 0:
            raise ValueError(
                f"`target_class_ids` must be from 0 to {num_classes - 1} for num_classes={num_classes}; got "
                f"{list(target_class_ids)}."
            )
        self.num_classes, self.target_class_ids = num_classes, list(target_class_ids)
        self.ignore_class, self.axis = plain(ignore_class), plain(axis)
        self.sparse_y_true, self.sparse_y_pred = sparse_y_true, sparse_y_pred
        self.total_cm = self._accumulator((num_classes, num_classes), "total_confusion_matrix")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: Class labels, or one-hot targets.
            y_pred: Class labels, or scores of the classes.
            sample_weight: None, or weights of the entries.
        """
        y_pred = as_tensor(y_pred, "y_pred")
        y_true = as_tensor(y_true, "y_true", device=y_pred.device)
        labels = (y_true if self.sparse_y_true else best_class(y_true, self.axis)).reshape(-1).long()
        found = (y_pred if self.sparse_y_pred else best_class(y_pred, self.axis)).reshape(-1).long()
        inside = (labels >= 0) & (labels < self.num_classes) & (found >= 0) & (found < self.num_classes)
        if self.ignore_class is not None:
            inside = inside & (labels != self.ignore_class)
        counts = inside.to(self._kind)
        if sample_weight is not None:
            given = as_tensor(sample_weight, "sample_weight", device=y_pred.device)
            if given.is_floating_point() and not self._kind.is_floating_point:
                warn(
                    f"`sample_weight` has the type float, and {self.name!r} counts in {self.dtype}: casting cuts off what is "
                    'after the point. Make the metric with dtype="float32".'
                )
            weights = given.to(self._kind)
            counts = counts * weights.reshape(-1).expand_as(counts)
        cells = torch.where(inside, labels * self.num_classes + found, torch.zeros_like(labels))
        matrix = counts.new_zeros(self.num_classes**2).scatter_add_(0, cells, counts)
        self.total_cm.assign_add(matrix.view(self.num_classes, self.num_classes))

    def result(self) -> Tensor:
        """Return the mean over the target classes that occurred."""
        matrix = self.total_cm.value
        both = matrix.diagonal()
        either = matrix.sum(0) + matrix.sum(1) - both
        both, either = (x[self.target_class_ids].to(torch.float32) for x in (both, either))
        occurred = either > 1e-9
        shares = (both / (either + epsilon())).masked_fill(~occurred, 0.0)
        return shares.sum() / (occurred.sum() + epsilon())

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        keys = ("num_classes", "target_class_ids", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")
        return {**super().get_config(), **{key: getattr(self, key) for key in keys}}


def _without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


@builtin
class BinaryIoU(IoU):
    """Mean intersection over union of classes 0 and 1, from probabilities of class 1.

    Args:
        target_class_ids: The classes whose mean is taken.
        threshold: From which a probability counts as class 1.
        name: The name.
        dtype: The type of the counts.

    Example:
        >>> BinaryIoU(threshold=0.3)([0, 1, 0, 1], [0.1, 0.2, 0.4, 0.7])
        tensor(0.3333)
    """

    def __init__(
        self,
        target_class_ids: Any = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = plain(threshold)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch of labels and probabilities."""
        super().update_state(y_true, as_tensor(y_pred, "y_pred") >= self.threshold, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        own = {"target_class_ids": self.target_class_ids, "threshold": self.threshold}
        return {**Metric.get_config(self), **own}


@builtin
class MeanIoU(IoU):
    """Mean intersection over union of all classes.

    Args:
        num_classes: The number of classes.
        name: The name.
        dtype: The type of the counts.
        ignore_class: A label whose entries don't count.
        sparse_y_true: Whether targets are class labels.
        sparse_y_pred: Whether predictions are class labels.
        axis: The axis of the classes.

    Example:
        >>> MeanIoU(num_classes=2)([0, 0, 1, 1], [0, 1, 0, 1])
        tensor(0.3333)
    """

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        classes = range(num_classes)
        super().__init__(num_classes, classes, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        return _without(super().get_config(), "target_class_ids")


@builtin
class OneHotIoU(IoU):
    """Mean intersection over union of some classes, with one-hot targets.

    Args:
        num_classes: The number of classes.
        target_class_ids: The classes whose mean is taken.
        name: The name.
        dtype: The type of the counts.
        ignore_class: A label whose entries don't count.
        sparse_y_pred: Whether predictions are class labels, not scores.
        axis: The axis of the classes.

    Example:
        >>> OneHotIoU(2, [0])([[1, 0], [1, 0], [0, 1]], [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
        tensor(0.5000)
    """

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Any,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        return _without(super().get_config(), "sparse_y_true")


@builtin
class OneHotMeanIoU(MeanIoU):
    """Mean intersection over union of all classes, with one-hot targets.

    Args:
        num_classes: The number of classes.
        name: The name.
        dtype: The type of the counts.
        ignore_class: A label whose entries don't count.
        sparse_y_pred: Whether predictions are class labels, not scores.
        axis: The axis of the classes.

    Example:
        >>> OneHotMeanIoU(2)([[1, 0], [1, 0], [0, 1]], [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
        tensor(0.5000)
    """

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: Any = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        return _without(super().get_config(), "sparse_y_true")
