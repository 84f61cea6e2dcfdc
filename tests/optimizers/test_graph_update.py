"""An update in a graph: for which optimizers there is one, and that it comes to what an eager step does."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._inductor.utils import run_and_get_code
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from oncue import constraints, optimizers
from oncue.optimizers import SGD, Adam, AdamW, LossScaleOptimizer, Optimizer, TorchOptimizer
from oncue.optimizers.deferred_overflow_check import DeferredOverflowCheck
from oncue.optimizers.foreach import add_scaled_
from oncue.optimizers.graph_update import EachGraphUpdate, GraphUpdate, TorchGraphUpdate, graph_update
from oncue.optimizers.schedules import ExponentialDecay
from oncue.variable import Variable
from tests.helpers import to_numpy

OURS = ("SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "Nadam", "RMSprop")


def _built(optimizer: Optimizer) -> Optimizer:
    optimizer.build([torch.nn.Parameter(torch.ones(2))])
    return optimizer


@pytest.mark.parametrize("name", OURS)
def test_the_optimizers_of_keras_have_an_update_in_graphs(name: str) -> None:
    assert isinstance(graph_update(_built(getattr(optimizers, name)())), GraphUpdate)


@pytest.mark.parametrize(
    "kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop]
)
def test_the_usual_ones_of_torch_have_an_update_in_graphs(kind: Any) -> None:
    assert isinstance(graph_update(_built(TorchOptimizer(kind))), TorchGraphUpdate)


class Doubled(LossScaleOptimizer):
    """May do anything."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: Doubled(SGD()),
        lambda: LossScaleOptimizer(TorchOptimizer(torch.optim.SparseAdam)),
        lambda: LossScaleOptimizer(OwnStep()),
    ],
)
def test_other_loss_scaling_has_none(make: Callable[[], Optimizer]) -> None:
    assert graph_update(_built(make())) is None


class Renamed(Adam):
    """Adds nothing."""


class Halved(AdamW):
    def update_numbers(self, update: int, rate: float) -> dict[str, float]:
        return super().update_numbers(update, rate / 2)


class OtherArithmetic(SGD):
    def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(groups, lr=learning_rate)


class OwnStep(SGD):
    update_rule = staticmethod(SGD.update_rule)

    def step(self) -> None:
        super().step()


class OwnTorch(TorchOptimizer):
    def _update(self, inner: torch.optim.Optimizer, missing: list[torch.Tensor]) -> None:
        super()._update(inner, missing)


def test_a_subclass_that_overrides_no_arithmetic_has_that_of_its_parent() -> None:
    assert type(graph_update(_built(Renamed()))) is GraphUpdate


@pytest.mark.parametrize("optimizer", [Halved(), OtherArithmetic(), OwnStep(), OwnTorch(torch.optim.SGD)], ids=repr)
def test_other_subclasses_have_no_update_by_the_rule_of_their_parent(optimizer: Optimizer) -> None:
    assert graph_update(_built(optimizer)) is None


def test_where_a_class_is_defined_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OtherArithmetic, "__module__", "oncue.optimizers.adam")
    monkeypatch.setattr(Adam, "__module__", "elsewhere")
    assert graph_update(_built(OtherArithmetic())) is None
    assert isinstance(graph_update(_built(Adam())), GraphUpdate)


# The same numbers as eager steps ------------------------------------------------------------------------------------

SHAPES = [(3, 4), (4,), (2, 3)]
STEPS = 10
Make = Callable[[], Optimizer]


class _PutIn(TorchFunctionMode):
    """Puts other tensors in place of some, by identity."""

    def __init__(self, table: dict[int, Tensor]) -> None:
        super().__init__()
        self.table = table

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(self._other, (args, kwargs or {}))
        return function(*args, **kwargs)

    def _other(self, leaf: Any) -> Any:
        return self.table.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf


def _traced(update: GraphUpdate, gradients: Sequence[Tensor | None]) -> torch.fx.GraphModule:
    held, present = update.tensors, [place for place, gradient in enumerate(gradients) if gradient is not None]

    def step(*inputs: Tensor) -> tuple[()]:
        given: list[Tensor | None] = [None] * len(gradients)
        for place, gradient in zip(present, inputs[len(held) :], strict=True):
            given[place] = gradient
        with _PutIn({id(tensor): inputs[place] for place, tensor in enumerate(held)}):
            update.apply(given)
        return ()

    inputs = [tensor.detach() for tensor in held] + [g for g in gradients if g is not None]
    return make_fx(step, tracing_mode="fake")(*inputs)


class _Stepper:
    """Steps an optimizer, eagerly or by graphs."""

    def __init__(self, optimizer: Optimizer, in_graph: bool, constrained: Any = None, compiled: bool = False) -> None:
        generator = torch.Generator().manual_seed(1)
        first = [torch.rand(shape, generator=generator) * 2 - 1 for shape in SHAPES]
        self.weights = [torch.nn.Parameter(value) for value in first]
        self.optimizer, self.compiled = optimizer, compiled
        holder = torch.nn.Module()
        variables: list[Any] = list(self.weights)
        if constrained is not None:
            holder.value = self.weights[0]
            variables[0] = Variable.of(holder, "value", name="kernel")
            variables[0].constraint = constrained
        optimizer.build(variables)
        self.update = graph_update(optimizer) if in_graph else None
        assert (self.update is not None) == in_graph
        if self.update is not None:
            self.update.begin()
        self.graphs: dict[Any, Any] = {}

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        update = self.update
        if update is None:
            for weight, gradient in zip(self.weights, gradients, strict=True):
                weight.grad = None if gradient is None else gradient.clone()
            self.optimizer.step()
            return
        phase = update.phase()
        update.before()
        inputs = [tensor.detach() for tensor in update.tensors] + [g for g in gradients if g is not None]
        if phase not in self.graphs:
            graph: Any = _traced(update, gradients)
            self.graphs[phase] = torch._inductor.compile(graph, inputs) if self.compiled else graph
        with torch.no_grad():
            self.graphs[phase](*inputs)
        update.after()

    def state(self) -> dict[str, list[Tensor]]:
        if self.update is not None:
            self.update.settle()
        # torch makes its state in the first update.
        inner = self.optimizer.torch_optimizer.state if self.optimizer.iterations else {}
        keys = {key for weight in self.weights for key in inner.get(weight, {})}
        # torch makes the state of a parameter in its first update.
        held = {key: [inner.get(w, {}).get(key, torch.zeros(())) for w in self.weights] for key in keys}
        named: dict[str, list[Any]] = {"weights": list(self.weights), **held}
        named["average"] = self.optimizer.ema_variables or []
        named["sums"] = self.optimizer._accumulators or []
        return {name: [tensor.detach().double() for tensor in tensors] for name, tensors in named.items()}


def _gradients(step: int, absent: Sequence[int] = ()) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(100 + step)
    given = [torch.rand(shape, generator=generator) - 0.4 for shape in SHAPES]
    return [None if place in absent else gradient for place, gradient in enumerate(given)]


def _compare(eager: _Stepper, graph: _Stepper, tolerance: float = 1e-6) -> None:
    assert eager.optimizer.iterations == graph.optimizer.iterations
    one, other = eager.state(), graph.state()
    for name in {*one, *other}:
        nothing = [torch.zeros(())] * len(SHAPES)
        for first, second in zip(one.get(name, nothing), other.get(name, nothing), strict=True):
            assert abs(to_numpy(first) - to_numpy(second)).max() <= tolerance, name


def _both(make: Make, constrained: Any = None, absent: Sequence[int] = (), compiled: bool = False) -> _Stepper:
    eager, graph = _Stepper(make(), False, constrained), _Stepper(make(), True, constrained, compiled)
    for step in range(STEPS):
        gradients = _gradients(step, absent)
        eager.step(gradients)
        graph.step(gradients)
        _compare(eager, graph)
    assert len(graph.graphs) == (1 if eager.optimizer.gradient_accumulation_steps is None else 2)
    return graph


RULES: dict[str, Make] = {
    "sgd": lambda: SGD(0.1),
    "sgd with momentum": lambda: SGD(0.1, momentum=0.8),
    "sgd with nesterov": lambda: SGD(0.1, momentum=0.8, nesterov=True),
    "adam": lambda: Adam(0.05),
    "adam with amsgrad": lambda: Adam(0.05, amsgrad=True, beta_1=0.7, beta_2=0.8, epsilon=1e-3),
    "adamw": lambda: AdamW(0.05, weight_decay=0.1),
    "adamax": lambda: optimizers.Adamax(0.05),
    "nadam": lambda: optimizers.Nadam(0.05),
    "rmsprop": lambda: optimizers.RMSprop(0.01),
    "rmsprop centered with momentum": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True, epsilon=1e-2),
    "adagrad": lambda: optimizers.Adagrad(0.1, initial_accumulator_value=0.2),
    "adadelta": lambda: optimizers.Adadelta(0.5, rho=0.9),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "weight decay": {"weight_decay": 0.1},
    "clipnorm": {"clipnorm": 0.3},
    "clipvalue": {"clipvalue": 0.2},
    "global clipnorm": {"global_clipnorm": 0.3},
    "average": {"use_ema": True, "ema_momentum": 0.6},
    "average that overwrites": {"use_ema": True, "ema_momentum": 0.6, "ema_overwrite_frequency": 3},
    "loss scale": {"loss_scale_factor": 8.0},
    "accumulation": {"gradient_accumulation_steps": 3, "clipnorm": 0.3, "use_ema": True, "weight_decay": 0.1},
    "schedule": {"learning_rate": ExponentialDecay(0.1, 2, 0.5), "weight_decay": 0.1},
}
KINDS = {"SGD": {"momentum": 0.5}, "Adam": {}, "Adamax": {}, "Nadam": {}, "RMSprop": {}, "Adagrad": {}, "Adadelta": {}}


@pytest.mark.parametrize("name", RULES)
def test_an_update_in_a_graph_is_that_of_an_eager_step(name: str) -> None:
    _both(RULES[name])


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", KINDS)
def test_so_it_is_with_each_option(name: str, option: str) -> None:
    _both(lambda: getattr(optimizers, name)(**KINDS[name], **OPTIONS[option]))


TORCH: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.1),
    "sgd with momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, fused=True),
    "sgd with nesterov": lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True, maximize=True),
    "adam": lambda p: torch.optim.Adam(p, 0.05, fused=True),
    "adam with amsgrad": lambda p: torch.optim.Adam(p, 0.05, amsgrad=True, weight_decay=0.1, eps=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1, maximize=True),
    "adagrad": lambda p: torch.optim.Adagrad(
        p, 0.1, lr_decay=0.1, initial_accumulator_value=0.2, eps=1e-2, maximize=True
    ),
    "adagrad, fused": lambda p: torch.optim.Adagrad(p, 0.1, weight_decay=0.1, fused=True),
    "adamax": lambda p: torch.optim.Adamax(p, 0.05, betas=(0.7, 0.8), eps=1e-2, weight_decay=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.5, rho=0.8, eps=1e-2, maximize=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, weight_decay=0.1),
    "rmsprop with all options": lambda p: torch.optim.RMSprop(
        p, 0.01, momentum=0.8, centered=True, eps=1e-2, maximize=True
    ),
    "rmsprop in groups": lambda p: torch.optim.RMSprop([{"params": p[1:]}, {"params": p[:1], "momentum": 0.5}], 0.01),
    "nadam": lambda p: torch.optim.NAdam(p, 0.05, betas=(0.7, 0.8), eps=1e-2, weight_decay=0.1, maximize=True),
    "nadam, decoupled": lambda p: torch.optim.NAdam(
        p, 0.05, momentum_decay=0.1, weight_decay=0.1, decoupled_weight_decay=True
    ),
    # Its denominator counts from the 5th update of these.
    "radam": lambda p: torch.optim.RAdam(p, 0.05, betas=(0.7, 0.9), weight_decay=0.1),
    "radam, decoupled": lambda p: torch.optim.RAdam(p, 0.05, weight_decay=0.1, decoupled_weight_decay=True, eps=0.0),
    "asgd": lambda p: torch.optim.ASGD(p, 0.1, lambd=0.1, alpha=0.5, t0=3, weight_decay=0.1),
    "asgd, averaging late": lambda p: torch.optim.ASGD(p, 0.1, maximize=True),
    "rprop": lambda p: torch.optim.Rprop(p, 0.05, step_sizes=(0.02, 0.1)),
    "rprop, with all options": lambda p: torch.optim.Rprop(p, 0.05, etas=(0.3, 1.5), maximize=True),
    "adafactor": lambda p: torch.optim.Adafactor(p, 0.1),
    "adafactor, with all options": lambda p: torch.optim.Adafactor(
        p, 0.5, beta2_decay=-0.5, eps=(1e-2, 0.1), d=1.5, weight_decay=0.1, maximize=True
    ),
    "nadam in groups": lambda p: torch.optim.NAdam([{"params": p[1:]}, {"params": p[:1], "betas": (0.5, 0.9)}], 0.01),
    "groups": lambda p: torch.optim.SGD([{"params": p[1:]}, {"params": p[:1], "momentum": 0.5, "lr": 0.2}], 0.1),
}


@pytest.mark.parametrize("name", TORCH)
def test_so_are_those_of_torch(name: str) -> None:
    _both(lambda: TorchOptimizer(TORCH[name]))


@pytest.mark.parametrize("option", [name for name in OPTIONS if name not in ("weight decay", "schedule")])
def test_those_of_torch_with_each_option(option: str) -> None:
    options = {name: value for name, value in OPTIONS[option].items() if name != "weight_decay"}
    _both(lambda: TorchOptimizer(torch.optim.Adam, **options))


INNER: dict[str, Make] = {
    "adam": lambda: Adam(0.1),
    "scheduled": lambda: Adam(ExponentialDecay(0.1, 2, 0.5), clipnorm=0.01),
    "averaged": lambda: AdamW(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3),
    "accumulating": lambda: SGD(0.1, momentum=0.9, gradient_accumulation_steps=2),
    "of torch": lambda: TorchOptimizer(lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1)),
    "of torch, with numbers": lambda: TorchOptimizer(torch.optim.NAdam),
    "of torch, accumulating": lambda: TorchOptimizer(torch.optim.ASGD, gradient_accumulation_steps=2),
}
BAD = {0: float("inf"), 4: float("nan"), 7: -float("inf"), 8: float("inf")}


# Those that torch has no fused kernel of aren't deferred.
DEFERRED = {name: True for name in INNER if name not in ("of torch, with numbers", "of torch, accumulating")}


@pytest.mark.parametrize(("name", "deferred"), [*dict.fromkeys(INNER, False).items(), *DEFERRED.items()])
def test_a_step_with_a_gradient_that_is_not_finite_changes_the_scale_alone(name: str, deferred: bool) -> None:
    steppers = [
        _Stepper(LossScaleOptimizer(INNER[name](), initial_scale=2.0**10, dynamic_growth_steps=2), in_graph)
        for in_graph in (False, True)
    ]
    graph = steppers[1].optimizer
    assert isinstance(graph, LossScaleOptimizer)
    if deferred:
        # What is done on an accelerator, as far as the CPU can.
        graph._deferred = DeferredOverflowCheck(graph.inner_optimizer)
    for step in range(STEPS + 4):
        for stepper in steppers:
            optimizer: Any = stepper.optimizer
            if step == STEPS:
                optimizer.dynamic_growth_steps = 1
                assert stepper.update is None or stepper.update.is_current()
            scale = float(optimizer.dynamic_scale)
            gradients = [gradient * scale for gradient in _gradients(step) if gradient is not None]
            gradients[1][0] += BAD.get(step, 0.0)
            stepper.step(gradients)
        one, other = [[float(number) for number in stepper.optimizer.own_variables()] for stepper in steppers]
        assert one == other
        if not deferred or step in (3, 4, 8, STEPS + 3):
            # What isn't asked for isn't waited for.
            _compare(*steppers)


@pytest.mark.parametrize("name", ["SGD", "Adam", "Nadam", "RMSprop"])
@pytest.mark.parametrize("option", ["loss scale", "accumulation", "global clipnorm"])
def test_a_weight_without_gradient_is_left_alone(name: str, option: str) -> None:
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        graph = _both(lambda: getattr(optimizers, name)(**OPTIONS[option]), absent=[1])
    assert torch.equal(graph.weights[1], _Stepper(SGD(), False).weights[1])


def test_torch_counts_no_update_of_a_weight_without_gradient() -> None:
    graph = _Stepper(TorchOptimizer(torch.optim.Adam), True)
    graph.step(_gradients(0, absent=[1]))
    assert graph.update is not None
    graph.update.end()
    counts = [float(graph.optimizer.torch_optimizer.state[weight]["step"]) for weight in graph.weights]
    assert counts == [1.0, 0.0, 1.0]


KEEPING: dict[str, Any] = {
    "nadam": lambda p: torch.optim.NAdam(p, 0.05, betas=(0.7, 0.8)),
    "asgd": lambda p: torch.optim.ASGD(p, 0.1, t0=2),
    "rprop": torch.optim.Rprop,
    "adafactor": torch.optim.Adafactor,
}


@pytest.mark.parametrize("name", KEEPING)
def test_what_torch_keeps_of_a_weight_goes_to_and_fro(name: str) -> None:
    eager, graph = [_Stepper(TorchOptimizer(KEEPING[name]), in_graph) for in_graph in (False, True)]
    update = graph.update
    assert update is not None
    for step in range(8):
        for stepper in (eager, graph):
            # The rate of each update of ASGD is the one before's, and Rprop's first is that of its steps.
            stepper.optimizer.learning_rate = 0.3 / (step + 1)
        gradients = _gradients(step)
        eager.step(gradients)
        if step in (3, 6):
            # A batch of another shape.
            update.end()
            for weight, gradient in zip(graph.weights, gradients, strict=True):
                weight.grad = gradient
            graph.optimizer.step()
            update.begin()
        else:
            graph.step(gradients)
        if step == 4:
            state = copy.deepcopy(graph.optimizer.state_dict())
            graph.optimizer.load_state_dict(state)
            assert graph.optimizer.state_dict().keys() == state.keys()
            update.begin()
        _compare(eager, graph)


def test_weights_of_which_torch_keeps_unlike_numbers_have_no_update_in_a_graph() -> None:
    stepper = _Stepper(TorchOptimizer(torch.optim.NAdam), False)
    stepper.step(_gradients(0))
    assert isinstance(graph_update(stepper.optimizer), TorchGraphUpdate)
    stepper.optimizer.torch_optimizer.state[stepper.weights[0]]["mu_product"].fill_(0.25)
    assert graph_update(stepper.optimizer) is None


@pytest.mark.parametrize(
    "constraint",
    [constraints.MaxNorm(0.5), constraints.NonNeg(), lambda w: w.clamp(max=0.25)],
    ids=["norm", "not negative", "own"],
)
@pytest.mark.parametrize("frequency", [None, 2])
def test_constraints_hold_after_each_update(constraint: Any, frequency: int | None) -> None:
    _both(lambda: SGD(0.3, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=frequency), constraint)


def test_a_constraint_of_the_user_runs_once_for_each_step() -> None:
    calls = []

    def counting(w: Tensor) -> Tensor:
        calls.append(1)
        return w

    graph = _Stepper(SGD(0.3), True, counting)
    for step in range(4):
        graph.step(_gradients(step))
    assert len(calls) == 4


def test_what_is_assigned_between_steps_counts_without_another_graph() -> None:
    steppers = [
        _Stepper(Adam(0.05, weight_decay=0.1, clipnorm=0.5, use_ema=True), in_graph) for in_graph in (False, True)
    ]
    for step in range(STEPS):
        for stepper in steppers:
            optimizer = stepper.optimizer
            assert isinstance(optimizer, Adam)
            optimizer.beta_1, optimizer.beta_2, optimizer.epsilon = 0.9 - step / 50, 0.99 - step / 50, 1e-3 * step
            optimizer.learning_rate, optimizer.weight_decay = 0.05 / (1 + step), 0.1 + step / 100
            optimizer.clipnorm, optimizer.ema_momentum = 0.5 + step / 10, 0.5 + step / 100
            assert stepper.update is None or stepper.update.is_current()
            stepper.step(_gradients(step))
    _compare(*steppers)
    assert len(steppers[1].graphs) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda optimizer: setattr(optimizer, "clipnorm", 0.5),
        lambda optimizer: setattr(optimizer, "weight_decay", 0.1),
        lambda optimizer: setattr(optimizer, "nesterov", True),
        lambda optimizer: setattr(optimizer, "loss_scale_factor", 2.0),
        lambda optimizer: setattr(optimizer, "gradient_accumulation_steps", 2),
        lambda optimizer: optimizer._parameters[0].requires_grad_(False),
        lambda optimizer: optimizer.build([*optimizer._parameters, torch.nn.Parameter(torch.ones(1))]),
    ],
)
def test_what_needs_other_operations_needs_another_graph(change: Callable[[Any], Any]) -> None:
    stepper = _Stepper(SGD(0.1, momentum=0.5), True)
    assert stepper.update is not None and stepper.update.is_current()
    change(stepper.optimizer)
    assert not stepper.update.is_current()


def test_a_constraint_that_was_changed_needs_another_graph() -> None:
    constraint = constraints.MaxNorm(0.5)
    stepper = _Stepper(SGD(0.1), True, constraint)
    constraint.max_value = 0.25
    assert stepper.update is not None and not stepper.update.is_current()


def test_parameters_that_joined_later_have_a_count_of_their_own() -> None:
    steppers = [_Stepper(optimizers.Nadam(0.05), in_graph) for in_graph in (False, True)]
    for step in range(2):
        for stepper in steppers:
            stepper.step(_gradients(step))
    for stepper in steppers:
        extra = torch.nn.Parameter(torch.ones(3))
        stepper.optimizer.build([*stepper.weights, extra])
        stepper.weights.append(extra)
        if stepper.update is not None:
            assert not stepper.update.is_current()
            stepper.update, stepper.graphs = graph_update(stepper.optimizer), {}
    for step in range(4):
        for stepper in steppers:
            stepper.step([*_gradients(step), torch.full((3,), 0.5 - step)])
    _compare(*steppers)


def test_one_gradient_of_two_weights_is_clipped_once() -> None:
    eager, graph = [_Stepper(SGD(0.1, clipnorm=0.1), in_graph) for in_graph in (False, True)]
    shared = torch.ones(3, 4)
    for stepper in (eager, graph):
        other = torch.nn.Parameter(torch.zeros(3, 4))
        stepper.optimizer.build([*stepper.weights, other])
        stepper.weights.append(other)
    update = graph_update(graph.optimizer)
    assert update is not None
    eager.step([shared, *_gradients(0)[1:], shared])
    update.before()
    update.apply([shared, *_gradients(0)[1:], shared])
    update.after()
    _compare(eager, graph)


def test_tensors_are_those_that_the_optimizer_has_now() -> None:
    stepper = _Stepper(TorchOptimizer(lambda p: torch.optim.SGD(p, 0.1, momentum=0.5)), True)
    update = stepper.update
    assert update is not None
    for step in range(2):
        stepper.step(_gradients(step))
    before = update.tensors
    stepper.optimizer.load_state_dict(copy.deepcopy(stepper.optimizer.state_dict()))
    after = update.tensors
    assert [tensor.shape for tensor in before] == [tensor.shape for tensor in after]
    assert any(one is not other for one, other in zip(before, after, strict=True))
    assert all(any(tensor is held for held in after) for tensor in [*stepper.weights, update.numbers])


class Signs(Optimizer):
    """One of the user's with a rule."""

    def __init__(self, learning_rate: Any = 0.1, share: float = 0.5, **kwargs: Any) -> None:
        super().__init__(learning_rate, **kwargs)
        self.share = share

    @staticmethod
    def update_rule(
        parameters: list[Tensor], gradients: list[Tensor], slots: Mapping[str, list[Tensor]], numbers: Mapping[str, Any]
    ) -> None:
        add_scaled_(parameters, list(torch._foreach_sign(gradients)), numbers["change"])

    def update_numbers(self, update: int, rate: float) -> dict[str, float]:
        return {"change": -rate * self.share**update}


class DoubledSigns(Signs):
    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, learning_rate * 2)


class OwnStepOfAll(Signs):
    update_rule = staticmethod(Signs.update_rule)

    def update_step(self, gradient: Tensor, variable: Any, learning_rate: Any) -> None:
        variable.assign_sub(gradient)


def test_a_rule_of_the_user_serves_eager_steps_and_graphs() -> None:
    graph = _both(lambda: Signs(clipnorm=0.5, weight_decay=0.1))
    assert not torch.equal(graph.weights[0], _Stepper(Signs(), False).weights[0])


def test_a_step_for_each_variable_goes_before_a_rule() -> None:
    assert type(graph_update(_built(DoubledSigns()))) is EachGraphUpdate
    assert type(graph_update(_built(OwnStepOfAll()))) is EachGraphUpdate
    plain, doubled = Signs(0.2), DoubledSigns(0.1)
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    for optimizer, weight in zip((plain, doubled), weights, strict=True):
        optimizer.apply([torch.ones(2)], [weight])
    assert torch.equal(*weights)


@pytest.mark.parametrize("kind", [optimizers.Adam, optimizers.RMSprop])
def test_a_compiled_update_has_no_kernel_that_is_not_fused(kind: Any) -> None:
    eager, graph = [
        _Stepper(kind(0.1, global_clipnorm=0.5, use_ema=True, weight_decay=0.1), in_graph, compiled=True)
        for in_graph in (False, True)
    ]
    _, codes = run_and_get_code(graph.step, _gradients(0))
    eager.step(_gradients(0))
    _compare(eager, graph)
    assert codes and not re.findall(r"= (?:torch\.ops\.aten|extern_kernels)\.\w+", "".join(codes))
