"""The charts of the page, as specifications for Vega-Lite: at most a few hundred points of each curve, however long the run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from oncue.core.journal import Entry
from oncue.core.run_record import RunRecord
from oncue.plots import Scale, aligned, best_of, events_of, groups, panels_of, scale_of, table_of

_MOST_MARKS = 120
MOST_WEIGHTS = 12
"""How many weights have a chart of their own."""
_MOST_STATISTICS = 100
_FEW_EPOCHS = 12
_MOST_HOOKS = 40
_LONGEST = 300
_TRAINING, _VALIDATION = "#4c78a8", "#f58518"
KINDS = {
    "stop": ("#d62728", "stopped"),
    "restore": ("#2ca02c", "weights put back"),
    "learning_rate": ("#9467bd", "rate changed"),
    "save": ("#17becf", "file saved"),
    "note": ("#8c8c8c", "noted"),
}
"""The kinds of decisions that charts mark, with their colours and words."""
_QUIET = ("save", "note")
"""Those that are marked below the curves, without a line."""

Spec = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """One chart.

    Args:
        name: What it shows.
        note: What is said below it; may be empty.
        spec: The specification.
    """

    name: str
    note: str
    spec: Spec


def curves(record: RunRecord) -> tuple[list[Chart], int]:
    """Return a chart of each logged value, training beside validation, with what was decided; and how many are left out.

    Args:
        record: The run.

    Example:
        >>> from pathlib import Path
        >>> record = RunRecord(Path("x"), [0, 1], {"loss": [0.5, 0.25]}, {"loss": [0, 1]})
        >>> charts, left_out = curves(record)
        >>> [(chart.name, len(chart.spec["data"]["values"])) for chart in charts], left_out
        ([('loss', 2)], 0)
    """
    table, left_out = table_of(record.epochs, record.history, record.logged_in)
    return [_curve(name, record, table) for name in panels_of(table)], left_out


def _curve(name: str, record: RunRecord, table: Mapping[str, Sequence[float | None]]) -> Chart:
    pair = {"t": table.get(name, []), "v": table.get(f"val_{name}", []) if name != "learning_rate" else []}
    known = [value for column in pair.values() for value in column if value is not None and math.isfinite(value)]
    scale = scale_of(known)
    rows = grouped([epoch + 1 for epoch in record.epochs], pair)
    condensed = len(rows) < len(record.epochs)
    y: Spec = {"type": "quantitative", "title": None, "scale": _along(scale)}
    x = _epochs(rows)
    label = {"t": "learning rate" if name == "learning_rate" else "training", "v": "validation"}
    colours = {"domain": [label["t"], label["v"]], "range": [_TRAINING, _VALIDATION]}
    layers: list[Spec] = []
    present = [key for key, column in pair.items() if any(value is not None for value in column)]
    for key in present:
        colour = {"datum": label[key], "type": "nominal", "scale": colours, "legend": None}
        if condensed:
            band = {"type": "area", "opacity": 0.2, "clip": True}
            low, high = {**y, "field": f"{key}l"}, {"field": f"{key}h"}
            layers.append({"mark": band, "encoding": {"x": x, "y": low, "y2": high, "color": colour}})
        step = {"interpolate": "step"} if name == "learning_rate" else {}
        line = {"type": "line", "strokeWidth": 1.8, "clip": True, "point": len(rows) <= 30, **step}
        drawn = [{"filter": f"isValid(datum.{key})"}]
        layers.append(
            {"mark": line, "transform": drawn, "encoding": {"x": x, "y": {**y, "field": key}, "color": colour}}
        )
    layers.append(_hover(x, label, present, condensed))
    decided = [] if name == "learning_rate" else _marks(record.entries)
    if name == "learning_rate":
        decided = [mark for mark in _marks(record.entries) if mark["k"] == "learning_rate"]
    if decided:
        layers.append(_decisions(decided, x))
    best = best_of(name, [epoch + 1 for epoch in record.epochs], table, events_of(record.entries))
    if best is not None:
        epoch, value, watched = best
        layers.append(_best_point({"e": epoch, "y": value, "d": f"best {watched}: {value:.5g}"}, x, y))
    notes = []
    if scale.kind == "log":
        notes.append("Logarithmic scale.")
    if scale.cut:
        notes.append(f"{scale.cut} of {len(known):,} values are outside of what is shown.")
    if condensed:
        notes.append(f"{len(record.epochs):,} epochs as the median and the range of {len(rows)} groups.")
    return Chart(name, " ".join(notes), {**_frame(220), "data": {"values": rows}, "layer": layers})


def grouped(epochs: Sequence[int], columns: Mapping[str, Sequence[float | None]]) -> list[Spec]:
    """Return rows of values by epoch; of many epochs, the median and the range of each group of neighbours.

    Example:
        >>> grouped([1, 2], {"t": [0.5, None]})
        [{'e': 1, 't': 0.5}, {'e': 2}]
    """
    finite = {
        key: [value if value is not None and math.isfinite(value) else None for value in column]
        for key, column in columns.items()
    }
    rows = []
    for place in groups(len(epochs)):
        part = epochs[place]
        row: Spec = (
            {"e": part[len(part) // 2]} if len(part) == 1 else {"e": part[len(part) // 2], "f": part[0], "g": part[-1]}
        )
        for key, column in finite.items():
            values = [value for value in column[place] if value is not None]
            if values and len(part) == 1:
                row[key] = values[0]
            elif values:
                row |= {key: _short(median(values)), f"{key}l": _short(min(values)), f"{key}h": _short(max(values))}
        rows.append(row)
    return rows


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _along(scale: Scale) -> Spec:
    if scale.kind == "log":
        return {"type": "log", "nice": False, "domain": [scale.low / 1.1, scale.high * 1.1], "clamp": bool(scale.cut)}
    if scale.cut:
        return {"type": "linear", "zero": False, "nice": False, "domain": [scale.low, scale.high], "clamp": True}
    if scale.low == scale.high > 0:
        # Else the axis has no room for the number.
        return {"type": "linear", "domain": [0, 2 * scale.high]}
    return {"type": "linear", "zero": False, "nice": True}


def _frame(height: int) -> Spec:
    return {
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "config": {
            "background": None,
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": {"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "gridOpacity": 0.6},
        },
    }


def _hover(x: Spec, label: Mapping[str, str], present: Sequence[str], condensed: bool) -> Spec:
    shown = [{"field": "e", "type": "quantitative", "title": "epoch", "format": "d"}]
    if condensed:
        shown = [
            {"field": "f", "type": "quantitative", "title": "from epoch", "format": "d"},
            {"field": "g", "type": "quantitative", "title": "to epoch", "format": "d"},
        ]
    shown += [{"field": key, "type": "quantitative", "title": label[key], "format": ".5~g"} for key in present]
    near = {"type": "point", "fields": ["e"], "nearest": True, "on": "pointerover", "clear": "pointerout"}
    return {
        "mark": {"type": "rule", "strokeWidth": 1, "color": "#8c8c8c"},
        "params": [{"name": "near", "select": near}],
        "encoding": {
            "x": x,
            "opacity": {"condition": {"param": "near", "empty": False, "value": 0.7}, "value": 0},
            "tooltip": shown,
        },
    }


def _marks(entries: Sequence[Entry]) -> list[Spec]:
    found = []
    for entry in entries:
        kind = entry.kind if entry.kind in KINDS else "save" if _path(entry) else "note"
        if entry.epoch is None or (entry.kind == "best" and not _path(entry)):
            continue
        kept = (entry.data or {}).get("epoch") if entry.kind == "restore" else None
        found.append(
            {
                "e": (entry.epoch if kept is None else kept) + 1,
                "k": kind,
                "d": f"{entry.callback}: {entry.text}"[:_LONGEST],
            }
        )
    many = {kind for kind, count in Counter(mark["k"] for mark in found).items() if count > _MOST_MARKS}
    # So many marks of a kind would hide the curves, and the page lists them.
    return [mark for mark in found if mark["k"] not in many]


def _path(entry: Entry) -> bool:
    return entry.kind in ("best", "save") and "path" in (entry.data or {})


def _decisions(marks: list[Spec], x: Spec) -> Spec:
    by_epoch: dict[tuple[int, str], list[str]] = {}
    for mark in marks:
        by_epoch.setdefault((mark["e"], mark["k"]), []).append(mark["d"])
    layers: list[Spec] = []
    for quiet in (False, True):
        values = [
            {"e": epoch, "k": KINDS[kind][1], "d": "; ".join(texts)}
            for (epoch, kind), texts in by_epoch.items()
            if (kind in _QUIET) is quiet
        ]
        if values and quiet:
            small = {"type": "point", "shape": "triangle-up", "filled": True, "size": 35, "opacity": 0.8}
            layers.append({"data": {"values": values}, "mark": small, "encoding": {"y": {"value": "height"}}})
        elif values:
            line = {"type": "rule", "strokeDash": [4, 3], "strokeWidth": 1.3}
            large = {"type": "point", "shape": "triangle-down", "filled": True, "size": 80, "opacity": 1}
            layers.append({"data": {"values": values}, "mark": line})
            layers.append({"data": {"values": values}, "mark": large, "encoding": {"y": {"value": 0}}})
    colour = {
        "field": "k",
        "type": "nominal",
        "scale": {"domain": [word for _, word in KINDS.values()], "range": [colour for colour, _ in KINDS.values()]},
        "legend": None,
    }
    shown = [
        {"field": "e", "type": "quantitative", "title": "epoch", "format": "d"},
        {"field": "k", "type": "nominal", "title": "what"},
        {"field": "d", "type": "nominal", "title": "why"},
    ]
    return {
        "encoding": {"x": x, "color": colour, "tooltip": shown},
        "resolve": {"scale": {"color": "independent"}},
        "layer": layers,
    }


def _best_point(best: Spec, x: Spec, y: Spec) -> Spec:
    return {
        "data": {"values": [best]},
        "mark": {"type": "point", "shape": "diamond", "filled": True, "size": 110, "color": "#2ca02c", "opacity": 1},
        "encoding": {
            "x": x,
            "y": {**y, "field": "y"},
            "tooltip": [
                {"field": "e", "type": "quantitative", "title": "epoch", "format": "d"},
                {"field": "d", "type": "nominal", "title": "what"},
            ],
        },
    }


def costs(record: RunRecord) -> Chart | None:
    """Return a chart of the seconds that each callback took in each hook; None when nothing was measured."""
    rows = [
        {"c": callback, "h": hook, "s": _short(seconds)}
        for callback, hooks in list(record.costs.items())[:12]
        for hook, seconds in list(hooks.items())[:_MOST_HOOKS]
        if seconds >= 1e-4
    ]
    if not rows:
        return None
    encoding = {
        "y": {"field": "c", "type": "nominal", "title": None, "sort": None},
        "x": {"field": "s", "type": "quantitative", "title": "seconds", "axis": {"tickCount": 6, "labelOverlap": True}},
        "color": {"field": "h", "type": "nominal", "title": None, "legend": {"orient": "bottom", "columns": 2}},
        "tooltip": [
            {"field": "c", "type": "nominal", "title": "callback"},
            {"field": "h", "type": "nominal", "title": "hook"},
            {"field": "s", "type": "quantitative", "title": "seconds", "format": ".3~g"},
        ],
    }
    count = len({row["c"] for row in rows})
    spec = {
        **_frame(60 + 26 * count + 9 * len({row["h"] for row in rows})),
        "data": {"values": rows},
        "mark": "bar",
        "encoding": encoding,
    }
    return Chart("costs", "", spec)


def of_weights(record: RunRecord) -> list[Chart]:
    """Return a chart of each weight whose statistics were noted, and one of the shares of zeros where there are any.

    Of many weights those have one whose standard deviation changed most, in proportion.

    Args:
        record: The run.

    Example:
        >>> from pathlib import Path
        >>> noted = {0: [0.5, 0.1, 0.0, 0.0, 1.0], 1: [0.4, 0.1, 0.25, 0.0, 1.0]}
        >>> [chart.name for chart in of_weights(RunRecord(Path("x"), weights={"w": noted}))]
        ['w', 'share of zeros']
    """
    told = {name: found for name, rows in record.weights.items() if (found := _finite_rows(rows))}
    ranked = sorted(told, key=lambda name: -_change(told[name]))
    shown = set(ranked[:MOST_WEIGHTS])
    charts = [_weight(name, told[name]) for name in told if name in shown]
    zeros = {name: rows for name, rows in told.items() if any(row["z"] for row in rows)}
    most = sorted(zeros, key=lambda name: -zeros[name][-1]["z"])[:MOST_WEIGHTS]
    if most:
        rows = [{"e": row["e"], "t": row["z"], "r": name} for name in most for row in zeros[name]]
        charts.append(_lines("share of zeros", rows, {"type": "linear", "domain": [0, 1]}, "weight", len(most), ".1~%"))
    return charts


def _finite_rows(noted: Mapping[int, Sequence[float]]) -> list[Spec]:
    """Return what was noted of a weight as rows, at most some hundred of them, without what isn't finite."""
    epochs = sorted(epoch for epoch, values in noted.items() if all(map(math.isfinite, values)))
    step = math.ceil(len(epochs) / _MOST_STATISTICS) or 1
    # The last is what the weight is now.
    kept = epochs[::-1][::step][::-1]
    rows = []
    for epoch in kept:
        mean, deviation, zeros, low, high = map(_short, noted[epoch])
        around = {"a": _short(mean - deviation), "b": _short(mean + deviation)}
        rows.append({"e": epoch + 1, "m": mean, "s": deviation, **around, "z": zeros, "n": low, "x": high})
    return rows


def _change(rows: Sequence[Spec]) -> float:
    first, last = rows[0]["s"], rows[-1]["s"]
    return float(abs(math.log(last / first))) if first > 0 and last > 0 else abs(last - first)


def _weight(name: str, rows: list[Spec]) -> Chart:
    x, y = _epochs(rows), {"type": "quantitative", "title": None, "scale": {"zero": False}}
    layers: list[Spec] = []
    for low, high, opacity in (("n", "x", 0.15), ("a", "b", 0.3)):
        mark = {"type": "area", "opacity": opacity, "color": _TRAINING}
        if len(rows) == 1:
            mark = {"type": "rule", "strokeWidth": 6, "opacity": opacity, "color": _TRAINING}
        layers.append({"mark": mark, "encoding": {"x": x, "y": {**y, "field": low}, "y2": {"field": high}}})
    line = {"type": "line", "strokeWidth": 1.8, "color": _TRAINING, "point": len(rows) <= 30}
    layers.append({"mark": line, "encoding": {"x": x, "y": {**y, "field": "m"}}})
    titles = {"m": "mean", "s": "standard deviation", "n": "least", "x": "greatest", "z": "zeros"}
    layers.append(_hover(x, titles, list(titles), condensed=False))
    return Chart(name, "", {**_frame(150), "data": {"values": rows}, "layer": layers})


def _epochs(rows: Sequence[Spec]) -> Spec:
    """Return the axis of the epochs of some rows."""
    axis: Spec = {"tickMinStep": 1, "format": "d"}
    known = sorted({row["e"] for row in rows})
    if known and known[-1] - known[0] < _FEW_EPOCHS:
        # Else there are ticks at halves, with the numbers of whole epochs.
        axis["values"] = list(range(known[0], known[-1] + 1))
    return {
        "field": "e",
        "type": "quantitative",
        "title": "epoch",
        "axis": axis,
        "scale": {"nice": False, "zero": False},
    }


def overlaid(name: str, runs: Mapping[str, RunRecord]) -> Chart | None:
    """Return a chart of one value of several runs; None when none has it.

    Args:
        name: The value's name in the logs.
        runs: The runs by name.
    """
    rows: list[Spec] = []
    for label, record in runs.items():
        if name in record.history:
            column = aligned(record.epochs, {name: record.history[name]}, record.logged_in)[name]
            rows += [{**row, "r": label} for row in grouped([epoch + 1 for epoch in record.epochs], {"t": column})]
    rows = [row for row in rows if "t" in row]
    if not rows:
        return None
    return _lines(name, rows, _along(scale_of([row["t"] for row in rows])), "run", len(runs))


def _lines(name: str, rows: list[Spec], scale: Spec, what: str, count: int, numbers: str = ".5~g") -> Chart:
    """Return a chart of several lines, each with a colour of its own.

    Args:
        name: What it shows.
        rows: The points: the epoch `e`, the value `t`, and the name of the line `r`.
        scale: The scale of the values.
        what: What a line stands for.
        count: How many lines there are.
        numbers: How values are written.
    """
    axis = {"format": numbers} if numbers.endswith("%") else {}
    y: Spec = {"field": "t", "type": "quantitative", "title": None, "scale": scale, "axis": axis}
    encoding = {
        "x": _epochs(rows),
        "y": y,
        "color": {
            "field": "r",
            "type": "nominal",
            "title": None,
            "sort": None,
            "legend": {"orient": "bottom", "columns": 1, "labelLimit": 300},
        },
        "tooltip": [
            {"field": "r", "type": "nominal", "title": what},
            {"field": "e", "type": "quantitative", "title": "epoch", "format": "d"},
            {"field": "t", "type": "quantitative", "title": "value", "format": numbers},
        ],
    }
    mark: Spec = {"type": "line", "clip": True, "strokeWidth": 1.8, "point": len(rows) <= 30 * count}
    if name == "learning_rate":
        mark["interpolate"] = "step"
    return Chart(name, "", {**_frame(200 + 14 * count), "data": {"values": rows}, "mark": mark, "encoding": encoding})
