"""Nadam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from oncue.optimizers.foreach_optimizer import ForeachOptimizer
from oncue.optimizers.optimizer import Optimizer
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

    beta_1: float = setting("beta_1", decaying_share, "The share of the first moment that each step keeps.")
    beta_2: float = setting("beta_2", decaying_share, "The share of the second moment that each step keeps.")
    epsilon: float = setting("epsilon", small_number, "Added to the root of the second moment.")

    # As they are kept, for what runs in each step and for graphs, which can't read properties made by `setting`.
    _beta_1: float
    _beta_2: float
    _epsilon: float

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | None = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
            **kwargs,
        )
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = small_number("epsilon", epsilon)
        # The product of the momenta of so many updates, and that of the update that was asked for last.
        self._product, self._multiplied, self._coming = 1.0, 0, (0, 1.0)
        # Whether they had several `beta_1`, so that the product doesn't follow from the count.
        self._mixed = False
        self._late_products: dict[int, float] = {}

    def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """Return a Nadam with one schedule of momenta for all parameters."""
        return _Nadam(groups, {"lr": learning_rate}, {"momentum": 0.0, "velocity": 0.0})

    def _momentum_at(self, update: int) -> float:
        return float(self._beta_1 * (1.0 - 0.5 * 0.96**update))

    def _hyperparameters(self) -> dict[str, Any]:
        update = self._updates + 1
        product = self._u_product() * self._momentum_at(update)
        self._coming = update, product
        return {"betas": (self._beta_1, self._beta_2), "eps": self._epsilon, **self._shares(update, product)}

    def _counted(self, update: int) -> dict[str, Any]:
        # The products of the updates before, for each count at which parameters joined.
        before = self._late_products.pop(update - 1, None)
        product = self._from_the_count(update - 1) if before is None else before
        self._late_products[update] = product = product * self._momentum_at(update)
        return self._shares(update, product)

    def _shares(self, update: int, product: float) -> dict[str, float]:
        now, following = self._momentum_at(update), self._momentum_at(update + 1)
        return {
            "correction": 1.0 - self._beta_2**update,
            "momentum_share": following / (1.0 - product * following),
            "gradient_share": (1.0 - now) / (1.0 - product),
        }

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

    def _slot_blocks(self) -> list[dict[str, str]]:
        return [{"momentum": "momentum", "velocity": "velocity"}]

    _optional_numbers = ("u_product",)
    has_compiled_rule = True
    compiled_width = 3

    def compiled_numbers(self, rate: float) -> tuple[float, ...]:
        """Return the two shares times the learning rate, and the bias correction."""
        now = self._hyperparameters()
        return rate * now["momentum_share"], rate * now["gradient_share"], now["correction"]

    def compiled_rule(
        self, weight: Tensor, gradient: Tensor, slots: dict[str, Tensor], numbers: Sequence[Tensor]
    ) -> None:
        """Update one parameter in place; see `Optimizer`."""
        momentum, velocity = slots["momentum"], slots["velocity"]
        momentum.lerp_(gradient, 1.0 - self._beta_1)
        velocity.mul_(self._beta_2).addcmul_(gradient, gradient, value=1.0 - self._beta_2)
        denominator = (velocity / numbers[2]).sqrt() + self._epsilon
        weight.sub_((numbers[0] * momentum + numbers[1] * gradient) / denominator)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


class _Nadam(ForeachOptimizer):
    def update(
        self, parameters: list[Tensor], gradients: list[Tensor], slots: dict[str, list[Tensor]], group: dict[str, Any]
    ) -> None:
        beta_1, beta_2 = group["betas"]
        momentum, velocity = slots["momentum"], slots["velocity"]
        torch._foreach_lerp_(momentum, gradients, 1.0 - beta_1)
        torch._foreach_mul_(velocity, beta_2)
        torch._foreach_addcmul_(velocity, gradients, gradients, value=1.0 - beta_2)
        denominators = list(torch._foreach_div(velocity, group["correction"]))
        torch._foreach_sqrt_(denominators)
        torch._foreach_add_(denominators, group["eps"])
        rate = group["lr"]
        torch._foreach_addcdiv_(parameters, momentum, denominators, value=-rate * group["momentum_share"])
        torch._foreach_addcdiv_(parameters, gradients, denominators, value=-rate * group["gradient_share"])
