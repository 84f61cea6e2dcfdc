"""The base of all learning rate schedules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from oncue.core.numbers import number_of


class LearningRateSchedule:
    """A learning rate as a function of the optimizer's step; write `__call__` in a subclass.

    Example:
        >>> class Halving(LearningRateSchedule):
        ...     def __call__(self, step):
        ...         return 0.1 / 2**step
        >>> Halving()(3)
        0.0125
    """

    # Of a schedule that keeps them as attributes, the names of the constructor's arguments.
    _arguments: Sequence[str] = ()

    def __call__(self, step: Any) -> float:
        """Return the learning rate of `step`, counted from 0.

        Args:
            step: The number of steps done.

        Returns:
            The learning rate.

        Raises:
            NotImplementedError: Unless a subclass writes it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `__call__(self, step)`.")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments.

        Raises:
            NotImplementedError: Unless a subclass writes it, or keeps its arguments.
        """
        if not self._arguments:
            raise NotImplementedError(f"{type(self).__name__} must define `get_config()` to be saved.")
        return {argument: getattr(self, argument) for argument in self._arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a schedule from what `get_config` returned."""
        return cls(**config)


def check_positive(argument: str, value: Any) -> None:
    """Refuse what is not a number above 0.

    Args:
        argument: The argument's name.
        value: What came.

    Raises:
        ValueError: When `value` is not a number above 0.

    Example:
        >>> check_positive("decay_steps", 0)
        Traceback (most recent call last):
        ...
        ValueError: `decay_steps` must be a number above 0; got 0.
    """
    number = number_of(value)
    if number is None or not number > 0:
        raise ValueError(f"`{argument}` must be a number above 0; got {value!r}.")
