"""Adadelta."""

from __future__ import annotations

from typing import Any, Unpack

import torch

from oncue.optimizers.foreach import Numbers, Slots, Tensors, add_scaled_, add_square_, plus
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.options import Options, takes_options
from oncue.optimizers.setting import setting, share, small_number


class Adadelta(Optimizer):
    """Gradient descent whose step is the ratio of two running root mean squares: of past changes and of the gradient.

    Source: Zeiler 2012 (arXiv:1212.5701).

    Args:
        learning_rate: See `Optimizer`; 1.0 is the paper's form.
        rho: The share of the mean squares that each step keeps.
        epsilon: Added under both roots; None for the backend's epsilon.
        weight_decay: See `Optimizer`, as for all arguments from here on.

    Raises:
        ValueError: When an argument is unknown or out of its range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adadelta(learning_rate=1.0, rho=0.5, epsilon=1.0)
        >>> optimizer.apply([torch.tensor([4.0])], [weight])
        >>> weight.data
        tensor([-0.3333])
    """

    rho: float = setting("rho", share, "The share of the mean squares that each step keeps.")
    epsilon: float = setting("epsilon", small_number, "Added under both roots.")

    # As they are kept, for what runs in each step.
    _rho: float
    _epsilon: float

    @takes_options
    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.95,
        epsilon: float | None = 1e-7,
        weight_decay: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.rho = rho
        self.epsilon = small_number("epsilon", epsilon)

    @staticmethod
    def update_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
        """Update parameters and slots in place; see `Optimizer`."""
        squares, changes = slots["accumulated_grad"], slots["accumulated_delta_var"]
        rho, new, epsilon = numbers["rho"], numbers["new_square"], numbers["epsilon"]
        torch._foreach_mul_(squares, rho)
        add_square_(squares, gradients, new)
        change, denominators = plus(changes, epsilon), plus(squares, epsilon)
        torch._foreach_sqrt_(change)
        torch._foreach_sqrt_(denominators)
        torch._foreach_div_(change, denominators)
        torch._foreach_mul_(change, gradients)
        torch._foreach_mul_(changes, rho)
        add_square_(changes, change, new)
        add_scaled_(parameters, change, -numbers["rate"])

    def update_numbers(self, update: int, rate: float) -> dict[str, float]:
        """Return the numbers of an update; see `Optimizer`."""
        return {"rate": rate, "rho": self._rho, "new_square": 1.0 - self._rho, "epsilon": self._epsilon}

    def _slot_blocks(self) -> list[dict[str, str]]:
        return [{name: name for name in ("accumulated_grad", "accumulated_delta_var")}]
