"""F1 and F-beta: the harmonic mean of precision and recall.

Definitions: https://keras.io/api/metrics/classification_metrics/#fbetascore-class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oncue.backend import epsilon
from oncue.core.builtin import builtin
from oncue.core.numbers import number_of
from oncue.losses.shapes import as_tensor, floats
from oncue.metrics.metric import Metric

_AVERAGES = (None, "micro", "macro", "weighted")


@builtin
class FBetaScore(Metric):
    """The weighted harmonic mean of precision and recall.

    Args:
        average: None for one score for each class, "micro" (over all classes together), "macro" (their mean) or
            "weighted" (their mean by how often a class occurs).
        beta: How much more recall counts than precision; above 0.
        threshold: Above which a prediction is positive; when None, the highest prediction of each sample is.
        name: The name.
        dtype: The type of the result.

    Raises:
        ValueError: When an argument isn't as described.

    Example:
        >>> FBetaScore(average="micro", beta=2.0, threshold=0.5)([[1, 1], [1, 0]], [[0.9, 0.2], [0.8, 0.7]])
        tensor(0.6667)
    """

    _direction = "up"

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = "fbeta_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if average not in _AVERAGES:
            raise ValueError(f"`average` must be None, 'micro', 'macro' or 'weighted'; got {average!r}.")
        factor = number_of(beta)
        if factor is None or factor <= 0:
            raise ValueError(f"`beta` must be a number above 0; got {beta!r}.")
        limit = number_of(threshold)
        if threshold is not None and (limit is None or not 0.0 < limit <= 1.0):
            raise ValueError(f"`threshold` must be None, or a float above 0 and at most 1; got {threshold!r}.")
        self.average, self.beta, self.threshold = average, factor, limit
        self._built = False

    def _build(self, classes: int) -> None:
        shape = () if self.average == "micro" else (classes,)
        self.true_positives = self._accumulator(shape, "true_positives")
        self.false_positives = self._accumulator(shape, "false_positives")
        self.false_negatives = self._accumulator(shape, "false_negatives")
        self.intermediate_weights = self._accumulator(shape, "intermediate_weights")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: Targets 0 and 1, shape (batch, classes).
            y_pred: Probabilities of the same shape.
            sample_weight: None, or weights of shape (batch,).

        Raises:
            ValueError: When the shapes aren't (batch, classes).
        """
        y_pred = floats(y_pred, "y_pred", self._kind)
        y_true = floats(y_true, "y_true", self._kind, y_pred.device)
        if y_pred.ndim != 2 or y_true.shape != y_pred.shape:
            raise ValueError(
                f"`{type(self).__name__}` needs `y_true` and `y_pred` of shape (batch, classes); got "
                f"{tuple(y_true.shape)} "
                f"and {tuple(y_pred.shape)}. Integer labels can be made one-hot with `keras.utils.to_categorical(y)`."
            )
        if not self._built:
            self._build(y_pred.shape[1])
        if self.threshold is None:
            positive = (y_pred >= y_pred.amax(-1, keepdim=True)) & (y_pred.abs() > 1e-9)
        else:
            positive = y_pred > self.threshold
        weights: Tensor | None = None
        if sample_weight is not None:
            weights = as_tensor(sample_weight, "sample_weight", device=y_pred.device).to(self._kind)
            if weights.ndim == 1:
                weights = weights.unsqueeze(1)
        predicted = positive.to(self._kind)

        def total(values: Tensor) -> Tensor:
            values = values if weights is None else values * weights
            return values.sum() if self.average == "micro" else values.sum(0)

        both = total(predicted * y_true)
        self.true_positives.assign_add(both)
        self.false_positives.assign_add(total(predicted * (1.0 - y_true)))
        self.false_negatives.assign_add(total((1.0 - predicted) * y_true))
        self.intermediate_weights.assign_add(total(y_true))

    def result(self) -> Tensor:
        """Return the score; one for each class when `average` is None. 0 before the first batch."""
        if not self._built:
            return torch.zeros((), dtype=self._kind)
        found, small = self.true_positives.value, epsilon()
        precision = found / (found + self.false_positives.value + small)
        recall = found / (found + self.false_negatives.value + small)
        square = self.beta**2
        score = precision * recall / (square * precision + recall + small) * (1 + square)
        if self.average == "weighted":
            weights = self.intermediate_weights.value
            score = (score * (weights / (weights.sum() + small))).sum()
        elif self.average is not None:
            score = score.mean()
        return score.to(self._kind)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        return {**super().get_config(), "average": self.average, "beta": self.beta, "threshold": self.threshold}


@builtin
class F1Score(FBetaScore):
    """The harmonic mean of precision and recall.

    Args:
        average: As for `FBetaScore`.
        threshold: As for `FBetaScore`.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> F1Score(average="macro")([[1, 0], [0, 1]], [[0.9, 0.2], [0.8, 0.7]])
        tensor(0.3333)
    """

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = "f1_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        return {key: value for key, value in super().get_config().items() if key != "beta"}
