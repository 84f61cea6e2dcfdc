"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

import torch

from oncue.optimizers.foreach import Numbers, Slots, Tensors, add_scaled_
from oncue.optimizers.foreach_optimizer import ForeachOptimizer, can_fuse
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.options import Options, takes_options
from oncue.optimizers.setting import has_velocity, setting, share, switch
from oncue.shards import is_sharded
from oncue.torch_private import fused_sgd

_fused_sgd = fused_sgd()


class SGD(Optimizer):
    """Gradient descent, with momentum if wanted.

    Formula: `w -= learning_rate * g`; with momentum `v = momentum * v - learning_rate * g` and `w += v`, or, with
    `nesterov`, `w += momentum * v - learning_rate * g` (Keras, `SGD`). The velocity keeps the learning rates of the
    past, where torch's takes the present one.

    Args:
        learning_rate: See `Optimizer`.
        momentum: The share of the velocity that each step keeps, in [0, 1].
        nesterov: Look ahead along the velocity.
        weight_decay: See `Optimizer`, as for all arguments from here on.

    Raises:
        ValueError: When an argument is unknown or out of its range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = SGD(0.5, momentum=0.5)
        >>> for _ in range(2):
        ...     optimizer.apply([torch.tensor([1.0])], [weight])
        >>> weight.data
        tensor([-0.2500])
    """

    momentum: float = setting(
        "momentum",
        share,
        "The share of the velocity that each step keeps; 0 leaves it alone, and is 0 for good where none was built.",
        fixed="it has no velocity, which `momentum` above 0 has made from the beginning",
        fits=has_velocity,
    )
    nesterov: bool = setting("nesterov", switch, "Whether to look ahead along the velocity.")

    keeps_velocity = False
    """Whether there is a velocity for each parameter: where `momentum` was above 0 when the optimizer was built."""

    # As they are kept, for what runs in each step.
    _momentum: float
    _nesterov: bool

    @takes_options
    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.momentum = momentum
        self.nesterov = nesterov

    @staticmethod
    def update_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
        """Update parameters and slots in place; see `Optimizer`."""
        # Keras has the learning rate in the velocity, torch applies it to the velocity: the numbers say which.
        kept = numbers.get("momentum")
        if kept is not None:
            velocity = slots["momentum"]
            torch._foreach_mul_(velocity, kept)
            add_scaled_(velocity, gradients, numbers["new_velocity"])
            add_scaled_(parameters, velocity, numbers["velocity_rate"])
        rate = numbers.get("gradient_rate")
        if rate is not None:
            add_scaled_(parameters, gradients, rate)

    def build(self, variables: Iterable[Any]) -> None:
        """Take the parameters to train and create the state for them; see `Optimizer`."""
        if self._inner is None:
            self.keeps_velocity = self._momentum != 0
        super().build(variables)

    def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """Return torch's own SGD, or one with Keras's momentum."""
        if self.keeps_velocity:
            defaults = {"lr": learning_rate, **self._group_options(1, learning_rate)}
            groups = [{**group, "fused": can_fuse(group["params"])} for group in groups]
            return ForeachOptimizer(groups, defaults, self._first_slots(), _sgd_in_one_kernel)
        if any(is_sharded(parameter) for group in groups for parameter in group["params"]):
            return ForeachOptimizer(groups, {"lr": learning_rate}, {}, _on_shards)
        fused = all(can_fuse(group["params"]) for group in groups)
        return torch.optim.SGD(groups, lr=learning_rate, fused=fused, foreach=not fused)

    def update_numbers(self, update: int, rate: float) -> dict[str, float]:
        """Return the numbers of an update; see `Optimizer`."""
        if self._momentum == 0:
            return {"gradient_rate": -rate}
        numbers = {"momentum": self._momentum, "new_velocity": -rate}
        if self._nesterov:
            return {**numbers, "velocity_rate": self._momentum, "gradient_rate": -rate}
        return {**numbers, "velocity_rate": 1.0}

    def _group_options(self, update: int, rate: float) -> dict[str, Any]:
        # A group keeps what an update with other settings wrote.
        none = {"momentum": None, "gradient_rate": None}
        return {**none, **self.update_numbers(update, rate)} if self.keeps_velocity else {}

    def _slot_blocks(self) -> list[dict[str, str]]:
        return [{"momentum": "momentum"}] if self.keeps_velocity else []


def _on_shards(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
    torch._foreach_add_(parameters, gradients, alpha=-numbers["lr"])


def _sgd_in_one_kernel(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
    if not numbers["fused"] or _fused_sgd is None or numbers["gradient_rate"] is not None:
        SGD.update_rule(parameters, gradients, slots, numbers)
        return
    # torch's kernel does `v = momentum * v + (1 - dampening) * g` and `w -= lr * v`: with these two numbers the rate goes
    # into the velocity, as in Keras, and the velocity as it is into the weight.
    _fused_sgd(
        parameters,
        gradients,
        slots["momentum"],
        weight_decay=0.0,
        momentum=numbers["momentum"],
        lr=-numbers["velocity_rate"],
        dampening=1.0 - numbers["new_velocity"],
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )
