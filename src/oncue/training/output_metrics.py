"""OutputMetrics: the metrics of all outputs, with Keras's names in the logs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from oncue import metrics as metrics_module
from oncue.losses.structure import align, is_nested, leaves, spread
from oncue.metrics.mean import MeanMetricWrapper
from oncue.metrics.metric import Metric
from oncue.training.output_losses import kind_of_targets, name_of

_BY_SHAPE = {
    "accuracy": ("BinaryAccuracy", "SparseCategoricalAccuracy", "CategoricalAccuracy"),
    "crossentropy": ("BinaryCrossentropy", "SparseCategoricalCrossentropy", "CategoricalCrossentropy"),
}
_SHORT = {"acc": "accuracy", "ce": "crossentropy"}


class OutputMetrics:
    """The metrics given to `compile`, built when the first batch shows the shapes.

    Args:
        metrics: A list of metrics (names, classes, objects, functions `metric(y_true, y_pred)`, torchmetrics), or one
            list for each output, as a list or a dict. "accuracy", "acc", "crossentropy" and "ce" choose the binary,
            sparse or categorical metric by shapes, and keep the name that was typed.
        weighted_metrics: The same, for metrics that are given the sample weights.
        output_names: The names of the outputs, in the order of the flattened outputs; None when they have none.

    Raises:
        ValueError: When `metrics` is no list, tuple or dict, or holds a name that is not known.

    Example:
        >>> measured = OutputMetrics(["accuracy"])
        >>> measured.update_state(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.9], [0.8]]))
        >>> [(name, metric.result()) for name, metric in measured.names_and_metrics()]
        [('accuracy', tensor(0.5000))]
    """

    name = "compile_metrics"

    def __init__(
        self, metrics: Any = None, weighted_metrics: Any = None, output_names: list[str] | None = None
    ) -> None:
        self._user_metrics = _checked(metrics, "metrics")
        self._user_weighted = _checked(weighted_metrics, "weighted_metrics")
        self.output_names = output_names
        self.built = False
        self._plain: list[list[Metric]] = []
        self._weighted: list[list[Metric]] = []
        self._names: list[str] | None = None
        self._single = False
        # What a resumed run has for the metrics before they are made.
        self._restored: list[Any] = []

    def build(self, y_true: Any, y_pred: Any) -> None:
        """Decide which metrics belong to which output; done by the first `update_state`.

        Args:
            y_true: The targets of a batch.
            y_pred: The outputs of the model for it.

        Raises:
            ValueError: When metrics and outputs don't fit together.
        """
        count = sum(1 for _ in leaves(y_pred))
        self._single = not is_nested(y_pred)
        names = self.output_names if self.output_names is not None and len(self.output_names) == count else None
        self._names = None if isinstance(y_pred, dict) else names
        self._labels: list[str | None] = [None] * count
        self._order = list(range(count))
        if count > 1:
            # Keras names the parts of a dict by its keys, whatever the layers behind them are called, but not what is nested
            # deeper, and lists them as the model does.
            if isinstance(y_pred, dict) and len(y_pred) == count and not any(map(is_nested, y_pred.values())):
                keys = sorted(y_pred)
                self._labels = list(keys)
                if names is not None and set(names) == set(keys):
                    self._order.sort(key=lambda index: names.index(keys[index]))
            elif names is not None:
                self._labels = list(names)
        plain = self._specs(self._user_metrics, y_pred, count, "metrics")
        weighted = self._specs(self._user_weighted, y_pred, count, "weighted_metrics")
        self._wanted = [bool(a or b) for a, b in zip(plain, weighted, strict=True)]
        targets = align(y_true, y_pred, self._names, "y_true", self._wanted)
        outputs = [output for _, output in leaves(y_pred)]
        pairs = list(zip(targets, outputs, strict=True))
        self._plain = [[_resolve(m, *pair) for m in spec] for spec, pair in zip(plain, pairs, strict=True)]
        self._weighted = [[_resolve(m, *pair) for m in spec] for spec, pair in zip(weighted, pairs, strict=True)]
        self.built = True
        if self._restored:
            self.set_state(self._restored)

    def _specs(self, given: Any, y_pred: Any, count: int, argument: str) -> list[list[Any]]:
        if given is None:
            return [[] for _ in range(count)]
        if count == 1:
            return [_flat(given)]
        return [_flat(spec) for spec in spread(given, y_pred, self._names, argument)]

    @torch.no_grad()
    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch to every metric.

        Args:
            y_true: Targets, nested as the outputs are.
            y_pred: The model's outputs.
            sample_weight: None, weights for all outputs, or weights nested as the outputs are. Only `weighted_metrics`
                get them.
        """
        self.update_detached(y_true, y_pred, sample_weight)

    def update_detached(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch whose outputs carry no graph; the training step's way, which switches nothing off and on."""
        if not self.built:
            self.build(y_true, y_pred)
        if self._single and isinstance(y_true, torch.Tensor):
            for metric in self._plain[0]:
                metric.update_state(y_true, y_pred)
            for metric in self._weighted[0]:
                metric.update_state(y_true, y_pred, sample_weight)
            return
        outputs = [output for _, output in leaves(y_pred)]
        targets = align(y_true, y_pred, self._names, "y_true", self._wanted)
        if is_nested(sample_weight):
            weights = align(sample_weight, y_pred, self._names, "sample_weight", [False] * len(outputs))
        else:
            weights = [sample_weight] * len(outputs)
        for index, output in enumerate(outputs):
            for metric in self._plain[index]:
                metric.update_state(targets[index], output)
            for metric in self._weighted[index]:
                metric.update_state(targets[index], output, weights[index])

    def result(self) -> dict[str, Any]:
        """Return every metric's value by its key in the logs; empty before the first batch."""
        values: dict[str, Any] = {}
        for name, metric in self.names_and_metrics():
            value = metric.result()
            values.update(value if isinstance(value, dict) else {name: value})
        return values

    def get_state(self) -> list[dict[str, Any]]:
        """Return what was gathered, as `set_state` takes it."""
        return [metric.get_state() for metric in self.metrics] if self.built else self._restored

    def set_state(self, state: list[dict[str, Any]]) -> None:
        """Continue from a state that `get_state` returned, as soon as the first batch has made the metrics."""
        if not self.built:
            self._restored = state
            return
        if not state:
            # There was nothing yet when the state was taken.
            self.reset_state()
            return
        for metric, part in zip(self.metrics, state, strict=True):
            metric.set_state(part)

    def reset_state(self) -> None:
        """Forget all batches."""
        self._restored = []
        for metric in self.metrics:
            metric.reset_state()

    @property
    def metrics(self) -> list[Metric]:
        """All metrics, those without weights first; empty before the first batch."""
        return [metric for group in (*self._plain, *self._weighted) for metric in group]

    def names_and_metrics(self) -> list[tuple[str, Metric]]:
        """Return every metric with its key in the logs; empty before the first batch."""
        if not self.built:
            return []
        plain, weighted = (
            [(self._labels[index], metric) for index in self._order for metric in groups[index]]
            for groups in (self._plain, self._weighted)
        )
        names = _log_names(
            [(label, metric.name) for label, metric in plain], [(label, metric.name) for label, metric in weighted]
        )
        return list(zip(names, [metric for _, metric in (*plain, *weighted)], strict=True))


def _checked(metrics: Any, argument: str) -> Any:
    if metrics is None or (is_nested(metrics) and not metrics):
        return None
    if not is_nested(metrics):
        shown = repr(metrics) if isinstance(metrics, str) else getattr(metrics, "__name__", "metric")
        raise ValueError(
            f"`{argument}` must be a list, tuple or dict of metrics; got {metrics!r} of type {type(metrics).__name__}. "
            f"Use {argument}=[{shown}]."
        )
    return _made(metrics, argument)


def _made(metrics: Any, argument: str) -> Any:
    # Classes become metrics here, not at the first batch: their automatic names are known from the start, and unknown
    # names are refused at once.
    if isinstance(metrics, dict):
        return {key: _made(item, argument) for key, item in metrics.items()}
    if isinstance(metrics, (list, tuple)):
        return [_made(item, argument) for item in metrics]
    if isinstance(metrics, str):
        if _SHORT.get(metrics.lower(), metrics.lower()) not in _BY_SHAPE:
            metrics_module.get(metrics)
        return metrics
    return metrics_module.get(metrics)


def _flat(spec: Any) -> list[Any]:
    return [part for _, part in leaves(spec) if part is not None]


def _resolve(metric: Any, y_true: Any, y_pred: Any) -> Metric:
    if isinstance(metric, str):
        short = _SHORT.get(metric.lower(), metric.lower())
        if short in _BY_SHAPE:
            kinds = dict(zip(("binary", "sparse", "categorical"), _BY_SHAPE[short], strict=True))
            found: Any = metrics_module.get(kinds[kind_of_targets(y_true, y_pred)])
        else:
            found = metrics_module.get(metric)
    else:
        found = metric
    name = metric if isinstance(metric, str) else name_of(metric)
    made: Metric = found if isinstance(found, Metric) else MeanMetricWrapper(found, name=name)
    made.name = name
    return made


def _log_names(plain: Iterable[tuple[str | None, str]], weighted: Iterable[tuple[str | None, str]]) -> list[str]:
    seen: dict[str, int] = {}
    names: list[str] = []

    def add(name: str) -> None:
        index = seen.get(name, 0)
        seen[name] = index + 1
        names.append(f"{name}_{index}" if index else name)

    for label, name in plain:
        add(name if label is None else f"{label}_{name}")
    for label, name in weighted:
        full = name if label is None else f"{label}_{name}"
        if full in seen:
            full = f"weighted_{name}" if label is None else f"{label}_weighted_{name}"
        add(full)
    return names
