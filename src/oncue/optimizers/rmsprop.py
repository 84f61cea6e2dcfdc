"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

import torch

from oncue.optimizers.foreach import Numbers, Slots, Tensors, add_, add_quotient_, add_scaled_, add_square_, lerp_, plus
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.options import Options, takes_options
from oncue.optimizers.setting import has_velocity, setting, share, small_number, switch


class RMSprop(Optimizer):
    """Gradient descent divided by a running root mean square of the gradient.

    Formula: `v = rho * v + (1 - rho) * g ** 2` and `w -= learning_rate * g / sqrt(v + epsilon)` (Hinton 2012, lecture
    6e; Keras, `RMSprop`, which has epsilon under the root where torch adds it to the root).

    Args:
        learning_rate: See `Optimizer`.
        rho: The share of the mean square that each step keeps.
        momentum: The share of the last change that each step adds to the next, 0 for none.
        epsilon: Added under the root; None for the backend's epsilon.
        centered: Divide by the gradient's estimated variance instead of its mean square.
        weight_decay: See `Optimizer`, as for all arguments from here on.

    Raises:
        ValueError: When an argument is unknown or out of its range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = RMSprop(learning_rate=0.25, rho=0.75)
        >>> optimizer.apply([torch.tensor([3.0])], [weight])
        >>> weight.data
        tensor([0.5000])
    """

    rho: float = setting("rho", share, "The share of the mean square that each step keeps.")
    momentum: float = setting(
        "momentum",
        share,
        "The share of the last change that each step adds to the next.",
        fixed="it keeps no changes, which `momentum` above 0 has made from the beginning",
        fits=has_velocity,
    )
    epsilon: float = setting("epsilon", small_number, "Added under the root.")
    centered: bool = setting(
        "centered",
        switch,
        "Whether to divide by the estimated variance; fixed once the optimizer is built.",
        fixed="the mean gradient is kept of all or none of the training",
    )

    keeps_velocity = False
    """Whether there is a last change for each parameter: where `momentum` was above 0 when the optimizer was built."""

    # As they are kept, for what runs in each step.
    _rho: float
    _momentum: float
    _epsilon: float
    _centered: bool

    @takes_options
    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float | None = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.rho = rho
        self.momentum = momentum
        self.epsilon = small_number("epsilon", epsilon)
        self.centered = centered

    @staticmethod
    def update_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
        """Update parameters and slots in place; see `Optimizer`."""
        velocity, new = slots["velocity"], numbers["new_square"]
        torch._foreach_mul_(velocity, numbers["rho"])
        add_square_(velocity, gradients, new)
        denominators = plus(velocity, numbers["epsilon"])
        if "average_gradient" in slots:
            average = slots["average_gradient"]
            lerp_(average, gradients, new)
            torch._foreach_addcmul_(denominators, average, average, value=-1.0)
        torch._foreach_sqrt_(denominators)
        # torch adds epsilon to the root, and applies the present learning rate to the velocity: the numbers say which.
        if "root_epsilon" in numbers:
            add_(denominators, numbers["root_epsilon"])
        kept = numbers.get("momentum")
        if kept is not None:
            momentum = slots["momentum"]
            torch._foreach_mul_(momentum, kept)
            add_quotient_(momentum, gradients, denominators, numbers["rate"])
            add_scaled_(parameters, momentum, -numbers.get("velocity_rate", 1.0))
        else:
            add_quotient_(parameters, gradients, denominators, -numbers["rate"])

    def build(self, variables: Iterable[Any]) -> None:
        """Take the parameters to train and create the state for them; see `Optimizer`."""
        if self._inner is None:
            self.keeps_velocity = self._momentum != 0
        super().build(variables)

    def update_numbers(self, update: int, rate: float) -> dict[str, float]:
        """Return the numbers of an update; see `Optimizer`."""
        numbers = {"rate": rate, "rho": self._rho, "new_square": 1.0 - self._rho, "epsilon": self._epsilon}
        return {**numbers, "momentum": self._momentum} if self._momentum != 0 else numbers

    def _group_options(self, update: int, rate: float) -> dict[str, Any]:
        # A group keeps what an update with other settings wrote.
        return {"momentum": None, **self.update_numbers(update, rate)}

    def _slot_blocks(self) -> list[dict[str, str]]:
        names = ["velocity"] + ["momentum"] * self.keeps_velocity + ["average_gradient"] * self._centered
        return [{name: name} for name in names]
