"""Mean, Sum, and the mean of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from oncue.core.builtin import builtin
from oncue.core.numbers import plain
from oncue.losses.lookup import FUNCTIONS
from oncue.losses.loss import Loss
from oncue.losses.reduction import mask_weights
from oncue.losses.shapes import as_tensor, floats, match_ranks
from oncue.metrics.metric import Metric, Owned


def divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return numerator / denominator, and 0 where the denominator is 0.

    Example:
        >>> divide(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))
        tensor([0.0000, 0.5000])
    """
    zero = denominator == 0
    return (numerator / denominator.masked_fill(zero, 1)).masked_fill(zero, 0)


def _weigh(values: Tensor, sample_weight: Any, reduce: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    # Keras's rule: what the weights don't reach is reduced first, the axes after those afterwards.
    mask = getattr(values, "_keras_mask", None)
    weights = as_tensor(sample_weight, "sample_weight", device=values.device).to(values.dtype)
    if mask is not None:
        joined = mask_weights(weights, mask, values.dtype, "sum")
        weights = weights if joined is None else joined
    if values.ndim == 0 and weights.ndim:
        raise ValueError(
            f"`sample_weight` of shape {tuple(weights.shape)} can't weigh a single number for the whole batch. "
            "Return one value for each sample, or move the metric from `weighted_metrics` to `metrics`."
        )
    values, weights = match_ranks(values, weights)
    if values.ndim > weights.ndim:
        values = reduce(values, dim=tuple(range(weights.ndim, values.ndim)))
    inner = weights.ndim
    weights = weights.expand_as(values)
    values = values * weights
    if inner > 1:
        weights = reduce(weights, dim=tuple(range(1, inner)))
    if values.ndim > 1:
        values = reduce(values, dim=tuple(range(1, values.ndim)))
    return values, weights


@builtin
class Mean(Metric):
    """The (weighted) mean of the values it was given.

    Totals are kept in float64 (float32 on MPS, which has no other). The count is a Python number as long as no weights
    are tensors.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> mean = Mean()
        >>> mean.update_state([1.0, 3.0])
        >>> mean.update_state(8.0)
        >>> mean.result()
        tensor(4.)
    """

    batch_weight: float | Tensor = 1
    """What a single number for a whole batch counts: less where the batch is one process's part of it; in a graph a tensor."""

    def __init__(self, name: str | None = "mean", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self._accumulator((), "total")
        self.count = self._accumulator((), "count")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Add values.

        Args:
            values: A number or a tensor, shape (batch, ...); each entry of the first axis counts as one.
            sample_weight: None, a Python number that every value weighs, or weights that broadcast to the values.
        """
        plain = sample_weight is None or type(sample_weight) in (int, float)
        if plain and type(values) in (int, float):
            weight = 1 if sample_weight is None else sample_weight
            self.total.assign_add(values * weight)
            self.count.assign_add(weight)
            return
        if not isinstance(values, Tensor):
            values = as_tensor(values, "values")
        if not plain:
            values, weights = _weigh(floats(values, "values", self._kind), sample_weight, torch.mean)
            self.total.assign_add(values.sum() if values.ndim else values)
            self.count.assign_add(weights.sum() if weights.ndim else weights)
            return
        weight = 1 if sample_weight is None else sample_weight
        if values.ndim == 0:
            counts = weight * self.batch_weight
            if isinstance(counts, Tensor):
                self.total.assign_add(values * counts)
            else:
                self.total.assign_add(values, counts)
            self.count.assign_add(counts)
            return
        number = values.shape[0]
        if values.numel():
            # The mean of equally many values for each sample is their sum, scaled once.
            total = values.sum() if values.is_floating_point() else values.sum(dtype=self._kind)
            self.total.assign_add(total, weight if values.ndim == 1 else weight * number / values.numel())
        self.count.assign_add(number * weight)

    def result(self) -> Tensor:
        """Return total / count, 0 before anything was added."""
        count = self.count.owned()
        if isinstance(count, Tensor):
            return divide(self.total.value, count).to(self._kind)
        return (self.total.value / (count or 1)).to(self._kind)

    def snapshot(self) -> Owned:
        """Return (total, count), copied."""
        return self.total.owned(), self.count.owned()

    def peek(self) -> Owned:
        """Return (total, count), not copied."""
        if type(self).snapshot is not Mean.snapshot:
            return self.snapshot()
        return self.total.peek(), self.count.peek()


@builtin
class Sum(Metric):
    """The (weighted) sum of the values it was given.

    Args:
        name: The name.
        dtype: The type of the result.

    Example:
        >>> Sum()([1.0, 3.0])
        tensor(4.)
    """

    def __init__(self, name: str | None = "sum", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.total = self._accumulator((), "total")

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        """Add values, each multiplied by its weight."""
        values = floats(values, "values", self._kind)
        if sample_weight is not None:
            values, _ = _weigh(values, sample_weight, torch.sum)
        self.total.assign_add(values.sum())

    def result(self) -> Tensor:
        """Return the sum."""
        return self.total.value.to(self._kind)

    def snapshot(self) -> Owned:
        """Return the sum, copied."""
        return self.total.owned(), None


@builtin
class MeanMetricWrapper(Mean):
    """The mean of a function of targets and predictions.

    Args:
        fn: A function `fn(y_true, y_pred, **kwargs)` that returns one value for each sample, or a `Loss`.
        name: The name; made from the class's name when None.
        dtype: The type of the result.
        **kwargs: Passed on to `fn`.

    Example:
        >>> wrong = MeanMetricWrapper(lambda y_true, y_pred: (y_true != y_pred).float(), name="wrong")
        >>> wrong(torch.tensor([1, 2]), torch.tensor([1, 3]))
        tensor(0.5000)
    """

    # The options of a subclass that are shown by get_config under the same name as its attributes.
    _options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, fn: Callable[..., Any], name: str | None = None, dtype: Any = None, **kwargs: Any) -> None:
        super().__init__(name=name, dtype=dtype)
        self._fn = fn
        self._fn_kwargs = kwargs
        if isinstance(fn, Loss) or fn in FUNCTIONS.values():
            self._direction = "down"

    def update_state(  # type: ignore[override]  # in Keras too a Mean takes values, and this one two tensors
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> None:
        """Add the values of a batch.

        Args:
            y_true: The target, shape (batch, ...).
            y_pred: The prediction, shape (batch, ...). A `_keras_mask` on it leaves entries out.
            sample_weight: None, or weights that broadcast against the values.
        """
        if isinstance(self._fn, Loss):
            # A loss knows about weights and masks itself, and has reduced the batch already.
            super().update_state(self._fn(y_true, y_pred, sample_weight))
            return
        values = self._fn(y_true, y_pred, **self._fn_kwargs)
        mask = getattr(y_pred, "_keras_mask", None)
        if mask is not None:
            sample_weight = mask_weights(sample_weight, mask, self._kind, "sum")
        super().update_state(values, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make an equal metric."""
        config = super().get_config()
        if type(self) is MeanMetricWrapper:
            from oncue.metrics.lookup import serialize

            return {**config, "fn": serialize(self._fn), **self._fn_kwargs}
        return {**config, **{option: plain(getattr(self, option)) for option in self._options}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Metric:
        """Make a metric from what `get_config` returned."""
        if isinstance(config.get("fn"), (dict, str)):
            from oncue.losses.lookup import deserialize

            config = {**config, "fn": deserialize(config["fn"])}
        return cls(**config)
