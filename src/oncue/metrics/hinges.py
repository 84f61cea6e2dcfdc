"""Hinge metrics.

Definitions: https://keras.io/api/metrics/hinge_metrics/.
"""

from __future__ import annotations

from typing import Any

from oncue.core.builtin import builtin
from oncue.losses import hinges
from oncue.metrics.mean import MeanMetricWrapper


@builtin
class Hinge(MeanMetricWrapper):
    """Mean hinge loss.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> Hinge()([[-1.0, 1.0]], [[0.5, 0.5]])
        tensor(1.)
    """

    _direction = "down"

    def __init__(self, name: str | None = "hinge", dtype: Any = None) -> None:
        super().__init__(hinges.hinge, name, dtype)


@builtin
class SquaredHinge(MeanMetricWrapper):
    """Mean squared hinge loss.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> SquaredHinge()([[-1.0, 1.0]], [[0.5, 0.5]])
        tensor(1.2500)
    """

    _direction = "down"

    def __init__(self, name: str | None = "squared_hinge", dtype: Any = None) -> None:
        super().__init__(hinges.squared_hinge, name, dtype)


@builtin
class CategoricalHinge(MeanMetricWrapper):
    """Mean hinge loss of several classes.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> CategoricalHinge()([[0.0, 1.0]], [[0.5, 0.7]])
        tensor(0.8000)
    """

    _direction = "down"

    def __init__(self, name: str | None = "categorical_hinge", dtype: Any = None) -> None:
        super().__init__(hinges.categorical_hinge, name, dtype)
