"""True and false positives and negatives, precision and recall.

Definitions: https://keras.io/api/metrics/classification_metrics/.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.metrics.mean import divide
from oncue.metrics.metric import Metric
from oncue.metrics.thresholds import LOWEST, Counts, count, evenly_spaced, parse_thresholds


class _Count(Metric):
    """The number of predictions of one kind."""

    def __init__(self, thresholds: Any = None, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.init_thresholds = plain(thresholds)
        self.thresholds = parse_thresholds(thresholds, 0.5)
        self._even = evenly_spaced(self.thresholds)
        self.accumulator = self._accumulator((len(self.thresholds),), "accumulator")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: Targets 0 and 1, shape (batch, ...).
            y_pred: Probabilities of the same shape.
            sample_weight: None, or weights of the samples.
        """
        found = count(y_true, y_pred, self.thresholds, self._even, self._kind, sample_weight=sample_weight)
        self.accumulator.assign_add(self._pick(found))

    def _pick(self, counts: Counts) -> Tensor:
        # Each metric of this kind says which of the counts it is about.
        raise NotImplementedError

    def result(self) -> Tensor:
        """Return the number: a scalar for one threshold, else one for each."""
        value = self.accumulator.value.to(self._kind)
        return value[0] if len(self.thresholds) == 1 else value

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        return {**super().get_config(), "thresholds": self.init_thresholds}


@builtin
class TruePositives(_Count):
    """The number of positives that were predicted as such.

    Args:
        thresholds: Above which a prediction is positive: a number or a list, 0.5 by default.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> TruePositives()([0, 1, 1, 1], [1, 0, 1, 1])
        tensor(2.)
    """

    def _pick(self, counts: Counts) -> Tensor:
        return counts.true_positives


@builtin
class FalsePositives(_Count):
    """The number of negatives that were predicted as positive.

    Args:
        thresholds: Above which a prediction is positive: a number or a list, 0.5 by default.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> FalsePositives()([0, 1, 0, 0], [0, 0, 1, 1])
        tensor(2.)
    """

    def _pick(self, counts: Counts) -> Tensor:
        return counts.false_positives


@builtin
class TrueNegatives(_Count):
    """The number of negatives that were predicted as such.

    Args:
        thresholds: Above which a prediction is positive: a number or a list, 0.5 by default.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> TrueNegatives()([0, 1, 0, 0], [1, 1, 0, 0])
        tensor(2.)
    """

    def _pick(self, counts: Counts) -> Tensor:
        return counts.negatives - counts.false_positives


@builtin
class FalseNegatives(_Count):
    """The number of positives that were predicted as negative.

    Args:
        thresholds: Above which a prediction is positive: a number or a list, 0.5 by default.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> FalseNegatives()([0, 1, 1, 1], [0, 1, 0, 0])
        tensor(2.)
    """

    def _pick(self, counts: Counts) -> Tensor:
        return counts.positives - counts.true_positives


class _Share(Metric):
    """True positives divided by true positives and something else."""

    _direction = "up"
    _other = ""

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.init_thresholds, self.top_k, self.class_id = plain(thresholds), plain(top_k), plain(class_id)
        self.thresholds = parse_thresholds(thresholds, 0.5 if top_k is None else LOWEST)
        self._even = evenly_spaced(self.thresholds)
        self.true_positives = self._accumulator((len(self.thresholds),), "true_positives")
        self._rest = self._accumulator((len(self.thresholds),), self._other)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: Targets 0 and 1, shape (batch, ...).
            y_pred: Probabilities of the same shape.
            sample_weight: None, or weights of the samples.
        """
        found = count(
            y_true,
            y_pred,
            self.thresholds,
            self._even,
            self._kind,
            top_k=self.top_k,
            class_id=self.class_id,
            sample_weight=sample_weight,
        )
        self.true_positives.assign_add(found.true_positives)
        self._rest.assign_add(self._pick(found))

    def _pick(self, counts: Counts) -> Tensor:
        # Each metric of this kind says which of the counts it is about.
        raise NotImplementedError

    def result(self) -> Tensor:
        """Return the fraction: a scalar for one threshold, else one for each; 0 where there was nothing to divide."""
        found = self.true_positives.value
        value = divide(found, found + self._rest.value).to(self._kind)
        return value[0] if len(self.thresholds) == 1 else value

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        own = {"thresholds": self.init_thresholds, "top_k": self.top_k, "class_id": self.class_id}
        return {**super().get_config(), **own}


@builtin
class Precision(_Share):
    """The fraction of the predicted positives that are positive.

    Args:
        thresholds: Above which a prediction is positive: a number or a list, 0.5 by default.
        top_k: Count the k highest predictions of each sample as positive instead.
        class_id: Look at this class alone.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> Precision()([0, 1, 1, 1], [1, 0, 1, 1])
        tensor(0.6667)
    """

    _other = "false_positives"

    @property
    def false_positives(self) -> Any:
        """The false positives so far."""
        return self._rest

    def _pick(self, counts: Counts) -> Tensor:
        return counts.false_positives


@builtin
class Recall(_Share):
    """The fraction of the positives that were predicted.

    Args:
        thresholds: Above which a prediction is positive: a number or a list, 0.5 by default.
        top_k: Count the k highest predictions of each sample as positive instead.
        class_id: Look at this class alone.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> Recall()([0, 1, 1, 1], [1, 0, 1, 1])
        tensor(0.6667)
    """

    _other = "false_negatives"

    @property
    def false_negatives(self) -> Any:
        """The false negatives so far."""
        return self._rest

    def _pick(self, counts: Counts) -> Tensor:
        return counts.positives - counts.true_positives
