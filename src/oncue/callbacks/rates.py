"""What callbacks that set the learning rate have in common."""

from __future__ import annotations

import math
from typing import Any

from oncue.core.protocols import follows_schedule, optimizers_of


def log_rates(model: Any, logs: dict[str, Any] | None) -> None:
    """Put the rate that the epoch trained with into its logs, unless another callback already did.

    The first callback of the list does so before any changes the rate, so that their order doesn't matter.

    Args:
        model: The model.
        logs: The logs of the epoch.
    """
    if logs is None:
        return
    for name, optimizer in optimizers_of(model):
        key = f"learning_rate_{name}" if name else "learning_rate"
        if key not in logs:
            logs[key] = float(optimizer.learning_rate)


def require_settable(model: Any, needs: str, instead: str) -> None:
    """Refuse an optimizer whose rate no callback can set, before the first step.

    Args:
        model: The model.
        needs: What needs to set it.
        instead: What to type instead, beside a number as the rate.

    Raises:
        TypeError: When a `LearningRateSchedule` sets the rate.
    """
    for name, optimizer in optimizers_of(model):
        if follows_schedule(optimizer):
            whose = f" of the optimizer '{name}'" if name else ""
            raise TypeError(
                f"{needs} sets the learning rate, but a LearningRateSchedule sets that{whose}. Give the optimizer a number "
                f"as `learning_rate`, with a callback such as `LearningRateScheduler` for the schedule; or {instead}."
            )


def same_rate(one: float, other: float) -> bool:
    """Return whether two rates are equal but for the rounding to 32 bits in which Keras keeps them.

    Example:
        >>> same_rate(0.1, 0.10000000149011612), same_rate(0.1, 0.1001)
        (True, False)
    """
    return math.isclose(one, other, rel_tol=1e-6)
