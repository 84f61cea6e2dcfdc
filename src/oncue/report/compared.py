"""Several runs beside each other: what differed in them, who was best when, and at what cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oncue.plots import MOST_PANELS
from oncue.report.charts import overlaid
from oncue.report.page import as_table, comparison, flat
from oncue.report.run import Run

_UP = ("acc", "auc", "precision", "recall", "f1", "f_score", "iou", "r2", "cosine_similarity")
_IDLE = ("environment.began", "environment.script")


@dataclass(frozen=True)
class Row:
    """What is compared of one run.

    Args:
        name: The run.
        how: How it ended.
        epochs: How many epochs it finished.
        seconds: How long it took.
        best: The best of the value that is compared; None when it has none.
        best_epoch: The index of the epoch of that.
        seconds_to_best: How long it took up to there; None when not known.
        last: The last of that value.
    """

    name: str
    how: str
    epochs: int
    seconds: float
    best: float | None
    best_epoch: int | None
    seconds_to_best: float | None
    last: float | None


def named(runs: Sequence[Run]) -> dict[str, Run]:
    """Return runs by name, which are their paths where two have the same."""
    names = [run.name for run in runs]
    return {run.name if names.count(run.name) == 1 else str(run.path): run for run in runs}


def value_to_compare(runs: Mapping[str, Run], monitor: str | None) -> str:
    """Return the name of the value that runs are compared by.

    Args:
        runs: The runs by name.
        monitor: The name that was asked for; None for `val_loss`, or else `loss`.

    Raises:
        ValueError: When no run has it, with the names that there are.
    """
    known = sorted({name for run in runs.values() for name in run.record.history})
    for name in ("val_loss", "loss") if monitor is None else (monitor,):
        if name in known:
            return name
    asked = "`val_loss` or `loss`" if monitor is None else f"`{monitor}`"
    raise ValueError(f"None of the runs has {asked}; they have {', '.join(known) or 'no values'}.")


def rows_of(runs: Mapping[str, Run], monitor: str, mode: str = "auto") -> list[Row]:
    """Return a row for each run, the best first.

    Args:
        runs: The runs by name.
        monitor: The value that they are compared by.
        mode: "min", "max", or "auto": names like those of accuracies get better upwards, all others downwards.
    """
    up = mode == "max" or (mode == "auto" and any(part in monitor.lower() for part in _UP) and "loss" not in monitor)
    rows = []
    for name, run in runs.items():
        record = run.record
        values = [
            (float(value), epoch)
            for epoch, value in zip(record.logged_in.get(monitor, ()), record.history.get(monitor, ()), strict=False)
            if isinstance(value, (int, float)) and math.isfinite(value)
        ]
        best = None if not values else max(values, key=lambda v: (v[0], -v[1])) if up else min(values)
        took = None
        if (
            best is not None
            and record.began is not None
            and len(record.times) == len(record.epochs)
            and record.parts < 2
        ):
            took = record.times[record.epochs.index(best[1])] - record.began
        rows.append(
            Row(
                name,
                record.ending.how,
                len(record.epochs),
                record.seconds,
                None if best is None else best[0],
                None if best is None else best[1],
                took,
                values[-1][0] if values else None,
            )
        )
    worst = math.inf
    return sorted(rows, key=lambda row: worst if row.best is None else -row.best if up else row.best)


def what_differed(runs: Mapping[str, Run]) -> list[tuple[str, list[Any]]]:
    """Return what isn't the same in the configurations of runs, with the value of each; None where one has none.

    Args:
        runs: The runs by name.
    """
    tables = []
    for run in runs.values():
        found = {
            f"{document}.{where}": value
            for document in ("config", "environment", "model")
            for where, value in flat(run.documents.get(document) or {})
        }
        tables.append({where: value for where, value in found.items() if where not in _IDLE})
    names = list(dict.fromkeys(where for table in tables for where in table))
    differing = []
    for where in names:
        values = [table.get(where) for table in tables]
        if any(value != values[0] for value in values) and not _is_place(values):
            differing.append((where, values))
    return differing


def _is_place(values: Sequence[Any]) -> bool:
    """Return whether values are paths into the runs' own folders, which are never the same."""
    return all(isinstance(value, str) and ("/" in value or "\\" in value) for value in values)


def comparison_page(runs: Mapping[str, Run], monitor: str, mode: str = "auto") -> str:
    """Return one HTML file that compares runs.

    Args:
        runs: The runs by name.
        monitor: The value that they are compared by.
        mode: "min", "max" or "auto".
    """
    rows = rows_of(runs, monitor, mode)
    cells = [[*shown(row)] for row in rows]
    parts = ["<h2>Who was best when, and at what cost</h2>", as_table(heads(monitor), cells, numbers=range(2, 8))]
    differing = what_differed(runs)
    if differing:
        table = [[where, *("" if value is None else value for value in values)] for where, values in differing]
        parts += ["<h2>What differed</h2>", as_table(["", *runs], table)]
    names = list(dict.fromkeys(name for run in runs.values() for name in run.record.history))
    order = [monitor, *(name for name in names if name != monitor)]
    charts = [overlaid(name, {label: run.record for label, run in runs.items()}) for name in order[:MOST_PANELS]]
    if len(order) > MOST_PANELS:
        parts.append(f'<p class="soft">{len(order) - MOST_PANELS:,} more logged values are left out.</p>')
    return comparison(f"{len(runs)} runs", "\n".join(parts), [chart for chart in charts if chart is not None])


def heads(monitor: str) -> list[str]:
    """Return the names of the columns of `shown`."""
    return ["run", "end", f"best {monitor}", "in epoch", "after", f"last {monitor}", "epochs", "time"]


def shown(row: Row) -> list[str]:
    """Return a row as words."""
    return [
        row.name,
        row.how,
        _number(row.best),
        "" if row.best_epoch is None else str(row.best_epoch + 1),
        "" if row.seconds_to_best is None else f"{row.seconds_to_best:.1f} s",
        _number(row.last),
        str(row.epochs),
        f"{row.seconds:.1f} s" if row.seconds else "",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
