"""Costs: the seconds that each callback takes in each hook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

SLOW_CALL = 2e-5
"""Seconds from which on a call counts as slow: reading the clock for every listener costs a hundredth of that."""
UNTOLD = "not told apart"
"""The name under which time is shown that several listeners share and that can't be attributed to one of them."""

_FIRST = 256
_MEAN_GAP = 128
_GOLDEN = 0.6180339887498949


class HookClock:
    """The time that the listeners of one hook take.

    Hooks of batches are called so often that reading the clock for every listener would cost more than many of them. So
    after the first 256 calls a call is timed as a whole, and about one in 128 listener by listener; the whole is
    divided by the shares found there. The gaps vary, so that a callback which acts at every hundredth batch can't hide
    between them. Slow calls, 20 µs and more, are divided separately, so that no fast listener is charged for them: when
    they are over 1 % of the run, calls are timed listener by listener until a quarter of the slow ones has been. So are
    all calls while fast ones take over 10 µs on average.

    Args:
        listeners: The names of the listeners, in order.
        every: Whether to time every listener in every call, as for hooks of epochs.

    Attributes:
        rest: Returns the seconds of the fast calls that were timed as a whole.

    Example:
        >>> clock = HookClock(["A", "B"], every=True)
        >>> clock.add([0.25, 0.75])
        >>> clock.seconds()
        {'A': 0.25, 'B': 0.75}
    """

    __slots__ = (
        "_fast",
        "_fast_calls",
        "_goal",
        "_slow",
        "_slow_calls",
        "_whole",
        "_whole_calls",
        "every",
        "listeners",
        "rest",
    )

    def __init__(self, listeners: Sequence[str], every: bool) -> None:
        self.listeners = list(listeners)
        self.every = every
        self.rest: Callable[[], float] = float
        self._fast = [0.0] * len(self.listeners)
        self._slow = [0.0] * len(self.listeners)
        self._whole = 0.0
        self._fast_calls = self._slow_calls = self._whole_calls = 0
        self._goal = 0

    def add(self, parts: Sequence[float]) -> None:
        """Add a call that was timed listener by listener."""
        if sum(parts) >= SLOW_CALL:
            kept = self._slow
            self._slow_calls += 1
        else:
            kept = self._fast
            self._fast_calls += 1
        for index, part in enumerate(parts):
            kept[index] += part

    def add_whole(self, seconds: float) -> None:
        """Add a slow call that was timed as a whole."""
        self._whole += seconds
        self._whole_calls += 1

    def until_next(self, elapsed: float) -> int:
        """Return in how many calls the next one is to be timed listener by listener.

        Args:
            elapsed: Seconds since the first call.
        """
        divided = self._fast_calls + self._slow_calls
        # Timing a listener takes a tenth of a microsecond: little beside one that works, five times an idle one.
        worth = max(1e-5, 1e-6 * len(self.listeners)) * self._fast_calls
        if self.every or divided < _FIRST or sum(self._fast) > worth or self._blames(elapsed):
            return 1
        return 1 + int(2 * (_MEAN_GAP - 1) * (divided * _GOLDEN % 1.0))

    def _blames(self, elapsed: float) -> bool:
        if self._whole + sum(self._slow) < 0.01 * elapsed:
            return False
        # Several in a row, as two callbacks may take turns.
        if self._slow_calls >= self._goal and self._whole_calls > 3 * self._slow_calls:
            self._goal = self._slow_calls + 8
        return self._slow_calls < self._goal

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each listener that was called; those of the same name are added up."""
        found: dict[str, float] = {}
        fast_scale = _scale(self._fast, self.rest())
        slow_scale = _scale(self._slow, self._whole)
        if self._fast_calls or self._slow_calls or self._whole_calls:
            for name, fast, slow in zip(self.listeners, self._fast, self._slow, strict=True):
                found[name] = found.get(name, 0.0) + fast * fast_scale + slow * slow_scale
        if self._whole and not any(self._slow):
            name = self.listeners[0] if len(found) == 1 else UNTOLD
            found[name] = found.get(name, 0.0) + self._whole
        return found


def _scale(divided: Sequence[float], undivided: float) -> float:
    total = sum(divided)
    return 1.0 + undivided / total if total else 0.0


def added(
    one: Mapping[str, Mapping[str, float]], other: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Return the sum of two tables of seconds by callback and hook, the most expensive callback first.

    Example:
        >>> added({"A": {"on_epoch_end": 0.5}}, {"A": {"on_epoch_end": 0.25}, "B": {"close": 1.0}})
        {'B': {'close': 1.0}, 'A': {'on_epoch_end': 0.75}}
    """
    table: dict[str, dict[str, float]] = {}
    for part in (one, other):
        for name, hooks in part.items():
            row = table.setdefault(name, {})
            for hook, seconds in hooks.items():
                row[hook] = row.get(hook, 0.0) + seconds
    return _ordered(table)


def _ordered(table: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return dict(sorted(table.items(), key=lambda item: -sum(item[1].values())))


def by_callback(clocks: Mapping[str, HookClock]) -> dict[str, dict[str, float]]:
    """Return seconds by callback and hook, the most expensive callback first.

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
    return _ordered(table)
