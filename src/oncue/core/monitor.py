"""Monitor: which value is watched, which direction is better, and what counts as better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from oncue.core.numbers import finite
from oncue.core.suggest import nearest


@dataclass(frozen=True)
class Logged:
    """What a run is going to log, known before its first step.

    Args:
        names: The names that every epoch's logs will have, those of validation with `val_` before them.
        validation: Whether there is validation data.
        may_grow: Whether a callback of the user's own could add further names.
        directions: "up" or "down" for the names whose metric says which is better.
        old_names: From a name that is not logged to the logged name that it stood for in an older Keras.
        amid: Whether there may be validation amid epochs.
    """

    names: Sequence[str]
    validation: bool
    may_grow: bool
    directions: Mapping[str, str] = field(default_factory=dict)
    old_names: Mapping[str, str] = field(default_factory=dict)
    amid: bool = False


class MonitorError(ValueError):
    """The value that a callback watches can't appear in this run."""


class Monitor:
    """Decides whether a watched value has improved.

    A value that is not finite never counts as an improvement, and is never taken as best.

    Args:
        name: The name of the value in the logs.
        mode: "min", "max", or "auto" to take the direction of the metric.
        min_delta: A change must be larger than this to count; its sign doesn't matter.
        owner: The class that watches, for messages.

    Raises:
        ValueError: For a name that isn't a string, or a `min_delta` that isn't a finite number.

    Example:
        >>> monitor = Monitor("val_loss", mode="min", min_delta=0.01)
        >>> monitor.is_better(0.5, None), monitor.is_better(0.495, 0.5), monitor.is_better(float("nan"), 0.5)
        (True, False, False)
    """

    def __init__(self, name: str, mode: str = "auto", min_delta: float = 0.0, owner: str = "Monitor") -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"`monitor` of {owner} must be the name of a logged value such as 'val_loss'; got {name!r}."
            )
        self.name = name
        self.mode = mode
        self.min_delta = abs(finite(owner, "min_delta", min_delta))
        self.owner = owner
        self._direction: str | None = {"min": "down", "max": "up"}.get(mode)

    @property
    def direction(self) -> str | None:
        """Which way is better: "down", "up", or None when it is not decided yet."""
        return self._direction

    def resolve(self, directions: Mapping[str, str]) -> None:
        """Decide the direction for mode "auto": the metric's own, or "down" for a loss.

        Args:
            directions: "up" or "down" by logged name, with or without `val_`.

        Raises:
            ValueError: When it can't be determined.
        """
        if self._direction is not None:
            return
        plain = self.name.removeprefix("val_")
        if self.name in directions or plain in directions:
            self._direction = directions.get(self.name) or directions[plain]
        elif plain == "loss":
            self._direction = "down"
        else:
            raise ValueError(
                f"{self.owner} can't tell whether more or less of `{self.name}` is better: its metric doesn't say. Use "
                f"`mode='max'` or `mode='min'`."
            )

    def is_better(self, value: float, reference: float | None) -> bool:
        """Return whether a value improves on a reference by more than `min_delta`; anything finite improves on None."""
        if not math.isfinite(value):
            return False
        if reference is None:
            return True
        if self._direction == "up":
            return value - self.min_delta > reference
        return value + self.min_delta < reference


def find_monitor(
    monitor: str, logged: Logged, owner: str, without: str = "it will never act"
) -> tuple[str, str | None]:
    """Return under which name a monitored value will appear in this run's logs, and what to warn of.

    Args:
        monitor: The name that the user typed.
        logged: What the run is going to log.
        owner: The class that watches, for messages.
        without: What it does when the value never comes.

    Returns:
        The name in the logs, and a warning or None.

    Raises:
        MonitorError: When the name is a near-miss and no callback could add it.
    """
    if monitor in logged.names:
        return monitor, None
    if monitor in logged.old_names:
        return logged.old_names[monitor], None
    if logged.may_grow:
        return monitor, None
    known = ", ".join(logged.names)
    if monitor.startswith("val_") and not logged.validation and monitor[4:] in logged.names:
        return monitor, (
            f"{owner} watches `{monitor}`, but this run has no validation data, so {without}. Use "
            f"`validation_data=...` or `validation_split=0.2` in `fit`, or `monitor='{monitor[4:]}'`."
        )
    guess = nearest(monitor, logged.names)
    if guess is not None:
        raise MonitorError(
            f"{owner} watches `{monitor}`, which this run can't log. Did you mean `{guess}`? It will log: {known}."
        )
    return monitor, f"{owner} watches `{monitor}`, which this run doesn't log, so {without}. It will log: {known}."


def as_number(value: Any) -> float | None:
    """Return a logged value as a float; None for anything but a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
