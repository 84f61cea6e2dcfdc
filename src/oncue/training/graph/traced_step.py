"""TracedStep: forward, loss, backward, clipping, update and sums of a step as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import nullcontext
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oncue import torch_private
from oncue.core.quick_imports import quick_imports
from oncue.core.warn import warn
from oncue.feeding.batch import Batch
from oncue.nested import named_leaves
from oncue.optimizers.graph_update import Update, graph_update
from oncue.training.graph.refusal import reason_of
from oncue.training.graph.shared_rows import SharedRows, messages_of_step, trying
from oncue.training.graph.step_function import StepFunction
from oncue.training.graph.traced_graph import Graph, Key, TracedGraph
from oncue.training.graph.traced_update import TracedUpdate

if TYPE_CHECKING:
    from oncue.training.plan import Plan
    from oncue.training.trainer import Trainer

Step = Callable[[Batch], Any]
Signature = tuple[Any, ...]

_MOST_SHAPES = 8
_MOST_GRAPHS = 4
_MOST_TOGETHER = 16
"""How many steps are recorded as one: more have no less to call, and more memory for their batches."""
_MOST_LAYOUTS = 32
"""Of how many batches that differ in shapes, strides and phases of an accumulation graphs are kept, with their memory."""
_MANY_OTHERS = 20
_METHODS = {"train": "fit", "test": "evaluate", "predict": "predict"}


class TracedStep:
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
        self._compiled: dict[Key, Graph] = {}
        self._model, self._plan, self._kind = model, plan, kind
        self._eager: Step | None = None
        self._typical: list[Signature] = []
        self._graphs: dict[tuple[Signature, Hashable], TracedGraph] = {}
        self._current: tuple[tuple[Signature, Hashable], TracedGraph | None] | None = None
        self._alone = False
        # How many steps are one call where nothing is between them.
        self._together, self._gathers = 1, False
        self._update: Update | None = None
        self._optimizer: Any = None
        # What the optimizer's settings were when they were looked at last.
        self._settings: list[Any] = []
        # Whether the metrics and the update are tried as parts of the graph.
        self._measures = self._updates = True
        # How often something that graphs were made from has changed in this pass, and had one compiled again, ever.
        self._changes, self._compiled_again = 0, 0
        self._known: set[tuple[Signature, Hashable]] = set()
        # Of a run on several processes: its rows, and the update that follows the sum of all gradients.
        self._rows: SharedRows | None = None
        self._update_of_sums: TracedUpdate | None = None

    @property
    def graphs(self) -> int:
        """How many graphs were compiled."""
        return len(self._compiled)

    @property
    def account(self) -> str:
        """How the steps ran, in a sentence; empty before the first one."""
        if self.refusal is not None:
            return f"The steps ran eagerly: {self.refusal}."
        if not self._graphs:
            return ""
        seconds = sum(graph.seconds for graph in self._graphs.values())
        whole = all(graph.function.rest is None for graph in self._graphs.values())
        if self._update_of_sums is not None and self._update_of_sums.refusal is None:
            return (
                "The steps ran as two compiled graphs, with the sum over all processes between them; the first one took "
                f"{seconds:.1f} s to make.{_of_products(self._model.device)}"
            )
        what = "one compiled graph" if whole else "a compiled graph, with the rest after it"
        made = f"the first one, which made it, took {seconds:.1f} s"
        return f"The steps ran as {what}; {made}.{_of_products(self._model.device)}"

    # Around a pass ------------------------------------------------------------------------------------------------

    def renew(self, eager: Step, typical: Signature | None, alone: bool) -> TracedStep:
        """Begin a pass: what the graphs were made from is looked at again.

        Args:
            eager: The eager step of this run.
            typical: The signature of the batches to compile for; None to compile for none but those known already.
            alone: Whether no user code runs between the batches.

        Returns:
            Itself.
        """
        self._eager, self._alone, self.eager_batches, self._changes = eager, alone, 0, 0
        self._together = min(self._model.steps_per_execution, _MOST_TOGETHER)
        self._share(alone)
        if self._kind == "train":
            optimizer = self._plan.optimizer
            reset = self._set_otherwise()
            if self._optimizer is not optimizer or (self._update is not None and not self._update.is_current()):
                self._graphs, self._update, self.refusal, self._updates = {}, None, None, True
            elif reset and self._update is None:
                # Its factor of the loss, say, is in the graphs.
                self._graphs = {}
            self._optimizer = optimizer
        shapes = None if typical is None else _shapes(typical)
        if shapes is not None and shapes not in self._typical and len(self._typical) < _MOST_SHAPES:
            self._typical.append(shapes)
        self._drop_changed()
        if self._update is not None:
            self._update.begin()
        self._current = None
        return self

    def forget(self) -> None:
        """Let the next pass trace again, and try again what was refused; what was compiled stays."""
        self._graphs, self._update, self._update_of_sums, self.refusal = {}, None, None, None
        self._measures = self._updates = True

    def _share(self, alone: bool) -> None:
        """Let the pass be on one process or on several, as the run is."""
        model, parallel = self._model, self._model._parallel
        if (parallel is None) != (self._rows is None):
            self._graphs, self._compiled, self.refusal, self._update_of_sums = {}, {}, None, None
            dtype = torch.float64 if model.input_dtype == torch.float64 else torch.float32
            self._rows = None if parallel is None else SharedRows(model.device, dtype)
        if parallel is None or self._kind != "train" or self._obstacle_to_update() is not None:
            return
        update = self._update_of_sums
        if update is None or self._optimizer is not self._plan.optimizer:
            update = self._update_of_sums = TracedUpdate(model, self._plan)
        update.begin(alone, parallel.group.agree)
        parallel.update = update

    def finish(self) -> None:
        """Run the steps whose batches are only gathered yet: what they change may be looked at from here on."""
        if self._current is not None and self._current[1] is not None:
            self._current[1].finish()

    def _may_gather(self, graph: TracedGraph) -> bool:
        """Return whether several steps may be one call, for nothing is to be done between them."""
        function = graph.function
        alone = self._together > 1 and self._alone and self._rows is None and function.rest is None
        return alone and (function.update is None or function.update.is_alone)

    def end(self) -> None:
        """End a pass: user code may run from here on."""
        self.finish()
        if self._update is not None:
            self._update.end()
        parallel = self._model._parallel
        if parallel is not None and self._update_of_sums is not None and parallel.update is self._update_of_sums:
            self._update_of_sums.end()
            parallel.update = None
        if self.refusal is None and self.eager_batches > _MANY_OTHERS:
            self._warn(
                f"`jit_compile` compiles `{_METHODS[self._kind]}` for batches of the first one's shape; {self.eager_batches} "
                "of this pass had others, and ran eagerly. Pad them to one shape, or leave out those that are not full."
            )
        self._alone = False

    def _settle(self) -> None:
        # Eager steps, and code that reads the optimizer, expect the state where torch keeps it.
        if self._update is not None:
            self._update.settle()

    # A batch ------------------------------------------------------------------------------------------------------

    def __call__(self, batch: Batch) -> Any:
        """Run the step on a batch and return what the eager step does: the meter, or the outputs."""
        if not self._alone:
            self._look()
        found, leaves = signature_and_leaves(batch)
        signature = self._with_phase(found)
        current = self._current
        if current is None or current[0] != signature:
            self.finish()
            # As one object: another thread may predict meanwhile.
            self._current = current = (signature, self._graph_for(batch, leaves, signature[0]))
            self._gathers = current[1] is not None and self._may_gather(current[1])
            if current[1] is not None and self._update is not None and self._optimizer._inner is not None:
                torch_private.count_as_stepped(self._optimizer._inner)
        graph = current[1]
        if graph is None:
            return self._eagerly(batch)
        update = graph.function.update
        if update is not None:
            update.before()
        results = graph.gather(self._together, *leaves) if self._gathers else graph(*leaves)
        if update is not None:
            update.after()
            if not self._alone:
                update.between()
        rest = graph.function.rest
        return self._plan.meter if rest is None else rest(batch, results)

    def on_own_rows(self, batch: Batch) -> Any:
        """Run the step on this process's rows of a batch, the others of which are on other processes."""
        parallel, rows = self._model._parallel, self._rows
        assert parallel is not None and rows is not None
        if not parallel.share.rows:
            return self._eagerly(batch)
        rows.write(parallel.share)
        gradients = parallel.gradients_of(self._plan.optimizer._parameters) if self._kind == "train" else None
        with parallel.own_noise(), messages_of_step(gradients):
            return self(batch)

    def _eagerly(self, batch: Batch) -> Any:
        assert self._eager is not None
        self.finish()
        self.eager_batches += 1
        self._settle()
        source = self._eager(batch)
        if self._update is not None:
            self._update.begin()
        return source

    def _look(self) -> None:
        """Let the next step be made again where user code has changed something that it was made from."""
        if self._kind == "train" and self._set_otherwise():
            update = self._update
            if update is not None and update.is_current():
                # What was set is a number that the graphs read.
                update.begin()
            else:
                if update is not None:
                    update.end()
                self._changes += bool(self._graphs)
                self._graphs, self._update = {}, None
            self._current = None
        if self._drop_changed():
            self._current = None

    def _set_otherwise(self) -> bool:
        """Return whether a setting of the optimizer is another one than when it was looked at last."""
        before, self._settings = self._settings, self._plan.optimizer._watched()
        return len(before) != len(self._settings) or not all(map(is_, before, self._settings))

    def _drop_changed(self) -> bool:
        """Drop the graphs of which something has changed that they were made from; return whether there were any."""
        changed = [key for key, graph in self._graphs.items() if graph.changed()]
        for key in changed:
            del self._graphs[key]
        self._changes += bool(changed)
        return bool(changed)

    # Graphs -------------------------------------------------------------------------------------------------------

    def _graph_for(self, batch: Batch, leaves: tuple[Tensor, ...], signature: Signature) -> TracedGraph | None:
        if self.refusal is not None or _shapes(signature) not in self._typical:
            return None
        if self._with_phase(signature) not in self._graphs:
            if len(self._graphs) >= _MOST_LAYOUTS:
                return None
            obstacle = self._obstacle()
            if obstacle is not None:
                self._refuse(obstacle)
                return None
            if self._kind == "train" and self._update is None and self._updates and self._model._parallel is None:
                self._update = graph_update(self._plan.optimizer)
                if self._update is not None:
                    self._update.begin()
            self._make(batch, leaves, signature)
        return self._graphs.get(self._with_phase(signature))

    def _with_phase(self, signature: Signature) -> tuple[Signature, Hashable]:
        return signature, None if self._update is None else self._update.phase()

    def _make(self, batch: Batch, leaves: tuple[Tensor, ...], signature: Signature) -> None:
        """Make a graph; where the metrics can't be a part of it, without them; where nothing can, take note of why."""
        assert self._eager is not None
        graphs = self._plan.graphs
        record = None
        if self._kind != "predict":
            # What is predicted is kept, and would be overwritten.
            record = graphs.record or (graphs.record_cuda if self._model.device.type == "cuda" else None)
        if self._update is not None:
            self._update.before()
        try:
            with quick_imports():
                torch_private.import_compiler()
            function = StepFunction(
                self._model,
                self._plan,
                batch,
                self._eager,
                self._update,
                kind=self._kind,
                measures=self._measures,
                rows=self._rows,
            )
            key, compiled = self._with_phase(signature), len(self._compiled)
            with nullcontext() if self._rows is None else trying():
                self._graphs[key] = TracedGraph(function, leaves, graphs.compiler, self._compiled, record)
            self._compiled_again += key in self._known and len(self._compiled) > compiled
            self._known.add(key)
        except Exception as error:
            self._settle()
            if self._update is not None and self._update.asks:
                # The update follows.
                self._update.end()
                self._update, self._updates = None, False
                self._make(batch, leaves, signature)
            elif self._measures and self._kind != "predict" and self._plan.metrics is not None:
                self._measures = False
                self._make(batch, leaves, signature)
            else:
                self._refuse(reason_of(error))

    def _obstacle(self) -> str | None:
        """Return why a step can't be a graph, as far as that is known before it is tried."""
        model, plan = self._model, self._plan
        if model.has_parts_of_weights:
            return "processes have parts of the weights, which torch gathers for each layer"
        if f"{self._kind}_step" in plan.overridden:
            return f"the model has a {model.own_step_name(self._kind)} of its own"
        if max(self._changes, self._compiled_again) > _MOST_GRAPHS:
            return "what it depends on kept changing, so that it would be made again and again"
        return None if self._kind != "train" else self._obstacle_to_update()

    def _obstacle_to_update(self) -> str | None:
        model, plan = self._model, self._plan
        if "train_step" in plan.overridden:
            return f"the model has a {model.own_step_name(self._kind)} of its own"
        parameters = [] if plan.optimizer is None else plan.optimizer._parameters
        held = {id(parameter) for parameter in model.parameters()}
        if any(id(parameter) not in held for parameter in parameters):
            return "the optimizer has parameters that the model doesn't have"
        if self._rows is not None and held - {id(parameter) for parameter in (*parameters, *_untrained(model))}:
            # Their gradients would be derived on processes where the step runs eagerly, with messages of their own.
            return "the model has trainable weights that the optimizer doesn't have"
        return None if parameters else "the model has no weights to train"

    def _refuse(self, reason: str) -> None:
        self.refusal = reason
        self._current = None
        self._settle()
        self._warn(
            f"`jit_compile` can't compile the step of `{_METHODS[self._kind]}`, which runs eagerly instead: {reason}."
        )

    def _warn(self, text: str) -> None:
        graphs = self._plan.graphs
        if self._model.jit_compile is True and not graphs.warned:
            graphs.warned = True
            warn(text)


def _of_products(device: torch.device) -> str:
    """Return how matrices are multiplied, where torch has a setting for it that decides how quick a graph is."""
    if device.type != "cuda":
        return ""
    if torch.backends.cuda.matmul.fp32_precision == "tf32":
        return " Matrices of float32 are multiplied in TF32, as torch is set."
    return (
        " Matrices of float32 are multiplied in float32; `torch.set_float32_matmul_precision('high')` lets it be TF32, "
        "which is quicker and less exact."
    )


def _untrained(model: Trainer) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if not parameter.requires_grad]


def signature_and_leaves(batch: Batch) -> tuple[Signature, tuple[Tensor, ...]]:
    """Return what a graph depends on of a batch, and the batch's tensors in the order of `named_leaves`.

    Args:
        batch: The batch.

    Returns:
        The parts by name, so that a dict whose keys come in another order is another batch, with the shapes, strides, types
        and places of the tensors; and the tensors.
    """
    x, y, weight = batch
    names: tuple[str, ...] | bool
    leaves: tuple[Tensor, ...]
    if type(x) is Tensor and weight is None and (y is None or type(y) is Tensor):
        names, leaves = y is None, (x,) if y is None else (x, y)
    else:
        named = list(named_leaves(batch, ""))
        names, leaves = tuple([name for name, _ in named]), tuple([leaf for _, leaf in named])
    tensors = [(leaf.shape, leaf.stride(), leaf.dtype, leaf.device, leaf.requires_grad) for leaf in leaves]
    return (names, *tensors), leaves


def _shapes(signature: Signature) -> Signature:
    # A slice of an array and a gather of its rows have different strides.
    return (signature[0], *[(shape, dtype) for shape, _, dtype, _, _ in signature[1:]])
