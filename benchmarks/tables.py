"""The result tables, as Markdown."""

from __future__ import annotations

import datetime
import platform
import statistics
from importlib.metadata import version
from typing import TYPE_CHECKING

from ways import WAYS

if TYPE_CHECKING:
    from training import Results
    from workloads import Workload

BASE = "hand"
PACED = {
    "step": ("Training step", "µs per step"),
    "epoch": ("Epoch with validation", "s"),
    "evaluate": ("evaluate, a pass over the training data", "s"),
    "predict": ("predict, a pass over the training data", "s"),
}


def heading(versions: list[str], device: str) -> str:
    """Return the line with the date, the machine and the versions."""
    today = datetime.datetime.now(datetime.UTC).date()
    known = [f"torch {version('torch')}", *(entry for entry in versions if not entry.startswith("torch "))]
    return f"{today}, {processor()}, {device}, one thread per process, Python {platform.python_version()}, {', '.join(known)}"


def processor() -> str:
    """Return the processor's name."""
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def ratios(results: Results, workload: str, measure: str, way: str, base: str = BASE) -> list[float]:
    """Return a way's ratios to another, one per round; empty if either is missing."""
    found = results.of(workload, measure)
    values, others = found.get(way, []), found.get(base, [])
    return [value / other for value, other in zip(values, others, strict=False)]


def processor_ratios(results: Results, workload: str, measure: str, way: str) -> list[float]:
    """Return a way's ratios to the hand-written loop in processor time, one per round."""
    mine, others = (results.cores.get((workload, measure, name), []) for name in (way, BASE))
    found = ratios(results, workload, measure, way)
    return [ratio * cores / other for ratio, cores, other in zip(found, mine, others, strict=False)]


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def details(results: Results, workload: Workload) -> str:
    """Return the tables of one workload."""
    parts = [f"\n### {workload.title}"]
    for measure, (title, unit) in PACED.items():
        found = results.of(workload.name, measure)
        missing = {way: why for (w, m, way), why in results.missing.items() if (w, m) == (workload.name, measure)}
        if found or missing:
            columns = f"| {title} | {unit} | vs hand-written | middle half | vs bare | cores | processor time vs hand-written |"
            rows = [row(results, workload.name, measure, way) for way in WAYS if way in found]
            rows += [f"| {WAYS[way].title} | | {why} | | | | |" for way, why in missing.items()]
            parts.append("\n".join([columns, "|---|---|---|---|---|---|---|", *rows]))
    parts += fresh(results, workload.name)
    return "\n\n".join(parts)


def row(results: Results, workload: str, measure: str, way: str) -> str:
    """Return the row of a way."""
    value = statistics.median(results.of(workload, measure)[way])
    found = ratios(results, workload, measure, way)
    against = ratios(results, workload, measure, way, WAYS[way].bare) if WAYS[way].bare else []
    cores = results.cores.get((workload, measure, way))
    used = processor_ratios(results, workload, measure, way)
    shown = "" if not found else "{1:.2f} | {0:.2f} to {2:.2f}".format(*quartiles(found))
    return (
        f"| {WAYS[way].title} | {f'{value:.0f}' if measure == 'step' else f'{value:.3f}'} | {shown or ' | '} | "
        f"{f'{statistics.median(against):.3f}' if against else ''} | {f'{statistics.median(cores):.2f}' if cores else ''} | "
        f"{f'{statistics.median(used):.2f}' if used else ''} |"
    )


def fresh(results: Results, workload: str) -> list[str]:
    """Return the table of measurements in new processes, and on a GPU the table of waits."""
    parts = []
    kinds = {
        "first": "first step, empty cache",
        "first, after imports": "of which after the imports",
        "first, again": "first step, warm cache",
        "first, again, after imports": "of which after the imports",
        "memory": "memory, MB",
    }
    found = {kind: results.of(workload, kind) for kind in kinds}
    missing = {way: why for (w, m, way), why in results.missing.items() if (w, m) == (workload, "first")}
    if any(found.values()) or missing:
        lines = [f"| New process | {' | '.join(kinds.values())} |", "|---|" + "---|" * len(kinds)]
        for way in WAYS:
            if way in missing:
                lines.append(f"| {WAYS[way].title} | {missing[way]} |" + " |" * (len(kinds) - 1))
            elif any(way in values for values in found.values()):
                cells = [
                    f"{statistics.median(found[kind][way]):.{0 if kind == 'memory' else 2}f}"
                    if way in found[kind]
                    else ""
                    for kind in kinds
                ]
                lines.append(f"| {WAYS[way].title} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    idle, device = results.of(workload, "host idle"), results.of(workload, "device idle")
    if idle:
        lines = ["| GPU, from a trace | host waits, µs per step | device idle |", "|---|---|---|"]
        lines += [f"| {WAYS[way].title} | {idle[way][0]:.1f} | {device[way][0]:.0%} |" for way in WAYS if way in idle]
        parts.append("\n".join(lines))
    return parts


def summary(results: Results, workloads: list[Workload], device: str) -> str:
    """Return the tables of all workloads side by side, as ratios to the hand-written loop."""
    parts = ["\n## All workloads: ratios to the hand-written loop in memory"]
    for measure, (title, _) in PACED.items():
        shown = [workload for workload in workloads if results.of(workload.name, measure)]
        if not shown:
            continue
        for kind, find in ((title, ratios), (f"{title}, processor time", processor_ratios)):
            lines = [f"| {kind} | {' | '.join(workload.title for workload in shown)} |", "|---|" + "---|" * len(shown)]
            for way in WAYS:
                cells = [find(results, workload.name, measure, way) for workload in shown]
                if any(cells):
                    numbers = (f"{statistics.median(cell):.2f}" if cell else "" for cell in cells)
                    lines.append(f"| {WAYS[way].title} | {' | '.join(numbers)} |")
            parts.append("\n".join(lines))
    if device == "cpu":
        parts.append("On a GPU: not measured.")
    return "\n\n".join(parts)
