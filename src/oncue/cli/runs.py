"""`oncue explain`, `tail` and `plot`: what is known of a run."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from oncue.cli.output import say, say_json
from oncue.core.run_record import STATISTICS, RunRecord
from oncue.report import Run, find_run


def explain(options: Namespace) -> int:
    """Print the account of a run."""
    run = find_run(options.run)
    if options.json:
        say_json(facts_of(run))
    else:
        say(run.record.explain())
    return 0


def facts_of(run: Run) -> dict[str, Any]:
    """Return what the account says, for programs."""
    record = run.record
    ending = record.ending
    return {
        "run": run.name,
        "ending": {"how": ending.how, "error": ending.error, "epoch": ending.epoch, "planned": ending.planned},
        "epochs": len(record.epochs),
        "seconds": record.seconds,
        "last": {name: values[-1] for name, values in record.history.items() if values},
        "decisions": [
            {
                **{name: getattr(entry, name) for name in ("time", "epoch", "batch", "callback", "kind", "text")},
                "data": {name: value for name, value in (entry.data or {}).items() if name not in ("line", "cited")},
            }
            for entry in record.entries
        ],
        "costs": record.costs,
        "weights": {
            name: {"epoch": max(noted), **dict(zip(STATISTICS, noted[max(noted)], strict=True))}
            for name, noted in record.weights.items()
        },
        "account": record.explain().splitlines(),
    }


def tail(options: Namespace) -> int:
    """Print the last epochs and decisions of a run, and with `--follow` those that come."""
    printed = 0
    while True:
        record = find_run(options.run).record
        moments = _moments(record)
        if printed == 0:
            printed = max(0, len(moments) - options.lines)
        # After going back to an earlier state there are fewer.
        printed = min(printed, len(moments))
        for when, text, fact in _told(record, moments[printed:]):
            if options.json:
                say_json_line(fact)
            else:
                say(f"{time.strftime('%H:%M:%S', time.localtime(when))}  {text}")
        printed = len(moments)
        if not options.follow or record.ending.how != "running":
            break
        time.sleep(options.every)
    return 0


def say_json_line(fact: dict[str, Any]) -> None:
    """Print one line of JSON."""
    from oncue.core.run_record import line_of

    print(line_of(str(fact.pop("line")), fact).decode("ascii"), end="", flush=True)


Moment = tuple[float, str, int]
"""When something happened; whether it is the end of an "epoch", a "decision" or the "end"; and its place among these."""


def _moments(record: RunRecord) -> list[Moment]:
    """Return what happened, in order."""
    times = record.times or [record.updated or 0.0] * len(record.epochs)
    found: list[Moment] = [(when, "epoch", place) for place, when in enumerate(times)]
    found += [(entry.time, "decision", place) for place, entry in enumerate(record.entries)]
    found.sort(key=lambda moment: moment[0])
    if record.ending.how != "running":
        found.append((record.updated or 0.0, "end", 0))
    return found


def _told(record: RunRecord, moments: Sequence[Moment]) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """Yield what happened at some moments, as words and as data."""
    logs: dict[int, dict[str, Any]] = {record.epochs[place]: {} for _, kind, place in moments if kind == "epoch"}
    for name, values in record.history.items():
        for epoch, value in zip(record.logged_in[name], values, strict=True):
            if epoch in logs:
                logs[epoch][name] = value
    for when, kind, place in moments:
        if kind == "epoch":
            epoch = record.epochs[place]
            shown = " - ".join(f"{name}: {_shown(value)}" for name, value in logs[epoch].items())
            yield when, f"epoch {epoch + 1}: {shown}", {"line": "epoch", "epoch": epoch, "logs": logs[epoch]}
        elif kind == "decision":
            entry = record.entries[place]
            fact = {"line": "decision", "epoch": entry.epoch, "callback": entry.callback, "kind": entry.kind}
            yield when, str(entry), {**fact, "text": entry.text}
        else:
            sentence = record.explain().splitlines()[1]
            yield when, sentence, {"line": "end", "how": record.ending.how, "text": sentence}


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def plot(options: Namespace) -> int:
    """Draw the curves of a run, or of a file that CSVLogger wrote."""
    from oncue.plots import plot_csv, plot_run

    if Path(options.run).suffix.lower() == ".csv" or options.separator is not None:
        figure = plot_csv(options.run, options.separator)
    else:
        run = find_run(options.run)
        record = run.record
        figure = plot_run(record.epochs, record.history, record.logged_in, record.entries, run.name)
    figure.savefig(options.output)
    if options.json:
        say_json({"wrote": options.output})
    else:
        say(f"wrote {options.output}")
    return 0
