"""Adam."""

from __future__ import annotations

import math
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from oncue.optimizers.foreach import Numbers, Slots, Tensors, add_, add_quotient_, add_square_, lerp_
from oncue.optimizers.foreach_optimizer import can_fuse
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.options import Options, takes_options
from oncue.optimizers.setting import decaying_share, setting, small_number, switch
from oncue.shards import is_sharded, parts_of


def adam_numbers(
    update: int, rate: float, beta_1: float, beta_2: float, epsilon: float, epsilon_hat: bool
) -> dict[str, float]:
    """Return the numbers of Adam's rule.

    Args:
        update: The number of the update, from 1.
        rate: The learning rate.
        beta_1: The share of the first moment that is kept.
        beta_2: The share of the second moment that is kept.
        epsilon: Added to the root of the second moment.
        epsilon_hat: Whether it is added before the bias correction, as Keras does, or after it, as torch does.

    Example:
        >>> numbers = adam_numbers(1, 1.0, 0.0, 0.75, 0.5, epsilon_hat=False)
        >>> numbers["rate"], numbers["epsilon"]
        (0.5, 0.25)
    """
    correction = math.sqrt(1.0 - beta_2**update)
    return {
        "rate": rate * correction / (1.0 - beta_1**update),
        "new_momentum": 1.0 - beta_1,
        "beta_2": beta_2,
        "new_square": 1.0 - beta_2,
        "epsilon": epsilon if epsilon_hat else epsilon * correction,
    }


class Adam(Optimizer):
    """Gradient descent scaled by running estimates of the gradient's first two moments.

    Source: Kingma and Ba 2014 (arXiv:1412.6980), in the form before its section 2.1, where epsilon ("epsilon hat") is
    added before the bias correction; `amsgrad` is Reddi et al. 2018 (arXiv:1904.09237). The arithmetic is that of
    torch's fused Adam, with an epsilon that makes it Keras's.

    Args:
        learning_rate: See `Optimizer`.
        beta_1: The share of the first moment that each step keeps.
        beta_2: The share of the second moment that each step keeps.
        epsilon: Added to the root of the second moment; None for the backend's epsilon.
        amsgrad: Divide by the largest second moment seen so far.
        weight_decay: See `Optimizer`, as for all arguments from here on.

    Raises:
        ValueError: When an argument is unknown or out of its range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adam(learning_rate=0.25)
        >>> optimizer.apply([torch.tensor([3.0])], [weight])
        >>> weight.data
        tensor([0.7500])
    """

    _torch_decays = True
    _counts_updates = True

    beta_1: float = setting("beta_1", decaying_share, "The share of the first moment that each step keeps.")
    beta_2: float = setting("beta_2", decaying_share, "The share of the second moment that each step keeps.")
    epsilon: float = setting("epsilon", small_number, "Added to the root of the second moment.")
    amsgrad: bool = setting(
        "amsgrad",
        switch,
        "Whether to divide by the largest second moment seen so far; fixed once the optimizer is built.",
        fixed="the largest moments are kept of all or none of the training",
    )

    # As they are kept, for what runs in each step.
    _beta_1: float
    _beta_2: float
    _epsilon: float
    _amsgrad: bool

    @takes_options
    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | None = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, weight_decay, **options)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = small_number("epsilon", epsilon)
        self.amsgrad = amsgrad

    @staticmethod
    def update_rule(parameters: Tensors, gradients: Tensors, slots: Slots, numbers: Numbers) -> None:
        """Update parameters and slots in place; see `Optimizer`."""
        mean, square = slots["momentum"], slots["velocity"]
        lerp_(mean, gradients, numbers["new_momentum"])
        torch._foreach_mul_(square, numbers["beta_2"])
        add_square_(square, gradients, numbers["new_square"])
        if "velocity_hat" in slots:
            square = slots["velocity_hat"]
            torch._foreach_maximum_(square, slots["velocity"])
        denominators = list(torch._foreach_sqrt(square))
        add_(denominators, numbers["epsilon"])
        add_quotient_(parameters, mean, denominators, -numbers["rate"])

    def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
        """Return torch's Adam with decoupled weight decay, fused where it can be."""
        fused = all(can_fuse(group["params"]) for group in groups)
        sharded = any(is_sharded(parameter) for group in groups for parameter in group["params"])
        inner = (_ShardedAdamW if sharded else torch.optim.AdamW)(
            groups, lr=learning_rate, weight_decay=0.0, amsgrad=self._amsgrad, fused=fused, foreach=not fused
        )
        keys = ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * self._amsgrad
        for group in groups:
            for parameter in group["params"]:
                # The count is where torch's kernel wants it: on the device of the parameter if fused, else on the host.
                step = torch.zeros((), dtype=torch.float32, device=parameter.device if fused else "cpu")
                slots = {key: torch.zeros_like(parameter, requires_grad=False) for key in keys}
                inner.state[parameter] = {"step": step, **slots}
        return inner

    def update_numbers(self, update: int, rate: float) -> dict[str, float]:
        """Return the numbers of an update; see `Optimizer`. Both bias corrections are in "rate"."""
        return adam_numbers(update, rate, self._beta_1, self._beta_2, self._epsilon, epsilon_hat=True)

    def _group_options(self, update: int, rate: float) -> dict[str, Any]:
        # torch's kernel adds epsilon to sqrt(v / correction), Keras to sqrt(v).
        return {"betas": (self._beta_1, self._beta_2), "eps": self._epsilon / math.sqrt(1.0 - self._beta_2**update)}

    def _count_changed(self) -> None:
        if self._inner is not None:
            for parameter in self._parameters:
                self._inner.state[parameter]["step"].fill_(self._updates - self._since.get(parameter, 0))

    def _skipped(self, parameters: list[Tensor]) -> None:
        # Keras corrects the bias by the count of all updates, torch by those of the parameter.
        assert self._inner is not None
        for parameter in parameters:
            self._inner.state[parameter]["step"].add_(1)

    def _slot_blocks(self) -> list[dict[str, str]]:
        blocks = [{"momentum": "exp_avg", "velocity": "exp_avg_sq"}]
        return [*blocks, {"velocity_hat": "max_exp_avg_sq"}] if self._amsgrad else blocks


class _ShardedAdamW(torch.optim.AdamW):
    """Updates the parts that this process has, by the kernel that torch's own would use for whole weights."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no optimizer here takes a closure
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            states = [self.state[p] for p in parameters]
            beta_1, beta_2 = group["betas"]
            adamw(
                parts_of(parameters),
                parts_of([p.grad for p in parameters if p.grad is not None]),
                parts_of([state["exp_avg"] for state in states]),
                parts_of([state["exp_avg_sq"] for state in states]),
                parts_of([state["max_exp_avg_sq"] for state in states]) if group["amsgrad"] else [],
                [state["step"] for state in states],
                foreach=group["foreach"],
                fused=group["fused"],
                amsgrad=group["amsgrad"],
                beta1=beta_1,
                beta2=beta_2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
