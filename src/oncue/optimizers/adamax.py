"""Adamax."""

from __future__ import annotations

from typing import Any, Unpack

import torch

from oncue.optimizers.foreach import Numbers, Slots, Tensors, add_, add_quotient_, lerp_, plus
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.options import Options, takes_options
from oncue.optimizers.setting import decaying_share, setting, share, small_number


class Adamax(Optimizer):
    """Adam with the largest recent gradient in place of the second moment.

    Formula: `m += (1 - beta_1) * (g - m)`, `u = max(beta_2 * u, abs(g))` and
    `w -= learning_rate / (1 - beta_1 ** t) * m / (u + epsilon)` (Kingma and Ba 2014, arXiv:1412.6980, section 7.1;
    Keras, `Adamax`, which adds epsilon to the maximum where torch adds it to the gradient).

    Args:
        learning_rate: See `Optimizer`.
        beta_1: The share of the first moment that each step keeps.
        beta_2: The share of the norm that each step keeps.
        epsilon: Added to the norm; None for the backend's epsilon.
        weight_decay: See `Optimizer`, as for all arguments from here on.

    Raises:
        ValueError: When an argument is unknown or out of its range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adamax(learning_rate=0.25)
        >>> optimizer.apply([torch.tensor([3.0])], [weight])
        >>> weight.data
        tensor([0.7500])
    """

    _counts_updates = True

    beta_1: float = setting("beta_1", decaying_share, "The share of the first moment that each step keeps.")
    beta_2: float = setting("beta_2", share, "The share of the norm that each step keeps.")
    epsilon: float = setting("epsilon", small_number, "Added to the norm.")

    # As they are kept, for what runs in each step.
    _beta_1: float
    _beta_2: float
    _epsilon: float

    @takes_options
    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | None = 1e-7,
        weight_decay: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = small_number("epsilon", epsilon)

    @staticmethod
    def update_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
        """Update parameters and slots in place; see `Optimizer`."""
        momentum, norm = slots["momentum"], slots["norm"]
        lerp_(momentum, gradients, numbers["new_momentum"])
        torch._foreach_mul_(norm, numbers["beta_2"])
        sizes = list(torch._foreach_abs(gradients))
        if "size_epsilon" in numbers:
            # As torch has it.
            add_(sizes, numbers["size_epsilon"])
        torch._foreach_maximum_(norm, sizes)
        add_quotient_(parameters, momentum, plus(norm, numbers["epsilon"]), -numbers["rate"])

    def update_numbers(self, update: int, rate: float) -> dict[str, float]:
        """Return the numbers of an update; see `Optimizer`. The bias correction is in "rate"."""
        return {
            "rate": rate / (1.0 - self._beta_1**update),
            "new_momentum": 1.0 - self._beta_1,
            "beta_2": self._beta_2,
            "epsilon": self._epsilon,
        }

    def _slot_blocks(self) -> list[dict[str, str]]:
        return [{"momentum": "momentum", "norm": "norm"}]
