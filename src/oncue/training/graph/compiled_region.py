"""CompiledRegion: a function of a batch as one compiled graph, called without checks while nothing can have changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from oncue import torch_private
from oncue.core.warn import warn
from oncue.layers.lstm_in_graph import WholeLSTMs
from oncue.layers.quick_dropout import dropout_in_graph
from oncue.training.graph.recorded import RecordedGraph, Recorder
from oncue.training.graph.refusal import reason_of

Function = Callable[..., tuple[Tensor, ...]]

BACKEND = "inductor"
"""The compiler, by its name in torch; "eager" makes graphs quickly and runs them slowly, for tests."""


# torch's compiler knows these only step by step: a graph of thousands of operations, which takes it minutes.
_UNROLLED = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)


class CompiledRegion:
    """Calls a function of tensors through `torch.compile`, as one graph.

    Before each call torch checks all that the graph was made from: every module's mode, every attribute that the function
    read. For a small network that takes longer than the step. What was checked in one call still holds in the next,
    unless user code ran in between. So from the second call on the graph itself is called, with the tensors of
    the new batch in place of the old one's; and where such code does run in between, after a look at whether any
    attribute of the owners has got another value.

    Args:
        function: Takes the tensors of a batch, always of the same shapes and types, and returns a tuple of tensors. What
            else it uses, it finds by itself.
        options: Settings of torch's compiler, as `torch_private.compiler_options` gives them.
        owners: The objects whose attributes the function reads or sets. A function that sets some at every call (a
            counter, say) is always called with all checks, because the graph alone wouldn't set them.
        check: Called with the tensors that a graph is about to get, in calls with all checks; it raises to refuse.
        follow: Called before each call with all checks, to take tensors that have replaced others.
        record: Records graphs, as `RecordedGraph` takes it; then what a call returns is overwritten by the next one. None
            to run them each time.

    Example:
        >>> double = CompiledRegion(lambda x: (x * 2,), {}, [])
        >>> double(torch.ones(2))
        (tensor([2., 2.]),)
    """

    def __init__(
        self,
        function: Function,
        options: dict[str, Any],
        owners: Iterable[Any],
        check: Callable[[Sequence[Tensor]], None] | None = None,
        follow: Callable[[], None] | None = None,
        record: Recorder | None = None,
    ) -> None:
        self.alone = False
        """Whether nothing but calls of this region happens between one call and the next."""
        self.graphs = 0
        """How many graphs were made: one, unless what a graph was made from has changed."""
        self.ran = False
        """Whether the graph of the last call with all checks began to run."""
        self.direct_calls = 0
        """How many calls went to the graph itself."""
        self.seconds = 0.0
        """How long the calls took in which graphs were made."""
        self._options, self._check, self._follow = options, check, follow
        self._owners = list(owners)
        self._lstms = WholeLSTMs(self._owners)
        # The compiler keeps its graphs with a function's code, and only a few for each: those of one model must not
        # count against those of another.
        code = function.__code__.replace()
        own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
        self._checked = torch.compile(own, fullgraph=True, dynamic=False, backend=self._compile)
        self._graph: Callable[..., Sequence[Tensor]] | None = None
        self._inputs: list[Tensor] = []
        self._outputs: Sequence[Tensor] = ()
        # Where the batch's tensors are among the graph's inputs, and the function's results among its outputs.
        self._places: list[tuple[int, int]] = []
        self._results: list[int] | None = None
        self._attributes: list[list[int]] = []
        self._held: list[list[Any]] = []
        self._record = record
        self._recorded: RecordedGraph | None = None

    def __call__(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Call the function on the tensors of a batch.

        Raises:
            Exception: Whatever torch's compiler raises; `ran` tells whether anything was computed by then.
        """
        graph, results = self._graph, self._results
        if (
            graph is None
            or results is None
            or not (self.alone or self._attributes == torch_private.identities(self._owners))
        ):
            return self._call_checked(leaves)
        self.direct_calls += 1
        inputs = self._inputs
        for place, index in self._places:
            inputs[place] = leaves[index]
        outputs = graph(*inputs)
        return tuple([outputs[index] for index in results])

    def renew(self) -> None:
        """Have the next call checked, and release the last batch."""
        self._graph, self._results, self._inputs, self._outputs, self._held = None, None, [], (), []

    def _call_checked(self, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        made, self._graph, self._results, self.ran = self.graphs, None, None, False
        if self._follow is not None:
            self._follow()
        before, began, flushes = _python_state(self._owners), perf_counter(), _flushes_denormals()
        try:
            with torch_private.quiet_tracing(), self._lstms.put_in():
                results: tuple[Tensor, ...] = self._checked(*leaves)
        finally:
            if _flushes_denormals() != flushes:
                # Code that was compiled with `-ffast-math` sets it for the whole thread as soon as it is loaded, and eager
                # numbers after it would be others than before.
                torch.set_flush_denormal(flushes)
        if made != self.graphs:
            self.seconds += perf_counter() - began
        # The call that compiles runs the function's Python code as well, so that only the next one can be learnt from.
        if made == self.graphs and self._graph is not None and before == _python_state(self._owners):
            self._results = self._learn(leaves, results)
            self._attributes = torch_private.identities(self._owners)
            # As long as the values are held, no other can get the identity of one of them.
            self._held = [list(vars(owner).values()) for owner in self._owners]
            if self._record is not None and self._results is not None:
                self._put_recording(self._record)
        self._outputs = ()
        return results

    def _learn(self, leaves: tuple[Tensor, ...], results: tuple[Tensor, ...]) -> list[int] | None:
        if len({id(leaf) for leaf in leaves}) < len(leaves):
            # Two parts of the batch are one tensor here, and may be two in the next.
            return None
        places = {id(tensor): place for place, tensor in enumerate(self._inputs)}
        self._places = [(places[id(leaf)], index) for index, leaf in enumerate(leaves) if id(leaf) in places]
        outputs = {id(tensor): place for place, tensor in enumerate(self._outputs)}
        if any(id(result) not in outputs for result in results):
            return None
        return [outputs[id(result)] for result in results]

    def _put_recording(self, record: Recorder) -> None:
        assert self._graph is not None
        changing = [place for place, _ in self._places]
        recorded = self._recorded
        if recorded is None or not recorded.is_for(self._graph, self._inputs, changing):
            try:
                recorded = self._recorded = RecordedGraph(self._graph, self._inputs, changing, record)
            except RuntimeError as error:
                self._record, self._recorded = None, None
                warn(f"The compiled step runs without CUDA graphs: {reason_of(error)}.")
                return
        self._graph = recorded

    def _compile(self, module: torch.fx.GraphModule, example_inputs: list[Any]) -> Callable[..., Any]:
        _rewrite(module)
        graph = torch_private.compile_graph(BACKEND, module, example_inputs, self._options)
        within = torch_private.without_switch(graph)
        self.graphs += 1

        def call(*inputs: Tensor) -> Any:
            if self._check is not None:
                self._check(inputs)
            self.ran = True
            outputs = graph(*inputs)
            self._graph, self._inputs, self._outputs = within, list(inputs), outputs
            return outputs

        return call


def _flushes_denormals() -> bool:
    return math.ulp(0.0) * 1.0 == 0.0


def _rewrite(module: torch.fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if node.target in _UNROLLED:
            raise RuntimeError(f"`{node.target.__name__}` would be unrolled over all steps of its sequences")
        if node.target is torch.nn.functional.dropout:
            given = torch.fx.operator_schemas.normalize_function(
                node.target, node.args, node.kwargs, normalize_to_only_use_kwargs=True
            )
            arguments = {} if given is None else given.kwargs
            if arguments.get("training") is True and not arguments.get("inplace"):
                node.target, node.args, node.kwargs = dropout_in_graph, (arguments["input"], arguments["p"]), {}
    module.recompile()


def _python_state(owners: list[Any]) -> list[dict[str, Any]]:
    # Identities and lengths: numbers, strings and tensors that are replaced, containers that grow.
    return [
        {
            name: (id(value), len(value)) if isinstance(value, (list, dict, set)) else id(value)
            for name, value in vars(owner).items()
        }
        for owner in owners
    ]
