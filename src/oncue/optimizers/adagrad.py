"""Adagrad."""

from __future__ import annotations

from typing import Any, Unpack

import torch

from oncue.optimizers.foreach import Numbers, Slots, Tensors, add_, add_quotient_, plus
from oncue.optimizers.learning_rate import checked_rate
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.options import Options, takes_options
from oncue.optimizers.setting import setting, small_number


class Adagrad(Optimizer):
    """Gradient descent divided by the root of the sum of all squared gradients so far.

    Formula: `a += g ** 2` and `w -= learning_rate * g / sqrt(a + epsilon)` (Duchi et al. 2011; Keras, `Adagrad`, which
    has epsilon under the root where torch adds it to the root).

    Args:
        learning_rate: See `Optimizer`.
        initial_accumulator_value: What the sums start from.
        epsilon: Added under the root; None for the backend's epsilon.
        weight_decay: See `Optimizer`, as for all arguments from here on.

    Raises:
        ValueError: When an argument is unknown or out of its range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adagrad(learning_rate=0.5, initial_accumulator_value=0.0)
        >>> optimizer.apply([torch.tensor([3.0])], [weight])
        >>> weight.data
        tensor([0.5000])
    """

    initial_accumulator_value: float = setting(
        "initial_accumulator_value",
        lambda name, value: checked_rate(value, name),
        "What the sums start from; fixed once the optimizer is built.",
        fixed="the sums have begun already",
    )
    epsilon: float = setting("epsilon", small_number, "Added under the root.")

    # As they are kept, for what runs in each step.
    _initial_accumulator_value: float
    _epsilon: float

    @takes_options
    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float | None = 1e-7,
        weight_decay: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = small_number("epsilon", epsilon)

    @staticmethod
    def update_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
        """Update parameters and slots in place; see `Optimizer`."""
        accumulator = slots["accumulator"]
        torch._foreach_addcmul_(accumulator, gradients, gradients)
        denominators = plus(accumulator, numbers["epsilon"])
        torch._foreach_sqrt_(denominators)
        if "root_epsilon" in numbers:
            # As torch has it.
            add_(denominators, numbers["root_epsilon"])
        add_quotient_(parameters, gradients, denominators, -numbers["rate"])

    def update_numbers(self, update: int, rate: float) -> dict[str, float]:
        """Return the numbers of an update; see `Optimizer`."""
        return {"rate": rate, "epsilon": self._epsilon}

    def _first_slots(self) -> dict[str, float]:
        return {"accumulator": self._initial_accumulator_value}

    def _slot_blocks(self) -> list[dict[str, str]]:
        return [{"accumulator": "accumulator"}]
