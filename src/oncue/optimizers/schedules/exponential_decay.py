"""Exponential decay."""

from __future__ import annotations

import math
from typing import Any

from oncue.core.builtin import names_arguments
from oncue.core.numbers import plain
from oncue.optimizers.schedules.learning_rate_schedule import LearningRateSchedule, check_positive


@names_arguments
class ExponentialDecay(LearningRateSchedule):
    """Multiplies the learning rate by `decay_rate` every `decay_steps` steps.

    Formula: `initial_learning_rate * decay_rate ** (step / decay_steps)` (Keras, `schedules.ExponentialDecay`).

    Args:
        initial_learning_rate: The rate at step 0.
        decay_steps: Steps in which the rate falls by one factor of `decay_rate`.
        decay_rate: The factor.
        staircase: Fall at multiples of `decay_steps` only.
        name: A name, kept in the config.

    Raises:
        ValueError: When `decay_steps` is not above 0.

    Example:
        >>> ExponentialDecay(0.1, decay_steps=10, decay_rate=0.5)(20)
        0.025
    """

    _arguments = ("initial_learning_rate", "decay_steps", "decay_rate", "staircase", "name")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        check_positive("decay_steps", decay_steps)
        self.initial_learning_rate = plain(initial_learning_rate)
        self.decay_steps = plain(decay_steps)
        self.decay_rate = plain(decay_rate)
        self.staircase = staircase
        self.name = name

    def __call__(self, step: Any) -> float:
        """Return the learning rate of `step`."""
        periods = float(step) / self.decay_steps
        if self.staircase:
            periods = math.floor(periods)
        return float(self.initial_learning_rate * self.decay_rate**periods)
