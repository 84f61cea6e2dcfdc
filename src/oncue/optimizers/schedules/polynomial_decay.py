"""Polynomial decay."""

from __future__ import annotations

import math
from typing import Any

from oncue.core.builtin import names_arguments
from oncue.core.numbers import plain
from oncue.optimizers.schedules.learning_rate_schedule import LearningRateSchedule, check_positive


@names_arguments
class PolynomialDecay(LearningRateSchedule):
    """Goes from one learning rate to another along a power of the time left.

    Formula: `(initial - end) * (1 - min(step, decay_steps) / decay_steps) ** power + end`; with `cycle`, `decay_steps`
    is replaced by its first multiple that is not below `step` (Keras, `schedules.PolynomialDecay`).

    Args:
        initial_learning_rate: The rate at step 0.
        decay_steps: The step at which the end is reached.
        end_learning_rate: The rate from there on.
        power: The power; 1.0 is a straight line.
        cycle: Start over, in longer and longer slopes, instead of staying at the end.
        name: A name, kept in the config.

    Raises:
        ValueError: When `decay_steps` is not above 0.

    Example:
        >>> PolynomialDecay(0.5, decay_steps=10, end_learning_rate=0.0)(5)
        0.25
    """

    _arguments = ("initial_learning_rate", "decay_steps", "end_learning_rate", "power", "cycle", "name")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        check_positive("decay_steps", decay_steps)
        self.initial_learning_rate = plain(initial_learning_rate)
        self.decay_steps = plain(decay_steps)
        self.end_learning_rate = plain(end_learning_rate)
        self.power = plain(power)
        self.cycle = cycle
        self.name = name

    def __call__(self, step: Any) -> float:
        """Return the learning rate of `step`."""
        done, steps = float(step), float(self.decay_steps)
        if self.cycle:
            steps *= max(1, math.ceil(done / steps))
        else:
            done = min(done, steps)
        left = (1.0 - done / steps) ** self.power
        return float((self.initial_learning_rate - self.end_learning_rate) * left + self.end_learning_rate)
