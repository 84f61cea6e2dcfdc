"""CompiledStep: forward, loss, backward, clipping, update and sums of a step as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oncue.core.warn import warn
from oncue.feeding.batch import Batch
from oncue.layers.lstm import LSTMCell
from oncue.layers.lstm_in_graph import kernel_takes, lstm_is_whole
from oncue.layers.masking import Masking
from oncue.layers.rnn import RNN
from oncue.layers.trial import Trial
from oncue.nested import named_leaves
from oncue.optimizers.graph_update import GraphUpdate, graph_update
from oncue.training.graph.refusal import reason_of
from oncue.training.graph.step_graph import StepGraph
from oncue.training.step import objective

if TYPE_CHECKING:
    from oncue.training.plan import Plan
    from oncue.training.trainer import Trainer

Step = Callable[[Batch], Any]
Signature = tuple[Any, ...]

_MOST_SHAPES = 8
_MOST_GRAPHS = 4
_MANY_OTHERS = 20
_METHODS = {"train": "fit", "test": "evaluate", "predict": "predict"}


class CompiledStep:
    """A step of training, evaluation or prediction that is one compiled graph where it can be, and eager elsewhere.

    Batches that look like the first of a run are compiled for. Others, such as a last one that is not full, run eagerly;
    both come to the same numbers up to rounding. Where the optimizer's update or a metric can't be in the graph, it
    runs eagerly after it.

    Args:
        model: A prepared model.
        plan: Its plan.
        kind: "train", "test" or "predict".
    """

    def __init__(self, model: Trainer, plan: Plan, kind: str) -> None:
        self.refusal: str | None = None
        """Why the step isn't compiled, or None."""
        self.eager_batches = 0
        """How many batches of the pass ran eagerly."""
        self._model, self._plan, self._kind = model, plan, kind
        self._eager: Step | None = None
        self._typical: list[Signature] = []
        self._graphs: dict[Signature, StepGraph] = {}
        self._signature: Signature | None = None
        self._graph: StepGraph | None = None
        self._alone = False
        self._update: GraphUpdate | None = None
        self._parameters: list[tuple[int, bool]] | None = None
        self._optimizer: Any = None
        # What the optimizer's settings were when they were looked at last.
        self._settings: list[Any] = []

    @property
    def graphs(self) -> int:
        """How many graphs were made."""
        return sum(graph.region.graphs for graph in self._graphs.values())

    @property
    def account(self) -> str:
        """How the steps ran, in a sentence; empty before the first one."""
        if self.refusal is not None:
            return f"The steps ran eagerly: {self.refusal}."
        if not self.graphs:
            return ""
        seconds = sum(graph.region.seconds for graph in self._graphs.values())
        whole = all(graph.rest is None for graph in self._graphs.values())
        what = "one compiled graph" if whole else "a compiled graph, with the rest after it"
        return f"The steps ran as {what}; the first one, which made it, took {seconds:.1f} s."

    # Around a pass ------------------------------------------------------------------------------------------------

    def renew(self, eager: Step, typical: Signature | None, alone: bool) -> CompiledStep:
        """Begin a pass: what the graphs were made from is checked again.

        Args:
            eager: The eager step of this run.
            typical: The `signature_of` the batches to compile for; None to compile for none but those known already.
            alone: Whether no user code runs between the batches.

        Returns:
            Itself.
        """
        self._eager, self._alone, self.eager_batches = eager, alone, 0
        if self._kind == "train":
            optimizer = self._plan.optimizer
            held = [*optimizer._parameters, *self._model.parameters()]
            parameters = [(id(parameter), parameter.requires_grad) for parameter in held]
            other = self._optimizer is not optimizer or self._parameters != parameters
            self._optimizer = optimizer
            if other or (self._update is not None and not self._update.is_current()):
                self._graphs, self._update, self.refusal, self._parameters = {}, None, None, parameters
            self._settings = optimizer._watched()
        shapes = None if typical is None else _shapes(typical)
        if shapes is not None and shapes not in self._typical and len(self._typical) < _MOST_SHAPES:
            self._typical.append(shapes)
        for graph in self._graphs.values():
            graph.region.renew()
            graph.region.alone = alone
        if self._update is not None:
            self._update.begin()
        self._signature, self._graph = None, None
        return self

    def end(self) -> None:
        """End a pass: user code may run from here on."""
        if self._update is not None:
            self._update.end()
        if self.refusal is None and self.eager_batches > _MANY_OTHERS:
            self._warn(
                f"`jit_compile` compiles `{_METHODS[self._kind]}` for batches of the first one's shape; {self.eager_batches} "
                "of this pass had others, and ran eagerly. Pad them to one shape, or leave out those that are not full."
            )
        self._alone = False
        for graph in self._graphs.values():
            graph.region.renew()
            graph.region.alone = False

    def _settle(self) -> None:
        # Eager steps, and code that reads the optimizer, expect the state where torch keeps it.
        if self._update is not None:
            self._update.settle()

    # A batch ------------------------------------------------------------------------------------------------------

    def __call__(self, batch: Batch) -> Any:
        """Run the step on a batch and return what the eager step does: the meter, or the outputs."""
        if not self._alone and self._kind == "train":
            self._look()
        leaves = leaves_of(batch)
        signature = signature_of(batch, leaves)
        if signature != self._signature:
            self._graph, self._signature = self._graph_for(batch, signature), signature
        graph = self._graph
        if graph is None:
            return self._eagerly(batch)
        update = graph.update
        if update is not None:
            update.before()
        try:
            results = graph.region(*leaves)
        except Exception as error:
            if graph.region.ran:
                raise
            self._simplify(batch, signature, error)
            return self(batch)
        if update is not None:
            update.after()
            if not self._alone:
                update.between()
        if graph.region.graphs > _MOST_GRAPHS:
            self._refuse(f"what it depends on kept changing, so that it was compiled {graph.region.graphs} times")
        return self._plan.meter if graph.rest is None else graph.rest(batch, results)

    def _eagerly(self, batch: Batch) -> Any:
        assert self._eager is not None
        self.eager_batches += 1
        self._settle()
        source = self._eager(batch)
        if self._update is not None:
            self._update.begin()
        return source

    def _look(self) -> None:
        """Let the next step be made anew where user code has changed a setting of the optimizer since the last one."""
        settings = self._plan.optimizer._watched()
        if len(settings) == len(self._settings) and all(map(is_, settings, self._settings)):
            return
        self._settings = settings
        update = self._update
        if update is not None and not update.is_current():
            update.end()
            self._graphs, self._update, self._signature = {}, None, None
            return
        if update is not None:
            update.begin()
        for graph in self._graphs.values():
            graph.region.renew()

    # Graphs -------------------------------------------------------------------------------------------------------

    def _graph_for(self, batch: Batch, signature: Signature) -> StepGraph | None:
        if self.refusal is not None or _shapes(signature) not in self._typical:
            return None
        if signature not in self._graphs:
            obstacle = self._obstacle(batch)
            if obstacle is not None:
                self._refuse(obstacle)
                return None
            if self._kind == "train" and self._update is None:
                optimizer = self._plan.optimizer
                # A graph of this kind can't be another one in some of the steps.
                self._update = graph_update(optimizer) if optimizer.gradient_accumulation_steps is None else None
                if self._update is not None:
                    self._update.begin()
            self._make(batch, signature, measures=True)
        return self._graphs[signature]

    def _make(self, batch: Batch, signature: Signature, measures: bool) -> None:
        assert self._eager is not None
        graph = StepGraph(self._model, self._plan, batch, self._eager, self._update, kind=self._kind, measures=measures)
        graph.region.alone = self._alone
        self._graphs[signature] = graph

    def _simplify(self, batch: Batch, signature: Signature, error: Exception) -> None:
        """Leave the metrics out of a graph that can't be made; when that was done already, make none."""
        made = self._graphs.pop(signature)
        if self._update is not None:
            self._update.settle()
        if made.measures and self._kind != "predict" and self._plan.metrics is not None:
            self._make(batch, signature, measures=False)
        else:
            self._refuse(reason_of(error))
        self._signature = None

    def _obstacle(self, batch: Batch) -> str | None:
        """Return why a step on such batches can't be a graph, as far as one eager try of it tells."""
        model, plan = self._model, self._plan
        if f"{self._kind}_step" in plan.overridden:
            return f"the model has a `{self._kind}_step` of its own"
        masked = any(isinstance(part, Masking) or getattr(part, "mask_zero", False) for part in model.modules())
        recurrent = next((part for part in model.modules() if _would_be_unrolled(part, masked)), None)
        if recurrent is not None:
            return f"torch's compiler would unroll `{type(recurrent).__name__}` over all steps of its sequences"
        if self._kind != "train":
            return None
        parameters = plan.optimizer._parameters
        held = {id(parameter) for parameter in model.parameters()}
        if any(id(parameter) not in held for parameter in parameters):
            return "the optimizer has parameters that the model doesn't have"
        if not parameters:
            return "the model has no weights to train"
        means = [(metric, metric.get_state()) for _, metric in plan.named_metrics(model)]
        losses = [] if plan.losses is None else [part.loss for part in plan.losses.parts]
        with torch.enable_grad(), Trial(model, *losses):
            _, loss = objective(plan)(*batch)
            trained = [p for p in parameters if p.requires_grad]
            alone = not loss.requires_grad or not trained
            gradients = [None] if alone else list(torch.autograd.grad(loss, trained, allow_unused=True))
        for metric, state in means:
            metric.set_state(state)
        if all(p.requires_grad for p in parameters) and all(gradient is not None for gradient in gradients):
            return None
        return "some weights get no gradient, which a graph can't leave alone"

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        self._signature = self._graph = None
        self._settle()
        self._warn(
            f"`jit_compile` can't compile the step of `{_METHODS[self._kind]}`, which runs eagerly instead: {reason}."
        )

    def _warn(self, text: str) -> None:
        graphs = self._plan.graphs
        if self._model.jit_compile is True and not graphs.warned:
            graphs.warned = True
            warn(text)


def leaves_of(batch: Batch) -> tuple[Tensor, ...]:
    """Return the tensors of a batch, in the order of `named_leaves`."""
    x, y, weight = batch
    if type(x) is Tensor and weight is None and (y is None or type(y) is Tensor):
        return (x,) if y is None else (x, y)
    return tuple([leaf for _, leaf in named_leaves(batch, "")])


def signature_of(batch: Batch, leaves: tuple[Tensor, ...] | None = None) -> Signature:
    """Return what a graph depends on of a batch: its parts, and the shapes, strides, types and places of its tensors.

    Args:
        batch: The batch.
        leaves: Its `leaves_of`, if already known.
    """
    leaves = leaves_of(batch) if leaves is None else leaves
    tensors = [(leaf.shape, leaf.stride(), leaf.dtype, leaf.device, leaf.requires_grad) for leaf in leaves]
    return (batch[1] is None, batch[2] is None, *tensors)


def _shapes(signature: Signature) -> Signature:
    # A slice of an array and a gather of its rows have different strides.
    return (*signature[:2], *[(shape, dtype) for shape, _, dtype, _, _ in signature[2:]])


def _would_be_unrolled(module: Any, masked: bool) -> bool:
    if isinstance(module, RNN):
        cell = module.cell
        fused = isinstance(cell, LSTMCell) and cell.can_be_fused and not cell.recurrent_dropout
        return masked or not (fused and kernel_takes(list(module.parameters())))
    return isinstance(module, torch.nn.RNNBase) and not lstm_is_whole(module)
