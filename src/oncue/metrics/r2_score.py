"""R2Score: how much of the variance is explained.

Definition: https://keras.io/api/metrics/regression_metrics/#r2score-class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from oncue.core.builtin import builtin
from oncue.core.warn import warn
from oncue.losses.shapes import as_tensor, floats, match_ranks
from oncue.metrics.metric import Metric

_AGGREGATIONS = (None, "uniform_average", "variance_weighted_average")


@builtin
class R2Score(Metric):
    """1 - squared errors / squared deviations from the mean: 1 is perfect, 0 as good as the mean.

    Args:
        class_aggregation: None for one score for each column, "uniform_average" or "variance_weighted_average".
        num_regressors: The number of regressors, to adjust the score for; 0 leaves it as it is.
        name: The name.
        dtype: The type of the result.

    Raises:
        ValueError: When an argument isn't as described.

    Example:
        >>> R2Score()([[1.0], [4.0], [3.0]], [[2.0], [4.0], [4.0]])
        tensor(0.5714)
    """

    _direction = "up"

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = "r2_score",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if class_aggregation not in _AGGREGATIONS:
            raise ValueError(f"`class_aggregation` must be one of {_AGGREGATIONS}; got {class_aggregation!r}.")
        if num_regressors < 0:
            raise ValueError(f"`num_regressors` must be 0 or more; got {num_regressors!r}.")
        self.class_aggregation, self.num_regressors = class_aggregation, num_regressors
        self.num_samples = self._accumulator((), "num_samples")
        self._built = False

    def _build(self, columns: int) -> None:
        self.squared_sum = self._accumulator((columns,), "squared_sum")
        self.sum = self._accumulator((columns,), "sum")
        self.total_mse = self._accumulator((columns,), "residual")
        self.count = self._accumulator((columns,), "count")
        self._built = True

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: Targets, shape (batch, columns).
            y_pred: Predictions of the same shape.
            sample_weight: None, or weights of shape (batch,) or (batch, columns).

        Raises:
            ValueError: When the shapes aren't (batch, columns).
        """
        y_pred = floats(y_pred, "y_pred", self._kind)
        y_true, y_pred = match_ranks(floats(y_true, "y_true", self._kind, y_pred.device), y_pred)
        if y_pred.ndim != 2 or y_true.shape != y_pred.shape:
            raise ValueError(
                f"`R2Score` needs `y_true` and `y_pred` of shape (batch, columns); got {tuple(y_true.shape)} and "
                f"{tuple(y_pred.shape)}."
            )
        if not self._built:
            self._build(y_pred.shape[1])
        self.num_samples.assign_add(y_true.numel())
        # Squares are summed in the accumulators' type: their difference would lose most digits of a float32.
        target, error = y_true.to(self.sum.value.dtype), (y_true - y_pred).square()
        weights = torch.ones_like(target)
        if sample_weight is not None:
            weights = as_tensor(sample_weight, "sample_weight", device=y_pred.device).to(target.dtype)
            weights = (weights.unsqueeze(1) if weights.ndim == 1 else weights).expand_as(target)
        self.sum.assign_add((target * weights).sum(0))
        self.squared_sum.assign_add((target * target * weights).sum(0))
        self.total_mse.assign_add((error * weights).sum(0))
        self.count.assign_add(weights.sum(0))

    def result(self) -> Tensor:
        """Return the score; one for each column when `class_aggregation` is None. 0 before the first batch."""
        if not self._built:
            return torch.zeros((), dtype=self._kind)
        total = self.squared_sum.value - self.sum.value * (self.sum.value / self.count.value)
        scores = 1.0 - self.total_mse.value / total
        scores = scores.masked_fill(scores.isinf(), 0.0)
        if self.class_aggregation == "uniform_average":
            scores = scores.mean()
        elif self.class_aggregation == "variance_weighted_average":
            scores = (total * scores).sum() / total.sum()
        if self.num_regressors:
            scores = self._adjusted(scores)
        return scores.to(self._kind)

    def _adjusted(self, score: Tensor) -> Tensor:
        samples = float(self.num_samples.owned())
        if self.num_regressors >= samples - 1:
            warn(
                f"R2Score can't be adjusted for {self.num_regressors} regressors with only {samples:g} data points; "
                f"the "
                "plain score is returned."
            )
            return score
        return 1.0 - (1.0 - score) * (samples - 1.0) / (samples - self.num_regressors - 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        own = {"class_aggregation": self.class_aggregation, "num_regressors": self.num_regressors}
        return {**super().get_config(), **own}
