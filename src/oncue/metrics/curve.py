"""What the metrics of the whole curve of thresholds share: the four counts at each threshold."""

from __future__ import annotations

from torch import Tensor

from oncue.core.allowance import count_numbers
from oncue.metrics.mean import divide
from oncue.metrics.metric import Metric
from oncue.metrics.state import MetricVariable
from oncue.metrics.thresholds import Counts


class Curve(Metric):
    """The four counts at many thresholds."""

    _direction = "up"

    def _make(self, shape: tuple[int, ...]) -> None:
        self.true_positives: MetricVariable = self._accumulator(shape, "true_positives")
        self.false_positives: MetricVariable = self._accumulator(shape, "false_positives")
        self.true_negatives: MetricVariable = self._accumulator(shape, "true_negatives")
        self.false_negatives: MetricVariable = self._accumulator(shape, "false_negatives")

    def _add(self, counts: Counts) -> None:
        self.true_positives.assign_add(counts.true_positives)
        self.false_positives.assign_add(counts.false_positives)
        self.true_negatives.assign_add(counts.negatives - counts.false_positives)
        self.false_negatives.assign_add(counts.positives - counts.true_positives)

    def _rates(self) -> tuple[Tensor, Tensor, Tensor]:
        tp, fp = self.true_positives.value, self.false_positives.value
        tn, fn = self.true_negatives.value, self.false_negatives.value
        return divide(tp, tp + fn), divide(tn, tn + fp), divide(tp, tp + fp)


def even_thresholds(number: int, margin: float = 0.0) -> list[float]:
    """Return thresholds from 0 to 1 in equal steps, the outermost moved outwards by a margin.

    Example:
        >>> even_thresholds(3)
        [0.0, 0.5, 1.0]
    """
    count_numbers((number,))
    return [0.0 - margin, *((i + 1) / (number - 1) for i in range(number - 2)), 1.0 + margin]
