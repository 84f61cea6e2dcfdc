"""One step on one batch: forward, loss, backward, update, running values. Nothing is read from the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from oncue.core.logs import Source
from oncue.feeding.batch import Batch, unpack_x_y_sample_weight
from oncue.nested import first_leaf, map_leaves
from oncue.optimizers import Optimizer
from oncue.training.meter import Reading

if TYPE_CHECKING:
    from oncue.checkpoints.owed_waits import OwedWaits
    from oncue.training.plan import Plan

Objective = Callable[[Any, Any, Any], tuple[Any, torch.Tensor]]


def make_step(plan: Plan, training: bool, owed: OwedWaits | None = None) -> Callable[[Batch], Source]:
    """Return the function that trains or evaluates a prepared model on one batch.

    Args:
        plan: The model's plan.
        training: Whether it updates the weights. One that evaluates is to be run without gradients.
        owed: What its updates wait for; None where copies never go on beside steps.

    Returns:
        A function from a batch to the meter that holds the running values, or to what the model's own
        `compute_metrics` returned.
    """
    optimizer, meter, track = plan.optimizer, plan.meter, plan.loss_tracker.update_state
    compute = objective(plan)
    zero_grad = optimizer.zero_grad if training else None
    update = optimizer.step if training and plan.trains else None
    scales = training and optimizer is not None and type(optimizer).scale_loss is not Optimizer.scale_loss
    measure = None if plan.metrics is None else plan.metrics.update_detached
    own_measure = plan.compute_metrics

    def step(batch: Batch) -> Source:
        x, y, weight = batch
        if owed is not None:
            owed.before_step()
        if zero_grad is not None:
            zero_grad()
        y_pred, loss = compute(x, y, weight)
        if update is not None:
            # The factor may be set between two steps.
            scaled = scales or optimizer._loss_scale_factor is not None
            (optimizer.scale_loss(loss) if scaled else loss).backward()
            if owed is not None:
                owed.before_update()
            update()
        track(loss, samples_of(x))
        if own_measure is not None:
            return measured(plan, own_measure, batch, detached(y_pred) if training else y_pred)
        if measure is not None:
            measure(y, detached(y_pred) if training else y_pred, weight)
        return meter

    return step


def objective(plan: Plan) -> Objective:
    """Return the function from a batch's `(x, y, weight)` to the outputs and the loss with all penalties.

    Raises:
        ValueError: When there is nothing to compute a loss from.
    """
    forward, losses, penalty, own = plan.forward, plan.losses, plan.penalty, plan.compute_loss
    if losses is None and penalty is None and own is None:
        raise ValueError("There is no loss to compute. Call `model.compile(optimizer=..., loss=...)`.")

    def compute(x: Any, y: Any, weight: Any) -> tuple[Any, torch.Tensor]:
        y_pred = forward(x)
        if own is not None:
            return y_pred, own(x=x, y=y, y_pred=y_pred, sample_weight=weight)
        loss: Any = None if losses is None else losses(y, y_pred, weight)
        if penalty is not None:
            loss = penalty() if loss is None else loss + penalty()
        return y_pred, loss

    return compute


def measured(plan: Plan, method: Callable[..., Any], batch: Batch, y_pred: Any) -> Source:
    """Return what an overridden `compute_metrics` returns for a batch and its outputs, which carry no graph."""
    x, y, weight = batch
    with torch.no_grad():
        return _reading(plan, "compute_metrics", method(x, y, y_pred, weight))


def own_step(plan: Plan, name: str, method: Callable[[Any], Any]) -> Callable[[Batch], Source]:
    """Return the function that runs a `train_step` or `test_step` which the user has overridden.

    Args:
        plan: The model's plan.
        name: "train_step" or "test_step".
        method: The overriding method; it takes data as Keras gives it and returns a dict of values.

    Raises:
        TypeError: When it returns something else than a dict.
    """

    def step(batch: Batch) -> Source:
        return _reading(plan, name, method(pack(batch)))

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


def _reading(plan: Plan, method: str, values: Any) -> Source:
    if not isinstance(values, dict):
        raise TypeError(
            f"`{plan.owner}.{method}` must return a dict of values for the logs, such as {{'loss': loss}}; it returned "
            f"{values!r} of type {type(values).__name__}."
        )
    return Reading.of(values)


def samples_of(x: Any) -> int:
    """Return the number of samples in a batch."""
    if type(x) is torch.Tensor:
        return x.shape[0]
    leaf = first_leaf(x)
    return int(leaf.shape[0])


def detached(y_pred: Any) -> Any:
    """Return outputs that carry no graph; masks on them stay."""
    if isinstance(y_pred, torch.Tensor):
        output, mask = y_pred.detach(), getattr(y_pred, "_keras_mask", None)
        if mask is not None:
            output._keras_mask = mask  # type: ignore[attr-defined]  # travels with the tensor, as in Keras
        return output
    return map_leaves(lambda leaf: detached(leaf) if isinstance(leaf, torch.Tensor) else leaf, y_pred)
