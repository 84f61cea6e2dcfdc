"""The best value of one rate at the thresholds where another one is high enough.

Definitions: https://keras.io/api/metrics/classification_metrics/.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oncue.core.builtin import builtin
from oncue.core.numbers import number_of, plain, whole
from oncue.metrics.curve import Curve, even_thresholds
from oncue.metrics.thresholds import count


class _AtLeast(Curve):
    """The highest value of one rate at the thresholds where another one is at least some value."""

    _argument = ""

    def __init__(self, value: float, num_thresholds: int, class_id: int | None, name: str | None, dtype: Any) -> None:
        super().__init__(name=name, dtype=dtype)
        wanted = number_of(value)
        if wanted is None or not 0 <= wanted <= 1:
            raise ValueError(f"`{self._argument}` must be from 0 to 1; got {value!r}.")
        num_thresholds = whole("", "num_thresholds", num_thresholds, least=1)
        self.value, self.num_thresholds, self.class_id = wanted, num_thresholds, plain(class_id)
        self.thresholds = [0.5] if num_thresholds == 1 else even_thresholds(num_thresholds)
        self._make((len(self.thresholds),))

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: Targets 0 and 1, shape (batch, ...).
            y_pred: Probabilities of the same shape.
            sample_weight: None, or weights of the samples.
        """
        even = self.num_thresholds > 1
        self._add(
            count(
                y_true,
                y_pred,
                self.thresholds,
                even,
                self._kind,
                class_id=self.class_id,
                sample_weight=sample_weight,
            )
        )

    def _best(self, constrained: Tensor, wanted: Tensor) -> Tensor:
        return wanted.masked_fill(constrained < self.value, 0.0).amax().clamp(min=0.0).to(self._kind)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        own = {"class_id": self.class_id, "num_thresholds": self.num_thresholds, self._argument: self.value}
        return {**super().get_config(), **own}


@builtin
class SensitivityAtSpecificity(_AtLeast):
    """The highest sensitivity (recall) where the specificity is at least the given one.

    Args:
        specificity: From 0 to 1.
        num_thresholds: The number of thresholds that are tried.
        class_id: Look at this class alone.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> SensitivityAtSpecificity(0.5)([0, 0, 0, 1, 1], [0, 0.3, 0.8, 0.3, 0.8])
        tensor(0.5000)
    """

    _argument = "specificity"

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(specificity, num_thresholds, class_id, name, dtype)
        self.specificity = specificity

    def result(self) -> Tensor:
        """Return the highest sensitivity."""
        sensitivity, specificity, _ = self._rates()
        return self._best(specificity, sensitivity)


@builtin
class SpecificityAtSensitivity(_AtLeast):
    """The highest specificity where the sensitivity (recall) is at least the given one.

    Args:
        sensitivity: From 0 to 1.
        num_thresholds: The number of thresholds that are tried.
        class_id: Look at this class alone.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> SpecificityAtSensitivity(0.5)([0, 0, 0, 1, 1], [0, 0.3, 0.8, 0.3, 0.8])
        tensor(0.6667)
    """

    _argument = "sensitivity"

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)
        self.sensitivity = sensitivity

    def result(self) -> Tensor:
        """Return the highest specificity."""
        sensitivity, specificity, _ = self._rates()
        return self._best(sensitivity, specificity)


@builtin
class PrecisionAtRecall(_AtLeast):
    """The highest precision where the recall is at least the given one.

    Args:
        recall: From 0 to 1.
        num_thresholds: The number of thresholds that are tried.
        class_id: Look at this class alone.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> PrecisionAtRecall(0.5)([0, 0, 0, 1, 1], [0, 0.3, 0.8, 0.3, 0.8])
        tensor(0.5000)
    """

    _argument = "recall"

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(recall, num_thresholds, class_id, name, dtype)
        self.recall = recall

    def result(self) -> Tensor:
        """Return the highest precision."""
        recall, _, precision = self._rates()
        return self._best(recall, precision)


@builtin
class RecallAtPrecision(_AtLeast):
    """The highest recall where the precision is at least the given one.

    Args:
        precision: From 0 to 1.
        num_thresholds: The number of thresholds that are tried.
        class_id: Look at this class alone.
        name: The name.
        dtype: The type of the result.

    Example:
        >>> RecallAtPrecision(0.8)([0, 0, 1, 1], [0, 0.5, 0.3, 0.9])
        tensor(0.5000)
    """

    _argument = "precision"

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(precision, num_thresholds, class_id, name, dtype)
        self.precision = precision

    def result(self) -> Tensor:
        """Return the highest recall."""
        recall, _, precision = self._rates()
        return self._best(precision, recall)
