"""One step of a run on several processes: this process's rows of a batch, with what one process would divide by."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch

from oncue.core.logs import Source
from oncue.feeding.batch import Batch
from oncue.losses.reduction import Divisor
from oncue.metrics.mean import Mean
from oncue.optimizers import Optimizer
from oncue.training.step import detached, measured
from oncue.training.synchronized_norms import SynchronizedNorms

if TYPE_CHECKING:
    from oncue.training.parallel import Parallel
    from oncue.training.plan import Plan

Step = Callable[[Batch], Any]


class Rows(Protocol):
    """This process's rows of a batch, whose others are on other processes: of a run, or of a graph."""

    @property
    def own(self) -> float:
        """1, or 0 where it has none and runs another's along."""

    @property
    def fraction(self) -> float | torch.Tensor:
        """Its share of the batch's rows."""

    @property
    def total(self) -> float | torch.Tensor:
        """How many rows the batch has."""

    def total_of(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over the processes; may be in place."""


def make_parallel_step(plan: Plan, training: bool, parallel: Parallel) -> Step:
    """Return the function that trains or evaluates a prepared model on this process's rows of a batch.

    It does what `oncue.training.step.make_step` does. Each loss of this process counts as much as its rows do among all, so
    that the sum over the processes is the loss of the whole batch, and the sum of their gradients its gradient.

    Args:
        plan: The model's plan.
        training: Whether it updates the weights.
        parallel: The run.
    """
    optimizer, meter = plan.optimizer, plan.meter
    zero_grad = optimizer.zero_grad if training else None
    updates = training and plan.trains
    scales = training and optimizer is not None and type(optimizer).scale_loss is not Optimizer.scale_loss
    measure = None if plan.metrics is None else plan.metrics.update_detached
    own_measure, share = plan.compute_metrics, parallel.share
    norms = SynchronizedNorms(parallel)

    def step(batch: Batch) -> Source:
        _, y, weight = batch
        if zero_grad is not None:
            zero_grad()
        y_pred, loss, single, divisor = shared_loss(plan, parallel, batch, divides_later=updates)
        if updates:
            # The factor may be set between two steps.
            scaled = scales or optimizer._loss_scale_factor is not None
            parallel.derive(optimizer.scale_loss(loss) if scaled else loss, optimizer._parameters, early=not norms.used)
            divided = parallel.sum_gradients(optimizer._parameters, divisor=divisor)
            if isinstance(divided, torch.Tensor) or divided != 1.0:
                loss = loss.detach() / divided
            parallel.make_update(optimizer)
        elif training:
            parallel.questions.ask_all()
        if not share.rows:
            return meter
        track_shared(plan, loss, single, share.total / share.rows, share.rows)
        with NumbersWeighed(plan, share.fraction):
            if own_measure is not None:
                return measured(plan, own_measure, batch, detached(y_pred) if training else y_pred)
            if measure is not None:
                measure(y, detached(y_pred) if training else y_pred, weight)
        return meter

    return _around(step, parallel, training, norms)


def make_parallel_own_step(step: Step, training: bool, parallel: Parallel, optimizer: Optimizer | None) -> Step:
    """Return the function that runs a `train_step` or `test_step` of the user's on this process's rows of a batch.

    Its losses are means of its own rows, so its gradients count as much as its rows do among all.

    Args:
        step: Runs it.
        training: Whether it is `train_step`.
        parallel: The run.
        optimizer: The model's optimizer, which sums the gradients that it is given.
    """

    def own(batch: Batch) -> Any:
        if not training:
            return step(batch)
        with parallel.summing(optimizer) as summed:
            result = step(batch)
        if not summed:
            # Nothing has been asked together with gradients.
            parallel.questions.ask_all()
        return result

    return _around(own, parallel, training, SynchronizedNorms(parallel))


def make_parallel_prediction(step: Step, parallel: Parallel) -> Step:
    """Return the function that predicts for this process's rows of a batch, and counts them.

    Args:
        step: Predicts for one process.
        parallel: The run.
    """

    def predict(batch: Batch) -> Any:
        parallel.predictions.count()
        with parallel.own_noise(), parallel.resharding():
            return step(batch)

    return predict


def shared_loss(
    plan: Plan, rows: Rows, batch: Batch, divides_later: bool = False
) -> tuple[Any, torch.Tensor, list[torch.Tensor], torch.Tensor | None]:
    """Return the outputs for this process's rows, and its part of the loss with all penalties.

    Args:
        plan: The model's plan.
        rows: Which rows of the batch are this process's.
        batch: Those.
        divides_later: Whether what a loss is divided by may be summed together with the gradients, instead of before.

    Returns:
        The outputs; the part of the loss; that of each single loss; and this process's part of what the gradients, and that
        loss, are to be divided by, or None.

    Raises:
        ValueError: When there is nothing to compute a loss from.
    """
    x, y, weight = batch
    y_pred = plan.forward(x)
    if plan.compute_loss is not None:
        return y_pred, plan.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight) * rows.fraction, [], None
    loss: Any = None
    single: list[torch.Tensor] = []
    later: list[torch.Tensor] = []
    # Only where nothing else is in the sum of gradients, which isn't divided by it.
    alone = divides_later and plan.penalty is None and plan.losses is not None and len(plan.losses.parts) == 1

    def part_of(divisor: Divisor) -> float | torch.Tensor:
        if not alone or not isinstance(divisor, torch.Tensor):
            return _part_of(divisor, rows)
        # By the rows of the batch, which keeps its size where gradients are of few bits, and makes the sum 1 if all count.
        share = rows.own / rows.total
        later.append(divisor.detach() * share)
        return share

    if plan.losses is not None:
        loss, single = plan.losses.shared(y, y_pred, weight, part_of)
    if plan.penalty is not None:
        # Of weights it is the same everywhere, of activities a mean over the rows: either way the parts add up.
        own = plan.penalty_of_parts
        penalty = plan.penalty() * rows.fraction if own is None else own(rows.fraction)
        loss = penalty if loss is None else loss + penalty
    if loss is None:
        raise ValueError("There is no loss to compute. Call `model.compile(optimizer=..., loss=...)`.")
    return y_pred, loss, single, later[0] if later else None


def _part_of(divisor: Divisor, rows: Rows) -> float | torch.Tensor:
    """Return what a loss of this process's rows is multiplied with in the loss of the batch.

    Args:
        divisor: What the sum of its rows' losses is, or was, divided by.
        rows: Its rows.
    """
    if isinstance(divisor, torch.Tensor):
        total = rows.total_of(divisor.detach() * rows.own)
        return torch.where(total == 0, torch.zeros_like(total), rows.own / total)
    return rows.fraction if divisor == "rows" else rows.own


def track_shared(
    plan: Plan, loss: torch.Tensor, single: list[torch.Tensor], whole: float | torch.Tensor, rows: int
) -> None:
    """Add what `shared_loss` returned for a batch to the running means.

    Args:
        plan: The model's plan.
        loss: The part of the loss.
        single: The part of each single loss.
        whole: How many times this process's rows the batch has. The sum over the processes, of what each counts for, is the
            loss times the batch's rows.
        rows: How many rows are this process's.
    """
    plan.loss_tracker.update_state(loss.detach() * whole, rows)
    if single and plan.losses is not None:
        plan.losses.track([one.detach() * whole for one in single], rows)


class NumbersWeighed:
    """A block in which metrics that are one number for a batch count as much as this process's rows do among all.

    Args:
        plan: The model's plan.
        fraction: The share of the batch's rows that are this process's.
    """

    def __init__(self, plan: Plan, fraction: float | torch.Tensor) -> None:
        metrics = [] if plan.metrics is None else plan.metrics.metrics
        self._means = [metric for metric in metrics if isinstance(metric, Mean)]
        self._fraction = fraction

    def __enter__(self) -> None:
        for metric in self._means:
            metric.batch_weight = self._fraction

    def __exit__(self, *error: object) -> None:
        for metric in self._means:
            del metric.batch_weight


def _around(step: Step, parallel: Parallel, training: bool, norms: SynchronizedNorms) -> Step:
    looked = False

    def around(batch: Batch) -> Any:
        nonlocal looked
        with parallel.own_noise():
            if not training:
                with parallel.resharding():
                    return step(batch)
            if looked and not norms.used:
                return step(batch)
            # Whether anything normalizes over the rows of a batch is seen in the first step.
            looked = True
            with norms:
                return step(batch)

    return around
