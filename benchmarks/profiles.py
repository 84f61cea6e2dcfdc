"""Where each way spends the time of a step: calls and time of Python functions by library, under `cProfile`.

    python benchmarks/profiles.py [--workload tiny] [--ways hand,oncue,lightning] [--top 5]

The profiler adds time to every Python call but not to long-running C functions: the numbers of calls are exact, but the shares
are only comparable with each other. Time in C is time below Python: arithmetic, autograd, torch's operators, XLA. The
processor time per step is from the same process without the profiler.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sysconfig
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import environments
from ways import WAYS
from ways.pace import Finished, Pace
from workers import Failed, WorkerProcess
from workloads import WORKLOADS

BARE = [way.name for way in WAYS.values() if way.bare is None and way.cpu]


def profiled(trained: Any, epochs: int, steps: int, settle: Callable[[], None]) -> dict[str, Any]:
    """Train under the profiler, after two epochs without it.

    Args:
        trained: A way, with its model and data.
        epochs: How many epochs to profile.
        steps: The steps of an epoch.
        settle: Waits for the device.

    Returns:
        `plain`, the microseconds of processor time per step without the profiler; `libraries`, for each library the calls of
        its functions per step and the microseconds within them; `top`, the functions with the most own time.
    """
    profile = cProfile.Profile()
    plain: list[float] = []

    def ask(taken: tuple[float, float]) -> int | None:
        profile.disable()
        plain.append(taken[1])
        if len(plain) == 2:
            profile.enable()
        return {1: 1, 2: epochs}.get(len(plain))

    try:
        trained.train(Pace(ask, settle), validation=False)
    except Finished:
        pass
    count = epochs * steps
    libraries: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    functions: list[tuple[float, float, str]] = []
    stats: dict[tuple[str, int, str], Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for (file, line, name), (_, calls, seconds, _, _) in stats.items():
        library = library_of(file)
        libraries[library][0] += calls / count
        libraries[library][1] += seconds / count * 1e6
        functions.append((seconds / count * 1e6, calls / count, f"{Path(file).name}:{line} {name}" if line else name))
    return {"plain": plain[1] / steps * 1e6, "libraries": libraries, "top": sorted(functions, reverse=True)[:20]}


def library_of(file: str) -> str:
    """Return the library that a file belongs to; "C" for functions without a file."""
    parts = Path(file).parts
    if file == "~":
        return "C"
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    if file.startswith(sysconfig.get_paths()["stdlib"]):
        return "standard library"
    return "oncue" if "oncue" in parts else "this benchmark"


def rows(way: str, answer: dict[str, Any], top: int) -> list[str]:
    """Return the table's row of a way, followed by its most expensive functions."""
    libraries = answer["libraries"]
    calls = sum(calls for library, (calls, _) in libraries.items() if library != "C")
    whole = sum(seconds for _, seconds in libraries.values())
    by_time = sorted(libraries.items(), key=lambda item: -item[1][1])
    shares = ", ".join(f"{name} {seconds / whole:.0%} ({calls:.0f})" for name, (calls, seconds) in by_time[:6])
    lines = [f"| {WAYS[way].title} | {answer['plain']:.0f} | {calls:.0f} | {shares} |"]
    return lines + [f"| | | {calls:.1f} | {seconds:.1f} µs: `{name}` |" for seconds, calls, name in answer["top"][:top]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, default="mlp32")
    parser.add_argument("--ways", default=",".join(BARE))
    parser.add_argument("--top", type=int, default=0, help="number of functions to list for each way")
    options = parser.parse_args()
    workload = WORKLOADS[options.workload]
    environments.FOLDER.mkdir(exist_ok=True)
    print(
        f"{workload.title}\n\n| way | µs per step, plain | Python calls per step | share of the time (calls per step) |"
    )
    print("|---|---|---|---|", flush=True)
    for name in options.ways.split(","):
        way = WAYS[name]
        environment = environments.own() if way.peer is None else environments.install(way.peer)
        try:
            worker = WorkerProcess(way, environment)
            try:
                worker.ask(do="make", workload=workload.name, steps=workload.short_steps)
                answer = worker.ask(do="profile", epochs=1, steps=workload.short_steps)
            finally:
                worker.close()
        except Failed as failure:
            print(f"| {way.title} | | | {failure} |", flush=True)
        else:
            print("\n".join(rows(name, answer, options.top)), flush=True)


if __name__ == "__main__":
    main()
