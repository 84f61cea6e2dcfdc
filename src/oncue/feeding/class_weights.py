"""`class_weight={class: weight}` as one weight per sample, computed on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from oncue.core.numbers import number_of, whole_of
from oncue.feeding.batch import describe
from oncue.feeding.tensors import float_dtype, to_tensors
from oncue.nested import is_nested


class ClassWeights:
    """Looks up the weight of each sample's class without synchronizing with the device.

    Args:
        class_weight: Weight per class index; classes not listed get weight 1.

    Raises:
        TypeError: If `class_weight` is not a dict.
        ValueError: If a key is not a class index, or a weight is not a finite number of at least 0.

    Example:
        >>> ClassWeights({1: 2.0})(torch.tensor([0, 1, 1]))
        tensor([1., 2., 2.])
    """

    def __init__(self, class_weight: Mapping[Any, Any]) -> None:
        """See the class."""
        if not isinstance(class_weight, Mapping):
            raise TypeError(
                f"`class_weight` must be a dict {{class index: weight}}; got {describe(class_weight)} of type "
                f"{type(class_weight).__name__}. For a list, pass `dict(enumerate(class_weight))`."
            )
        weights: dict[int, float] = {}
        for key, weight in class_weight.items():
            index, number = whole_of(key), number_of(weight)
            if index is None:
                raise ValueError(f"The keys of `class_weight` must be class indices such as 0, 1, 2; got {key!r}.")
            if number is None or not math.isfinite(number) or number < 0:
                raise ValueError(f"`class_weight[{key!r}]` must be a finite number of at least 0; got {weight!r}.")
            weights[index] = float(number)
        self.by_class = weights
        # Without any, all classes weigh 1.
        known = dict(sorted(weights.items())) or {0: 1.0}
        self._lowest, self._highest = min(known), max(known)
        self._classes = torch.tensor(list(known), dtype=torch.int64)
        self._weights = torch.tensor(list(known.values()), dtype=float_dtype())

    def __call__(self, y: Any) -> torch.Tensor:
        """Return one weight per sample.

        Args:
            y: Class indices of shape `(n,)` or `(n, 1)` (floats are rounded), or one-hot rows of shape `(n, classes)`.

        Returns:
            Weights of shape `(n,)`, of floatx, on the device of `y`.

        Raises:
            ValueError: For targets of several outputs, missing targets, targets of more than two axes, or a class
                outside the one-hot rows.
        """
        if not isinstance(y, torch.Tensor):
            raise ValueError(
                "`class_weight` needs the targets `y` of a single output; "
                f"got {'none' if y is None else describe(y)}. Pass `sample_weight` instead."
            )
        if y.ndim > 2:
            raise ValueError(
                f"`class_weight` needs class indices (n,) or one-hot rows (n, classes); got y of shape "
                f"{tuple(y.shape)}. Pass `sample_weight` of that shape instead."
            )
        if self._classes.device != y.device:
            self._classes, self._weights = self._classes.to(y.device), self._weights.to(y.device)
        if y.ndim == 2 and y.shape[1] != 1:
            self._check_columns(y.shape[1])
            labels = y.to(torch.uint8).argmax(dim=1) if y.dtype == torch.bool else y.argmax(dim=1)
        else:
            labels = (y.round() if y.is_floating_point() else y).to(torch.int64).reshape(-1)
        slots = torch.searchsorted(self._classes, labels).clamp_(max=self._classes.numel() - 1)
        return torch.where(self._classes[slots] == labels, self._weights[slots], 1.0)

    def _check_columns(self, columns: int) -> None:
        if self._highest >= columns or self._lowest < 0:
            key = self._highest if self._highest >= columns else self._lowest
            raise ValueError(
                f"`class_weight` names class {key}, but y has one-hot rows of {columns} classes (0 to {columns - 1})."
            )


def class_weight_to_sample_weights(y: Any, class_weight: Mapping[int, float]) -> torch.Tensor:
    """Turn `class_weight` into one weight per sample.

    Args:
        y: Targets of a single output: class indices `(n,)` or `(n, 1)`, or one-hot rows `(n, classes)`.
        class_weight: Weight per class index; classes not listed get weight 1.

    Returns:
        Weights of shape `(n,)`, of floatx, on the device of `y`.

    Raises:
        TypeError: If `class_weight` is not a dict.
        ValueError: If a key is not a class index, a weight is negative, or `y` has several outputs.

    Example:
        >>> class_weight_to_sample_weights([[1, 0], [0, 1]], {0: 3.0, 1: 0.5})
        tensor([3.0000, 0.5000])
    """
    weights = ClassWeights(class_weight)
    tensor = to_tensors(y, "y")
    return weights(y if is_nested(tensor) else tensor)
