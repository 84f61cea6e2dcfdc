"""StepFunction: one step on batches of one signature, as a function that can be run eagerly and be traced."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from oncue.core.logs import Source
from oncue.core.protocols import inner_optimizer_of
from oncue.feeding.batch import Batch
from oncue.metrics.state import MetricVariable
from oncue.nested import map_leaves, named_leaves
from oncue.optimizers.graph_update import Update
from oncue.training.graph.refusal import RefusalError
from oncue.training.graph.shared_rows import SharedRows
from oncue.training.parallel_step import NumbersWeighed, shared_loss, track_shared
from oncue.training.step import detached, measured, objective, samples_of
from oncue.training.synchronized_norms import SynchronizedNorms

if TYPE_CHECKING:
    from oncue.training.plan import Plan
    from oncue.training.trainer import Trainer

Gradients = list[Tensor | None]


class Outcome(NamedTuple):
    """What a step computes, besides what it changes."""

    needed: list[Tensor]
    """What follows the step gets: gradients, outputs; and what keeps messages in the graph."""
    loss: Tensor | None
    outputs: list[Tensor]
    gradients: Gradients


class StepFunction:
    """The part of a step that becomes a graph, and what follows it eagerly.

    Args:
        model: A prepared model.
        plan: Its plan.
        like: A batch of the signature that it is for.
        eager: The eager step.
        update: The optimizer's update when it is to be in the graph; None leaves `optimizer.step` to follow.
        kind: "train", "test" or "predict".
        measures: Whether the metrics are in the graph.
        rows: Which rows of each batch are this process's, of several; None for a process alone.
    """

    def __init__(
        self,
        model: Trainer,
        plan: Plan,
        like: Batch,
        eager: Callable[[Batch], Any],
        update: Update | None,
        *,
        kind: str,
        measures: bool,
        rows: SharedRows | None = None,
    ) -> None:
        self.model, self.plan, self.kind, self.update, self.measures = model, plan, kind, update, measures
        has_metrics, own = plan.metrics is not None, "compute_metrics" in plan.overridden
        self._measured_inside = measures and has_metrics and not own
        self._measured_after = own or (has_metrics and not self._measured_inside)
        self._gradients_follow = kind == "train" and update is None
        # A device would record them, and send nothing more when the recording is replayed.
        self._sends = self._gradients_follow and rows is not None and model.device.type == "cpu"
        self._eager, self._rows = eager, rows
        # Whether what the loss is divided by is summed with the gradients, after the graph.
        self._divides_later = False
        self._form: Any = None
        self.present: list[bool] = []
        """Which of the optimizer's parameters got a gradient when the step was run last."""
        self._batch_of = _apart(like)
        self.rest: Callable[[Batch, Sequence[Tensor]], Any] | None = None
        """What is to be done eagerly with a batch and what the graph gives; None when that is nothing."""
        if kind == "predict":
            self.rest = self._predicted
            return
        if self._gradients_follow or self._measured_after:
            self.rest = self._follow
        for _, metric in plan.named_metrics(model):
            for variable in metric.variables:
                if isinstance(variable, MetricVariable):
                    variable.materialize(model.device)
        self._compute = objective(plan)

    @property
    def parameters(self) -> list[Tensor]:
        """What the optimizer updates; nothing where nothing is trained."""
        return [] if self.kind != "train" else self.plan.optimizer._parameters

    @property
    def owners(self) -> list[Any]:
        """Whatever has code that the step runs, or values that this code reads."""
        model, plan = self.model, self.plan
        owners: list[Any] = [*model._stepping_modules()]
        if self.kind == "predict":
            return owners
        losses = [] if plan.losses is None else [part.loss for part in plan.losses.parts]
        metrics = [metric for _, metric in plan.named_metrics(model)] if self.measures else [plan.loss_tracker]
        asked = [] if self.update is None else [*self.update.asks]
        if self.kind == "train":
            asked += plan.optimizer._asked_for_the_loss()
        return [*owners, *asked, *losses, *metrics, *[variable for metric in metrics for variable in metric.variables]]

    def run(self, leaves: Sequence[Tensor], derive: Callable[[Tensor], Gradients], update: bool) -> Outcome:
        """Do the step.

        Args:
            leaves: The tensors of a batch.
            derive: Returns the loss's gradients with respect to the optimizer's parameters, in their order.
            update: Whether to update the weights; without it all else is done.

        Returns:
            What it computes.
        """
        batch = self._batch_of(leaves)
        optimizer = self.model.optimizer
        if self.kind == "predict":
            with _numbers_unread(optimizer):
                predicted = self._eager(batch)
            self._form, outputs = (
                map_leaves(lambda leaf: True, predicted),
                [leaf for _, leaf in named_leaves(predicted, "")],
            )
            return Outcome(outputs, None, outputs, [])
        plan, rows = self.plan, self._rows
        x, y, weight = batch
        gradients: Gradients = []
        marks: list[Tensor] = []
        if rows is not None:
            rows.begin()
        if self.kind == "train":
            norms = nullcontext() if rows is None else SynchronizedNorms(rows)
            with torch.enable_grad(), norms, _numbers_unread(optimizer):
                y_pred, loss, single, divisor = self._loss(batch)
                gradients = derive(plan.optimizer.scale_loss(loss))
                self.present = [gradient is not None for gradient in gradients]
            if rows is not None and self._sends:
                marks = rows.send(self.parameters, gradients)
            y_pred, loss = detached(y_pred), loss.detach()
        else:
            with _numbers_unread(optimizer):
                y_pred, loss, single, divisor = self._loss(batch)
        if update and self.update is not None:
            self.update.apply(gradients)
        self._divides_later = divisor is not None
        if rows is None:
            plan.loss_tracker.update_state(loss, samples_of(x))
        elif divisor is None:
            track_shared(plan, loss, single, 1.0 / rows.fraction, samples_of(x))
        if self._measured_inside:
            assert plan.metrics is not None
            with nullcontext() if rows is None else NumbersWeighed(plan, rows.fraction), _numbers_unread(optimizer):
                plan.metrics.update_detached(y, y_pred, weight)
        outputs = [leaf for _, leaf in named_leaves(y_pred, "")]
        needed = [gradient for gradient in gradients if gradient is not None] if self._gradients_follow else []
        needed += [] if divisor is None else [loss, divisor]
        return Outcome([*needed, *(outputs if self._measured_after else []), *marks], loss, outputs, gradients)

    def _loss(self, batch: Batch) -> tuple[Any, Tensor, list[Tensor], Tensor | None]:
        """Return the outputs and the loss; of several processes this one's part, as `shared_loss` does."""
        if self._rows is None:
            return *self._compute(*batch), [], None
        return shared_loss(self.plan, self._rows, batch, divides_later=self.kind == "train")

    def _predicted(self, batch: Batch, given: Sequence[Tensor]) -> Any:
        if self._form is True:
            return given[0]
        leaves = iter(given)
        return map_leaves(lambda leaf: next(leaves), self._form)

    def _follow(self, batch: Batch, given: Sequence[Tensor]) -> Source:
        plan, leaves = self.plan, iter(given)
        if self._gradients_follow:
            for parameter, present in zip(self.parameters, self.present, strict=True):
                parameter.grad = next(leaves) if present else None
            parallel = self.model._parallel
            if parallel is None:
                plan.optimizer.step()
            else:
                loss, divisor = (next(leaves), next(leaves)) if self._divides_later else (None, None)
                divided = parallel.sum_gradients(self.parameters, divisor=divisor)
                if loss is not None:
                    share = parallel.share
                    track_shared(plan, loss / divided, [], share.total / share.rows, share.rows)
                parallel.make_update(plan.optimizer)
        if not self._measured_after:
            return plan.meter
        y_pred = detached(map_leaves(lambda leaf: next(leaves), plan.outputs))
        if plan.compute_metrics is not None:
            return measured(plan, plan.compute_metrics, batch, y_pred)
        assert plan.metrics is not None
        _, y, weight = batch
        parallel = self.model._parallel
        with nullcontext() if parallel is None else NumbersWeighed(plan, parallel.share.fraction):
            plan.metrics.update_detached(y, y_pred, weight)
        return plan.meter


@contextmanager
def _numbers_unread(optimizer: Any) -> Iterator[None]:
    """Refuse code that reads numbers of the optimizer, for which inputs stand in the update alone."""
    here = threading.get_ident()

    def refuse(name: str) -> None:
        # Another thread may show the rate meanwhile.
        if threading.get_ident() == here:
            raise RefusalError(
                f"it reads `optimizer.{name}`, which a graph would fix (let a callback write it to a buffer of the model, and "
                "read that)"
            )

    told = [] if optimizer is None else [vars(one) for one in (optimizer, inner_optimizer_of(optimizer))]
    for attributes in told:
        attributes["_tell_of_read"] = refuse
    try:
        yield
    finally:
        for attributes in told:
            attributes.pop("_tell_of_read", None)


def _apart(like: Batch) -> Callable[[Sequence[Tensor]], Batch]:
    """Return the function that makes a batch of its tensors, in the order of `named_leaves`."""
    form = map_leaves(lambda leaf: True, like)

    def batch_of(leaves: Sequence[Tensor]) -> Batch:
        rest = iter(leaves)
        x, y, weight = map_leaves(lambda leaf: next(rest), form)
        return x, y, weight

    return batch_of
