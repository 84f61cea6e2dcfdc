"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from oncue.optimizers.foreach_optimizer import ForeachOptimizer, can_fuse
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.setting import setting, share, switch
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
        "The share of the velocity that each step keeps.",
        fixed="a velocity is kept for all or none of the training",
        differ=lambda before, value: (before == 0) != (value == 0),
    )
    nesterov: bool = setting("nesterov", switch, "Whether to look ahead along the velocity.")

    # As they are kept, for what runs in each step and for graphs, which can't read properties made by `setting`.
    _momentum: float
    _nesterov: bool

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
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
        self.momentum = momentum
        self.nesterov = nesterov

    def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """Return torch's own SGD, or one with Keras's momentum."""
        if self._momentum != 0:
            defaults = {"lr": learning_rate, **self._hyperparameters()}
            return _MomentumSGD([{**group, "fused": can_fuse(group["params"])} for group in groups], defaults)
        fused = all(can_fuse(group["params"]) for group in groups)
        return torch.optim.SGD(groups, lr=learning_rate, fused=fused, foreach=not fused)

    def _hyperparameters(self) -> dict[str, Any]:
        return {"momentum": self._momentum, "nesterov": self._nesterov} if self._momentum != 0 else {}

    def _slot_blocks(self) -> list[dict[str, str]]:
        return [{"momentum": "momentum"}] if self._momentum != 0 else []

    has_compiled_rule = True

    def compiled_rule(
        self, weight: Tensor, gradient: Tensor, slots: dict[str, Tensor], numbers: Sequence[Tensor]
    ) -> None:
        """Update one parameter in place; see `Optimizer`."""
        if self._momentum == 0:
            weight.sub_(numbers[0] * gradient)
            return
        velocity = slots["momentum"]
        velocity.mul_(self._momentum).sub_(numbers[0] * gradient)
        weight.add_(self._momentum * velocity - numbers[0] * gradient if self._nesterov else velocity)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class _MomentumSGD(ForeachOptimizer):
    def __init__(self, groups: list[dict[str, Any]], defaults: dict[str, Any]) -> None:
        super().__init__(groups, defaults, {"momentum": 0.0})

    def update(
        self, parameters: list[Tensor], gradients: list[Tensor], slots: dict[str, list[Tensor]], group: dict[str, Any]
    ) -> None:
        velocity, momentum, rate = slots["momentum"], group["momentum"], group["lr"]
        if group["fused"] and not group["nesterov"] and _fused_sgd is not None:
            # torch's kernel does `v = momentum * v + (1 - dampening) * g` and `w -= lr * v`: with these two numbers the
            # rate goes into the velocity, as in Keras, and the velocity as it is into the weight.
            _fused_sgd(
                parameters,
                gradients,
                velocity,
                weight_decay=0.0,
                momentum=momentum,
                lr=-1.0,
                dampening=1.0 + rate,
                nesterov=False,
                maximize=False,
                is_first_step=False,
            )
            return
        torch._foreach_mul_(velocity, momentum)
        torch._foreach_add_(velocity, gradients, alpha=-rate)
        if group["nesterov"]:
            torch._foreach_add_(parameters, velocity, alpha=momentum)
            torch._foreach_add_(parameters, gradients, alpha=-rate)
        else:
            torch._foreach_add_(parameters, velocity)
