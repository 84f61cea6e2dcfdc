"""TracedUpdate: an optimizer's update as a graph of its own, for gradients that are summed before it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from oncue import torch_private
from oncue.optimizers.graph_update import Update, graph_update
from oncue.training.graph.operations import Standing
from oncue.training.graph.refusal import RefusalError
from oncue.training.graph.traced_graph import is_otherwise, pruned

if TYPE_CHECKING:
    from oncue.optimizers import Optimizer

Graph = Callable[..., Sequence[Tensor]]


class TracedUpdate:
    """Updates an optimizer's parameters from the gradients that they have, as a graph where it can be one.

    It is apart from forward and backward pass, which may be a graph on one process and eager on another, for another number of
    rows: the update is the same code everywhere, so that weights stay equal to the last bit.

    Args:
        optimizer: An optimizer that is built.
        compiler: Compiles what was traced.
    """

    def __init__(
        self, optimizer: Optimizer, compiler: Callable[[torch.fx.GraphModule, Sequence[Tensor], torch.device], Graph]
    ) -> None:
        self.refusal: str | None = None
        """Why the update isn't compiled, or None."""
        self._optimizer, self._compiler = optimizer, compiler
        self._alone = False
        self._agree: Callable[[bool], bool] = bool
        self._settings: list[Any] = []
        self._graphs: dict[Hashable, tuple[Graph, list[int]]] = {}
        self._state: list[Tensor] = []
        self._update = _update_of(optimizer)

    def begin(self, alone: bool, agree: Callable[[bool], bool]) -> None:
        """Begin a pass.

        Args:
            alone: Whether no user code runs between the batches.
            agree: From whether this process can't compile to whether any can't; called by all processes at once.
        """
        self._alone, self._agree = alone, agree
        self._set_otherwise()
        self._take_up()

    def end(self) -> None:
        """End a pass: user code may run from here on."""
        if self._update is not None:
            self._update.end()
        self._alone = False

    def __call__(self) -> None:
        """Make an update."""
        if not self._alone and self._set_otherwise():
            self._take_up()
        update = self._update
        if update is None:
            self._optimizer.step()
            return
        gradients = [parameter.grad for parameter in update.weights]
        given = [gradient for gradient in gradients if gradient is not None]
        key = (update.phase(), *[gradient is None for gradient in gradients])
        update.before()
        if key not in self._graphs and not self._make(key, gradients):
            self._optimizer.step()
            return
        graph, places = self._graphs[key]
        with torch.no_grad():
            graph(*[self._state[place] for place in places], *given)
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
            self._graphs, self._update, self.refusal = {}, _update_of(self._optimizer), None
        if self._update is not None:
            self._update.begin()
            self._state = self._update.tensors

    def _make(self, key: Hashable, gradients: Sequence[Tensor | None]) -> bool:
        """Make a graph, on all processes or on none; return whether there is one."""
        update, reason = self._update, None
        assert update is not None
        try:
            self._graphs[key] = self._made(gradients)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        if self._agree(reason is not None):
            self.refusal = reason or "another process can't compile it"
            update.end()
            self._graphs, self._update = {}, None
            return False
        if self._optimizer._inner is not None:
            torch_private.count_as_stepped(self._optimizer._inner)
        update.report_missing(gradients)
        return True

    def _made(self, gradients: Sequence[Tensor | None]) -> tuple[Graph, list[int]]:
        update, state = self._update, self._state
        assert update is not None

        def flat(*inputs: Tensor) -> list[Tensor]:
            given = iter(inputs[len(state) :])
            with Standing(dict(zip(map(id, state), inputs, strict=False))):
                update.apply([None if gradient is None else next(given) for gradient in gradients])
            return []

        given = [gradient for gradient in gradients if gradient is not None]
        traced = torch_private.traced(flat, [tensor.detach() for tensor in (*state, *given)])
        places = pruned(traced, len(state))
        inputs = [*(state[place].detach() for place in places), *given]
        graph = self._compiler(traced, inputs, given[0].device)
        _compare(inputs, traced, graph)
        return graph, places


def _update_of(optimizer: Optimizer) -> Update | None:
    update = graph_update(optimizer)
    # Code of the user's would have to be tried beside the graph, and watched.
    return None if update is None or update.asks else update


@torch.no_grad()
def _compare(inputs: Sequence[Tensor], traced: Graph, graph: Graph) -> None:
    """Refuse a compiled update that doesn't come to what its operations do one by one."""
    stepwise, compiled = ([tensor.clone() for tensor in inputs] for _ in range(2))
    traced(*stepwise)
    graph(*compiled)
    if is_otherwise(zip(inputs, stepwise, compiled, strict=True), 0.25):
        raise RefusalError("the compiled update comes to other weights than its operations one by one")
