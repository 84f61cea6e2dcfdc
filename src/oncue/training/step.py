"""One step on one batch: forward, loss, backward, optimizer, running values. Nothing is read from the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from oncue.core.logs import Source
from oncue.feeding.batch import Batch, unpack_x_y_sample_weight
from oncue.nested import first_leaf, map_leaves
from oncue.training.meter import Reading
from oncue.training.precision import training_forward

if TYPE_CHECKING:
    from oncue.training.trainer import Trainer


def train_step(model: Trainer) -> Callable[[Batch], Source]:
    """Return the function that trains a compiled and built model on one batch.

    Args:
        model: The model; its optimizer, loss and metrics are looked up once, here.

    Returns:
        A function from a batch to the meter that holds the running values.
    """
    optimizer, meter = model.optimizer, model._meter
    compute = loss_function(model)
    update, own = metric_update(model), own_metrics(model)
    zero_grad, apply, tracker = optimizer.zero_grad, optimizer.step, model._loss_tracker.update_state
    scale = optimizer.scale_loss if getattr(optimizer, "loss_scale_factor", None) is not None else None
    trains = bool(model.trainable_parameters())

    def step(batch: Batch) -> Source:
        x, y, weight = batch
        zero_grad()
        y_pred, loss = compute(x, y, weight)
        if trains:
            (loss if scale is None else scale(loss)).backward()
            apply()
        tracker(loss, samples_of(x))
        if own is not None:
            return own(x, y, detached(y_pred), weight)
        if update is not None:
            update(y, detached(y_pred), weight)
        return meter

    return step


def test_step(model: Trainer) -> Callable[[Batch], Source]:
    """Return the function that evaluates a compiled and built model on one batch; run it without gradients."""
    meter, compute = model._meter, loss_function(model)
    update, own = metric_update(model), own_metrics(model)
    tracker = model._loss_tracker.update_state

    def step(batch: Batch) -> Source:
        x, y, weight = batch
        y_pred, loss = compute(x, y, weight)
        tracker(loss, samples_of(x))
        if own is not None:
            return own(x, y, y_pred, weight)
        if update is not None:
            update(y, y_pred, weight)
        return meter

    return step


def own_step(model: Trainer, method: Callable[[Any], Any]) -> Callable[[Batch], Source]:
    """Return the function that runs a `train_step` or `test_step` which the user has overridden.

    Args:
        model: The model.
        method: The overriding method; it takes data as Keras gives it and returns a dict of values.

    Raises:
        TypeError: When it returns something else than a dict.
    """

    def step(batch: Batch) -> Source:
        return _reading(model, method.__name__, method(pack(batch)))

    return step


def pack(batch: Batch) -> Any:
    """Return a batch as Keras gives it to `train_step`: `(x, y)`, `(x, y, sample_weight)`, or `x` alone.

    Example:
        >>> pack((1, 2, None))
        (1, 2)
    """
    x, y, weight = batch
    if weight is not None:
        return x, y, weight
    if y is not None:
        return x, y
    return (x,) if isinstance(x, (tuple, list)) else x


def unpacked(data: Any) -> Batch:
    """Return what `pack` packed, as three parts."""
    return unpack_x_y_sample_weight(data)


def loss_function(model: Trainer) -> Callable[[Any, Any, Any], tuple[Any, torch.Tensor]]:
    """Return the function from a batch's `(x, y, weight)` to the outputs and the loss with all penalties."""
    compiled_loss = model._compiled_loss
    forward = training_forward(model)
    penalties = model._find_layer_losses().any
    if model._overrides("compute_loss"):

        def by_method(x: Any, y: Any, weight: Any) -> tuple[Any, torch.Tensor]:
            y_pred = forward(x)
            return y_pred, model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight)

        return by_method
    if compiled_loss is None:
        if not penalties:
            raise ValueError("There is no loss to compute. Type `model.compile(optimizer=..., loss=...)`.")

        def only_penalties(x: Any, y: Any, weight: Any) -> tuple[Any, torch.Tensor]:
            y_pred = forward(x)
            return y_pred, model._penalty()

        return only_penalties

    if penalties:

        def with_penalties(x: Any, y: Any, weight: Any) -> tuple[Any, torch.Tensor]:
            y_pred = forward(x)
            return y_pred, compiled_loss(y, y_pred, weight) + model._penalty()

        return with_penalties

    def plain(x: Any, y: Any, weight: Any) -> tuple[Any, torch.Tensor]:
        y_pred = forward(x)
        return y_pred, compiled_loss(y, y_pred, weight)

    return plain


def metric_update(model: Trainer) -> Callable[[Any, Any, Any], None] | None:
    """Return the function that adds `(y, y_pred, weight)` to the compiled metrics; None without any."""
    metrics = model._compiled_metrics
    return None if metrics is None else metrics.update_detached


def own_metrics(model: Trainer) -> Callable[[Any, Any, Any, Any], Source] | None:
    """Return the function that calls a `compute_metrics` which the user has overridden; None when none is."""
    if not model._overrides("compute_metrics"):
        return None

    def measured(x: Any, y: Any, y_pred: Any, weight: Any) -> Source:
        with torch.no_grad():
            return _reading(model, "compute_metrics", model.compute_metrics(x, y, y_pred, weight))

    return measured


def _reading(model: Trainer, method: str, values: Any) -> Source:
    if not isinstance(values, dict):
        raise TypeError(
            f"`{type(model).__name__}.{method}` must return a dict of values for the logs, such as "
            f"{{'loss': loss}}; it returned {values!r} of type {type(values).__name__}."
        )
    return Reading.of(values)


def samples_of(x: Any) -> int:
    """Return the number of samples in a batch."""
    if type(x) is torch.Tensor:
        return x.shape[0]
    leaf = first_leaf(x)
    return int(leaf.shape[0])


def detached(y_pred: Any) -> Any:
    """Return outputs that carry no graph."""
    if type(y_pred) is torch.Tensor:
        return y_pred.detach()
    return map_leaves(lambda leaf: leaf.detach() if isinstance(leaf, torch.Tensor) else leaf, y_pred)
