"""A learning rate that is constant between given steps."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from typing import Any

from oncue.core.builtin import names_arguments
from oncue.core.numbers import plain
from oncue.optimizers.schedules.learning_rate_schedule import LearningRateSchedule


@names_arguments
class PiecewiseConstantDecay(LearningRateSchedule):
    """Gives `values[i]` up to and including the step `boundaries[i]`, and the last value after the last boundary.

    Args:
        boundaries: Steps, strictly increasing.
        values: Learning rates, one more than boundaries.
        name: A name, kept in the config.

    Raises:
        ValueError: When the lengths don't fit or the boundaries don't increase.

    Example:
        >>> schedule = PiecewiseConstantDecay([10, 20], [0.1, 0.01, 0.001])
        >>> schedule(10), schedule(11), schedule(21)
        (0.1, 0.01, 0.001)
    """

    def __init__(self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant") -> None:
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                f"`values` must have one element more than `boundaries`; got {len(values)} values for "
                f"{len(boundaries)} boundaries."
            )
        if any(low >= high for low, high in itertools.pairwise(boundaries)):
            raise ValueError(f"`boundaries` must increase strictly; got {list(boundaries)}.")
        self.boundaries = plain(boundaries)
        self.values = plain(values)
        self.name = name

    def __call__(self, step: Any) -> float:
        """Return the learning rate of `step`."""
        return float(self.values[bisect.bisect_left(self.boundaries, float(step))])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"boundaries": list(self.boundaries), "values": list(self.values), "name": self.name}
