"""An optimizer's update as operations on explicit tensors, for a training step that is one graph."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from oncue import backend, torch_private
from oncue.optimizers.foreach import Number, Numbers, Rule, Slots, Tensors, lerp_
from oncue.optimizers.identifiers import KNOWN
from oncue.optimizers.loss_scale import LossScale
from oncue.optimizers.loss_scale_optimizer import LossScaleOptimizer
from oncue.optimizers.optimizer import Optimizer, UpdateInGraph, own_constraint
from oncue.optimizers.torch_optimizer import TorchOptimizer
from oncue.optimizers.torch_rules import TORCH_RULES


class Update:
    """What a graph does in place of `Optimizer.step`, and what is done around each call of the graph and around a pass."""

    optimizer: Optimizer
    weights: list[Tensor]
    """The optimizer's parameters."""
    asks: Sequence[Any] = ()
    """Objects of the user's whose code the update runs. Where there are any, it is tried beside an eager one."""

    undoes = False
    """Whether a step with a gradient that isn't finite is undone, so that `tensors` must be all that it changes."""

    numbers: Tensor | None = None
    """What `before` writes and `apply` reads, in one tensor; None where that is nothing."""

    @property
    def is_alone(self) -> bool:
        """Whether nothing but `numbers` decides what a step does, and nothing of `after` looks at what it did."""
        return True

    @property
    @abstractmethod
    def tensors(self) -> list[Tensor]:
        """All tensors that `apply` reads or changes, in an order that stays the same: those that the optimizer has now."""

    @abstractmethod
    def apply(self, gradients: Sequence[Tensor | None]) -> None:
        """Update parameters and state in place, as `phase` says; the part that is traced.

        Args:
            gradients: A gradient for each parameter, in the optimizer's order, of the loss that `Optimizer.scale_loss`
                gave; None where there is none. They aren't changed.
        """

    @abstractmethod
    def is_current(self) -> bool:
        """Return whether the optimizer still is what `apply` was traced from; numbers may have changed."""

    @abstractmethod
    def step(self) -> None:
        """Update eagerly by the gradients of the parameters, and don't count it."""

    def report_missing(self, gradients: Sequence[Tensor | None]) -> None:
        """Warn of parameters that get no gradient, as `Optimizer.step` does in each step.

        Args:
            gradients: As for `apply`.

        Raises:
            ValueError: When no parameter gets one.
        """
        missing = [weight for weight, gradient in zip(self.weights, gradients, strict=True) if gradient is None]
        if missing:
            self.optimizer._report_missing(missing)

    def phase(self) -> Hashable:
        """Return which graph the coming step needs, of those that `apply` gives: always the same, except in accumulation."""
        return True

    def before(self) -> None:
        """Put the numbers of the coming update where the graph reads them."""

    def after(self) -> None:
        """Count the step, and do what is left to do after it."""

    def begin(self) -> None:
        """Read what may have been set from outside, before steps that are graphs: `numbers`, too, if another wrote them."""

    def between(self) -> None:
        """Leave what user code may read between two such steps."""

    def settle(self) -> None:
        """Write the count of updates to where the torch optimizer keeps it."""

    def end(self) -> None:
        """Leave everything as eager steps expect it."""
        self.settle()


_SHOWN = ("learning rate", "steps done", "steps done, in 2 ** 20")
_LARGE = 2**20


class GraphUpdate(Update):
    """What a graph does in place of `Optimizer.step`, with the optimizer's own `update_rule`, parameters and state.

    What changes from one update to the next, and what a user may assign between them, comes in as `numbers`: the learning
    rate, bias corrections, betas, decay, the limit of a clip. So none of it needs another graph. Clipping, weight decay,
    gradient accumulation, loss scaling, the moving average and oncue's own constraints are part of the graph; constraints of
    the user's, which may do anything, and the average that takes the place of the weights, follow in `after`.

    Args:
        optimizer: An optimizer that is built, for which `graph_update` makes this.
        scaling: The loss scaling around it; None where there is none.

    Example:
        >>> from oncue.optimizers import SGD
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = SGD(0.5)
        >>> optimizer.build([weight])
        >>> update = GraphUpdate(optimizer)
        >>> update.before()
        >>> update.apply([torch.tensor([1.0])])
        >>> update.after()
        >>> weight.data, optimizer.iterations
        (tensor([0.5000]), 1)
    """

    def __init__(self, optimizer: Optimizer, scaling: LossScaleOptimizer | None = None) -> None:
        self.optimizer = optimizer
        self._by_apply = _has_own_apply(optimizer)
        self.asks = [optimizer] if self._by_apply else self._asked(optimizer)
        # Whether that code may ask for the learning rate and the count, for which tensors stand then.
        self._shows_numbers = bool(self.asks)
        self._scaling, self.undoes = scaling, scaling is not None
        self._rule = self._rule_of(optimizer)
        self.weights = list(optimizer._parameters)
        place_of = {id(parameter): place for place, parameter in enumerate(self.weights)}
        self._places = [[place_of[id(p)] for p in group["params"] if id(p) in place_of] for group in optimizer._groups]
        self._decayed = [parameter not in optimizer._undecayed for parameter in self.weights]
        self._averaged = [place for place, parameter in enumerate(self.weights) if parameter.requires_grad]
        constraints = [
            (p, constraint, own_constraint(constraint) is not None) for p, constraint in optimizer._constraints
        ]
        self._constraints = [(place_of[id(p)], constraint) for p, constraint, ours in constraints if ours]
        self._constraints_after = [(p, constraint) for p, constraint, ours in constraints if not ours]
        self._constraints_after_overwriting = [
            (p, constraint) for p, constraint, ours in constraints if p.requires_grad or not ours
        ]
        # None where a parameter has none of a name.
        self._slots: Mapping[str, Sequence[Tensor | None]] = {}
        self._form = self._form_now()
        values = self._values()
        self._names = [list(part) for part in values]
        first, width = self.weights[0], sum(map(len, values))
        self.numbers: Tensor = torch.zeros(width, dtype=torch.float32, device=first.device)
        # On the CPU, a write through NumPy's view costs a tenth of one through torch.
        self._view: Any = self.numbers.numpy() if first.device.type == "cpu" else None
        self._written: list[float | None] = [None] * width
        # 1 after a step with a gradient that isn't finite, which changes nothing but the factor of the loss.
        self._found = torch.zeros((), dtype=torch.float32, device=first.device)
        self._look_up()

    # What a graph is made of ------------------------------------------------------------------------------------------

    @property
    def tensors(self) -> list[Tensor]:
        """See `Update`."""
        self._look_up()
        scale = [] if self._scale is None else [self._scale.scale, self._scale.growth, self._found]
        return [*self._updated(), *scale, self.numbers]

    @property
    def is_alone(self) -> bool:
        """See `Update`."""
        optimizer, average = self.optimizer, self.optimizer._average
        overwrites = average is not None and average.overwrite_frequency is not None
        follows = overwrites or self._scaling is not None or bool(self._constraints_after)
        return not follows and optimizer._accumulators is None

    @property
    def _scale(self) -> LossScale | None:
        return None if self._scaling is None else self._scaling._scale

    def _updated(self) -> list[Tensor]:
        optimizer = self.optimizer
        slots = [tensor for tensors in self._slots.values() for tensor in tensors if tensor is not None]
        sums = [] if optimizer._accumulators is None else optimizer._accumulators
        averages = [] if optimizer._average is None else optimizer._average.values
        own = [variable.stored for variable in optimizer._made_variables] if self.undoes else []
        return [*self.weights, *slots, *sums, *averages, *own]

    def phase(self) -> Hashable:
        """Return whether the coming step updates the weights, instead of adding to the gradients of an update only."""
        self._settle_count()
        steps = self.optimizer._gradient_accumulation_steps
        return steps is None or (self.optimizer._iterations + 1) % steps == 0

    @torch.no_grad()
    def apply(self, gradients: Sequence[Tensor | None]) -> None:
        """Update parameters and state in place; see `Update`."""
        whole, *groups = self._numbers_by_name()
        scale = self._scale
        if scale is None:
            self._apply(gradients, whole, groups)
            return
        unscaled = [None if gradient is None else gradient.clone() for gradient in gradients]
        found = scale.unscale([gradient for gradient in unscaled if gradient is not None], in_graph=True)
        # Which of both it is isn't known before the graph runs.
        updated = self._updated()
        before = [tensor.clone() for tensor in updated]
        self._apply(unscaled, whole, groups)
        for tensor, old in zip(updated, before, strict=True):
            tensor.copy_(torch.where(found != 0, old, tensor))
        scale.update(found, whole["growth_steps"])
        self._found.copy_(found)

    def _apply(
        self,
        gradients: Sequence[Tensor | None],
        whole: Mapping[str, Number],
        groups: Sequence[Mapping[str, Number]],
    ) -> None:
        updates = self.phase()
        if not self._shows_numbers:
            self._advance(gradients, whole, groups, updates)
            return
        optimizer, counted = self.optimizer, self.optimizer._iterations
        rate, rest, large = [torch.as_tensor(whole[name]) for name in _SHOWN]
        # A float has whole numbers up to 2 ** 24 only.
        steps = rest.to(torch.int64) + large.to(torch.int64) * _LARGE
        done = [0]

        def advance(given: Sequence[Tensor | None]) -> None:
            done[0] += 1
            self._advance(given, whole, groups, updates)

        optimizer._in_graph = UpdateInGraph(rate, steps // (optimizer._gradient_accumulation_steps or 1), {}, advance)
        optimizer._iterations = steps  # type: ignore[assignment]  # for which a tensor stands
        try:
            if self._by_apply:
                optimizer._apply_by_own([None if one is None else one.clone() for one in gradients])
            else:
                advance(gradients)
        finally:
            optimizer._in_graph, optimizer._iterations = None, counted
        if done[0] != 1:
            raise RuntimeError(f"`{type(optimizer).__name__}.apply` updates {done[0]} times in a step, instead of once")

    def _advance(
        self,
        gradients: Sequence[Tensor | None],
        whole: Mapping[str, Number],
        groups: Sequence[Mapping[str, Number]],
        updates: Hashable,
    ) -> None:
        optimizer = self.optimizer
        places = [place for place, gradient in enumerate(gradients) if gradient is not None]
        given = [gradient for gradient in gradients if gradient is not None]
        if optimizer._loss_scale_factor is not None:
            given = list(torch._foreach_div(given, optimizer._loss_scale_factor))
        if optimizer._accumulators is not None:
            sums = [optimizer._accumulators[place] for place in places]
            torch._foreach_add_(sums, given)
        if updates:
            if optimizer._accumulators is not None:
                given = list(torch._foreach_div(sums, whole["steps"]))
            self._update(dict(zip(places, given, strict=True)), whole, groups)
            for total in optimizer._accumulators or ():
                # torch's kernel for all isn't one that a compiler can fuse.
                total.zero_()
        if optimizer._average is not None and self._averaged:
            values = [optimizer._average.values[place] for place in self._averaged]
            lerp_(values, [self.weights[place] for place in self._averaged], whole["average"])
        for place, constraint in self._constraints:
            weight = self.weights[place]
            weight.copy_(constraint(weight))

    def _update(
        self, gradients: dict[int, Tensor], whole: Mapping[str, Number], groups: Sequence[Mapping[str, Number]]
    ) -> None:
        clip = self.optimizer._clip
        if clip is not None:
            # Two parameters may have one tensor as their gradient, and clipping works in place.
            gradients = {place: gradient.clone() for place, gradient in gradients.items()}
            clip.function(list(gradients.values()), whole["clip"])
        for held, numbers in zip(self._places, groups, strict=True):
            places = [place for place in held if place in gradients]
            if places:
                self._update_group(places, [gradients[place] for place in places], numbers)

    def _update_group(self, places: list[int], gradients: list[Tensor], numbers: Mapping[str, Number]) -> None:
        weights = [self.weights[place] for place in places]
        if "sign" in numbers:
            gradients = list(torch._foreach_mul(gradients, numbers["sign"]))
        if "penalty" in numbers:
            gradients = list(torch._foreach_add(gradients, torch._foreach_mul(weights, numbers["penalty"])))
        decayed = [self.weights[place] for place in places if self._decayed[place]] if "kept" in numbers else []
        if decayed:
            torch._foreach_mul_(decayed, numbers["kept"])
        held = {name: [tensors[place] for place in places] for name, tensors in self._slots.items()}
        slots = {name: [one for one in tensors if one is not None] for name, tensors in held.items()}
        self._rule(weights, gradients, {name: tensors for name, tensors in slots.items() if tensors}, numbers)

    def _rule_of(self, optimizer: Optimizer) -> Rule:
        return optimizer.update_rule

    def _asked(self, optimizer: Optimizer) -> list[Any]:
        return [] if _rule_class(type(optimizer)) in (*KNOWN, Optimizer) else [optimizer]

    def _look_up(self) -> None:
        """Take the state that the optimizer has now: some tensors may have been replaced."""
        self._slots = self.optimizer.slots()

    def step(self) -> None:
        """Update eagerly by the gradients of the parameters, and don't count it."""
        optimizer, count = self.optimizer, self.optimizer._iterations
        scale, updated = self._scale, self._updated() if self.undoes else []
        before = [tensor.detach().clone() for tensor in updated]
        found = None if scale is None else scale.unscale([one.grad for one in self.weights if one.grad is not None])
        if self._by_apply:
            optimizer.step()
        else:
            optimizer._advance([parameter for parameter in self.weights if parameter.grad is None])
        if scale is not None and found is not None:
            # As the graph does: what the user's code does with such gradients is to be seen, too.
            if found.item():
                torch._foreach_copy_([tensor.detach() for tensor in updated], before)
            scale.update(found)
            self._found.copy_(found)
        optimizer._iterations = count
        # torch's fused kernels count in tensors.
        optimizer._count_changed()

    # Around a step ----------------------------------------------------------------------------------------------------

    def before(self) -> None:
        """Put the numbers of the coming update where the graph reads them."""
        self._settle_count()
        optimizer = self.optimizer
        if optimizer._rate.moves:
            optimizer._write_rate(optimizer._rate.at(optimizer._updates))
        place, written = 0, self._written
        for part in self._values():
            for value in part.values():
                if written[place] != value:
                    written[place] = value
                    self._write(place, value)
                place += 1

    def after(self) -> None:
        """Count the step, and do what is left to do after it."""
        optimizer, scaling = self.optimizer, self._scaling
        follows = optimizer._average is not None or bool(self._constraints_after)
        deferred = None if follows or scaling is None else scaling._deferred
        if scaling is not None and deferred is None and self._found.item():
            return
        if follows:
            self._finish(optimizer)
        self._count_steps(1)
        if deferred is not None:
            deferred.defer(self._found, partial(self._count_steps, -1))

    def _count_steps(self, steps: int) -> None:
        self.optimizer._iterations += steps

    def _settle_count(self) -> None:
        if self._scaling is not None:
            self._scaling._settle()

    @torch.no_grad()
    def _finish(self, optimizer: Optimizer) -> None:
        average, constraints = optimizer._average, self._constraints_after
        if average is not None and average.overwrites(optimizer._updates):
            average.overwrite()
            constraints = self._constraints_after_overwriting
        for parameter, constraint in constraints:
            parameter.copy_(constraint(parameter))

    def _write(self, place: int, value: float) -> None:
        if self._view is not None:
            self._view[place] = value
        else:
            # A kernel that has the number among its arguments: nothing is copied, so nothing has to be waited for.
            self.numbers[place].fill_(value)

    def _values(self) -> list[dict[str, float]]:
        """Return the numbers of the coming update by name: those of the whole of it, then those of each group."""
        optimizer = self.optimizer
        whole: dict[str, float] = {}
        if optimizer._clip is not None:
            whole["clip"] = optimizer._clip.limit
        if optimizer._gradient_accumulation_steps is not None:
            whole["steps"] = float(optimizer._gradient_accumulation_steps)
        if self._scaling is not None:
            whole["growth_steps"] = float(self._scaling.dynamic_growth_steps)
        if optimizer._average is not None:
            whole["average"] = optimizer._average.share(optimizer._updates)
        if self._shows_numbers:
            large, rest = divmod(optimizer._iterations, _LARGE)
            values = (optimizer._rate.at(optimizer._updates), float(rest), float(large))
            whole.update(zip(_SHOWN, values, strict=True))
        return [whole, *self._group_values()]

    def _group_values(self) -> list[dict[str, float]]:
        optimizer = self.optimizer
        update, decay = optimizer._updates + 1, optimizer._weight_decay
        values = []
        for group in optimizer._groups:
            rate = group["lr"]
            numbers = optimizer.update_numbers(update - group.get("since", 0), rate)
            if decay:
                numbers["kept"] = 1.0 - decay * (rate if optimizer._torch_decays else optimizer._rate.at(update - 1))
            values.append(numbers)
        return values

    def _numbers_by_name(self) -> list[dict[str, Tensor]]:
        numbers = iter(self.numbers.unbind())
        return [{name: next(numbers) for name in names} for names in self._names]

    # Around a pass ----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Read what may have been set from outside, before steps that are graphs: `numbers`, too, if another wrote them."""
        self._written = [None] * len(self._written)

    def settle(self) -> None:
        """Write the count of updates to where the torch optimizer keeps it."""
        self._settle_count()
        self.optimizer._count_changed()

    def is_current(self) -> bool:
        """Return whether the optimizer still is what `apply` was traced from; numbers may have changed."""
        return _kind_of(self.optimizer) is type(self) and self._form_now() == self._form

    def _form_now(self) -> list[Any]:
        """Return what decides which operations an update has."""
        optimizer = self.optimizer
        pairs = [(parameter, own_constraint(constraint)) for parameter, constraint in optimizer._constraints]
        constraints = [
            None if own is None else (id(parameter), id(own), repr(vars(own)), backend.epsilon())
            for parameter, own in pairs
        ]
        return [
            id(optimizer._inner),
            [(id(parameter), parameter.requires_grad) for parameter in optimizer._parameters],
            [[id(parameter) for parameter in group["params"]] for group in optimizer._groups],
            None if optimizer._clip is None else optimizer._clip.function,
            optimizer._loss_scale_factor,
            optimizer._accumulators is None,
            constraints,
            [list(part) for part in self._values()],
        ]


class EachGraphUpdate(GraphUpdate):
    """The update of an optimizer with an `update_step` of its own, which is called for each variable while it is traced.

    The learning rate and `iterations` are tensors then. An `update_step` that reads their values can't be traced.

    Example:
        >>> class Slower(Optimizer):
        ...     def update_step(self, gradient, variable, learning_rate):
        ...         variable.assign_sub(learning_rate / (self.iterations + 1) * gradient)
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Slower(0.5)
        >>> optimizer.build([weight])
        >>> update = EachGraphUpdate(optimizer)
        >>> update.before()
        >>> update.apply([torch.tensor([1.0])])
        >>> weight.data
        tensor([0.5000])
    """

    def _rule_of(self, optimizer: Optimizer) -> Rule:
        return self._each

    def _asked(self, optimizer: Optimizer) -> list[Any]:
        return [optimizer]

    def _each(self, parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
        optimizer, shown = self.optimizer, self.optimizer._in_graph
        assert shown is not None
        optimizer._in_graph = shown._replace(numbers=numbers)
        variables = dict(zip(map(id, self.weights), optimizer._targets_given, strict=True))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            optimizer._update_one(gradient.clone(), variables[id(parameter)], shown.learning_rate)


class TorchGraphUpdate(GraphUpdate):
    """The update of an optimizer of `torch.optim` by the rule of ours that has the same arithmetic, with other numbers.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = TorchOptimizer(torch.optim.SGD([weight], lr=0.5))
        >>> optimizer.build([weight])
        >>> update = TorchGraphUpdate(optimizer)
        >>> update.begin()
        >>> update.before()
        >>> update.apply([torch.tensor([1.0])])
        >>> weight.data
        tensor([0.5000])
    """

    optimizer: TorchOptimizer

    def __init__(self, optimizer: TorchOptimizer, scaling: LossScaleOptimizer | None = None) -> None:
        self._inner, self._like = optimizer.torch_optimizer, TORCH_RULES[type(optimizer.torch_optimizer)]
        self._count = 0
        # What the torch optimizer keeps as numbers of each parameter, by groups.
        self._kept = [self._like.kept(group, 0) for group in self._inner.param_groups]
        self._first_rates = self._rates()
        # Those without a gradient, whose updates torch doesn't count.
        self._absent: list[int] = []
        super().__init__(optimizer, scaling)

    def _rule_of(self, optimizer: Optimizer) -> Rule:
        return self._like.rule

    def apply(self, gradients: Sequence[Tensor | None]) -> None:
        """Update parameters and state in place; see `GraphUpdate`."""
        self._absent = [place for place, gradient in enumerate(gradients) if gradient is None]
        super().apply(gradients)

    def _count_steps(self, steps: int) -> None:
        before = self.optimizer._updates
        super()._count_steps(steps)
        made = self.optimizer._updates - before
        self._count += made
        if made > 0:
            self._kept = [self._like.kept(options, self._count) for options in self._options()]

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self._inner.param_groups]

    def _begin_anew(self) -> None:
        """Let the state be that of a first update at the rates that there are now."""
        self._first_rates = self._rates()
        for number, (group, places) in enumerate(zip(self._inner.param_groups, self._places, strict=True)):
            self._kept[number] = self._like.kept(group, 0)
            for place in places:
                parameter = self.weights[place]
                for key, tensor in self._inner.state.get(parameter, {}).items():
                    if key in self._like.slots(group).values():
                        tensor.copy_(self._like.first(key, parameter, group))

    def _options(self) -> list[dict[str, Any]]:
        return [{**group, **kept} for group, kept in zip(self._inner.param_groups, self._kept, strict=True)]

    def begin(self) -> None:
        """Read the count, which a state that was loaded may have set, and be asked for it when it is wanted."""
        counts = {int(state["step"]) for state in self._inner.state.values() if "step" in state}
        self._count = max(counts, default=self.optimizer._updates)
        for group, kept in zip(self._inner.param_groups, self._kept, strict=True):
            states: list[dict[str, Any]] = [self._inner.state.get(parameter, {}) for parameter in group["params"]]
            latest = max(states, key=lambda state: int(state.get("step", -1)))
            kept.update({key: float(latest[key]) for key in kept.keys() & latest.keys()})
        self.optimizer._writes_counts = self.settle
        super().begin()

    def settle(self) -> None:
        """Write the count of updates, and other numbers, to the torch optimizer's state."""
        self._settle_count()
        for places, kept in zip(self._places, self._kept, strict=True):
            parameters = [self.weights[place] for place in places if place not in self._absent]
            states = [self._inner.state.get(parameter, {}) for parameter in parameters]
            for key, value in {"step": float(self._count), **kept}.items():
                tensors = [state[key] for state in states if key in state]
                if tensors:
                    torch._foreach_zero_(tensors)
                    torch._foreach_add_(tensors, value)

    def between(self) -> None:
        """Leave what user code may read between two steps: the counts in the torch optimizer that it made."""
        self.settle()

    def end(self) -> None:
        """Leave everything as eager steps expect it."""
        super().end()
        self.optimizer._writes_counts = None

    def _look_up(self) -> None:
        slots: dict[str, list[Tensor | None]] = {}
        for group, places in zip(self._inner.param_groups, self._places, strict=True):
            for name, key in self._like.slots(group).items():
                tensors = slots.setdefault(name, [None] * len(self.weights))
                for place in places:
                    tensors[place] = self._state_of(self.optimizer._parameters[place], key, group)
        self._slots = slots

    def _state_of(self, parameter: Tensor, key: str, group: dict[str, Any]) -> Tensor | None:
        """Return a parameter's state of the torch optimizer, made as its own first step makes it; None if it has none."""
        state = self._inner.state[parameter]
        if self._like.counts and "step" not in state:
            # The count is on the parameter's device only where the fused kernel reads it.
            device = parameter.device if group.get("fused") else "cpu"
            for name, value in {"step": 0.0, **self._like.kept(group, 0)}.items():
                state[name] = torch.tensor(value, dtype=torch.float32, device=device)
        if state.get(key) is None and (first := self._like.first(key, parameter, group)) is not None:
            state[key] = first
        held: Tensor | None = state.get(key)
        return held

    def _group_values(self) -> list[dict[str, float]]:
        if not self._count and self._rates() != self._first_rates:
            self._begin_anew()
        values = []
        for group in self._options():
            numbers = self._like.numbers(group, self._count + 1)
            if group["maximize"]:
                numbers["sign"] = -1.0
            decay = 0.0 if self._like.decays else group.get("weight_decay")
            if decay and group.get("decoupled_weight_decay"):
                numbers["kept"] = 1.0 - group["lr"] * decay
            elif decay:
                numbers["penalty"] = decay
            values.append(numbers)
        return values

    def _form_now(self) -> list[Any]:
        return [*super()._form_now(), [self._like.slots(group) for group in self._inner.param_groups]]


def graph_update(optimizer: Optimizer) -> Update | None:
    """Return an optimizer's update for a step that is one graph; None where only its own `step` will do.

    That is so for optimizers with a `step` of their own, and for optimizers of torch without a rule in `TORCH_RULES`.

    Args:
        optimizer: An optimizer that is built.

    Example:
        >>> from oncue.optimizers import LossScaleOptimizer
        >>> weight = torch.nn.Parameter(torch.zeros(1))
        >>> for optimizer in (LossScaleOptimizer("adam"), TorchOptimizer(torch.optim.SparseAdam)):
        ...     optimizer.build([weight])
        ...     print(graph_update(optimizer) is None)
        False
        True
    """
    scaling = optimizer if type(optimizer) is LossScaleOptimizer else None
    inner = optimizer if scaling is None else scaling.inner_optimizer
    kind = _kind_of(inner)
    if kind is None:
        return inner._own_graph_update() if scaling is None else None
    return kind(inner, scaling)


def _kind_of(optimizer: Any) -> type[GraphUpdate] | None:
    own_step = type(optimizer).step not in (Optimizer.step, Optimizer._step_by_apply)
    if optimizer._inner is None or own_step or torch_private.has_step_hooks(optimizer._inner):
        return None
    if type(optimizer).update_step is not Optimizer.update_step:
        return EachGraphUpdate
    if type(optimizer) is TorchOptimizer:
        inner = optimizer._inner
        groups = inner.param_groups
        usual = type(inner) in TORCH_RULES and all(_ordinary(group) for group in groups)
        held = sum(len(group["params"]) for group in groups) == len(optimizer._parameters)
        if not usual or not held or any(parameter.is_complex() for parameter in optimizer._parameters):
            return None
        # A graph has one count of updates for all parameters, and the numbers of a group are one for all of its own.
        together = len({_count_of(inner, parameter) for parameter in optimizer._parameters}) == 1
        return TorchGraphUpdate if together and all(_is_alike(inner, group) for group in groups) else None
    # A subclass that overrides any part of an update has another arithmetic than its parent.
    kinds = type(optimizer).__mro__
    below = kinds[: kinds.index(_rule_class(type(optimizer)))]
    other = any(name in vars(Optimizer) and name not in _ASIDE for kind in below for name in vars(kind))
    return None if other or not optimizer._has_rule() else GraphUpdate


def _rule_class(kind: type) -> type:
    return next(one for one in kind.__mro__ if "update_rule" in vars(one))


_ASIDE = frozenset(name for name in vars(Optimizer) if name[:2] == "__") | {
    *("get_config", "from_config"),
    # Those are called in the graph.
    *("apply", "apply_gradients", "step"),
}
"""What a subclass may override without changing what its rule computes."""


def _has_own_apply(optimizer: Any) -> bool:
    return type(optimizer).step is Optimizer._step_by_apply


def _count_of(inner: torch.optim.Optimizer, parameter: Tensor) -> int:
    return int(inner.state[parameter]["step"]) if "step" in inner.state.get(parameter, {}) else 0


def _is_alike(inner: torch.optim.Optimizer, group: dict[str, Any]) -> bool:
    keys = TORCH_RULES[type(inner)].kept(group, 0)
    states = [inner.state.get(parameter, {}) for parameter in group["params"]]
    return len({tuple(float(state[key]) for key in keys) for state in states if keys.keys() <= state.keys()}) <= 1


def _ordinary(group: dict[str, Any]) -> bool:
    tensors = group.get("capturable") or isinstance(group["lr"], Tensor)
    # A `dampening` leaves the first gradient of each parameter as it is.
    return not tensors and not group.get("differentiable") and not group.get("dampening")
