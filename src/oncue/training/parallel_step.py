"""One step of a run on several processes: this process's rows of a batch, with what one process would divide by."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from oncue.core.logs import Source
from oncue.feeding.batch import Batch
from oncue.losses.reduction import Divisor
from oncue.optimizers import Optimizer
from oncue.training.step import detached, measured
from oncue.training.synchronized_norms import SynchronizedNorms

if TYPE_CHECKING:
    from oncue.training.parallel import Parallel
    from oncue.training.plan import Plan

Step = Callable[[Batch], Any]


def make_parallel_step(plan: Plan, training: bool, parallel: Parallel) -> Step:
    """Return the function that trains or evaluates a prepared model on this process's rows of a batch.

    It does what `oncue.training.step.make_step` does. Each loss of this process counts as much as its rows do among all, so
    that the sum over the processes is the loss of the whole batch, and the sum of their gradients its gradient.

    Args:
        plan: The model's plan.
        training: Whether it updates the weights.
        parallel: The run.
    """
    optimizer, meter, losses = plan.optimizer, plan.meter, plan.losses
    zero_grad = optimizer.zero_grad if training else None
    update = optimizer.step if training and plan.trains else None
    scales = training and optimizer is not None and type(optimizer).scale_loss is not Optimizer.scale_loss
    measure = None if plan.metrics is None else plan.metrics.update_detached
    own_measure, share = plan.compute_metrics, parallel.share

    def step(batch: Batch) -> Source:
        _, y, weight = batch
        if zero_grad is not None:
            zero_grad()
        y_pred, loss, single, divisor = shared_loss(plan, parallel, batch, divides_later=update is not None)
        if update is not None:
            # The factor may be set between two steps.
            scaled = scales or optimizer._loss_scale_factor is not None
            (optimizer.scale_loss(loss) if scaled else loss).backward()
            divided = parallel.sum_gradients(optimizer._parameters, divisor=divisor)
            if divisor is not None:
                loss = loss.detach() / divided
            update()
        elif training:
            parallel.ask_all()
        if not share.rows:
            return meter
        # The sum over the processes, of what each counts for, is the loss times the batch's rows.
        whole = share.total / share.rows
        plan.loss_tracker.update_state(loss.detach() * whole, share.rows)
        if losses is not None:
            losses.track([one.detach() * whole for one in single], share.rows)
        parallel.weigh_numbers()
        if own_measure is not None:
            return measured(plan, own_measure, batch, detached(y_pred) if training else y_pred)
        if measure is not None:
            measure(y, detached(y_pred) if training else y_pred, weight)
        return meter

    return _around(step, parallel, training)


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
        with parallel.summing(optimizer):
            result = step(batch)
        parallel.ask_all()
        return result

    return _around(own, parallel, training)


def make_parallel_prediction(step: Step, parallel: Parallel) -> Step:
    """Return the function that predicts for this process's rows of a batch, and counts them.

    Args:
        step: Predicts for one process.
        parallel: The run.
    """

    def predict(batch: Batch) -> Any:
        parallel.count_rows()
        with parallel.own_noise():
            return step(batch)

    return predict


def make_parallel_compiled(step: Step, eager: Step, parallel: Parallel) -> Step:
    """Return the function that runs a compiled step on this process's rows of a batch.

    Args:
        step: The compiled step; where its loss is a mean over rows, it is as good as the eager one.
        eager: The eager step, for a batch of which no row is this process's own.
        parallel: The run.
    """

    def compiled(batch: Batch) -> Any:
        if not parallel.share.rows:
            return eager(batch)
        parallel.weigh_numbers()
        with parallel.own_noise():
            return step(batch)

    return compiled


def shared_loss(
    plan: Plan, parallel: Parallel, batch: Batch, divides_later: bool = False
) -> tuple[Any, torch.Tensor, list[torch.Tensor], torch.Tensor | None]:
    """Return the outputs for this process's rows, and its part of the loss with all penalties.

    Args:
        plan: The model's plan.
        parallel: The run.
        batch: This process's rows.
        divides_later: Whether what a loss is divided by may be summed together with the gradients, instead of before.

    Returns:
        The outputs; the part of the loss; that of each single loss; and this process's part of what the gradients, and that
        loss, are to be divided by, or None.

    Raises:
        ValueError: When there is nothing to compute a loss from.
    """
    x, y, weight = batch
    share = parallel.share
    y_pred = plan.forward(x)
    if plan.compute_loss is not None:
        return y_pred, plan.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight) * share.fraction, [], None
    loss: Any = None
    single: list[torch.Tensor] = []
    later: list[torch.Tensor] = []
    # Only where nothing else is in the sum of gradients, which isn't divided by it.
    alone = divides_later and plan.penalty is None and plan.losses is not None and len(plan.losses.parts) == 1

    def part_of(divisor: Divisor) -> float | torch.Tensor:
        if not alone or not isinstance(divisor, torch.Tensor):
            return parallel.part_of(divisor)
        later.append(divisor.detach() * (float(share.rows > 0) / share.total))
        return later[0]

    if plan.losses is not None:
        loss, single = plan.losses.shared(y, y_pred, weight, part_of)
    if plan.penalty is not None:
        # Of weights it is the same everywhere, of activities a mean over the rows: either way the parts add up.
        penalty = plan.penalty() * share.fraction
        loss = penalty if loss is None else loss + penalty
    if loss is None:
        raise ValueError("There is no loss to compute. Call `model.compile(optimizer=..., loss=...)`.")
    return y_pred, loss, single, later[0] if later else None


def _around(step: Step, parallel: Parallel, training: bool) -> Step:
    norms = SynchronizedNorms(parallel)
    looked = False

    def around(batch: Batch) -> Any:
        nonlocal looked
        with parallel.own_noise():
            if not training or (looked and not norms.used):
                return step(batch)
            # Whether anything normalizes over the rows of a batch is seen in the first step.
            looked = True
            with norms:
                return step(batch)

    return around
