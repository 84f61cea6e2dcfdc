"""TracedUpdate: an optimizer's update as a graph of its own, for gradients that are summed before it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any

from torch import Tensor

from oncue import torch_private
from oncue.optimizers.graph_update import Update, graph_update
from oncue.training.graph.refusal import RefusalError, reason_of
from oncue.training.graph.step_function import Gradients, Outcome
from oncue.training.graph.traced_graph import Graph, Key, TracedGraph

if TYPE_CHECKING:
    from oncue.training.plan import Plan
    from oncue.training.trainer import Trainer

MOST_CHANGES = 4
"""How often something that a graph was made from may change before the update follows eagerly."""


class TracedUpdate:
    """Updates an optimizer's parameters from the gradients that they have, as a graph where it can be one.

    It is apart from forward and backward pass, which may be a graph on one process and eager on another, for another number of
    rows: the update is the same code everywhere, so that weights stay equal to the last bit.

    Args:
        model: A prepared model.
        plan: Its plan, with an optimizer that is built.
    """

    def __init__(self, model: Trainer, plan: Plan) -> None:
        self.refusal: str | None = None
        """Why the update isn't compiled, or None."""
        self._model, self._plan, self._optimizer = model, plan, plan.optimizer
        self._alone = False
        self._agree: Callable[[bool], bool] = bool
        self._settings: list[Any] = []
        self._graphs: dict[Hashable, TracedGraph] = {}
        self._compiled: dict[Key, Graph] = {}
        # How often something that graphs were made from has changed in this pass.
        self._changes = 0
        self._update = graph_update(self._optimizer)

    def begin(self, alone: bool, agree: Callable[[bool], bool]) -> None:
        """Begin a pass.

        Args:
            alone: Whether no user code runs between the batches.
            agree: From whether this process can't compile to whether any can't; called by all processes at once.
        """
        self._alone, self._agree = alone, agree
        self._set_otherwise()
        self._take_up()
        self._drop_changed()
        self._changes = 0

    def end(self) -> None:
        """End a pass: user code may run from here on."""
        if self._update is not None:
            self._update.end()
        self._alone = False

    def __call__(self) -> None:
        """Make an update."""
        if not self._alone:
            if self._set_otherwise():
                self._take_up()
            self._drop_changed()
        update = self._update
        if update is None:
            self._optimizer.step()
            return
        gradients = [parameter.grad for parameter in update.weights]
        key = (update.phase(), *[gradient is None for gradient in gradients])
        update.before()
        if key not in self._graphs and not self._make(key, update, gradients):
            self._optimizer.step()
            return
        self._graphs[key](*[gradient for gradient in gradients if gradient is not None])
        update.after()
        if not self._alone:
            update.between()

    def _set_otherwise(self) -> bool:
        before, self._settings = self._settings, self._optimizer._watched()
        return len(before) != len(self._settings) or not all(map(is_, before, self._settings))

    def _take_up(self) -> None:
        """Read what may have been set from outside; what the graphs were traced from may be another."""
        update = self._update
        if update is not None and not update.is_current():
            update.end()
            self._graphs, self._update, self.refusal = {}, graph_update(self._optimizer), None
        if self._update is not None:
            self._update.begin()

    def _drop_changed(self) -> None:
        """Let the next update be traced again where values have changed that code of the user's reads in it."""
        if self._update is not None and self._update.asks:
            changed = [key for key, graph in self._graphs.items() if graph.changed()]
            for key in changed:
                del self._graphs[key]
            self._changes += bool(changed)

    def _make(self, key: Hashable, update: Update, gradients: Gradients) -> bool:
        """Make a graph, on all processes or on none; return whether there is one."""
        reason = None
        try:
            if self._changes > MOST_CHANGES:
                raise RefusalError("what it depends on kept changing, so that it would be made again and again")
            function = UpdateFunction(self._model, self._plan, update, [gradient is not None for gradient in gradients])
            given = [gradient for gradient in gradients if gradient is not None]
            self._graphs[key] = TracedGraph(function, given, self._plan.graphs.compiler, self._compiled, None)
        except Exception as error:
            reason = reason_of(error)
        if self._agree(reason is not None):
            self.refusal = reason or "another process can't compile it"
            update.end()
            self._graphs, self._update = {}, None
            return False
        if self._optimizer._inner is not None:
            torch_private.count_as_stepped(self._optimizer._inner)
        return True


class UpdateFunction:
    """An update by gradients that are there, as a function that can be run eagerly and be traced.

    Args:
        model: A prepared model.
        plan: Its plan.
        update: The optimizer's update.
        present: Which of the optimizer's parameters have a gradient.
    """

    kind = "train"
    rest = None

    def __init__(self, model: Trainer, plan: Plan, update: Update, present: Sequence[bool]) -> None:
        self.model, self.plan, self.update, self._present = model, plan, update, present

    @property
    def parameters(self) -> list[Tensor]:
        """What the optimizer updates."""
        return self.update.weights

    @property
    def owners(self) -> list[Any]:
        """Whatever has code of the user's that the update runs."""
        return [*self.update.asks]

    def run(self, leaves: Sequence[Tensor], derive: Callable[[Tensor], Gradients], update: bool) -> Outcome:
        """Do the update.

        Args:
            leaves: The gradients that there are.
            derive: Isn't needed: they are there.
            update: Whether to update the weights; without it they only get their gradients.
        """
        given = iter(leaves)
        gradients: Gradients = [next(given) if present else None for present in self._present]
        if update:
            self.update.apply(gradients)
        else:
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
        return Outcome([], None, [], gradients)
