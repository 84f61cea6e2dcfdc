"""StepGraph: a step on batches of one shape, as a function of tensors that torch can compile as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oncue.core.logs import Source
from oncue.feeding.batch import Batch
from oncue.nested import map_leaves, named_leaves
from oncue.optimizers.graph_update import GraphUpdate
from oncue.torch_private import compiler_options
from oncue.training.graph.compiled_region import CompiledRegion
from oncue.training.graph.recorded import record_cuda
from oncue.training.probe import trial
from oncue.training.step import detached, measured, objective, samples_of

if TYPE_CHECKING:
    from oncue.training.plan import Plan
    from oncue.training.trainer import Trainer

Eager = Callable[[Batch], Any]
Results = tuple[Tensor, ...]


class StepGraph:
    """The compiled part of a step, and what follows it eagerly.

    Args:
        model: A prepared model.
        plan: Its plan.
        like: A batch of the shape it is for.
        eager: The eager step.
        update: The optimizer's update when it is to be in the graph; None leaves `optimizer.step` to follow.
        kind: "train", "test" or "predict".
        measures: Whether the metrics are in the graph.
    """

    def __init__(
        self,
        model: Trainer,
        plan: Plan,
        like: Batch,
        eager: Callable[[Batch], Any],
        update: GraphUpdate | None,
        *,
        kind: str,
        measures: bool,
    ) -> None:
        self.update = update
        self.measures = measures
        self._model, self._plan = model, plan
        has_metrics, own = plan.metrics is not None, "compute_metrics" in plan.overridden
        self._measured_inside = measures and has_metrics and not own
        self._measured_after = own or (has_metrics and not self._measured_inside)
        self._gradients_follow = kind == "train" and update is None
        self._form: Any = None
        self._follow_tensors: Callable[[], None] | None = None
        self.rest: Callable[[Batch, Results], Any] | None = None
        """What is to be done eagerly with a batch and the graph's results; None when that is nothing."""
        if kind == "predict":
            inside, self.rest = self._predict(like, eager), self._outputs
        else:
            inside = self._train(like) if kind == "train" else self._test(like)
            if self._gradients_follow or self._measured_after:
                self.rest = self._follow
            for _, metric in plan.named_metrics(model):
                for variable in metric.variables:
                    variable.materialize(model.device)
        owners = [*model.modules(), *_parts_of(model, plan)]
        check = _refuse_strays if kind == "train" else None
        self.region = CompiledRegion(
            inside,
            compiler_options(model.device),
            owners,
            check,
            self._follow_tensors,
            # What is predicted is kept, and would be overwritten.
            None if kind == "predict" else plan.graphs.record or (record_cuda if model.device.type == "cuda" else None),
        )

    def _train(self, like: Batch) -> Callable[..., Results]:
        plan, update, apart = self._plan, self.update, _apart(like)
        module = _Objective(self._model, plan)
        optimizer = plan.optimizer
        names_of = {id(parameter): name for name, parameter in module.named_parameters()}
        names = [names_of[id(parameter)] for parameter in optimizer._parameters]
        # The tensors of the update themselves: for two that share their memory, torch makes both again at every call.
        parameters: dict[str, Tensor] = {}
        buffers: dict[str, Tensor] = {}
        scale = optimizer.scale_loss

        def follow() -> None:
            if update is not None:
                update.follow()
                for place, (weight, parameter) in enumerate(zip(update.weights, optimizer._parameters, strict=True)):
                    same = weight.data_ptr() == parameter.data_ptr() and weight.dtype == parameter.dtype
                    if weight.requires_grad or not same:
                        update.weights[place] = parameter.detach()
            weights = [p.detach() for p in optimizer._parameters] if update is None else update.weights
            parameters.update(zip(names, weights, strict=True))
            buffers.update(module.named_buffers())

        self._follow_tensors = follow
        parts, samples = [] if plan.losses is None else plan.losses.metrics, samples_of(like[0])
        sum_up = self._summing(like)

        def step(*leaves: Tensor) -> Results:
            x, y, weight = apart(leaves)

            def loss_of(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> tuple[Tensor, Any]:
                y_pred, loss, held = torch.func.functional_call(module, (parameters, buffers), (x, y, weight))
                return scale(loss), (loss, y_pred, held)

            by_name, (loss, y_pred, held) = torch.func.grad(loss_of, has_aux=True)(parameters, buffers)
            gradients = [by_name[name] for name in names]
            if update is not None:
                update.apply(gradients)
            for part, value in zip(parts, held, strict=True):
                part.update_state(value, sample_weight=samples)
            return (*([] if update is not None else gradients), *sum_up(loss, y, y_pred, weight))

        return step

    def _test(self, like: Batch) -> Callable[..., Results]:
        apart, compute = _apart(like), objective(self._plan)
        sum_up = self._summing(like)

        def step(*leaves: Tensor) -> Results:
            x, y, weight = apart(leaves)
            y_pred, loss = compute(x, y, weight)
            return sum_up(loss, y, y_pred, weight)

        return step

    def _summing(self, like: Batch) -> Callable[[Tensor, Any, Any, Any], Results]:
        """Return what adds a batch to the running values in the graph, and hands out the outputs for those outside it."""
        track, samples = self._plan.loss_tracker.update_state, samples_of(like[0])
        metrics = self._plan.metrics
        measure = metrics.update_detached if metrics is not None and self._measured_inside else None
        outside = self._measured_after

        def sum_up(loss: Tensor, y: Any, y_pred: Any, weight: Any) -> Results:
            track(loss, samples)
            if measure is not None:
                measure(y, y_pred, weight)
            return tuple([leaf for _, leaf in named_leaves(y_pred, "")] if outside else [])

        return sum_up

    def _predict(self, like: Batch, eager: Eager) -> Callable[..., Results]:
        apart = _apart(like)
        self._form = trial(self._model, eager, like)

        def step(*leaves: Tensor) -> Results:
            return tuple([leaf for _, leaf in named_leaves(eager(apart(leaves)), "")])

        return step

    def _outputs(self, batch: Batch, results: Results) -> Any:
        if isinstance(self._form, Tensor):
            return results[0]
        given = iter(results)
        return map_leaves(lambda leaf: next(given), self._form)

    def _follow(self, batch: Batch, results: Results) -> Source:
        plan = self._plan
        given = iter(results)
        if self._gradients_follow:
            optimizer = plan.optimizer
            for parameter in optimizer._parameters:
                parameter.grad = next(given)
            optimizer.step()
        if not self._measured_after:
            return plan.meter
        y_pred = detached(map_leaves(lambda leaf: next(given), plan.outputs))
        if plan.compute_metrics is not None:
            return measured(plan, plan.compute_metrics, batch, y_pred)
        assert plan.metrics is not None
        _, y, weight = batch
        plan.metrics.update_detached(y, y_pred, weight)
        return plan.meter


class _Objective(torch.nn.Module):
    """The loss of a batch as a module, whose parameters can be put in from outside."""

    def __init__(self, model: Trainer, plan: Plan) -> None:
        super().__init__()
        self.model = model
        self._compute, self._losses = objective(plan), plan.losses

    def forward(self, x: Any, y: Any, weight: Any) -> tuple[Any, Tensor, list[Tensor]]:
        losses = self._losses
        if losses is None:
            return (*self._compute(x, y, weight), [])
        # Nothing may be changed in place where gradients are taken, so that the means follow outside of this.
        losses.held = []
        y_pred, loss = self._compute(x, y, weight)
        held, losses.held = losses.held, None
        return y_pred, loss, held


def _apart(like: Batch) -> Callable[[tuple[Tensor, ...]], Batch]:
    """Return the function that makes a batch of its tensors, in the order of `named_leaves`."""
    if all(part is None or isinstance(part, Tensor) for part in like):
        present = [place for place, part in enumerate(like) if part is not None]

        def plain(leaves: tuple[Tensor, ...]) -> Batch:
            parts: list[Any] = [None, None, None]
            for place, leaf in zip(present, leaves, strict=True):
                parts[place] = leaf
            return parts[0], parts[1], parts[2]

        return plain
    form = map_leaves(lambda leaf: True, like)

    def nested(leaves: tuple[Tensor, ...]) -> Batch:
        rest = iter(leaves)
        x, y, weight = map_leaves(lambda leaf: next(rest), form)
        return x, y, weight

    return nested


def _refuse_strays(inputs: Sequence[Tensor]) -> None:
    # The weights to train come in detached. One that comes as itself was reached by another way than its module, and
    # what the graph says of its gradient is wrong.
    strays = [tuple(tensor.shape) for tensor in inputs if isinstance(tensor, Tensor) and tensor.requires_grad]
    if strays:
        raise RuntimeError(
            f"The model uses a weight of shape {strays[0]} that it doesn't get from the module that has it."
        )


def _parts_of(model: Trainer, plan: Plan) -> list[Any]:
    """Return metrics, their variables, and losses: what a step could write Python values to besides modules."""
    metrics = [metric for _, metric in plan.named_metrics(model)] if model.compiled else []
    variables = [variable for metric in metrics for variable in metric.variables]
    losses = [] if plan.losses is None else [part.loss for part in plan.losses.parts]
    return [*metrics, *variables, *losses]
