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

from oncue.core.console import (
    LiveLine,
    can_encode,
    can_redraw,
    columns,
    has_colour,
    in_notebook,
    print_message,
    visible,
)

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

    Attributes:
        remark: What a moving line says at its end, where there is room.
        line: Where it is drawn.

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
        self.remark = ""
        self.line = LiveLine()

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

    def say(self, text: str, briefly: str) -> None:
        """Draw the line with words in place of its times, for what happens when its steps are done; see `is_due`.

        Args:
            text: The words.
            briefly: Fewer, for a narrow terminal.
        """
        if self.verbose == 1 and can_redraw():
            count, bar = self._count(self._seen) if self.target else "", self._bar(self._seen, self.width)
            values = [(visible(str(name)), _shown(*pair)) for name, pair in _loss_first(self._values)]
            room = columns() - 1
            line = fitted(count, bar, [text if room >= 60 else briefly], values, self.remark, room)[:room]
            self.line.draw(line, self._coloured(line, count, self._seen))
            self._last_drawn = time.perf_counter()

    def break_line(self) -> None:
        """End a line that was left standing half-way."""
        self.line.leave()

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
        times = clock(left) if self.target and not finalize else f"{left:.0f}s"
        count = self._count(current) if self.target else f"{current:7d}/Unknown"
        bar = self._bar(current, self.width) if self.target else ""
        pace = self._pace(per_step)
        if not live or (finalize and in_notebook()):
            # A page breaks lines by itself.
            line = f"{count}{' ' + bar if bar else ''} {times} {pace}{self._metrics()}"
            self.line.end(line, line)
            return
        values = [(visible(str(name)), _shown(*pair)) for name, pair in _loss_first(self._values)]
        room = columns() - 1
        if finalize:
            lines = finished(count, bar, f"{times} {pace}", values, room)
            self.line.end("\n".join(lines), "\n".join([self._coloured(lines[0], count, current), *lines[1:]]))
            return
        line = fitted(count, bar, [times, pace], values, self.remark, room)[:room]
        self.line.draw(line, self._coloured(line, count, current))

    def _coloured(self, line: str, count: str, current: int) -> str:
        start = len(count) + 1
        end = start
        while end < len(line) and line[end] in "━=.":
            end += 1
        if not has_colour() or end == start or not line.startswith(count):
            return line
        done = start + min(int((end - start) * current / (self.target or 1)), end - start)
        return f"{_BOLD}{count}{_OFF} {_GREEN}{line[start:done]}{_OFF}{_WHITE}{line[done:end]}{_OFF}{line[end:]}"

    def _bar(self, current: int, width: int) -> str:
        done = min(int(width * current / (self.target or 1)), width)
        if can_encode("━"):
            return "━" * width
        return "=" * done + "." * (width - done)

    def _count(self, current: int) -> str:
        return f"{current:>{len(str(self.target))}d}/{self.target}"

    def _metrics(self) -> str:
        return "".join(f" - {visible(str(name))}: {_shown(*pair)}" for name, pair in self._values.items())

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


def _loss_first(values: dict[str, Any]) -> list[tuple[str, Any]]:
    first = [name for name in ("loss", "val_loss") if name in values]
    return [(name, values[name]) for name in (*first, *(name for name in values if name not in first))]


def fitted(count: str, bar: str, times: list[str], values: list[tuple[str, str]], remark: str, room: int) -> str:
    """Return a moving line that fits: the bar gives way first, then the pace, letters of names, and digits.

    Args:
        count: How many steps are done, of how many.
        bar: The bar at its full width.
        times: The time left, and the time of a step.
        values: Names and values, the most important first.
        remark: What else may be said where there is room.
        room: The number of characters.

    Example:
        >>> values = [("loss", "0.5000"), ("accuracy", "0.8125")]
        >>> fitted("12/60", "━" * 20, ["3s", "5ms/step"], values, "", 79)
        '12/60 ━━━━━━━━━━━━━━━━━━━━ 3s 5ms/step - loss: 0.5000 - accuracy: 0.8125'
        >>> fitted("12/60", "━" * 20, ["3s", "5ms/step"], values, "", 60)
        '12/60 ━━━━━━━━ 3s 5ms/step - loss: 0.5000 - accuracy: 0.8125'
        >>> fitted("12/60", "━" * 20, ["3s", "5ms/step"], values, "", 39)
        '12/60 3s - loss: 0.5000 - accu: 0.8125'
        >>> fitted("12/60", "━" * 20, ["3s", "5ms/step"], [*values, ("mae", "0.4100")], "", 39)
        '12/60 3s loss 0.5 acc 0.812 mae 0.41'
    """

    def made(length: int, pace: bool = False, letters: int = 99, note: bool = False, short: bool = False) -> str:
        parts = [count, *([_cut(bar, length)] if length else []), times[0], *(times[1:] if pace else [])]
        shown = [(_shortened(name, letters), _rounded(value) if short else value) for name, value in values]
        between, colon = (" ", " ") if short and letters < 4 else (" - ", ": ")
        named = "".join(f"{between}{name}{colon}{value}" for name, value in shown)
        return " ".join(part for part in parts if part) + named + (f" - {remark}" if note and remark else "")

    whole = len(bar)
    tries: list[dict[str, Any]] = [
        *({"length": length, "pace": True, "note": True} for length in range(whole, min(whole, 10) - 1, -1)),
        *({"length": length, "pace": True} for length in range(whole, 4, -1)),
        *({"length": length} for length in range(min(whole, 10), -1, -1)),
        *({"length": 0, "letters": letters} for letters in (4, 3)),
        *({"length": 0, "letters": letters, "short": True} for letters in (4, 3, 2, 1)),
    ]
    for one in tries:
        line = made(**one)
        if len(line) <= room:
            return line
    if len(values) > 1:
        return fitted(count, bar, times, values[:-1], remark, room)
    return made(0, letters=1, short=True)


def finished(count: str, bar: str, times: str, values: list[tuple[str, str]], room: int) -> list[str]:
    """Return the lines that stay, with all names and values whole: the bar gives way, then lines break between values.

    Example:
        >>> finished("4/4", "━" * 20, "0s 3ms/step", [("loss", "0.5000"), ("accuracy", "0.8125")], 39)
        ['4/4 ━━━━━ 0s 3ms/step - loss: 0.5000', '    accuracy: 0.8125']
    """
    shown = [f"{name}: {value}" for name, value in values]
    for length in range(len(bar), 4, -1):
        line = " - ".join([f"{count} {_cut(bar, length)} {times}", *shown])
        if len(line) <= room:
            return [line]
    indent = " " * (len(count) + 1)
    lines = [" ".join(part for part in (count, _cut(bar, min(5, len(bar))), times) if part)]
    for part in shown:
        longer = f"{lines[-1]} - {part}" if lines[-1].strip() else f"{indent}{part}"
        if len(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(f"{indent}{part}")
    return lines


def _cut(bar: str, length: int) -> str:
    if "━" in bar or length == len(bar):
        return bar[:length]
    # Of a bar that shows by its signs how far it is, the share stays.
    done = bar.count("=") * length // len(bar)
    return "=" * done + "." * (length - done)


def _rounded(value: str) -> str:
    try:
        return f"{float(value):.3g}"
    except ValueError:
        return value


def _shortened(name: str, letters: int) -> str:
    """Return a name with so many letters of each of its words; those of four stay whole as long as they can.

    Example:
        >>> _shortened("val_accuracy", 3)
        'val_acc'
    """
    return "_".join(word if len(word) <= 4 and letters > 2 else word[:letters] for word in name.split("_"))


def clock(seconds: float) -> str:
    """Return a time as people write it.

    Example:
        >>> clock(75.0)
        '1:15'
    """
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}" if whole >= 60 else f"{whole}s"
