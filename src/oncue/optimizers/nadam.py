"""Nadam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from oncue.optimizers.foreach import Numbers, Slots, Tensors, add_, add_quotient_, add_square_, lerp_
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.options import Options, takes_options
from oncue.optimizers.setting import decaying_share, setting, small_number


class Nadam(Optimizer):
    """Adam that looks ahead along its first moment, as Nesterov's momentum does.

    Source: Dozat 2016, "Incorporating Nesterov momentum into Adam", with its schedule of momenta
    `u_t = beta_1 * (1 - 0.5 * 0.96 ** t)` (Keras, `Nadam`). The same as torch's NAdam with `momentum_decay=1.0`, whose
    factors are kept here once for all parameters instead of in a tensor for each.

    Args:
        learning_rate: See `Optimizer`.
        beta_1: The share of the first moment that each step keeps.
        beta_2: The share of the second moment that each step keeps.
        epsilon: Added to the root of the second moment; None for the backend's epsilon.
        weight_decay: See `Optimizer`, as for all arguments from here on.

    Raises:
        ValueError: When an argument is unknown or out of its range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Nadam(learning_rate=0.25, beta_1=0.0)
        >>> optimizer.apply([torch.tensor([3.0])], [weight])
        >>> weight.data
        tensor([0.7500])
    """

    _counts_updates = True

    beta_1: float = setting("beta_1", decaying_share, "The share of the first moment that each step keeps.")
    beta_2: float = setting("beta_2", decaying_share, "The share of the second moment that each step keeps.")
    epsilon: float = setting("epsilon", small_number, "Added to the root of the second moment.")

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
        # The product of the momenta of so many updates, and that of the update that was asked for last.
        self._product, self._multiplied, self._coming = 1.0, 0, (0, 1.0)
        # Whether they had several `beta_1`, so that the product doesn't follow from the count.
        self._mixed = False
        self._late_products: dict[int, float] = {}

    @staticmethod
    def update_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
        """Update parameters and slots in place; see `Optimizer`."""
        momentum, velocity = slots["momentum"], slots["velocity"]
        lerp_(momentum, gradients, numbers["new_momentum"])
        torch._foreach_mul_(velocity, numbers["beta_2"])
        add_square_(velocity, gradients, numbers["new_square"])
        denominators = list(torch._foreach_div(velocity, numbers["correction"]))
        torch._foreach_sqrt_(denominators)
        add_(denominators, numbers["epsilon"])
        add_quotient_(parameters, momentum, denominators, -numbers["momentum_rate"])
        add_quotient_(parameters, gradients, denominators, -numbers["gradient_rate"])

    def update_numbers(self, update: int, rate: float) -> dict[str, float]:
        """Return the numbers of an update; see `Optimizer`."""
        product = self._product_with(update)
        now, following = self._momentum_at(update), self._momentum_at(update + 1)
        return {
            "momentum_rate": rate * following / (1.0 - product * following),
            "gradient_rate": rate * (1.0 - now) / (1.0 - product),
            "correction": 1.0 - self._beta_2**update,
            "new_momentum": 1.0 - self._beta_1,
            "beta_2": self._beta_2,
            "new_square": 1.0 - self._beta_2,
            "epsilon": self._epsilon,
        }

    def _momentum_at(self, update: int) -> float:
        return float(self._beta_1 * (1.0 - 0.5 * 0.96**update))

    def _product_with(self, update: int) -> float:
        """Return the product of the momenta up to an update that is about to be made."""
        now = self._momentum_at(update)
        if update == self._updates + 1:
            product = self._u_product() * now
            self._coming = update, product
            return product
        # One of parameters that joined later, whose updates began then.
        before = self._late_products.get(update - 1)
        self._late_products.pop(update - 2, None)
        self._late_products[update] = product = (self._from_the_count(update - 1) if before is None else before) * now
        return product

    def _u_product(self) -> float:
        """Return the product of the momenta of all updates done, each with the `beta_1` of its time."""
        done = self._updates
        if done != self._multiplied:
            # An update that was asked for is multiplied once it is done: a step can be skipped, or tried again.
            asked, product = self._coming
            followed = done == asked == self._multiplied + 1
            self._product = product if followed else self._from_the_count(done)
            self._multiplied = done
        return self._product

    def _from_the_count(self, updates: int) -> float:
        return math.prod(self._momentum_at(update) for update in range(1, updates + 1))

    def _count_changed(self) -> None:
        self._late_products.clear()

    def _own_variables(self) -> list[Tensor]:
        return [torch.tensor(self._u_product(), dtype=torch.float32)]

    def _set_own_variables(self, values: Sequence[Tensor]) -> None:
        # The 32 bits of a file are less than what follows from the count, unless `beta_1` was another for a time.
        saved, counted = values[0], self._from_the_count(self._updates)
        self._mixed = bool(torch.tensor(counted, dtype=torch.float32) != saved)
        self._set_product(float(saved) if self._mixed else counted)

    def _settings_changed(self) -> None:
        super()._settings_changed()
        if self.built and self._updates:
            product = self._u_product()
            self._mixed = product != self._from_the_count(self._updates)

    def _numbers(self) -> dict[str, float]:
        return {"u_product": self._u_product()} if self._mixed else {}

    def _set_numbers(self, numbers: dict[str, float]) -> None:
        self._mixed = "u_product" in numbers
        self._set_product(numbers["u_product"] if self._mixed else self._from_the_count(self._updates))

    def _set_product(self, product: float) -> None:
        self._product, self._multiplied = product, self._updates

    of_the_run = Optimizer.of_the_run | {"_product", "_multiplied", "_coming", "_late_products"}

    def _slot_blocks(self) -> list[dict[str, str]]:
        return [{"momentum": "momentum", "velocity": "velocity"}]

    _optional_numbers = ("u_product",)
