"""Costs: the seconds that each callback takes in each hook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

DEAR = 2e-5
"""Seconds from which on a call is dear: reading the clock for every listener costs a hundredth of that."""
UNTOLD = "not told apart"
"""The name of time that a few listeners share, of whom none could be blamed."""

_FIRST = 256
_MEAN_GAP = 128
_GOLDEN = 0.6180339887498949


class HookClock:
    """The time that the listeners of one hook take.

    Hooks of batches are called so often that reading the clock for every listener would cost more than many of them. So
    after the first 256 calls a call is timed as a whole, and about one in 128 listener by listener; the whole is
    divided by the shares found there. The gaps vary, so that a callback which acts at every hundredth batch can't hide
    between them. Dear calls, 20 µs and more, are divided apart from the cheap ones, so that no cheap listener is
    charged for them: when they are over 1 % of the run, calls are timed listener by listener until a quarter of the
    dear ones has been. So are all calls while cheap ones take over 10 µs on average.

    Args:
        listeners: The names of the listeners, in order.
        every: Whether to time every listener in every call, as for hooks of epochs.

    Attributes:
        rest: Returns the seconds of the cheap calls that were timed as a whole.

    Example:
        >>> clock = HookClock(["A", "B"], every=True)
        >>> clock.add([0.25, 0.75])
        >>> clock.seconds()
        {'A': 0.25, 'B': 0.75}
    """

    __slots__ = (
        "_cheap",
        "_cheap_calls",
        "_dear",
        "_dear_calls",
        "_goal",
        "_untold",
        "_untold_calls",
        "every",
        "listeners",
        "rest",
    )

    def __init__(self, listeners: Sequence[str], every: bool) -> None:
        self.listeners = list(listeners)
        self.every = every
        self.rest: Callable[[], float] = float
        self._cheap = [0.0] * len(self.listeners)
        self._dear = [0.0] * len(self.listeners)
        self._untold = 0.0
        self._cheap_calls = self._dear_calls = self._untold_calls = 0
        self._goal = 0

    def add(self, parts: Sequence[float]) -> None:
        """Add a call that was timed listener by listener."""
        if sum(parts) >= DEAR:
            kept = self._dear
            self._dear_calls += 1
        else:
            kept = self._cheap
            self._cheap_calls += 1
        for index, part in enumerate(parts):
            kept[index] += part

    def add_untold(self, seconds: float) -> None:
        """Add a dear call that was timed as a whole."""
        self._untold += seconds
        self._untold_calls += 1

    def until_next(self, elapsed: float) -> int:
        """Return in how many calls the next one is to be timed listener by listener.

        Args:
            elapsed: Seconds since the first call.
        """
        told = self._cheap_calls + self._dear_calls
        # Timing a listener takes a tenth of a microsecond: a trifle beside one that works, five times an idle one.
        worth = max(1e-5, 1e-6 * len(self.listeners)) * self._cheap_calls
        if self.every or told < _FIRST or sum(self._cheap) > worth or self._blames(elapsed):
            return 1
        return 1 + int(2 * (_MEAN_GAP - 1) * (told * _GOLDEN % 1.0))

    def _blames(self, elapsed: float) -> bool:
        if self._untold + sum(self._dear) < 0.01 * elapsed:
            return False
        # Several in a row, as two callbacks may take turns.
        if self._dear_calls >= self._goal and self._untold_calls > 3 * self._dear_calls:
            self._goal = self._dear_calls + 8
        return self._dear_calls < self._goal

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each listener that was called; twins are added up."""
        found: dict[str, float] = {}
        cheap = _scale(self._cheap, self.rest())
        dear = _scale(self._dear, self._untold)
        if self._cheap_calls or self._dear_calls or self._untold_calls:
            for name, some, much in zip(self.listeners, self._cheap, self._dear, strict=True):
                found[name] = found.get(name, 0.0) + some * cheap + much * dear
        if self._untold and not any(self._dear):
            name = self.listeners[0] if len(found) == 1 else UNTOLD
            found[name] = found.get(name, 0.0) + self._untold
        return found


def _scale(told: Sequence[float], untold: float) -> float:
    whole = sum(told)
    return 1.0 + untold / whole if whole else 0.0


def by_callback(clocks: Mapping[str, HookClock]) -> dict[str, dict[str, float]]:
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
            table.setdefault(name, {})[hook] = seconds
    return dict(sorted(table.items(), key=lambda item: -sum(item[1].values())))
