"""An optimizer's update as a function of tensors, for a training step that is one compiled graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.torch_optimizer import TorchOptimizer

Slots = dict[str, Tensor]
Numbers = Sequence[Tensor]


class CompiledUpdate(ABC):
    """What a compiled step does in place of `Optimizer.step`: the same arithmetic, on the same parameters and state.

    What changes from one update to the next (learning rate, bias correction) is computed outside of the graph and comes
    in as a tensor, so that a schedule needs no new graph.

    Args:
        optimizer: An optimizer that is built.
        width: How many numbers an update takes.

    Attributes:
        weights: The parameters, detached; always the same list.
    """

    def __init__(self, optimizer: Optimizer, width: int) -> None:
        self.optimizer = optimizer
        self.weights = list(optimizer._parameters)
        self._slots: list[Slots] = [{} for _ in self.weights]
        first = optimizer._parameters[0]
        self.numbers = torch.zeros(width, device=first.device)
        # On the CPU, a write through NumPy's view costs a tenth of one through torch.
        self._view: Any = self.numbers.numpy() if first.device.type == "cpu" else None
        self._written: list[float | None] = [None] * len(self.numbers)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors that an update reads or changes."""
        self.follow()
        return [*self.weights, *[tensor for slots in self._slots for tensor in slots.values()], self.numbers]

    @abstractmethod
    def apply(self, gradients: list[Tensor | None]) -> None:
        """Update parameters and state in place; the part that is compiled.

        Args:
            gradients: A gradient for each parameter, in the optimizer's order; may be changed.
        """

    @abstractmethod
    def before(self) -> None:
        """Put the numbers of the coming update where the graph reads them."""

    def after(self) -> None:
        """Count the update, and do what is left to do after it."""
        self.optimizer._iterations += 1

    @abstractmethod
    def settle(self) -> None:
        """Write the count of updates to where the torch optimizer keeps it."""

    @abstractmethod
    def slots_now(self) -> list[Slots]:
        """Return the optimizer's state of each parameter."""

    def follow(self) -> None:
        """Take the tensors that the optimizer has now: some may have been replaced, or lie in other memory."""
        self.weights = list(self.optimizer._parameters)
        for held, slots in zip(self._slots, self.slots_now(), strict=True):
            held.clear()
            held.update(slots)

    def is_current(self) -> bool:
        """Return whether the optimizer's settings still are those of an update like this."""
        return _kind_of(self.optimizer) is type(self)

    def begin(self) -> None:  # noqa: B027  # where all is kept by the optimizer there is nothing to read
        """Read what may have been set from outside, before steps that are compiled."""

    def between(self) -> None:  # noqa: B027  # Keras's optimizers count by themselves
        """Leave what user code may read between two compiled steps."""

    def end(self) -> None:
        """Leave everything as eager steps expect it."""
        self.settle()

    def _write(self, place: int, value: float) -> None:
        if self._view is not None:
            self._view[place] = value
        elif self._written[place] != value:
            # A kernel that has the number among its arguments: nothing is copied, so nothing has to be waited for.
            self.numbers[place].fill_(value)
            self._written[place] = value


class KerasUpdate(CompiledUpdate):
    """The update of an optimizer that has a `compiled_rule`.

    Example:
        >>> from oncue.optimizers import SGD
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = SGD(0.5)
        >>> optimizer.build([weight])
        >>> update = KerasUpdate(optimizer)
        >>> update.before()
        >>> update.apply([torch.tensor([1.0])])
        >>> update.after()
        >>> weight.data, optimizer.iterations
        (tensor([0.5000]), 1)
    """

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__(optimizer, optimizer.compiled_width + 1)
        self._decayed = [parameter not in optimizer._undecayed for parameter in optimizer._parameters]
        self._decays = False
        self.follow()

    def follow(self) -> None:
        """Take the tensors that the optimizer has now; see `CompiledUpdate`."""
        super().follow()
        # How much is decayed is a number, for which no other graph is needed.
        self._decays = bool(self.optimizer._weight_decay)

    def apply(self, gradients: list[Tensor | None]) -> None:
        """Update parameters and state in place; see `CompiledUpdate`."""
        optimizer = self.optimizer
        if optimizer._clip is not None:
            optimizer._clip([gradient for gradient in gradients if gradient is not None])
        numbers = list(self.numbers.unbind())
        for parameter, slots, decayed, gradient in zip(
            self.weights, self._slots, self._decayed, gradients, strict=True
        ):
            if gradient is None:
                continue
            if self._decays and decayed:
                parameter.mul_(numbers[-1])
            optimizer.compiled_rule(parameter, gradient, slots, numbers)

    def slots_now(self) -> list[Slots]:
        """Return the optimizer's state of each parameter."""
        named = self.optimizer.slots()
        return [{name: tensors[place] for name, tensors in named.items()} for place in range(len(self.weights))]

    def before(self) -> None:
        """Put the numbers of the coming update where the graph reads them."""
        optimizer = self.optimizer
        rate = optimizer._rate.at(optimizer._updates)
        if optimizer._rate.moves:
            optimizer._write_rate(rate)
        place = 0
        for value in optimizer.compiled_numbers(rate):
            self._write(place, value)
            place += 1
        self._write(place, 1.0 - (optimizer._weight_decay or 0.0) * rate)

    @torch.no_grad()
    def after(self) -> None:
        """Count the update, and let the moving average and the constraints follow."""
        optimizer = self.optimizer
        if optimizer._average is not None:
            optimizer._average.update(optimizer._updates)
        for parameter, constraint in optimizer._constraints:
            parameter.copy_(constraint(parameter))
        optimizer._iterations += 1

    def settle(self) -> None:
        """Write the count of updates to where the torch optimizer keeps it."""
        self.optimizer._count_changed()


class TorchUpdate(CompiledUpdate):
    """The update of an optimizer of `torch.optim`, for those that `RULES` knows.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = TorchOptimizer(torch.optim.SGD([weight], lr=0.5))
        >>> optimizer.build([weight])
        >>> update = TorchUpdate(optimizer)
        >>> update.begin()
        >>> update.before()
        >>> update.apply([torch.tensor([1.0])])
        >>> weight.data
        tensor([0.5000])
    """

    def __init__(self, optimizer: TorchOptimizer) -> None:
        inner = optimizer.torch_optimizer
        self._torch_optimizer, self._inner = optimizer, inner
        self._rule = RULES[type(inner)]
        super().__init__(optimizer, len(inner.param_groups) * self._rule.width)
        group_of = {id(p): place for place, group in enumerate(inner.param_groups) for p in group["params"]}
        self._group_of = [group_of[id(parameter)] for parameter in optimizer._parameters]
        self._count = 0
        self.follow()

    def apply(self, gradients: list[Tensor | None]) -> None:
        """Update parameters and state in place; see `CompiledUpdate`."""
        if self.optimizer._clip is not None:
            self.optimizer._clip([gradient for gradient in gradients if gradient is not None])
        width = self._rule.width
        numbers = list(self.numbers.unbind())
        for parameter, slots, place, gradient in zip(self.weights, self._slots, self._group_of, gradients, strict=True):
            if gradient is None:
                continue
            group = self._inner.param_groups[place]
            own = numbers[place * width : (place + 1) * width]
            self._rule.update(group, parameter, -gradient if group["maximize"] else gradient, slots, own)

    def before(self) -> None:
        """Put the numbers of the coming update where the graph reads them."""
        optimizer = self.optimizer
        if optimizer._rate.moves:
            optimizer._write_rate(optimizer._rate.at(optimizer._updates))
        place = 0
        for group in self._inner.param_groups:
            for value in self._rule.numbers(group, self._count + 1):
                self._write(place, value)
                place += 1

    def after(self) -> None:
        """Count the update."""
        self._count += 1
        super().after()

    def begin(self) -> None:
        """Read the count, which a state that was loaded may have set, and be asked for it when it is wanted."""
        counts = {int(state["step"]) for state in self._inner.state.values() if "step" in state}
        self._count = counts.pop() if counts else self.optimizer._iterations
        self._torch_optimizer._writes_counts = self.settle

    def settle(self) -> None:
        """Write the count of updates to the torch optimizer's state."""
        steps = [state["step"] for state in self._inner.state.values() if "step" in state]
        if steps:
            torch._foreach_zero_(steps)
            torch._foreach_add_(steps, float(self._count))

    def between(self) -> None:
        """Leave what user code may read between two compiled steps: the counts in the torch optimizer that it made."""
        self.settle()

    def end(self) -> None:
        """Leave everything as eager steps expect it."""
        super().end()
        self._torch_optimizer._writes_counts = None

    def slots_now(self) -> list[Slots]:
        """Return the optimizer's state of each parameter; what its options need is made."""
        groups = self._inner.param_groups
        return [
            self._rule.slots(self._inner, groups[group], parameter)
            for group, parameter in zip(self._group_of, self.optimizer._parameters, strict=True)
        ]

    def is_current(self) -> bool:
        """Return whether the optimizer's settings still are those of an update like this."""
        return self.optimizer._inner is self._inner and super().is_current()


class _Rule:
    """How a class of `torch.optim` updates one parameter."""

    def __init__(
        self,
        width: int,
        numbers: Callable[[dict[str, Any], int], Sequence[float]],
        slots: Callable[[Any, dict[str, Any], Tensor], Slots],
        update: Callable[[dict[str, Any], Tensor, Tensor, Slots, Numbers], None],
        suits: Callable[[dict[str, Any]], bool] = lambda group: True,
    ) -> None:
        self.width = width
        self.numbers = numbers
        self.slots = slots
        self.update = update
        self.suits = suits


def compiled_update(optimizer: Optimizer) -> CompiledUpdate | None:
    """Return an optimizer's update for a compiled step; None where only its own `step` will do.

    That is so for optimizers of the user's, for gradient accumulation and loss scaling, and for options that the graph
    would have to decide on.

    Args:
        optimizer: An optimizer that is built.

    Example:
        >>> from oncue.optimizers import Adam
        >>> optimizer = Adam(gradient_accumulation_steps=2)
        >>> optimizer.build([torch.nn.Parameter(torch.zeros(1))])
        >>> compiled_update(optimizer) is None
        True
    """
    kind = _kind_of(optimizer)
    return None if kind is None else kind(optimizer)


def _kind_of(optimizer: Any) -> Callable[[Any], CompiledUpdate] | None:
    if optimizer._inner is None or optimizer._accumulators is not None or optimizer.loss_scale_factor is not None:
        return None
    if type(optimizer).step is not Optimizer.step or optimizer._since:
        return None
    if type(optimizer) is TorchOptimizer:
        rule = RULES.get(type(optimizer._inner))
        groups = optimizer._inner.param_groups
        plain = optimizer._average is None and not optimizer._constraints
        held = sum(len(group["params"]) for group in groups) == len(optimizer._parameters)
        together = len({_count_of(optimizer._inner, parameter) for parameter in optimizer._parameters}) == 1
        usual = plain and held and together
        suits = rule is not None and usual and all(_ordinary(group) and rule.suits(group) for group in groups)
        return TorchUpdate if suits else None
    # Asked of the class itself: a subclass that overrides any part of an update has another arithmetic than its parent.
    return KerasUpdate if vars(type(optimizer)).get("has_compiled_rule", False) else None


def _count_of(inner: torch.optim.Optimizer, parameter: Tensor) -> int:
    # A graph has one count of updates for all parameters.
    return int(inner.state[parameter]["step"]) if "step" in inner.state.get(parameter, {}) else 0


def _ordinary(group: dict[str, Any]) -> bool:
    return not group.get("differentiable") and not group.get("capturable") and not isinstance(group["lr"], Tensor)


# SGD --------------------------------------------------------------------------------------------------------------


def _sgd_slots(inner: Any, group: dict[str, Any], parameter: Tensor) -> Slots:
    if not group["momentum"]:
        return {}
    state = inner.state[parameter]
    if state.get("momentum_buffer") is None:
        # torch begins with the first gradient, which is what this gives without dampening.
        state["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
    return {"momentum_buffer": state["momentum_buffer"]}


def _sgd(group: dict[str, Any], w: Tensor, g: Tensor, slots: Slots, numbers: Numbers) -> None:
    if group["weight_decay"]:
        g = g + group["weight_decay"] * w
    if group["momentum"]:
        velocity = slots["momentum_buffer"]
        velocity.mul_(group["momentum"]).add_(g)
        g = g + group["momentum"] * velocity if group["nesterov"] else velocity
    w.sub_(numbers[0] * g)


# Adam and AdamW -----------------------------------------------------------------------------------------------------


def _adam_slots(inner: Any, group: dict[str, Any], parameter: Tensor) -> Slots:
    state = inner.state[parameter]
    if "step" not in state:
        # As torch's own first step makes them: the count is on the parameter's device only where the fused kernel reads it.
        device = parameter.device if group.get("fused") else "cpu"
        state["step"] = torch.zeros((), dtype=torch.float32, device=device)
        for name in ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])):
            state[name] = torch.zeros_like(parameter, requires_grad=False)
    return {name: value for name, value in state.items() if name != "step"}


def _adam_numbers(group: dict[str, Any], count: int) -> tuple[float, float, float]:
    beta_1, beta_2 = group["betas"]
    rate = float(group["lr"])
    return rate / (1.0 - beta_1**count), (1.0 - beta_2**count) ** -0.5, 1.0 - rate * group["weight_decay"]


def _adam(group: dict[str, Any], w: Tensor, g: Tensor, slots: Slots, numbers: Numbers) -> None:
    beta_1, beta_2 = group["betas"]
    if group["weight_decay"]:
        if group.get("decoupled_weight_decay"):
            w.mul_(numbers[2])
        else:
            g = g + group["weight_decay"] * w
    mean, square = slots["exp_avg"], slots["exp_avg_sq"]
    mean.lerp_(g, 1.0 - beta_1)
    square.mul_(beta_2).addcmul_(g, g, value=1.0 - beta_2)
    if group["amsgrad"]:
        largest = slots["max_exp_avg_sq"]
        largest.copy_(torch.maximum(largest, square))
        square = largest
    w.sub_(numbers[0] * mean / (square.sqrt() * numbers[1] + group["eps"]))


RULES: dict[type, _Rule] = {
    torch.optim.SGD: _Rule(
        1, lambda group, count: (float(group["lr"]),), _sgd_slots, _sgd, lambda group: group["dampening"] == 0
    ),
    torch.optim.Adam: _Rule(3, _adam_numbers, _adam_slots, _adam),
    torch.optim.AdamW: _Rule(3, _adam_numbers, _adam_slots, _adam),
}
