"""Every: a period with a unit, and whether it is due."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from oncue.core.state import Stateful
from oncue.core.suggest import unknown

_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_UNITS = {
    **{unit: unit for unit in ("epoch", "step", *_SECONDS)},
    "batch": "step",
    "batche": "step",
    "s": "second",
    "sec": "second",
    "min": "minute",
    "h": "hour",
    "hr": "hour",
}
"""From a unit as it is typed, without the plural's s, to its word."""


class Every(Stateful):
    """A period of epochs, steps or time that says when it is due, and then starts again.

    A step is one batch of training, as `on_train_batch_end` counts them. They are counted over the ends of epochs, and
    with `steps_per_execution` the period is due at the first chance when it has passed. Time is counted while training
    runs: between `begin` and the last batch, not between two runs.

    Args:
        period: A number and a unit: "2 epochs", "500 steps", "10 minutes" (also "batches", "seconds", "hours", "days",
            and s, min, h). A unit alone is a period of one. Or another `Every`, whose period is taken, not its count.
        owner: The class that uses it, for messages.
        argument: The argument that it was given as, for messages.
        clock: Gives the time in seconds.

    Attributes:
        unit: "epoch", "step" or "second".
        amount: The period in its unit.
        passed: How much of the period has passed.

    Raises:
        ValueError: If it isn't a period, or has an unknown unit, a fraction of an epoch or a step, or no positive amount.

    Example:
        >>> every = Every("2 epochs")
        >>> [every.after_epoch() for _ in range(4)]
        [False, True, False, True]
    """

    state_fields = ("passed", "last_batch")

    def __init__(
        self,
        period: str | Every,
        owner: str = "Every",
        clock: Callable[[], float] = time.monotonic,
        argument: str = "every",
    ) -> None:
        self.passed: float = 0
        self.last_batch: int | None = None
        self.amount: float
        self.unit: str
        self._clock = clock
        self._seen = clock()
        if isinstance(period, Every):
            self.amount, self.unit = period.amount, period.unit
            return
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)?\s*([a-z]+)\s*", period.lower()) if isinstance(period, str) else None
        if found is None:
            hint = f"'{period} epochs' or '{period} steps'" if isinstance(period, int) else "'500 steps'"
            raise ValueError(
                f"`{argument}` of {owner} must be a number and a unit, such as '2 epochs', '500 steps' or '10 minutes'; got "
                f"{period!r} of type {type(period).__name__}. Use {hint}."
            )
        number, word = found.groups()
        unit = _UNITS.get(word) or _UNITS.get(word.removesuffix("s"))
        if unit is None:
            raise unknown(
                f"unit of `{argument}`", word, ("epochs", "steps", "batches", "seconds", "minutes", "hours", "days")
            )
        amount = 1.0 if number is None else float(number)
        if amount <= 0 or (unit not in _SECONDS and not amount.is_integer()):
            raise ValueError(
                f"`{argument}` of {owner} must be {'a time above zero' if unit in _SECONDS else f'1 {unit} or a whole number'}"
                f"; got {period!r}."
            )
        self.unit = "second" if unit in _SECONDS else unit
        self.amount = amount * _SECONDS.get(unit, 1.0)

    def begin(self) -> None:
        """Let time count from now on."""
        self._seen = self._clock()

    def after_batch(self, batch: int) -> bool:
        """Count up to a batch that has ended, and return whether the period is due.

        Args:
            batch: The batch's index in its epoch, from 0.

        Returns:
            False for a period of epochs.
        """
        if self.unit == "epoch":
            return False
        if self.unit == "second":
            now = self._clock()
            new = now - self._seen
            self._seen = now
        elif self.last_batch is None or batch <= self.last_batch:
            new = batch + 1
        else:
            new = batch - self.last_batch
        self.last_batch = batch
        return self._add(new)

    def after_epoch(self) -> bool:
        """Count an epoch that has ended, and return whether the period is due; False for one of steps or time."""
        return self.unit == "epoch" and self._add(1)

    def _add(self, amount: float) -> bool:
        self.passed += amount
        if self.passed < self.amount:
            return False
        self.passed = 0
        return True

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}" + ("" if self.amount == 1 else "s")

    def __repr__(self) -> str:
        return f"Every({str(self)!r})"
