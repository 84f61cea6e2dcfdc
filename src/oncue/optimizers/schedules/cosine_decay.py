"""Cosine decay, with a linear warm-up if wanted."""

from __future__ import annotations

import math
from typing import Any

from oncue.core.builtin import names_arguments
from oncue.core.numbers import plain
from oncue.optimizers.schedules.learning_rate_schedule import LearningRateSchedule, check_positive


@names_arguments
class CosineDecay(LearningRateSchedule):
    """Falls along half a cosine, after a linear warm-up if `warmup_target` is given.

    Formula: `start * ((1 - alpha) * (1 + cos(pi * step / decay_steps)) / 2 + alpha)`, from Loshchilov and Hutter 2016,
    "SGDR" (arXiv:1608.03983), without restarts; the warm-up is that of Goyal et al. 2017 (arXiv:1706.02677).

    Args:
        initial_learning_rate: The rate at step 0.
        decay_steps: Steps of the fall, not counting the warm-up.
        alpha: The rate at the end as a fraction of the rate from which it falls.
        name: A name, kept in the config.
        warmup_target: The rate to which the warm-up rises and from which the fall begins; None for no warm-up.
        warmup_steps: Steps of the warm-up.

    Raises:
        ValueError: When `decay_steps` is not above 0.

    Example:
        >>> CosineDecay(0.5, decay_steps=10)(5)
        0.25
        >>> CosineDecay(0.0, decay_steps=10, warmup_target=0.5, warmup_steps=4)(2)
        0.25
    """

    _arguments = ("initial_learning_rate", "decay_steps", "alpha", "name", "warmup_target", "warmup_steps")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        check_positive("decay_steps", decay_steps)
        self.initial_learning_rate = plain(initial_learning_rate)
        self.decay_steps = plain(decay_steps)
        self.alpha = plain(alpha)
        self.name = name
        self.warmup_target = plain(warmup_target)
        self.warmup_steps = plain(warmup_steps)

    def __call__(self, step: Any) -> float:
        """Return the learning rate of `step`."""
        done, start = float(step), self.initial_learning_rate
        if self.warmup_target is not None:
            if done < self.warmup_steps:
                return float(start + (self.warmup_target - start) * done / self.warmup_steps)
            done, start = done - self.warmup_steps, self.warmup_target
        fraction = min(done / self.decay_steps, 1.0)
        cosine = 0.5 * (1.0 + math.cos(math.pi * fraction))
        return float(start * ((1.0 - self.alpha) * cosine + self.alpha))
