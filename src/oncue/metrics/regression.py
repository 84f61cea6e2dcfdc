"""Metrics of regression.

Definitions: https://keras.io/api/metrics/regression_metrics/.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from oncue.core.builtin import builtin
from oncue.losses import regression, similarity
from oncue.losses.shapes import pair
from oncue.metrics.mean import Mean, MeanMetricWrapper


@builtin
class MeanSquaredError(MeanMetricWrapper):
    """Mean squared error.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> MeanSquaredError()([[0.0, 1.0]], [[1.0, 3.0]])
        tensor(2.5000)
    """

    _direction = "down"

    def __init__(self, name: str | None = "mean_squared_error", dtype: Any = None) -> None:
        super().__init__(regression.mean_squared_error, name, dtype)


@builtin
class RootMeanSquaredError(Mean):
    """Root of the mean squared error, in the target's units.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> RootMeanSquaredError()([[0.0, 0.0]], [[3.0, 3.0]])
        tensor(3.)
    """

    _direction = "down"

    def __init__(self, name: str | None = "root_mean_squared_error", dtype: Any = None) -> None:
        super().__init__(name, dtype)

    def update_state(  # type: ignore[override]  # in Keras too a Mean takes values, and this one two tensors
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> None:
        """Add a batch of targets and predictions."""
        target, output = pair(y_true, y_pred)
        super().update_state((target - output).square(), sample_weight)

    def result(self) -> Tensor:
        """Return the root of the mean."""
        return super().result().sqrt()

    def snapshot(self) -> tuple[Tensor | float, Tensor | float | None]:
        """Return the root: a root has no numerator and denominator to be added up."""
        return self.result(), None


@builtin
class MeanAbsoluteError(MeanMetricWrapper):
    """Mean absolute error.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> MeanAbsoluteError()([[0.0, 1.0]], [[1.0, 3.0]])
        tensor(1.5000)
    """

    _direction = "down"

    def __init__(self, name: str | None = "mean_absolute_error", dtype: Any = None) -> None:
        super().__init__(regression.mean_absolute_error, name, dtype)


@builtin
class MeanAbsolutePercentageError(MeanMetricWrapper):
    """Mean absolute error in percent of the target.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> MeanAbsolutePercentageError()([[2.0, 4.0]], [[1.0, 4.0]])
        tensor(25.)
    """

    _direction = "down"

    def __init__(self, name: str | None = "mean_absolute_percentage_error", dtype: Any = None) -> None:
        super().__init__(regression.mean_absolute_percentage_error, name, dtype)


@builtin
class MeanSquaredLogarithmicError(MeanMetricWrapper):
    """Mean squared error of the logarithms.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> MeanSquaredLogarithmicError()([[0.0]], [[1.0]])
        tensor(0.4805)
    """

    _direction = "down"

    def __init__(self, name: str | None = "mean_squared_logarithmic_error", dtype: Any = None) -> None:
        super().__init__(regression.mean_squared_logarithmic_error, name, dtype)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Tensor:
    """Return the cosine of the angle between target and prediction; the loss of this name is its negative.

    Args:
        y_true: Targets, shape (batch, ...).
        y_pred: Predictions of the same shape.
        axis: The axis of the vectors.

    Returns:
        One number for each vector.

    Example:
        >>> cosine_similarity([[0.0, 2.0]], [[0.0, 1.0]])
        tensor([1.])
    """
    return -similarity.cosine_similarity(y_true, y_pred, axis)


@builtin
class CosineSimilarity(MeanMetricWrapper):
    """Mean cosine of the angle between target and prediction: 1 is the same direction.

    Args:
        name: The name.
        dtype: The type of the result.
        axis: The axis of the vectors.

    Example:
        >>> CosineSimilarity()([[0.0, 2.0]], [[0.0, 1.0]])
        tensor(1.)
    """

    _direction = "up"
    _options = ("axis",)

    def __init__(self, name: str | None = "cosine_similarity", dtype: Any = None, axis: int = -1) -> None:
        super().__init__(cosine_similarity, name, dtype, axis=axis)
        self.axis = axis


@builtin
class LogCoshError(MeanMetricWrapper):
    """Mean logarithm of the hyperbolic cosine of the error.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> LogCoshError()([[0.0]], [[1.0]])
        tensor(0.4338)
    """

    _direction = "down"

    def __init__(self, name: str | None = "logcosh", dtype: Any = None) -> None:
        super().__init__(regression.log_cosh, name, dtype)
