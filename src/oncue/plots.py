"""Plots of a run: training and validation curves, the learning rate, and decisions of callbacks."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from statistics import median
from typing import TYPE_CHECKING, Any

from oncue.core.run_record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from oncue.core.journal import Entry

_TRAIN, _VALIDATION = "#1f77b4", "#ff7f0e"
_EVENTS = {
    "stop": ("#d62728", "stopped"),
    "restore": ("#2ca02c", "weights kept"),
    "learning_rate": ("#7f7f7f", "rate cut"),
}
_BEST, _SAVED = "#2ca02c", "#17becf"
_MAX_MARKS, _MAX_SAVED = 12, 60
MOST_POINTS = 400
"""Curves with more epochs are drawn as the median and the range of so many groups of epochs."""
MOST_PANELS = 36
"""Of more values the first are drawn."""
_MOST_CELLS = 6_000_000


@dataclass(frozen=True)
class Event:
    """A decision to mark in the plots.

    Args:
        epoch: The epoch, counted from 1.
        kind: "stop", "restore", "learning_rate", "save", or "best".
        name: The value that was best.
    """

    epoch: int
    kind: str
    name: str = ""


def plot(
    epochs: Sequence[int],
    values: Mapping[str, Sequence[float | None]],
    events: Sequence[Event] = (),
    title: str | None = None,
) -> Figure:
    """Draw the curves of a run.

    Each metric has a panel with its training and validation curves; the learning rate has the last panel. Epochs
    without a value are skipped, and the points around them are joined. The best epoch is marked with a diamond, and epochs in
    which files were saved at the bottom. Of more than 400 epochs the medians and ranges of groups are drawn.

    Args:
        epochs: The epochs, counted from 1.
        values: For each name, its value in each epoch, or None.
        events: Decisions to mark with a line.
        title: A title above all panels.

    Returns:
        A matplotlib figure; `figure.savefig("curves.png")` writes it.

    Raises:
        ValueError: If there is nothing to draw.
        ImportError: If matplotlib is not installed; the message names the extra.

    Example:
        >>> figure = plot([1, 2, 3], {"loss": [1.0, 0.5, 0.25], "val_loss": [1.1, 0.7, 0.6]})
        >>> len(figure.axes)
        1
    """
    Figure = _figure_class()
    panels = panels_of(values)
    if not panels or not epochs:
        raise ValueError("There is nothing to draw: the history has no numbers.")
    columns = min(len(panels), 3)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(0.6 + 4.6 * columns, 0.5 + 3.6 * rows), layout="constrained", dpi=110)
    if title is not None:
        figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, name in zip(grid, panels, strict=False):
        _draw(axes, name, epochs, values, events)
    for axes in grid[len(panels) :]:
        axes.remove()
    return figure


def plot_csv(filename: str | os.PathLike[str], separator: str | None = None) -> Figure:
    """Draw the curves of a file that `CSVLogger` wrote.

    Args:
        filename: The file.
        separator: The character between two values; detected if None (default).

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: If the file is not a log of epochs.
    """
    record = RunRecord.of_csv(filename, separator)
    epochs = [epoch + 1 for epoch in record.epochs]
    columns, left_out = table_of(record.epochs, record.history, record.logged_in)
    figure = plot(epochs, columns, _rate_cuts(epochs, columns.get("learning_rate")))
    _say_left_out(figure, left_out)
    return figure


def plot_run(
    epochs: Sequence[int],
    history: Mapping[str, Sequence[Any]],
    logged_in: Mapping[str, Sequence[int]],
    entries: Sequence[Entry],
    title: str | None = None,
) -> Figure:
    """Draw the curves of a run, with what was decided in it.

    Args:
        epochs: The indices of the epochs.
        history: The logged values by name.
        logged_in: The epochs in which each name was logged.
        entries: The decisions.
        title: A title.

    Raises:
        ValueError: If there is nothing to draw.
        ImportError: If matplotlib is not installed; the message names the extra.
    """
    columns, left_out = table_of(epochs, history, logged_in)
    figure = plot([epoch + 1 for epoch in epochs], columns, events_of(entries), title)
    _say_left_out(figure, left_out)
    return figure


def plot_rates(rates: Sequence[float], losses: Sequence[float], suggestion: float | None = None) -> Figure:
    """Draw the loss over learning rates.

    Args:
        rates: The rates, rising.
        losses: The loss at each.
        suggestion: A rate to mark.

    Returns:
        The figure.

    Raises:
        ImportError: Without matplotlib.
    """
    figure = _figure_class()(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, losses, color=_TRAIN)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed")
    axes.grid(alpha=0.3)
    if suggestion is not None:
        axes.axvline(suggestion, color=_BEST, linestyle="--", label=f"suggested: {suggestion:.3g}")
        axes.legend()
    return figure


def plot_batch_sizes(sizes: Sequence[int], speeds: Sequence[float], suggestion: int | None = None) -> Figure:
    """Draw how quick training is over sizes of batches.

    Args:
        sizes: The sizes, rising.
        speeds: Samples in a second at each.
        suggestion: A size to mark.

    Returns:
        The figure.

    Raises:
        ImportError: Without matplotlib.
    """
    figure = _figure_class()(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(sizes, speeds, color=_TRAIN, marker="o")
    axes.set_xscale("log", base=2)
    axes.set(xlabel="batch size", ylabel="samples in a second", ylim=(0, None))
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.grid(alpha=0.3)
    if suggestion is not None:
        axes.axvline(suggestion, color=_BEST, linestyle="--", label=f"suggested: {suggestion}")
        axes.legend()
    return figure


def _say_left_out(figure: Figure, count: int) -> None:
    if count:
        figure.supxlabel(f"{count:,} more values are left out", fontsize=9)


def events_of(entries: Sequence[Entry]) -> list[Event]:
    """Return the entries of a journal that the plots mark."""
    found = []
    for entry in entries:
        data = entry.data or {}
        if entry.epoch is None:
            continue
        if entry.kind in _EVENTS:
            kept = data.get("epoch", entry.epoch) if entry.kind == "restore" else entry.epoch
            found.append(Event(int(kept) + 1, entry.kind))
        if entry.kind == "best" and data.get("monitor"):
            found.append(Event(entry.epoch + 1, "best", str(data["monitor"])))
        if entry.kind in ("best", "save") and "path" in data:
            found.append(Event(entry.epoch + 1, "save"))
    return found


def best_of(
    name: str, epochs: Sequence[int], values: Mapping[str, Sequence[float | None]], events: Sequence[Event]
) -> tuple[int, float, str] | None:
    """Return the epoch in which a value was best, the value, and its whole name; None where that isn't known.

    Of losses less is better; of other values it is known where a callback has watched them.

    Args:
        name: The name without `val_`.
        epochs: The epochs, counted from 1.
        values: For each name, its value in each epoch, or None.
        events: What callbacks decided.

    Example:
        >>> best_of("loss", [1, 2, 3], {"loss": [0.5, 0.25, 0.75]}, [])
        (2, 0.25, 'loss')
    """
    watched = f"val_{name}" if any(value is not None for value in values.get(f"val_{name}", ())) else name
    known = {
        epoch: value
        for epoch, value in zip(epochs, values.get(watched, ()), strict=False)
        if value is not None and math.isfinite(value)
    }
    told = [event.epoch for event in events if event.kind == "best" and event.name == watched and event.epoch in known]
    if told:
        return told[-1], known[told[-1]], watched
    if name != "loss" or len(set(known.values())) < 2:
        return None
    best = min(known, key=lambda epoch: known[epoch])
    return best, known[best], watched


def groups(count: int) -> list[slice]:
    """Return the groups of neighbours into which so many epochs are put to be drawn; each alone where they are few.

    Example:
        >>> len(groups(1000)), groups(1000)[0]
        (334, slice(0, 3, None))
    """
    size = math.ceil(count / MOST_POINTS)
    return [slice(start, start + size) for start in range(0, count, size)] if count else []


def aligned(
    epochs: Sequence[int], history: Mapping[str, Sequence[Any]], logged_in: Mapping[str, Sequence[int]]
) -> dict[str, list[float | None]]:
    """Return the values of a history with one entry per epoch, though some were logged only in some epochs.

    Args:
        epochs: The epochs.
        history: For each name, the values that were logged.
        logged_in: For each name, the epochs in which it was logged.

    Returns:
        For each name, a value or None per epoch.

    Example:
        >>> aligned([1, 2, 3, 4], {"val_loss": [0.5, 0.25]}, {"val_loss": [2, 4]})
        {'val_loss': [None, 0.5, None, 0.25]}
    """
    table = {}
    for name, values in history.items():
        by_epoch = {epoch: _value(value) for epoch, value in zip(logged_in[name], values, strict=False)}
        table[name] = [by_epoch.get(epoch) for epoch in epochs]
    return table


def table_of(
    epochs: Sequence[int], history: Mapping[str, Sequence[Any]], logged_in: Mapping[str, Sequence[int]]
) -> tuple[dict[str, list[float | None]], int]:
    """Return the values that are drawn, as `aligned` does, and how many aren't: of very many values the first are.

    Args:
        epochs: The epochs.
        history: For each name, the values that were logged.
        logged_in: For each name, the epochs in which it was logged.

    Example:
        >>> table_of([1], {"loss": [0.5], "name": ["a"]}, {"loss": [1], "name": [1]})
        ({'loss': [0.5]}, 0)
    """
    numeric = {name: values for name, values in history.items() if any(_value(value) is not None for value in values)}
    panels = panels_of(numeric)
    most = min(MOST_PANELS, max(1, _MOST_CELLS // max(2 * len(epochs), 1)))
    shown = {*panels[:most]}
    drawn = {name: values for name, values in numeric.items() if name.removeprefix("val_") in shown}
    return aligned(epochs, drawn, logged_in), max(0, len(panels) - most)


@dataclass(frozen=True)
class Scale:
    """How values are laid out along an axis.

    Args:
        kind: "linear" or "log".
        low: The least value that is shown.
        high: The greatest.
        cut: How many values lie outside, which would leave no room for all others.
    """

    kind: str
    low: float
    high: float
    cut: int = 0


def scale_of(values: Sequence[float]) -> Scale:
    """Return the scale on which most of the values can be told apart.

    Args:
        values: Finite values.

    Example:
        >>> scale_of([1.0, 0.5, 0.01]).kind
        'log'
        >>> scale_of([0.1] + [0.95 + 0.0001 * step for step in range(99)])
        Scale(kind='linear', low=0.9..., high=0.9..., cut=1)
    """
    if not values:
        return Scale("linear", 0.0, 1.0)
    ordered = sorted(values)
    kind = "log" if ordered[0] > 0 and ordered[-1] / ordered[0] > 20 else "linear"
    placed = [math.log(value) for value in ordered] if kind == "log" else ordered
    low, high = placed[0], placed[-1]
    edge = len(placed) // 50
    first, last = placed[edge], placed[-1 - edge]
    span = last - first
    room = span if kind == "log" else 3 * span
    if edge and span > 0 and (high > last + room or low < first - room):
        low, high = max(low, first - 0.1 * span), min(high, last + 0.1 * span)
    cut = sum(not low <= one <= high for one in placed)
    return Scale(kind, math.exp(low), math.exp(high), cut) if kind == "log" else Scale(kind, low, high, cut)


def panels_of(values: Mapping[str, Sequence[float | None]]) -> list[str]:
    """Return the names of what is drawn: values without their `val_`, the loss first, the learning rate last."""
    numeric = [name for name, column in values.items() if any(value is not None for value in column)]
    plain = dict.fromkeys(name.removeprefix("val_") for name in numeric)
    first = [name for name in ("loss",) if name in plain]
    last = [name for name in ("learning_rate",) if name in plain]
    return first + [name for name in plain if name not in ("loss", "learning_rate")] + last


def _draw(
    axes: Axes, name: str, epochs: Sequence[int], values: Mapping[str, Sequence[float | None]], events: Sequence[Event]
) -> None:
    few = len(epochs) <= 30
    lines = [(name, "training", _TRAIN), (f"val_{name}", "validation", _VALIDATION)]
    if name == "learning_rate":
        lines = [(name, "learning rate", _TRAIN)]
    finite: list[float] = []
    for key, label, colour in lines:
        points = [
            (epoch, value)
            for epoch, value in zip(epochs, values.get(key, ()), strict=False)
            if value is not None and math.isfinite(value)
        ]
        if points:
            style: dict[str, Any] = {"marker": "o", "markersize": 3.5} if few else {}
            if name == "learning_rate":
                style["drawstyle"] = "steps-mid"
            drawn = [points[part] for part in groups(len(points))]
            middle = [(part[len(part) // 2][0], median(value for _, value in part)) for part in drawn]
            axes.plot(*zip(*middle, strict=True), color=colour, label=label, linewidth=1.6 if few else 1.1, **style)
            if len(drawn) < len(points):
                low = [min(value for _, value in part) for part in drawn]
                high = [max(value for _, value in part) for part in drawn]
                axes.fill_between([at for at, _ in middle], low, high, color=colour, alpha=0.2, linewidth=0)
            finite += [value for _, value in points]
    best = best_of(name, epochs, values, events)
    if best is not None:
        axes.plot([best[0]], [best[1]], "D", color=_BEST, markersize=6, zorder=5, label=f"best: epoch {best[0]}")
    saved = sorted({event.epoch for event in events if event.kind == "save"})
    if saved and len(saved) <= _MAX_SAVED and name != "learning_rate":
        bottom = axes.get_xaxis_transform()
        axes.plot(
            saved, [0.015] * len(saved), "^", color=_SAVED, markersize=3.5, transform=bottom, label="saved", zorder=4
        )
    marked = _mark(axes, events)
    scale = scale_of(finite)
    axes.set_yscale(scale.kind)
    if scale.kind == "log":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        # Of few powers of ten, those in between have numbers too.
        wide = scale.high / scale.low > 30
        axes.yaxis.set_minor_formatter(lambda value, _: "" if wide else f"{value:g}")
    if scale.cut:
        axes.set_ylim(scale.low, scale.high)
        outside = "a value is" if scale.cut == 1 else f"{scale.cut} values are"
        axes.annotate(f"{outside} outside", (0.99, 0.02), xycoords="axes fraction", ha="right", fontsize=7)
    if finite and min(finite) == max(finite) > 0:
        axes.set_ylim(0, 2 * finite[0])
    axes.set_title(name.replace("_", " "), loc="left", fontsize=11)
    axes.set_xlabel("epoch")
    axes.grid(True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(epochs) <= 12:
        axes.set_xticks(list(epochs))
    # The learning rate needs no legend: its title names the curve, and the other panels explain the marks.
    if (len(axes.get_lines()) > 1 or marked) and name != "learning_rate":
        # Above the panel, where it can't cover the curves.
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=8, frameon=False, borderaxespad=0.2)


def _mark(axes: Axes, events: Sequence[Event]) -> bool:
    marked = False
    for kind, (colour, label) in _EVENTS.items():
        moments = sorted({event.epoch for event in events if event.kind == kind})
        if not moments or len(moments) > _MAX_MARKS:
            continue
        for index, epoch in enumerate(moments):
            # Styles that stay visible where two marks coincide.
            style = {"learning_rate": ":", "stop": "-", "restore": (0, (4, 4))}[kind]
            axes.axvline(
                epoch, color=colour, linestyle=style, linewidth=1.0, label=label if not index else None, zorder=0
            )
        marked = True
    return marked


def _rate_cuts(epochs: Sequence[int], rates: Sequence[float | None] | None) -> list[Event]:
    if rates is None:
        return []
    pairs = zip(epochs, rates, rates[1:], strict=False)
    return [Event(epoch, "learning_rate") for epoch, before, after in pairs if before and after and after < before]


def _value(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


@cache
def _figure_class() -> type[Figure]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Plots need matplotlib. Run `pip install 'oncue[plot]'`.") from error

    class Picture(Figure):
        """A figure that a notebook shows, whether or not matplotlib was told that there is one."""

        def _repr_png_(self) -> bytes:
            content = BytesIO()
            self.savefig(content, format="png")
            return content.getvalue()

    return Picture
