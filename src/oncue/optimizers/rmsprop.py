"""RMSprop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from oncue.optimizers.foreach_optimizer import ForeachOptimizer
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.setting import setting, share, small_number, switch


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
        fixed="a velocity is kept for all or none of the training",
        differ=lambda before, value: (before == 0) != (value == 0),
    )
    epsilon: float = setting("epsilon", small_number, "Added under the root.")
    centered: bool = setting(
        "centered",
        switch,
        "Whether to divide by the estimated variance; fixed once the optimizer is built.",
        fixed="the mean gradient is kept of all or none of the training",
    )

    # As they are kept, for what runs in each step and for graphs, which can't read properties made by `setting`.
    _rho: float
    _momentum: float
    _epsilon: float
    _centered: bool

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float | None = 1e-7,
        centered: bool = False,
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
        self.rho = rho
        self.momentum = momentum
        self.epsilon = small_number("epsilon", epsilon)
        self.centered = centered

    def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """Return an RMSprop with Keras's epsilon."""
        slots = {name: 0.0 for block in self._slot_blocks() for name in block}
        return _RMSprop(groups, {"lr": learning_rate, **self._hyperparameters()}, slots)

    def _hyperparameters(self) -> dict[str, Any]:
        return {"rho": self._rho, "momentum": self._momentum, "eps": self._epsilon}

    def _slot_blocks(self) -> list[dict[str, str]]:
        names = ["velocity"] + ["momentum"] * (self._momentum > 0) + ["average_gradient"] * self._centered
        return [{name: name} for name in names]

    has_compiled_rule = True

    def compiled_rule(
        self, weight: Tensor, gradient: Tensor, slots: dict[str, Tensor], numbers: Sequence[Tensor]
    ) -> None:
        """Update one parameter in place; see `Optimizer`."""
        velocity = slots["velocity"]
        velocity.mul_(self._rho).addcmul_(gradient, gradient, value=1.0 - self._rho)
        denominator = velocity + self._epsilon
        if self._centered:
            average = slots["average_gradient"]
            average.lerp_(gradient, 1.0 - self._rho)
            denominator = denominator - average * average
        change = numbers[0] * gradient / denominator.sqrt()
        if self._momentum > 0:
            slots["momentum"].mul_(self._momentum).add_(change)
            change = slots["momentum"]
        weight.sub_(change)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"rho": self.rho, "momentum": self.momentum, "epsilon": self.epsilon, "centered": self.centered}
        return {**super().get_config(), **own}


class _RMSprop(ForeachOptimizer):
    def update(
        self, parameters: list[Tensor], gradients: list[Tensor], slots: dict[str, list[Tensor]], group: dict[str, Any]
    ) -> None:
        rho, velocity = group["rho"], slots["velocity"]
        torch._foreach_mul_(velocity, rho)
        torch._foreach_addcmul_(velocity, gradients, gradients, value=1.0 - rho)
        denominators = list(torch._foreach_add(velocity, group["eps"]))
        if "average_gradient" in slots:
            average = slots["average_gradient"]
            torch._foreach_lerp_(average, gradients, 1.0 - rho)
            torch._foreach_addcmul_(denominators, average, average, value=-1.0)
        torch._foreach_sqrt_(denominators)
        if "momentum" in slots:
            torch._foreach_mul_(slots["momentum"], group["momentum"])
            torch._foreach_addcdiv_(slots["momentum"], gradients, denominators, value=group["lr"])
            torch._foreach_sub_(parameters, slots["momentum"])
        else:
            torch._foreach_addcdiv_(parameters, gradients, denominators, value=-group["lr"])
