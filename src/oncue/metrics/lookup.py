"""Metrics by name, class or config."""

from __future__ import annotations

import inspect
from typing import Any

from oncue import objects
from oncue.legacy import NAMES
from oncue.losses.lookup import FUNCTIONS
from oncue.metrics.accuracies import (
    Accuracy,
    BinaryAccuracy,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TopKCategoricalAccuracy,
)
from oncue.metrics.auc import AUC
from oncue.metrics.confusion import FalseNegatives, FalsePositives, Precision, Recall, TrueNegatives, TruePositives
from oncue.metrics.correlation import ConcordanceCorrelation, PearsonCorrelation
from oncue.metrics.f_score import F1Score, FBetaScore
from oncue.metrics.hinges import CategoricalHinge, Hinge, SquaredHinge
from oncue.metrics.iou import BinaryIoU, IoU, MeanIoU, OneHotIoU, OneHotMeanIoU
from oncue.metrics.mean import Mean, MeanMetricWrapper, Sum
from oncue.metrics.metric import Metric
from oncue.metrics.operating_point import (
    PrecisionAtRecall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
)
from oncue.metrics.probabilistic import (
    BinaryCrossentropy,
    CategoricalCrossentropy,
    KLDivergence,
    Poisson,
    SparseCategoricalCrossentropy,
)
from oncue.metrics.r2_score import R2Score
from oncue.metrics.regression import (
    CosineSimilarity,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    RootMeanSquaredError,
)
from oncue.metrics.torch_metric import TorchMetric, is_torch_metric
from oncue.naming import to_snake_case

_CLASSES: tuple[type[Metric], ...] = (
    AUC,
    Accuracy,
    BinaryAccuracy,
    BinaryCrossentropy,
    BinaryIoU,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CategoricalHinge,
    ConcordanceCorrelation,
    CosineSimilarity,
    F1Score,
    FBetaScore,
    FalseNegatives,
    FalsePositives,
    Hinge,
    IoU,
    KLDivergence,
    LogCoshError,
    Mean,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanIoU,
    MeanMetricWrapper,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    OneHotIoU,
    OneHotMeanIoU,
    PearsonCorrelation,
    Poisson,
    Precision,
    PrecisionAtRecall,
    R2Score,
    Recall,
    RecallAtPrecision,
    RootMeanSquaredError,
    SensitivityAtSpecificity,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SparseTopKCategoricalAccuracy,
    SpecificityAtSensitivity,
    SquaredHinge,
    Sum,
    TopKCategoricalAccuracy,
    TrueNegatives,
    TruePositives,
)

KNOWN: dict[str, Any] = {found.__name__: found for found in _CLASSES}
KNOWN.update({to_snake_case(found.__name__): found for found in _CLASSES})

KNOWN["top_k_categorical_accuracy"] = TopKCategoricalAccuracy
KNOWN["sparse_top_k_categorical_accuracy"] = SparseTopKCategoricalAccuracy
KNOWN.update({other: KNOWN[name] for other, name in NAMES["metric"].items()})


def serialize(metric: Any) -> dict[str, Any]:
    """Return the description of a metric that `deserialize` and Keras read.

    Args:
        metric: A `Metric`, or a function.

    Returns:
        A dict with "module", "class_name", "config" and "registered_name".

    Raises:
        ValueError: When the metric has no `get_config()`.

    Example:
        >>> serialize(BinaryAccuracy())["config"]["threshold"]
        0.5
    """
    return objects.to_config(metric, "keras.metrics")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """Make a metric from its description.

    Args:
        config: What `serialize` returned, a dict with "class_name" and "config", or a name.
        custom_objects: Your own classes and functions by name.

    Returns:
        A `Metric` or a function.

    Raises:
        ValueError: When the description names no known metric.

    Example:
        >>> deserialize({"class_name": "AUC", "config": {"curve": "PR"}}).curve
        'PR'
    """
    if isinstance(config, str) and config in KNOWN and config not in (custom_objects or {}):
        return _without_arguments(config)
    known = {**FUNCTIONS, **KNOWN}
    if isinstance(config, dict) and config.get("class_name") == "function":
        # A written function stands for itself; a metric of the same name would be something else to calculate with.
        known = {**KNOWN, **FUNCTIONS}
    return objects.resolve("metric", config, known, custom_objects)


def _without_arguments(name: str) -> Any:
    cls = KNOWN[name]
    needed = [
        argument.name
        for argument in inspect.signature(cls).parameters.values()
        if argument.default is argument.empty and argument.kind is argument.POSITIONAL_OR_KEYWORD
    ]
    if needed:
        named = ", ".join(f"`{argument}`" for argument in needed)
        typed = ", ".join(f"{argument}=..." for argument in needed)
        raise ValueError(
            f"The metric {name!r} can't be made from its name alone: it needs {named}. Use "
            f"keras.metrics.{cls.__name__}({typed})."
        )
    return cls()


def get(identifier: Any) -> Any:
    """Return the metric that is meant.

    Args:
        identifier: None, a name such as "mae" or "AUC", a `Metric` or its class, a function `metric(y_true, y_pred)`,
            an object of torchmetrics (wrapped in `TorchMetric`), or a description.

    Returns:
        A `Metric` or a function; None for None.

    Raises:
        ValueError: For a name that is not known; the nearest known name is given.
        TypeError: For something that isn't a metric.

    Example:
        >>> get("mae").name
        'mean_absolute_error'
        >>> get("acuracy")
        Traceback (most recent call last):
        ...
        ValueError: Unknown metric: 'acuracy'. Did you mean 'accuracy'? ...
    """
    if identifier is None:
        return None
    found = deserialize(identifier) if isinstance(identifier, (str, dict, type)) else identifier
    if isinstance(found, Metric):
        return found
    if is_torch_metric(found):
        return TorchMetric(found)
    if not callable(found):
        raise TypeError(
            f"A metric must be a name such as 'accuracy', a function (y_true, y_pred), a keras.metrics.Metric or a "
            f"torchmetrics object; got {found!r} of type {type(found).__name__}."
        )
    return found
