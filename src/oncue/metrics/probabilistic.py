"""Metrics of probabilities: cross-entropies, Kullback-Leibler divergence, Poisson.

Definitions: https://keras.io/api/metrics/probabilistic_metrics/.
"""

from __future__ import annotations

from typing import Any

from oncue.core.builtin import builtin
from oncue.losses import crossentropy, divergence
from oncue.metrics.mean import MeanMetricWrapper


@builtin
class KLDivergence(MeanMetricWrapper):
    """Mean Kullback-Leibler divergence of the prediction from the target.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> KLDivergence()([[0.5, 0.5]], [[0.25, 0.75]])
        tensor(0.1438)
    """

    _direction = "down"

    def __init__(self, name: str | None = "kl_divergence", dtype: Any = None) -> None:
        super().__init__(divergence.kl_divergence, name, dtype)


@builtin
class Poisson(MeanMetricWrapper):
    """Mean Poisson loss of counts.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> Poisson()([[1.0, 0.0]], [[1.0, 3.0]])
        tensor(2.)
    """

    _direction = "down"

    def __init__(self, name: str | None = "poisson", dtype: Any = None) -> None:
        super().__init__(divergence.poisson, name, dtype)


@builtin
class BinaryCrossentropy(MeanMetricWrapper):
    """Mean cross-entropy of binary targets.

    Args:
        name: The name.
        dtype: The type of the result.
        from_logits: Whether predictions are logits (no sigmoid applied yet).
        label_smoothing: Squeeze targets towards 0.5 by this fraction.

    Example:
        >>> BinaryCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]])
        tensor(0.6931)
    """

    _direction = "down"
    _options = ("from_logits", "label_smoothing")

    def __init__(
        self,
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ) -> None:
        super().__init__(
            crossentropy.binary_crossentropy, name, dtype, from_logits=from_logits, label_smoothing=label_smoothing
        )
        self.from_logits, self.label_smoothing = from_logits, label_smoothing


@builtin
class CategoricalCrossentropy(MeanMetricWrapper):
    """Mean cross-entropy of one-hot targets.

    Args:
        name: The name.
        dtype: The type of the result.
        from_logits: Whether predictions are logits (no softmax applied yet).
        label_smoothing: Move this fraction of each target evenly to all classes.
        axis: The axis of the classes.

    Example:
        >>> CategoricalCrossentropy()([[0.0, 1.0]], [[0.5, 0.5]])
        tensor(0.6931)
    """

    _direction = "down"
    _options = ("from_logits", "label_smoothing", "axis")

    def __init__(
        self,
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        label_smoothing: float = 0,
        axis: int = -1,
    ) -> None:
        super().__init__(
            crossentropy.categorical_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )
        self.from_logits, self.label_smoothing, self.axis = from_logits, label_smoothing, axis


@builtin
class SparseCategoricalCrossentropy(MeanMetricWrapper):
    """Mean cross-entropy of integer class labels.

    Args:
        name: The name.
        dtype: The type of the result.
        from_logits: Whether predictions are logits (no softmax applied yet).
        ignore_class: A label whose loss is 0; None when there is none.
        axis: The axis of the classes.

    Example:
        >>> SparseCategoricalCrossentropy()([1], [[0.5, 0.5]])
        tensor(0.6931)
    """

    _direction = "down"
    _options = ("from_logits", "ignore_class", "axis")

    def __init__(
        self,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(
            crossentropy.sparse_categorical_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis
