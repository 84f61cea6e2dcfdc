"""Costs: the seconds that each callback takes in each hook."""

from __future__ import annotations

from collections.abc import Sequence

_DEAR = 1e-5


class HookClock:
    """The time that the listeners of one hook take.

    Hooks of batches are called so often that reading the clock for every listener would cost more than many of them. So
    a call is timed as a whole, and every thirty-second one listener by listener; the whole is divided by the shares found
    there. While a call takes over 10 µs on average, which makes the clock cheap beside it, all are timed one by one.

    Args:
        listeners: The names of the listeners, in order.
        every: Whether to time every listener in every call, as for hooks of epochs.

    Attributes:
        calls: How often the hook was called.
        whole: The seconds of all calls.
        in_parts: Whether the coming calls are timed listener by listener.

    Example:
        >>> clock = HookClock(["A", "B"], every=True)
        >>> clock.add([0.25, 0.75])
        >>> clock.seconds()
        {'A': 0.25, 'B': 0.75}
    """

    __slots__ = ("calls", "every", "in_parts", "listeners", "parts", "whole")

    def __init__(self, listeners: Sequence[str], every: bool) -> None:
        self.listeners = list(listeners)
        self.every = every
        self.in_parts = every
        self.calls = 0
        self.whole = 0.0
        self.parts = [0.0] * len(self.listeners)

    def add(self, parts: Sequence[float]) -> None:
        """Add a call that was timed listener by listener."""
        for index, part in enumerate(parts):
            self.parts[index] += part
        self.whole += sum(parts)
        self.in_parts = self.every or self.whole > _DEAR * self.calls

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each listener; twins are added up."""
        timed = sum(self.parts)
        scale = self.whole / timed if timed else 0.0
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
            if clock.whole:
                table.setdefault(name, {})[hook] = seconds
    return dict(sorted(table.items(), key=lambda item: -sum(item[1].values())))
