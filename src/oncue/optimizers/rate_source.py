"""Where an optimizer's learning rate comes from: a number, a schedule, or a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oncue.optimizers import schedules
from oncue.optimizers.learning_rate import checked_rate
from oncue.optimizers.schedules import LearningRateSchedule


class RateSource:
    """Gives the learning rate of each iteration.

    Args:
        source: A number, a `LearningRateSchedule`, or a function without arguments that returns a number.
        decay: Keras 2's time-based decay: the rate is divided by `1 + decay * iterations`.

    Raises:
        ValueError: When `source` is none of these, or either number is negative or not finite.

    Example:
        >>> RateSource(0.5, decay=1.0).at(3)
        0.125
    """

    def __init__(self, source: Any, decay: float = 0.0) -> None:
        self.source: float | LearningRateSchedule | Callable[[], Any] = self._checked(source)
        self.set_decay(decay)

    def set_decay(self, decay: Any) -> None:
        """Replace Keras 2's `decay`."""
        self.decay = checked_rate(decay, "decay")
        # Whether the rate may differ from one iteration to the next without being set.
        self.moves = self.decay != 0.0 or not isinstance(self.source, float)

    @staticmethod
    def _checked(source: Any) -> float | LearningRateSchedule | Callable[[], Any]:
        if isinstance(source, type) and issubclass(source, LearningRateSchedule):
            raise ValueError(f"`learning_rate` got the class {source.__name__}; give an instance of it.")
        if isinstance(source, LearningRateSchedule) or (callable(source) and not isinstance(source, float)):
            return source
        return checked_rate(source)

    def read(self, iteration: int) -> float:
        """Return the rate that a reader sees, before Keras 2's `decay`."""
        source = self.source
        if isinstance(source, float):
            return source
        return float(source(iteration) if isinstance(source, LearningRateSchedule) else source())

    def at(self, iteration: int) -> float:
        """Return the rate that the update of `iteration` (from 0) uses."""
        rate = self.read(iteration)
        return rate / (1.0 + self.decay * iteration) if self.decay else rate

    def assign(self, source: Any) -> None:
        """Replace the rate; a number can't replace a schedule, as in Keras.

        Args:
            source: As for the constructor.

        Raises:
            TypeError: When a number is to replace a schedule.
            ValueError: As for the constructor.
        """
        new = self._checked(source)
        if isinstance(new, float) and isinstance(self.source, LearningRateSchedule):
            raise TypeError(
                "This optimizer was created with a LearningRateSchedule "
                f"({type(self.source).__name__}), so its learning rate can't be set to {new!r}. To set it, create the "
                "optimizer with a float `learning_rate`; to change the schedule, assign another schedule."
            )
        self.put_back(new)

    def put_back(self, source: float | LearningRateSchedule | Callable[[], Any]) -> None:
        """Replace the rate by what it once was, a schedule by a number too."""
        self.source = source
        self.moves = self.decay != 0.0 or not isinstance(source, float)

    def config(self) -> Any:
        """Return the rate for a config: a float, or a schedule's own config.

        A function can't be part of a config; its current value takes its place.
        """
        if isinstance(self.source, LearningRateSchedule):
            return schedules.serialize(self.source)
        return self.read(0)
