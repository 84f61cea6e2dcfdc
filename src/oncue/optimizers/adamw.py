"""AdamW."""

from __future__ import annotations

from typing import Any, Unpack

from oncue.optimizers.adam import Adam
from oncue.optimizers.learning_rate import checked_rate
from oncue.optimizers.options import Options, takes_options
from oncue.optimizers.setting import setting


def _decay(name: str, value: Any) -> float:
    if value is None:
        raise ValueError(f"`{name}` of AdamW must be a number; got None. Use `Adam` for no weight decay.")
    return checked_rate(value, name)


class AdamW(Adam):
    """Adam with decoupled weight decay.

    Source: Loshchilov and Hutter 2017 (arXiv:1711.05101).

    Args:
        learning_rate: See `Optimizer`.
        weight_decay: See `Optimizer`; 0.004 by default.
        beta_1: See `Adam`.
        beta_2: See `Adam`.
        epsilon: See `Adam`.
        amsgrad: See `Adam`.
        **options: See `Optimizer`: `clipnorm` and what follows it there.

    Raises:
        ValueError: When `weight_decay` is None, or an argument is unknown or out of its range.

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdamW(learning_rate=0.25, weight_decay=1.0)
        >>> optimizer.apply([torch.tensor([3.0])], [weight])
        >>> weight.data
        tensor([0.5000])
    """

    weight_decay: float = setting("weight_decay", _decay, "Decoupled weight decay.")

    update_rule = staticmethod(Adam.update_rule)

    @takes_options
    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float | None = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            amsgrad=amsgrad,
            weight_decay=weight_decay,
            **options,
        )
