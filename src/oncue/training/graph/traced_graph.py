"""TracedGraph: a step as a function of its whole state, traced once, tried beside the step itself, and compiled."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from operator import is_, itemgetter
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from oncue import backend, torch_private
from oncue.core.builtin import is_builtin
from oncue.core.warn import warn
from oncue.layers.trial import Trial
from oncue.metrics.state import MetricVariable
from oncue.random_state import rewinder
from oncue.training.graph.convolutions import keep_gradients_as_stored
from oncue.training.graph.operations import LARGE_CONSTANT, Finding, Standing, same_values
from oncue.training.graph.outside import Outside
from oncue.training.graph.recorded import Recorder, Recording
from oncue.training.graph.refusal import RefusalError, reason_of
from oncue.training.graph.shared_rows import send_early
from oncue.training.graph.step_function import Gradients, Outcome
from oncue.training.graph.watched import Watched
from oncue.training.layer_states import begin_states

if TYPE_CHECKING:
    from oncue.training.graph.step_function import StepFunction
    from oncue.training.graph.traced_update import UpdateFunction
    from oncue.training.trainer import Trainer

Graph = Callable[..., Sequence[Tensor]]
Key = tuple[Any, ...]
Compiler = Callable[[torch.fx.GraphModule, Sequence[Tensor], torch.device], Graph]

MOST_NODES = 8000
"""A graph of more operations takes minutes to compile."""

_ROUNDING = 1e-4
"""By how much of its largest number a tensor may differ between the step and its trace: both run the same kernels."""
_COMPILED_ROUNDING = 2e-2
"""The same of what the compiled graph gives, whose sums are added up in another order."""
_HALF = (torch.float16, torch.bfloat16)


class TracedGraph:
    """A step as one graph: called with all tensors that it reads and changes, and with the tensors of a batch.

    Before it is used, the batch runs once as Python code, and once through the graph, on copies of the state and with equal
    random numbers. Where both don't come to the same, the step isn't what the graph says, and is refused.

    Args:
        function: The step, or an optimizer's update alone.
        leaves: The tensors of a batch.
        compiler: Compiles what was traced.
        compiled: Gets what was compiled, by what it was compiled from; a graph that is there already isn't compiled again.
        record: Records graphs, as `Recording` takes it; None to run them each time.

    Raises:
        RefusalError: When the step can't be a graph.
        Exception: Whatever the step's code raises while it is traced, and the compiler.
    """

    def __init__(
        self,
        function: StepFunction | UpdateFunction,
        leaves: Sequence[Tensor],
        compiler: Compiler,
        compiled: dict[Key, Graph],
        record: Recorder | None,
    ) -> None:
        began = perf_counter()
        self.function = function
        self.state: list[Tensor] = []
        """The tensors that the graph gets besides those of a batch; it changes some of them in place."""
        self._names = _names_of(function)
        self._record = record
        self._recorded: Recording | None = None
        # Whether the recording was seen to be on the memory of the state as it is now.
        self._looked = False
        # Several steps in one recording, and how many batches are there for it.
        self._together: Recording | None = None
        self._gathered = 0
        self._compiler, self._compiled = compiler, compiled
        self._device = function.model.device
        self._settings = _settings(self._device)
        with torch_private.sources_forgotten():
            self._graph = self._made(list(leaves))
        self._watched = self._watch()
        self._updated = self._tensors_of_update()
        numbers = None if function.update is None else function.update.numbers
        # The places in the state of what is another in each step, besides the batch.
        self._of_each = [place for place, tensor in enumerate(self.state) if tensor is numbers]
        self._with_gradients = [tensor for tensor in self.state if tensor.requires_grad]
        self.seconds = perf_counter() - began
        """How long it took to make."""

    def __call__(self, *leaves: Tensor) -> Sequence[Tensor]:
        """Run the step on the tensors of a batch, and return what it gives to what follows it."""
        with torch.no_grad():
            if not self._is_recorded():
                # Its memory can be that of the one that takes its place.
                self._recorded = self._together = None
                found = self._graph(*self.state, *leaves)
                if not self._looked:
                    self._recorded, self._looked = self._recording(leaves), True
                return found
            assert self._recorded is not None
            return self._recorded(*leaves)

    def _is_recorded(self) -> bool:
        """Look whether there is a recording, and it is on the memory that there is now."""
        if self._recorded is None:
            return False
        self._looked = self._looked or self._recorded.is_on(self.state)
        return self._looked

    def gather(self, steps: int, *leaves: Tensor) -> Sequence[Tensor]:
        """Take the batch of a step, and run that many steps as one as soon as there are batches for them.

        Where graphs aren't recorded, and at first, the step is run at once.

        Args:
            steps: How many steps are one.
            *leaves: The tensors of the batch.

        Returns:
            Nothing of use: only a step that gives nothing to what follows it can wait.
        """
        if not self._is_recorded():
            return self(*leaves)
        together = self._together
        if together is None or together.count != steps:
            self.finish()
            together = self._together = self._recording(leaves, self._of_each, steps)
            if together is None:
                return self(*leaves)
        together.write(self._gathered, [*(self.state[place] for place in self._of_each), *leaves])
        self._gathered += 1
        if self._gathered == steps:
            self._gathered = 0
            together.replay()
        return ()

    def finish(self) -> None:
        """Run the steps one by one whose batches were gathered, and are too few to be run as one."""
        count, self._gathered = self._gathered, 0
        for number in range(count):
            assert self._together is not None
            own = self._together.read(number)
            for place, tensor in zip(self._of_each, own, strict=False):
                self.state[place].copy_(tensor)
            self(*own[len(self._of_each) :])

    def changed(self) -> bool:
        """Return whether what the graph was made from has changed; after that, recordings are looked at again."""
        self._looked = False
        updated = self._tensors_of_update()
        return (
            _settings(self._device) != self._settings
            or torch_private.hooks_of_all_modules()
            or torch_private.any_hooks(self._with_gradients)
            or len(updated) != len(self._updated)
            or not all(map(is_, updated, self._updated))
            or (self._watched.changed() is not None)
        )

    def _watch(self) -> Watched:
        """Look at what the step could read, as it is now."""
        return Watched(self.function.owners, self.function.model.of_other_layers)

    def _tensors_of_update(self) -> list[Tensor]:
        return [] if self.function.update is None else self.function.update.tensors

    # Making ----------------------------------------------------------------------------------------------------------

    def _made(self, leaves: list[Tensor]) -> Graph:
        function = self.function
        model, plan = function.model, function.plan
        modules = self._watch().modules
        _refuse_hooks(model, modules)
        losses = [] if plan.losses is None else [part.loss for part in plan.losses.parts]
        metrics = [] if function.kind == "predict" else [metric for _, metric in plan.named_metrics(model)]
        # Ours have nothing but variables, which are put back as all tensors are.
        sums = [(metric, metric.get_state()) for metric in metrics if not is_builtin(type(metric))]
        flushes = _flushes_denormals()
        rewind, held = rewinder(), [*modules, *losses]
        trial = partial(self._as_before, held, rewind)
        try:
            begin_states(model, trial, lambda: self._only_run(_copied(leaves)))
            run = self._tried(leaves, held, rewind)
            self._list_state(run.found)
            with trial():
                traced, outcome = self._trace(leaves)
            stepwise = self._once(traced, leaves, trial, run)
            self._compare(run, _outcome_like(outcome, stepwise.given), stepwise.state, _has_halves(traced))
            if function.kind == "train" and function.update is not None:
                function.update.report_missing(run.outcome.gradients)
            traced, inputs = _trimmed(traced, len(outcome.needed)), [*self.state, *leaves]
            key = _key(traced, inputs)
            if key in self._compiled:
                return self._compiled[key]
            graph = self._compiler(traced, inputs, model.device)
            self._compare_compiled(stepwise, self._once(graph, leaves, trial, run))
            self._compiled[key] = graph
        finally:
            for metric, state in sums:
                metric.set_state(state)
            if _flushes_denormals() != flushes:
                # Code that was compiled with `-ffast-math` sets it for the whole thread as soon as it is loaded, and eager
                # numbers after it would be others than before.
                torch.set_flush_denormal(flushes)
        return graph

    @contextmanager
    def _as_before(self, owners: Sequence[Any], rewind: Callable[[], None]) -> Iterator[None]:
        """Enclose a run of which nothing is to stay: not what modules and losses hold, and no random numbers drawn."""
        try:
            with torch.no_grad(), Trial(*owners):
                yield
        finally:
            rewind()

    def _only_run(self, leaves: list[Tensor]) -> None:
        with Finding(leaves) as finding:
            self.function.run(leaves, lambda loss: [], update=False)
        finding.put_back()

    def _tried(self, leaves: list[Tensor], held: Sequence[Any], rewind: Callable[[], None]) -> _Run:
        """Run the step, and once more where it changed Python values.

        What a first call makes and a second one leaves alone, a mask say, is kept: it is what the first batch would have made,
        so that all batches run in the graph, those of a resumed run, too.
        """
        function = self.function
        before = self._watch()
        if before.unseen is not None:
            raise RefusalError(before.unseen)
        weights = _identities(function.model.parameters())
        try:
            with self._as_before(held, lambda: None):
                run = self._run(_copied(leaves))
                written = before.changed()
                after = before if written is None else self._watch()
        except BaseException:
            if _identities(function.model.parameters()) == weights:
                before.put_back()
            raise
        finally:
            # The trial keeps a layer that is built, and the random numbers that its weights took.
            built = _identities(function.model.parameters()) != weights
            if not built:
                rewind()
        if written is None and run.outside is None:
            return run
        if built and written is not None:
            raise RefusalError(
                f"a layer is built in the middle of training, which changes {written} (call the model with all of its layers "
                "before `fit`, or make their weights in `__init__`)"
            )
        first, refusal = run, "it failed"
        try:
            after.put_back()
            with self._as_before(held, rewind):
                run = self._run(_copied(leaves))
                written_twice = after.changed() is not None
            refusal = run.outside or ""
            if not refusal and (written_twice or not _is_same_run(first, run)):
                refusal = (
                    f"each step changes {written or 'its result'}, which a graph would change once (keep it as a buffer that "
                    "is changed in place, or return it)"
                )
        finally:
            if refusal:
                before.put_back()
        if refusal:
            raise RefusalError(refusal)
        return run

    def _run(self, leaves: list[Tensor]) -> _Run:
        """Run the step without its update."""
        function = self.function
        parameters = function.parameters
        kept = [(parameter, parameter.grad) for parameter in parameters]
        for parameter in parameters:
            # Before the forward pass, as an eager step does: what that pass itself derives adds to the gradients.
            parameter.grad = None

        def derive(loss: Tensor) -> Gradients:
            if loss.requires_grad:
                loss.backward()  # type: ignore[no-untyped-call]
            return [parameter.grad for parameter in parameters]

        drawn = _python_generators()
        found: dict[int, Tensor] = {}
        changed: dict[int, Tensor] = {}
        try:
            with _seen(leaves, found, changed) as outside:
                outcome = function.run(leaves, derive, update=False)
            for parameter in parameters:
                if id(parameter) in changed:
                    raise RefusalError(f"the forward pass itself changes {self._name(parameter)}")
            did = outside.seen
            if function.update is not None and function.update.asks:
                given = [gradient for gradient in outcome.gradients if gradient is not None]
                outcome = outcome._replace(
                    gradients=[None if one is None else one.clone() for one in outcome.gradients]
                )
                own: dict[int, Tensor] = {}
                with _seen(given, found, own) as outside:
                    function.update.step()
                changed.update(own)
                others = own.keys() - _identities(self._tensors_of_update()) if function.update.undoes else ()
                for key in others:
                    raise RefusalError(
                        f"the update changes {self._name(found[key])}, which isn't undone after a gradient that is "
                        "not finite (make it in `build`, by `add_variable`)"
                    )
                did = did or outside.seen
        finally:
            for parameter, gradient in kept:
                parameter.grad = gradient
        if _python_generators() != drawn:
            raise RefusalError("each step draws random numbers of Python or NumPy, which a graph would draw once")
        return _Run(found, changed, outcome, torch.get_rng_state(), did)

    def _list_state(self, found: dict[int, Tensor]) -> None:
        function = self.function
        state = found | {id(tensor): tensor for tensor in (*function.parameters, *self._tensors_of_update())}
        if function.kind == "train":
            known = _identities(function.parameters)
            for key, tensor in state.items():
                if tensor.requires_grad and not tensor.is_leaf and key not in known:
                    raise RefusalError(
                        f"it uses a tensor of shape {tuple(tensor.shape)} that was computed from weights before the step, "
                        "or by `torch.func`"
                    )
        self.state = list(state.values())

    def _trace(self, leaves: list[Tensor]) -> tuple[torch.fx.GraphModule, Outcome]:
        function, state = self.function, self.state
        parameters = function.parameters
        outcomes: list[Outcome] = []

        def flat(*inputs: Tensor) -> list[Tensor]:
            table = {id(tensor): given for tensor, given in zip(state, inputs, strict=False)}
            for tensor in state:
                # One that isn't trained may still be asked for its gradient, which goes nowhere.
                if tensor.requires_grad:
                    table[id(tensor)] = table[id(tensor)].detach().requires_grad_()
            plain = dict(zip(map(id, state), inputs, strict=False))

            def derive(loss: Tensor) -> Gradients:
                wanted = [table[id(parameter)] for parameter in parameters]
                asked = [leaf for leaf in wanted if leaf.requires_grad]
                given = iter(
                    torch.autograd.grad(loss, asked, allow_unused=True) if loss.requires_grad and asked else ()
                )
                gradients = [next(given, None) if leaf.requires_grad else None for leaf in wanted]
                table.update(plain)
                return gradients

            with Standing(table):
                outcome = function.run(inputs[len(state) :], derive, update=True)
            outcomes.append(outcome)
            return _flattened(outcome)

        given = [tensor.detach() for tensor in (*state, *leaves)]
        traced = torch_private.traced(flat, given)
        _drop_detached(traced)
        keep_gradients_as_stored(traced)
        traced.meta["is_in_order"] = send_early(traced.graph)
        nodes = len(traced.graph.nodes)
        if nodes > MOST_NODES:
            raise RefusalError(
                f"its graph has {nodes:,} operations (of more than {MOST_NODES:,}, compiling takes longer than it saves)"
            )
        for node in traced.graph.nodes:
            if node.op == "get_attr" and (constant := getattr(traced, node.target)).nbytes > LARGE_CONSTANT:
                raise RefusalError(
                    f"it makes a tensor of shape {tuple(constant.shape)} from other values than tensors, which would be "
                    "fixed (keep it as a buffer: `self.register_buffer(name, tensor)`)"
                )
        self._drop_unused(traced)
        _refuse_shared_memory(self.state)
        return traced, outcomes[-1]

    def _drop_unused(self, traced: torch.fx.GraphModule) -> None:
        """Drop what the trace doesn't use from the state, and from what it takes."""
        nodes = [node for node in traced.graph.nodes if node.op == "placeholder"][: len(self.state)]
        self.state = [tensor for tensor, node in zip(self.state, nodes, strict=True) if node.users]
        for node in nodes:
            if not node.users:
                traced.graph.erase_node(node)
        traced.recompile()

    # Trying ----------------------------------------------------------------------------------------------------------

    def _once(self, graph: Graph, leaves: Sequence[Tensor], trial: Callable[[], Any], run: _Run) -> _Results:
        """Run a graph on copies of the state and the batch."""
        with trial():
            state = [tensor.detach().clone() for tensor in self.state]
            given = list(graph(*state, *_copied(leaves)))
            if not torch.equal(torch.get_rng_state(), run.drawn):
                raise RefusalError(
                    "each step seeds torch's generator, or draws from it, in another way than a graph would"
                )
        return _Results(given, state)

    def _compare(self, run: _Run, given: Outcome, state: list[Tensor], halves: bool) -> None:
        """Refuse a graph that doesn't come to what the step itself came to."""
        expected, names = run.outcome, map(self._name, self.function.parameters)
        gradients = list(zip(names, expected.gradients, given.gradients, strict=False))
        lost = [name for name, one, other in gradients if (one is None) != (other is None)]
        if lost:
            raise RefusalError(f"the gradient of {lost[0]} gets lost in a graph")
        unseen = set(run.changed) - _identities(self.state)
        if unseen:
            name = self._name(run.found[unseen.pop()])
            raise RefusalError(f"each step changes {name}, which a graph would leave alone")
        pairs: list[tuple[str, Tensor, Tensor]] = []
        if expected.loss is not None and given.loss is not None:
            pairs.append(("the loss", expected.loss, given.loss))
        pairs += [("an output", *both) for both in zip(expected.outputs, given.outputs, strict=False)]
        updated = _identities(self._tensors_of_update())
        both = [
            (tensor, run.changed.get(id(tensor), tensor.detach()), copy)
            for tensor, copy in zip(self.state, state, strict=True)
        ]
        pairs += [(self._name(tensor), one, other) for tensor, one, other in both if id(tensor) not in updated]
        update, moved = self.function.update, [each for each in both if id(each[0]) in updated]
        if update is not None and update.asks and _is_otherwise(moved, 0.01):
            raise RefusalError("the update of the optimizer comes to other weights in a graph than by itself")
        derived = [
            (f"the gradient of {name}", one, other)
            for name, one, other in gradients
            if one is not None and other is not None
        ]
        rounding = _COMPILED_ROUNDING if halves else _ROUNDING
        # That of a bias before a normalization is nothing but the rounding of all others.
        largest = max([0.0, *[_size(one) for _, one, _ in derived]])
        for among, alike in ((0.0, pairs), (largest, derived)):
            for name, one, other in alike:
                if not _close(one, other, rounding, among, exact=True):
                    raise RefusalError(f"{name} comes out as other numbers in a graph than from the step itself")

    def _compare_compiled(self, stepwise: _Results, compiled: _Results) -> None:
        """Refuse a compiled graph that doesn't come to what its operations do one by one.

        Of the update, all weights together count. Each number by itself may well differ: Adam makes a whole step of a gradient
        that is nothing but rounding.
        """
        updated = _identities(self._tensors_of_update())
        largest = max([0.0, *map(_size, stepwise.given[: len(compiled.given)])])
        pairs = [("a result", *both, largest) for both in zip(stepwise.given, compiled.given, strict=False)]
        both = list(zip(self.state, stepwise.state, compiled.state, strict=True))
        pairs += [(self._name(tensor), one, other, 0.0) for tensor, one, other in both if id(tensor) not in updated]
        if _is_otherwise([each for each in both if id(each[0]) in updated], 0.25):
            raise RefusalError("the compiled graph comes to other weights than its operations one by one")
        for name, one, other, among in pairs:
            if not _close(one, other, _COMPILED_ROUNDING, among, exact=False):
                raise RefusalError(f"{name} comes out as other numbers in the compiled graph than from its operations")

    def _name(self, tensor: Tensor) -> str:
        return self._names.get(id(tensor), f"a tensor of shape {tuple(tensor.shape)}")

    # Recording -------------------------------------------------------------------------------------------------------

    def _recording(self, leaves: Sequence[Tensor], of_each: Sequence[int] = (), steps: int = 1) -> Recording | None:
        """Return a recording of a step, or of several; None where there can't be one."""
        if self._record is None:
            return None
        try:
            with torch.no_grad():
                return Recording(self._graph, self.state, leaves, self._record, of_each, steps)
        except RuntimeError as error:
            # From here on a recording of a single step isn't replayed, either, so that this is said once.
            self._record = self._recorded = None
            warn(f"The compiled step runs without CUDA graphs: {reason_of(error)}.")
            return None


class _Run(NamedTuple):
    """A run of the step as Python code."""

    found: dict[int, Tensor]
    """The tensors that it used."""
    changed: dict[int, Tensor]
    """What it changed them to."""
    outcome: Outcome
    drawn: Tensor
    """Where torch's generator was after it."""
    outside: str | None
    """What it did that a graph can't, as a reason to refuse it; None for nothing."""


class _Results(NamedTuple):
    """A run of a graph."""

    given: list[Tensor]
    """What it gave."""
    state: list[Tensor]
    """What it changed the state to."""


def _is_same_run(one: _Run, other: _Run) -> bool:
    """Return whether two runs on the same batch came to the same."""
    if one.changed.keys() != other.changed.keys():
        return False
    pairs = [(one.drawn, other.drawn), *[(value, other.changed[key]) for key, value in one.changed.items()]]
    outcomes = _flattened(one.outcome), _flattened(other.outcome)
    if len(outcomes[0]) != len(outcomes[1]):
        return False
    pairs += zip(*outcomes, strict=True)
    return all(a.shape == b.shape and same_values(a.detach(), b.detach()) for a, b in pairs)


def _identities(tensors: Iterable[Tensor]) -> set[int]:
    return set(map(id, tensors))


def _settings(device: torch.device) -> tuple[Any, ...]:
    """Return what torch and oncue were told to compute differently in what follows."""
    kind = device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    # Asking for the default device itself takes four times as long.
    types = autocast, torch.get_default_dtype(), torch.empty(0).device, backend.floatx()
    # Compiled and recorded kernels have it in them.
    products: tuple[Any, ...] = ()
    if kind == "cuda":
        cudnn: Any = torch.backends.cudnn
        kinds = torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn
        products = cudnn.enabled, *[each.fp32_precision for each in kinds]
    return *types, products, torch.are_deterministic_algorithms_enabled(), backend.epsilon()


def _copied(leaves: Sequence[Tensor]) -> list[Tensor]:
    """Return copies of a batch's tensors, which a step may write to."""
    return [leaf.detach().clone().requires_grad_(leaf.requires_grad) for leaf in leaves]


def _flattened(outcome: Outcome) -> list[Tensor]:
    loss = [] if outcome.loss is None else [outcome.loss]
    gradients = [gradient for gradient in outcome.gradients if gradient is not None]
    return [*outcome.needed, *loss, *outcome.outputs, *gradients]


def _outcome_like(outcome: Outcome, given: Sequence[Tensor]) -> Outcome:
    rest = iter(given)
    needed = [next(rest) for _ in outcome.needed]
    loss = None if outcome.loss is None else next(rest)
    outputs = [next(rest) for _ in outcome.outputs]
    return Outcome(needed, loss, outputs, [None if one is None else next(rest) for one in outcome.gradients])


def _trimmed(traced: torch.fx.GraphModule, needed: int) -> torch.fx.GraphModule:
    """Return a graph that gives only its first results."""
    output = next(node for node in traced.graph.nodes if node.op == "output")
    output.args = (list(output.args[0])[:needed],)
    traced.graph.lint()
    traced.recompile()
    return traced


def _drop_detached(traced: torch.fx.GraphModule) -> None:
    """Drop what only the trace needed: which weights are trained decides nothing in a graph that evaluates."""
    for node in traced.graph.find_nodes(op="call_function", target=torch.ops.aten.detach.default):
        node.replace_all_uses_with(node.args[0])
        traced.graph.erase_node(node)


def _key(traced: torch.fx.GraphModule, inputs: Sequence[Tensor]) -> Key:
    """Return what a compiled graph depends on: operations, constants, and what it is called with."""
    names = [str(node.target) for node in traced.graph.nodes if node.op == "get_attr"]
    constants = [(name, repr(getattr(traced, name).tolist())) for name in names]
    places = [(tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in inputs]
    return traced.code, tuple(constants), tuple(places)


def _has_halves(traced: torch.fx.GraphModule) -> bool:
    """Return whether something is computed in 16 bits, which rounds otherwise in other kernels."""
    results = (node.meta.get("val") for node in traced.graph.nodes)
    return any(isinstance(result, Tensor) and result.dtype in _HALF for result in results)


def _size(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _close(one: Tensor, other: Tensor, rounding: float, among: float, *, exact: bool) -> bool:
    """Return whether two tensors are the same up to rounding, where the largest of those like them is `among`.

    Numbers that aren't floats, such as the largest of scores, are to be the same where `exact` is True.
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not (one.is_floating_point() or one.is_complex()):
        return not exact or torch.equal(one, other)
    if one.numel() == 0:
        return True
    finite = one.isfinite()
    if not torch.equal(finite, other.isfinite()):
        return False
    one, other = one[finite].double(), other[finite].double()
    if one.numel() == 0:
        return True
    return bool((one - other).abs().max() <= rounding * one.abs().max() + 1e-7 + 1e-5 * among)


def _is_otherwise(both: Iterable[tuple[Tensor, Tensor, Tensor]], part: float) -> bool:
    """Return whether tensors, each with what it was changed to in two ways, were changed otherwise by more than a part."""
    moved, apart = 0.0, 0.0
    for tensors in both:
        if tensors[0].is_floating_point():
            # A batch that makes them infinite does so both ways.
            before, one, other = [each.detach().double().nan_to_num(0.0, 0.0, 0.0) for each in tensors]
            moved += float((one - before).square().sum())
            apart += float((one - other).square().sum())
    return not apart <= part * moved + 1e-12


@contextmanager
def _seen(leaves: Iterable[Tensor], found: dict[int, Tensor], changed: dict[int, Tensor]) -> Iterator[Outside]:
    """Note the tensors that code uses, besides some, and what it changes them to; afterwards they are as before."""
    finding = Finding(leaves)
    try:
        with finding, Outside() as outside:
            yield outside
    finally:
        found.update(finding.found)
        changed.update(finding.put_back())


def _python_generators() -> Any:
    name, words, *rest = np.random.get_state(legacy=True)
    return random.getstate(), name, np.asarray(words).tobytes(), rest


def _flushes_denormals() -> bool:
    return math.ulp(0.0) * 1.0 == 0.0


def _refuse_hooks(model: Trainer, modules: Iterable[torch.nn.Module]) -> None:
    if torch_private.hooks_of_all_modules():
        raise RefusalError("there are hooks of all modules, which a graph would call once")
    names = {id(module): name for name, module in model.named_modules()}
    for module in modules:
        name = names.get(id(module)) or type(module).__name__
        if torch_private.has_hooks(module):
            raise RefusalError(f"`{name}` has hooks, which a graph would call once")
        for own, parameter in module.named_parameters(recurse=False):
            if torch_private.any_hooks([parameter]):
                raise RefusalError(f"the weight `{name}.{own}` has hooks, which a graph would not call")


def _refuse_shared_memory(state: Sequence[Tensor]) -> None:
    """Refuse tensors that share memory: a compiler takes each for the only one that it changes."""
    places: dict[int, list[tuple[int, int, Tensor]]] = {}
    for tensor in state:
        if tensor.layout is torch.strided and tensor.numel():
            items = 1 + sum([(size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True)])
            first = tensor.data_ptr()
            place = (first, first + items * tensor.element_size(), tensor)
            places.setdefault(tensor.untyped_storage().data_ptr(), []).append(place)
    for ranges in places.values():
        ranges.sort(key=itemgetter(0))
        for (_, end, one), (start, _, other) in pairwise(ranges):
            if start < end:
                raise RefusalError(
                    f"two of its tensors, of shapes {tuple(one.shape)} and {tuple(other.shape)}, share memory"
                )


def _names_of(function: StepFunction | UpdateFunction) -> dict[int, str]:
    model, plan = function.model, function.plan
    names: dict[int, str] = {}
    if function.kind != "predict":
        for name, metric in plan.named_metrics(model):
            names |= {
                id(variable._tensor): f"`{variable.name}` of the metric `{name}`"
                for variable in metric.variables
                if isinstance(variable, MetricVariable)
            }
    names |= {id(buffer): f"the buffer `{name}`" for name, buffer in model.named_buffers()}
    return names | {id(parameter): f"the weight `{name}`" for name, parameter in model.named_parameters()}
