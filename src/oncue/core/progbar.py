"""Progbar: one line of progress, live where it can be redrawn, printed once where it can't.

Not done with rich's `Progress`, though rich is a dependency, because its output isn't Keras's: on a terminal it truncates the
finished line at the right edge, hides the cursor, draws from its own thread, and captures stdout, so that what callbacks print
appears above the bar; in a notebook it needs HTML. An update that draws nothing, as for most batches, takes 8 times as long
(`python benchmarks/own_code.py progress`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from oncue.core.console import can_encode, can_redraw, columns, has_colour, print_message

_BOLD, _GREEN, _WHITE, _OFF = "\x1b[1m", "\x1b[32m", "\x1b[37m", "\x1b[0m"


class Progbar:
    """A progress bar, as Keras's `utils.Progbar`.

    On a terminal or in a notebook the line is drawn again in place, at most once in `interval` seconds. Elsewhere only
    the finished line is printed, without colours or control characters.

    Args:
        target: The number of steps; None when it is not known.
        width: The width of the bar in characters.
        verbose: 0 silent, 1 a bar, 2 one plain line at the end.
        interval: The least number of seconds between two drawings.
        stateful_metrics: Names whose value is shown as it is; others are averaged over the steps.
        stateless_metrics: Names that are averaged; others are shown as they are. Give one of the two.
        unit_name: What a step is called.

    Raises:
        ValueError: When both lists of names are given.

    Example:
        >>> bar = Progbar(2, verbose=1)
        >>> bar.update(1, [("loss", 1.0)])
        >>> bar.update(2, [("loss", 0.5)])  # doctest: +ELLIPSIS
        2/2 ... - loss: 0.5000
    """

    def __init__(
        self,
        target: int | None,
        width: int = 20,
        verbose: int = 1,
        interval: float = 0.05,
        stateful_metrics: Iterable[str] | None = None,
        stateless_metrics: Iterable[str] | None = None,
        unit_name: str = "step",
    ) -> None:
        if stateful_metrics is not None and stateless_metrics is not None:
            raise ValueError(
                "Give `stateful_metrics` or `stateless_metrics`, not both: each is the complement of the other."
            )
        self.target = target
        self.width = width
        self.verbose = verbose
        self.interval = interval
        self.unit_name = unit_name
        self._stateful = None if stateless_metrics is not None else set(stateful_metrics or ())
        self._stateless = set(stateless_metrics or ())
        self._values: dict[str, tuple[Any, float]] = {}
        self._seen = 0
        self._start = time.perf_counter()
        self._after_first: float | None = None
        self._last_drawn = 0.0
        self._drawn_width = 0

    def is_due(self) -> bool:
        """Return whether an update would draw, so that callers needn't compute values that wouldn't be shown."""
        now = time.perf_counter()
        if self._after_first is None:
            self._after_first = now
        return now - self._last_drawn >= self.interval and can_redraw()

    def update(
        self, current: int, values: Iterable[tuple[str, Any]] | None = None, finalize: bool | None = None
    ) -> None:
        """Take new values, and draw when it is time.

        Args:
            current: How many steps are done.
            values: Pairs of a name and the value of the last step.
            finalize: Whether this is the last update; by default when `current` has reached the target.
        """
        if finalize is None:
            finalize = self.target is not None and current >= self.target
        for name, value in values or ():
            self._take(name, value, current, finalize)
        self._seen = current
        now = time.perf_counter()
        per_step = self._step_seconds(current, now)
        if self.verbose == 1:
            live = can_redraw()
            if finalize or (live and now - self._last_drawn >= self.interval):
                self._draw(current, now, per_step, finalize, live)
                self._last_drawn = now
        elif self.verbose == 2 and finalize and self.target:
            spent = f"{now - self._start:.0f}s"
            print_message(f"{self._count(current)} - {spent} - {self._pace(per_step)}{self._metrics()}")

    def add(self, n: int, values: Iterable[tuple[str, Any]] | None = None) -> None:
        """Say that `n` more steps are done."""
        self.update(self._seen + n, values)

    def break_line(self) -> None:
        """End a line that was left standing half-way."""
        if self._drawn_width:
            print_message("")
            self._drawn_width = 0

    def _take(self, name: str, value: Any, current: int, finalize: bool) -> None:
        averaged = name in self._stateless if self._stateful is None else name not in self._stateful
        if not averaged or finalize:
            self._values[name] = (value, 1.0)
        else:
            steps = max(current - self._seen, 1)
            total, count = self._values.get(name, (0.0, 0.0))
            self._values[name] = (total + value * steps, count + steps)

    def _draw(self, current: int, now: float, per_step: float, finalize: bool, live: bool) -> None:
        left = per_step * (self.target - current) if self.target and not finalize else now - self._start
        clock = _clock(left) if self.target and not finalize else f"{left:.0f}s"
        tail = f" {clock} {self._pace(per_step)}{self._metrics()}"
        if self.target:
            count, bar = self._count(current), self._bar(current)
        else:
            count, bar = f"{current:7d}/Unknown", ""
        plain = f"{count}{' ' + bar if bar else ''}{tail}"
        if not live:
            print_message(plain)
            return
        room = columns() - 1
        shown = plain[:room]
        padding = " " * max(self._drawn_width - len(shown), 0)
        if has_colour() and bar and len(plain) <= room:
            done = min(int(self.width * current / (self.target or 1)), self.width)
            coloured = f"{_BOLD}{count}{_OFF} {_GREEN}{bar[:done]}{_OFF}{_WHITE}{bar[done:]}{_OFF}{tail}"
        else:
            coloured = shown if not finalize else plain
        print_message(f"\r{coloured}{padding}", line_break=finalize)
        self._drawn_width = 0 if finalize else len(shown)

    def _bar(self, current: int) -> str:
        done = min(int(self.width * current / (self.target or 1)), self.width)
        if can_encode("━"):
            return "━" * self.width
        return "=" * done + "." * (self.width - done)

    def _count(self, current: int) -> str:
        return f"{current:>{len(str(self.target))}d}/{self.target}"

    def _metrics(self) -> str:
        return "".join(f" - {_visible(name)}: {_shown(*pair)}" for name, pair in self._values.items())

    def _pace(self, seconds: float) -> str:
        if seconds >= 1 or seconds == 0:
            return f"{seconds:.0f}s/{self.unit_name}"
        if seconds >= 1e-3:
            return f"{seconds * 1e3:.0f}ms/{self.unit_name}"
        return f"{seconds * 1e6:.0f}us/{self.unit_name}"

    def _step_seconds(self, current: int, now: float) -> float:
        # The first step holds warm-up, so it is left out as soon as there are others.
        if not current:
            return 0.0
        if self._after_first is not None and current > 1:
            return (now - self._after_first) / (current - 1)
        if current == 1:
            self._after_first = now
        return (now - self._start) / current


def _shown(total: Any, count: float) -> str:
    try:
        mean = float(total) / max(count, 1.0)
    except (TypeError, ValueError):
        return str(total)
    return f"{mean:.4f}" if abs(mean) > 1e-3 else f"{mean:.4e}"


def _visible(name: str) -> str:
    # A metric's name may come from anywhere; it must not move the cursor or colour the screen.
    return "".join(character if character.isprintable() else "?" for character in str(name))


def _clock(seconds: float) -> str:
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}" if whole >= 60 else f"{whole}s"
