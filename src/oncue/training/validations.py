"""Validations: when a run measures its model on the data of validation."""

from __future__ import annotations

from collections.abc import Collection
from copy import copy
from typing import Any

from oncue.core.every import Every
from oncue.core.ranks import Ranks
from oncue.core.state import Stateful
from oncue.core.warn import warn


class Validations(Stateful):
    """Says when validation is due: at the ends of epochs, or, for a period of steps or of time, amid them too.

    A batch is counted before the hooks that follow it, so that a state which one of them saves says what is due.

    Args:
        frequency: So many epochs, a collection of epochs counted from 1, or a period of steps or of time.

    Attributes:
        amid: Whether it may be due amid an epoch.
        due: Whether it is due now.
        values: What validation amid this epoch has measured last, by the names of the logs; empty before the first.
        measured: Whether there was any.

    Example:
        >>> validations = Validations(Every("2 steps"))
        >>> [(validations.count(batch), validations.due)[1] for batch in range(3)]
        [False, True, True]
        >>> validations.done({})
        >>> validations.due
        False
    """

    state_fields = ("due", "values", "waited")

    def __init__(self, frequency: int | Collection[int] | Every) -> None:
        # The user's own may be given to several runs.
        self._frequency = copy(frequency)
        self.amid = isinstance(frequency, Every)
        self.measured = False
        self.begin()

    def begin(self) -> None:
        """Start with nothing, when training begins."""
        self.due = False
        self.values: dict[str, Any] = {}
        if isinstance(self._frequency, Every):
            self._frequency.load_state_dict({"passed": 0, "last_batch": None})
            self._frequency.begin()

    @property
    def waited(self) -> dict[str, Any] | None:
        """How much of the period has passed: what a resumed run gets back."""
        return self._frequency.state_dict() if isinstance(self._frequency, Every) else None

    @waited.setter
    def waited(self, state: dict[str, Any] | None) -> None:
        if isinstance(self._frequency, Every) and state is not None:
            self._frequency.load_state_dict(state)

    @property
    def by_time(self) -> bool:
        """Whether it is due by the clock."""
        return isinstance(self._frequency, Every) and self._frequency.unit == "second"

    def count(self, batch: int, ranks: Ranks | None = None) -> None:
        """Count up to a batch that has been trained.

        Args:
            batch: Its index in the epoch.
            ranks: The processes of the run, of which the clock of the main one decides for all.
        """
        if not isinstance(self._frequency, Every):
            return
        if ranks is None or ranks.size == 1 or self._frequency.unit != "second":
            self.due = self._frequency.after_batch(batch) or self.due
            return
        if ranks.main and self._frequency.after_batch(batch):
            ranks.ask("validate")
        if ranks.asked("validate"):
            ranks.settled("validate")
            self.due = True

    def at_end(self, epoch: int) -> bool:
        """Return whether it is due when an epoch ends.

        Args:
            epoch: The index of the epoch.
        """
        if isinstance(self._frequency, Every):
            return self.due
        if isinstance(self._frequency, int):
            return (epoch + 1) % self._frequency == 0
        return epoch + 1 in self._frequency

    def warn_if_never(self, epochs: int, steps: int | None, over: bool = False) -> None:
        """Warn where none is due in a whole run, so that what watches its values never acts.

        Args:
            epochs: The epochs of the run.
            steps: The batches of each; None where that isn't known.
            over: Whether the run is over. For a period of time, only then is it known.
        """
        frequency, length = self._frequency, f"{epochs} epoch{'s' if epochs > 1 else ''}"
        if isinstance(frequency, Every):
            never = frequency.unit == "step" and steps is not None and epochs * steps < frequency.amount
            length += "" if steps is None else f" of {steps} batch{'es' if steps > 1 else ''}"
        else:
            never = not any(self.at_end(epoch) for epoch in range(epochs))
        if never or over:
            said = f"'{frequency}'" if isinstance(frequency, Every) else repr(frequency)
            warn(
                f"`validation_freq`={said} was never due in {length}: nothing is measured on the data of validation, and what "
                "watches its values doesn't act. Give a smaller one."
            )

    def done(self, values: dict[str, Any]) -> None:
        """Take note of a validation.

        Args:
            values: What it has measured, where the epoch goes on after it.
        """
        self.due, self.values, self.measured = False, values, True
        if isinstance(self._frequency, Every):
            # Time counts while training runs.
            self._frequency.begin()
