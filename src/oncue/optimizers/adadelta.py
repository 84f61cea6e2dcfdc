"""Adadelta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.setting import setting, share, small_number


class Adadelta(Optimizer):
    """Gradient descent whose step is the ratio of two running root mean squares: of past changes and of the gradient.

    Source: Zeiler 2012 (arXiv:1212.5701). The arithmetic is torch's.

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

    # As they are kept, for what runs in each step and for graphs, which can't read properties made by `setting`.
    _rho: float
    _epsilon: float

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.95,
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
        self.rho = rho
        self.epsilon = small_number("epsilon", epsilon)

    def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """Return torch's Adadelta."""
        inner = torch.optim.Adadelta(groups, lr=learning_rate, rho=self._rho, eps=self._epsilon, foreach=True)
        for group in groups:
            for parameter in group["params"]:
                inner.state[parameter] = {
                    "step": torch.zeros(()),
                    "square_avg": torch.zeros_like(parameter, requires_grad=False),
                    "acc_delta": torch.zeros_like(parameter, requires_grad=False),
                }
        return inner

    def _hyperparameters(self) -> dict[str, Any]:
        return {"rho": self._rho, "eps": self._epsilon}

    def _slot_blocks(self) -> list[dict[str, str]]:
        return [{"accumulated_grad": "square_avg", "accumulated_delta_var": "acc_delta"}]

    has_compiled_rule = True

    def compiled_rule(
        self, weight: Tensor, gradient: Tensor, slots: dict[str, Tensor], numbers: Sequence[Tensor]
    ) -> None:
        """Update one parameter in place; see `Optimizer`."""
        squares, changes = slots["accumulated_grad"], slots["accumulated_delta_var"]
        squares.mul_(self._rho).addcmul_(gradient, gradient, value=1.0 - self._rho)
        change = (changes + self._epsilon).sqrt() / (squares + self._epsilon).sqrt() * gradient
        changes.mul_(self._rho).addcmul_(change, change, value=1.0 - self._rho)
        weight.sub_(numbers[0] * change)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "rho": self.rho, "epsilon": self.epsilon}
