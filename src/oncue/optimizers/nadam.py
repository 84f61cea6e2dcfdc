"""Nadam."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

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
        self._momenta = _Momenta(0, 1.0, self._beta_1)

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
        # Of parameters that joined later, the updates began then.
        momenta = self._momenta if update == self._updates + 1 else _Momenta(0, 1.0, self._beta_1)
        product = momenta.product(update - 1) * self._momentum_at(update)
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

    def _u_product(self) -> float:
        """Return the product of the momenta of all updates done, each with the `beta_1` of its time."""
        return self._momenta.product(self._updates)

    def _own_variables(self) -> list[Tensor]:
        return [torch.tensor(self._u_product(), dtype=torch.float32)]

    def _set_own_variables(self, values: Sequence[Tensor]) -> None:
        # The 32 bits of a file are less than what follows from the count, unless `beta_1` was another for a time.
        self._set_numbers({})
        if bool(self._own_variables()[0] != values[0]):
            self._set_numbers({"u_product": float(values[0])})

    def _settings_changed(self) -> None:
        super()._settings_changed()
        if self.built and self._beta_1 != self._momenta.beta_1:
            self._set_numbers({"u_product": self._u_product()} if self._updates else {})

    def _numbers(self) -> dict[str, float]:
        return {"u_product": self._u_product()} if self._momenta.updates else {}

    def _set_numbers(self, numbers: dict[str, float]) -> None:
        product = numbers.get("u_product")
        known = (0, 1.0) if product is None else (self._updates, product)
        self._momenta = _Momenta(*known, self._beta_1)

    def _slot_blocks(self) -> list[dict[str, str]]:
        return [{"momentum": "momentum", "velocity": "velocity"}]

    _optional_numbers = ("u_product",)


_SHARES = list(itertools.accumulate((1.0 - 0.5 * 0.96**update for update in range(1, 1000)), operator.mul, initial=1.0))
"""The products of the momenta, by the number of updates, where `beta_1` is 1: from the last one on, they are all the same."""


class _Momenta(NamedTuple):
    """The product of the momenta that so many updates had, and the `beta_1` of those that follow."""

    updates: int
    known: float
    beta_1: float

    def product(self, updates: int) -> float:
        """Return the product of the momenta of so many updates."""
        if updates < self.updates:
            # The count was set back.
            return _Momenta(0, 1.0, self.beta_1).product(updates)
        now, then = (_SHARES[min(count, len(_SHARES) - 1)] for count in (updates, self.updates))
        return float(self.known * self.beta_1 ** (updates - self.updates) * now / then)
