"""Losses and metrics of Keras as oncue's: built-in ones become ours of the same numbers, others are used as they are."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any

import torch

from oncue import losses, metrics
from oncue.losses.lookup import CLASSES, FUNCTIONS
from oncue.losses.loss import Loss, LossFunctionWrapper
from oncue.metrics.lookup import KNOWN
from oncue.metrics.mean import MeanMetricWrapper
from oncue.metrics.metric import Metric
from oncue.nested import map_leaves
from oncue.with_keras import keras_private

_BY_SHAPE = ("accuracy", "acc", "crossentropy", "ce")

_LOSSES = {**FUNCTIONS, **CLASSES}
_METRICS = {**FUNCTIONS, **KNOWN}


class KerasLoss(Loss):
    """A loss of the user's own, derived from `keras.losses.Loss`, called as Keras calls it.

    Args:
        loss: The object.
    """

    def __init__(self, loss: Any) -> None:
        super().__init__(name=loss.name, reduction=loss.reduction)
        self.keras_loss = loss

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> torch.Tensor:
        """Return the loss of a batch, with weights, masks and the reduction as Keras applies them."""
        value: torch.Tensor = self.keras_loss(y_true, y_pred, sample_weight)
        return value


class KerasMetric(Metric):
    """A metric of Keras, used as it is; its variables stay its own.

    Args:
        metric: The object.
    """

    def __init__(self, metric: Any) -> None:
        super().__init__(name=metric.name)
        self.keras_metric = metric

    def update_state(self, *args: Any, **kwargs: Any) -> None:
        """Add a batch."""
        self.keras_metric.update_state(*args, **kwargs)

    def result(self) -> Any:
        """Return the value so far; a dict for a metric that has several."""
        import keras

        value = self.keras_metric.result()
        return map_leaves(keras.ops.convert_to_tensor, value)

    def reset_state(self) -> None:
        """Forget all batches."""
        self.keras_metric.reset_state()

    @property
    def variables(self) -> list[Any]:
        """The variables of the metric."""
        return list(self.keras_metric.variables)

    def get_state(self) -> dict[str, Any]:
        """Return copies of what was gathered, in variables and in attributes of the user's own class."""
        variables = [variable.value.detach().clone() for variable in self.variables]
        return {"variables": variables, "attributes": keras_private.plain_attributes(self.keras_metric)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        for variable, value in zip(self.variables, state["variables"], strict=True):
            variable.assign(value)
        for name, value in state["attributes"].items():
            setattr(self.keras_metric, name, value)

    def get_config(self) -> dict[str, Any]:
        """Return the metric's arguments."""
        config: dict[str, Any] = self.keras_metric.get_config()
        return config


def translated_losses(given: Any) -> Any:
    """Return losses, nested as Keras's `compile` takes them, for oncue's.

    Args:
        given: Names, losses and functions of Keras or the user's.

    Returns:
        The same, in which objects and functions of Keras's are oncue's where those give the same numbers, and else stand in
        a `KerasLoss`.
    """
    return map_leaves(_loss, given)


def translated_metrics(given: Any, pairs: list[tuple[Any, Metric]]) -> Any:
    """Return metrics, nested as Keras's `compile` takes them, for oncue's.

    Args:
        given: Names, metrics and functions of Keras or the user's.
        pairs: Gets each object of Keras's with the metric of oncue's that gathers in its place.

    Returns:
        The same, in which objects of Keras's are oncue's where those give the same numbers, and else stand in a `KerasMetric`.
    """
    return map_leaves(lambda metric: _metric(metric, pairs), given)


def _loss(loss: Any) -> Any:
    import keras

    if isinstance(loss, str):
        if loss.lower() in _BY_SHAPE or loss in _LOSSES:
            return loss
        found = _loss(keras.losses.get(loss))
        if isinstance(found, Loss):
            return found
        function: Any = losses.get(found)
        return LossFunctionWrapper(function, name=loss)
    if isinstance(loss, type) and issubclass(loss, keras.losses.Loss):
        loss = loss()
    if not isinstance(loss, keras.losses.Loss):
        return _function(loss, keras.losses, _LOSSES)
    ours = _built_in(loss, keras.losses, _LOSSES.keys(), losses.deserialize)
    return KerasLoss(loss) if ours is None else ours


def _metric(metric: Any, pairs: list[tuple[Any, Metric]]) -> Any:
    import keras

    if isinstance(metric, str):
        if metric.lower() in _BY_SHAPE or metric in _METRICS:
            return metric
        found = _metric(keras.metrics.get(metric), pairs)
        if not isinstance(found, Metric):
            return MeanMetricWrapper(metrics.get(found), name=metric)
        found.name = metric
        return found
    if isinstance(metric, type) and issubclass(metric, keras.metrics.Metric):
        metric = metric()
    if not isinstance(metric, keras.metrics.Metric):
        return _function(metric, keras.metrics, _METRICS)
    ours = _built_in(metric, keras.metrics, _METRICS.keys() - _OF_FUNCTIONS, metrics.deserialize)
    if ours is None:
        return KerasMetric(metric)
    pairs.append((metric, ours))
    return ours


def _built_in(theirs: Any, home: Any, known: Set[str], make: Callable[[dict[str, Any]], Any]) -> Any:
    """Return ours for a loss or metric that Keras has built in; None where it may compute something else.

    Args:
        theirs: The object.
        home: The module of Keras's that has its class.
        known: The names of the classes that ours have, too.
        make: Makes ours from a configuration.
    """
    name = type(theirs).__name__
    if type(theirs) is not getattr(home, name, None) or name not in known:
        return None
    arguments = keras_private.arguments_of(theirs)
    if arguments is None:
        return None
    ours = make({"class_name": name, "config": arguments})
    ours.name = theirs.name
    return ours


_OF_FUNCTIONS = ("MeanMetricWrapper", "Metric")
"""Classes whose configurations don't tell what they compute."""


def _function(given: Any, theirs: Any, known: dict[str, Any]) -> Any:
    """Return the name of a function of Keras's that oncue has too; anything else as it is."""
    name = getattr(given, "__name__", None)
    return name if name in known and getattr(theirs, name, None) is given else given


def paired(theirs: list[Any], ours: list[Any]) -> list[tuple[Any, Metric]]:
    """Return the metrics of a Keras model with those of oncue's that gather in their place, of the same name and turn.

    Args:
        theirs: All metrics of the Keras model.
        ours: All of oncue's.
    """
    left: dict[str, list[Metric]] = {}
    for metric in ours:
        left.setdefault(metric.name, []).append(metric)
    found = [(metric, left[metric.name].pop(0)) for metric in theirs if left.get(metric.name)]
    return [(metric, other) for metric, other in found if not isinstance(other, KerasMetric)]


def give_back(pairs: list[tuple[Any, Metric]]) -> None:
    """Let Keras's metrics have what those of oncue's have gathered in their place.

    Args:
        pairs: What `translated_metrics` noted.
    """
    for theirs, ours in pairs:
        variables = ours.variables
        if [tuple(variable.shape) for variable in theirs.variables] == [tuple(v.shape) for v in variables]:
            for theirs_variable, variable in zip(theirs.variables, variables, strict=True):
                theirs_variable.assign(variable.value)
