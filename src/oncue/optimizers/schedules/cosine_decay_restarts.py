"""Cosine decay with warm restarts."""

from __future__ import annotations

import math
from typing import Any

from oncue.core.builtin import names_arguments
from oncue.core.numbers import plain
from oncue.optimizers.schedules.learning_rate_schedule import LearningRateSchedule, check_positive


@names_arguments
class CosineDecayRestarts(LearningRateSchedule):
    """Falls along half a cosine again and again, each period `t_mul` times as long and `m_mul` times as high.

    Source: Loshchilov and Hutter 2016, "SGDR" (arXiv:1608.03983).

    Args:
        initial_learning_rate: The rate at step 0.
        first_decay_steps: Steps of the first period.
        t_mul: How many times longer each period is than the one before.
        m_mul: The factor from the rate at which a period starts to that of the next.
        alpha: The lowest rate as a fraction of `initial_learning_rate`.
        name: A name, kept in the config.

    Raises:
        ValueError: When `first_decay_steps` is not above 0.

    Example:
        >>> schedule = CosineDecayRestarts(0.5, first_decay_steps=10, m_mul=0.5)
        >>> schedule(5), schedule(10)
        (0.25, 0.25)
    """

    _arguments = ("initial_learning_rate", "first_decay_steps", "t_mul", "m_mul", "alpha", "name")

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        check_positive("first_decay_steps", first_decay_steps)
        check_positive("t_mul", t_mul)
        self.initial_learning_rate = plain(initial_learning_rate)
        self.first_decay_steps = plain(first_decay_steps)
        self.t_mul = plain(t_mul)
        self.m_mul = plain(m_mul)
        self.alpha = plain(alpha)
        self.name = name

    def __call__(self, step: Any) -> float:
        """Return the learning rate of `step`."""
        restart, fraction = self._position(float(step) / self.first_decay_steps)
        cosine = 0.5 * self.m_mul**restart * (1.0 + math.cos(math.pi * fraction))
        return float(self.initial_learning_rate * ((1.0 - self.alpha) * cosine + self.alpha))

    def _position(self, periods: float) -> tuple[int, float]:
        if self.t_mul == 1.0:
            return math.floor(periods), periods - math.floor(periods)

        def start(restart: int) -> float:
            return float((1.0 - self.t_mul**restart) / (1.0 - self.t_mul))

        restart = math.floor(math.log(1.0 - periods * (1.0 - self.t_mul)) / math.log(self.t_mul))
        # A quotient of logarithms may round to the wrong side of a whole number, a period too early or too late.
        if periods >= start(restart + 1):
            restart += 1
        elif periods < start(restart):
            restart -= 1
        return restart, (periods - start(restart)) / self.t_mul**restart
