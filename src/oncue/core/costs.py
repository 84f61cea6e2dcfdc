"""Costs: the seconds that each callback takes in each hook."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_DEAR = 1e-5
_SAMPLE = 32


class HookClock:
    """The time that the listeners of one hook take.

    Hooks of batches are called so often that reading the clock for every listener would cost more than many of them. So
    a call is timed as a whole, and every thirty-second one listener by listener; the whole is divided by the shares found
    there. While a call takes over 10 µs on average, which makes the clock cheap beside it, all are timed one by one.

    Args:
        listeners: The names of the listeners, in order.
        every: Whether to time every listener in every call, as for hooks of epochs.

    Attributes:
        rest: Returns the seconds of the calls that were timed as a whole.

    Example:
        >>> clock = HookClock(["A", "B"], every=True)
        >>> clock.add([0.25, 0.75])
        >>> clock.seconds()
        {'A': 0.25, 'B': 0.75}
    """

    __slots__ = ("every", "listeners", "parts", "rest", "sampled")

    def __init__(self, listeners: Sequence[str], every: bool) -> None:
        self.listeners = list(listeners)
        self.every = every
        self.sampled = 0
        self.parts = [0.0] * len(self.listeners)
        self.rest: Callable[[], float] = float

    def add(self, parts: Sequence[float]) -> None:
        """Add a call that was timed listener by listener."""
        self.sampled += 1
        for index, part in enumerate(parts):
            self.parts[index] += part

    def until_next(self) -> int:
        """Return in how many calls the next one is to be timed listener by listener."""
        dear = sum(self.parts) > _DEAR * self.sampled
        return 1 if self.every or dear else _SAMPLE

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each listener; twins are added up."""
        timed = sum(self.parts)
        scale = 1.0 + self.rest() / timed if timed else 0.0
        found: dict[str, float] = {}
        for name, part in zip(self.listeners, self.parts, strict=True):
            found[name] = found.get(name, 0.0) + part * scale
        return found


def by_callback(clocks: dict[str, HookClock]) -> dict[str, dict[str, float]]:
    """Return seconds by callback and hook, the dearest callback first.

    Example:
        >>> clock = HookClock(["A"], every=True)
        >>> clock.add([0.5])
        >>> by_callback({"on_epoch_end": clock})
        {'A': {'on_epoch_end': 0.5}}
    """
    table: dict[str, dict[str, float]] = {}
    for hook, clock in clocks.items():
        for name, seconds in clock.seconds().items():
            if clock.sampled:
                table.setdefault(name, {})[hook] = seconds
    return dict(sorted(table.items(), key=lambda item: -sum(item[1].values())))
