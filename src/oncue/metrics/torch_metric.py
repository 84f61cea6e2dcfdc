"""TorchMetric: a metric of torchmetrics (or anything alike) as a Keras metric."""

from __future__ import annotations

import copy
import sys
import warnings
from typing import Any

import torch

from oncue.core.builtin import builtin
from oncue.losses.shapes import as_tensor
from oncue.metrics.metric import Metric
from oncue.naming import to_snake_case

_METHODS = ("update", "compute", "reset")


def is_torch_metric(thing: Any) -> bool:
    """Return whether an object has the three methods of torchmetrics, and isn't a class.

    Example:
        >>> is_torch_metric(Metric)
        False
    """
    return not isinstance(thing, type) and all(callable(getattr(thing, method, None)) for method in _METHODS)


@builtin
class TorchMetric(Metric):
    """Any object with `update(prediction, target)`, `compute()` and `reset()`, such as those of torchmetrics.

    It is moved to the device of the first prediction. Targets of whole numbers in floats become integers where the
    metric is one of classification. A `MetricCollection` gives a dict of values.

    Args:
        metric: The object; nothing of torchmetrics is imported for it.
        name: The name in the logs; made from the class's name when None.

    Raises:
        TypeError: When a method is missing.

    Example:
        >>> class Largest:
        ...     def reset(self): self.value = torch.tensor(0.0)
        ...     def update(self, prediction, target): self.value = torch.maximum(self.value, prediction.max())
        ...     def compute(self): return self.value
        >>> metric = TorchMetric(Largest())
        >>> metric.reset_state()
        >>> metric([0.0, 1.0], [2.0, 3.0])
        tensor(3.)
    """

    def __init__(self, metric: Any, name: str | None = None) -> None:
        if not is_torch_metric(metric):
            missing = [method for method in _METHODS if not callable(getattr(metric, method, None))]
            raise TypeError(
                f"`metric` must be an object with the methods update, compute and reset, as torchmetrics has them; got "
                f"{metric!r} of type {type(metric).__name__}, which lacks {', '.join(missing) or 'an instance'}."
            )
        super().__init__(name=to_snake_case(type(metric).__name__) if name is None else name)
        self.metric = metric
        higher = getattr(metric, "higher_is_better", None)
        if higher is not None:
            self._direction = "up" if higher else "down"
        self._device: torch.device | None = None
        self._fresh = True
        self._gathered: Any = None
        self._wants_labels = all(isinstance(member, _classification_metrics()) for member in self._members())

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: The target, shape (batch, ...).
            y_pred: The prediction, shape (batch, ...).
            sample_weight: Must be None: torchmetrics know no weights.

        Raises:
            ValueError: When weights are given.
        """
        if sample_weight is not None:
            raise ValueError(
                f"{type(self.metric).__name__} can't weigh samples. Put it into `metrics` instead of "
                f"`weighted_metrics`."
            )
        y_pred = as_tensor(y_pred, "y_pred").detach()
        y_true = as_tensor(y_true, "y_true", device=y_pred.device)
        if self._device != y_pred.device:
            move = getattr(self.metric, "to", None)
            if callable(move):
                self.metric = move(y_pred.device)
            self._device = y_pred.device
        if y_true.ndim == y_pred.ndim + 1 and y_true.shape[-1] == 1:
            y_true = y_true.squeeze(-1)
        elif y_true.ndim == y_pred.ndim and y_true.ndim > 1 and y_true.shape[-1] == 1 and y_pred.shape[-1] > 1:
            y_true = y_true.squeeze(-1)
        elif y_pred.ndim == y_true.ndim + 1 and y_pred.shape[-1] == 1:
            y_pred = y_pred.squeeze(-1)
        if self._wants_labels and y_true.is_floating_point():
            y_true = y_true.long()
        self.metric.update(y_pred, y_true)
        self._fresh, self._gathered = False, None

    def result(self) -> Any:
        """Return the value (a dict for a collection); 0 before the first batch."""
        if self._fresh and self._gathered is None:
            return torch.zeros(())
        value = self.metric.compute() if self._gathered is None else self._gathered
        return {str(key): part for key, part in value.items()} if isinstance(value, dict) else value

    def of_own_rows(self) -> None:
        """Let the value be that of this process's rows until `gather`, instead of waiting for all processes in each `compute`.

        Raises:
            TypeError: When the object can't gather what other processes have.
        """
        for member in self._members():
            if not hasattr(member, "distributed_available_fn"):
                raise TypeError(
                    f"The metric {type(member).__name__} can't gather what other processes have, as those of torchmetrics do. "
                    "Leave it out, or make it a `keras.metrics.Metric` whose sums are variables."
                )
            member.distributed_available_fn = _alone

    def gather(self) -> None:
        """Let the value be that of all processes until the next batch; torchmetrics gathers what it needs itself."""
        members = self._members()
        for member in members:
            # What was computed of this process's rows is no answer.
            member.distributed_available_fn, member.compute_with_cache = torch.distributed.is_initialized, False
        with warnings.catch_warnings():
            # A process may have had no row of this pass.
            warnings.simplefilter("ignore")
            self._gathered = self.metric.compute()
        for member in members:
            member.distributed_available_fn, member.compute_with_cache = _alone, True

    def _members(self) -> list[Any]:
        metric = self.metric
        return list(metric.values()) if callable(getattr(metric, "values", None)) else [metric]

    def get_state(self) -> dict[str, Any]:
        """Return a copy of the metric; its state is its own affair."""
        return {"metric": copy.deepcopy(self.metric), "fresh": self._fresh}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned."""
        self.metric, self._fresh, self._gathered = state["metric"], state["fresh"], None

    def reset_state(self) -> None:
        """Forget all batches."""
        self.metric.reset()
        self._fresh, self._gathered = True, None

    @property
    def variables(self) -> list[Any]:
        """Nothing: the state is the metric's own."""
        return []

    def get_config(self) -> dict[str, Any]:
        """Return the name; the metric itself has no config."""
        return {"name": self.name}

    def __repr__(self) -> str:
        return f"TorchMetric({self.metric!r})"


def _alone() -> bool:
    """Stand for torchmetrics' question whether there are other processes."""
    return False


def _classification_metrics() -> tuple[type, ...]:
    """Return the classes of torchmetrics for labels; empty unless it has been imported."""
    package = sys.modules.get("torchmetrics.classification")
    return () if package is None else tuple(getattr(package, name) for name in package.__all__)
