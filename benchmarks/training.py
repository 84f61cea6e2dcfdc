"""Times each workload in each way, in turn, and prints the tables.

    python benchmarks/training.py                                   the short form
    python benchmarks/training.py --full                            every way on every workload, longer epochs
    python benchmarks/training.py --workloads mlp32,tiny --ways hand,oncue,oncue-full --measures step,epoch
    python benchmarks/training.py --device cuda                     hand-written loops and oncue on a GPU

Each way runs in its own process, which trains within a single `fit` for the whole table. In every round each way trains for a
slice of a few tenths of a second, in turn, so that a slow moment of the machine affects all of them; ratios compare slices of
the same round. A row shows the median of the ratios, and their middle half.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import environments
from tables import details, heading, summary
from ways import KERAS_WAYS, WAYS, Way
from workers import CACHE, Failed, WorkerProcess
from workloads import WORKLOADS, Workload

MEASURES = ("step", "epoch", "evaluate", "predict", "first", "memory")
IN_TURN = ("step", "epoch", "evaluate", "predict")
BASE = "hand"
# In the short form, anything but the step is measured only on MEASURED, full stacks and variants only on IN_EVERY_WAY, all bare
# ways only on IN_EVERY_BARE_WAY, new processes only for FRESH, and of the peers in SLOW only the bare step.
MEASURED = ("mlp32",)
IN_EVERY_WAY = ("mlp32",)
IN_EVERY_BARE_WAY = ("mlp32", "tiny")
SLOW = ("keras-torch", "lightning", "transformers")
FRESH = ("hand", "hand-compiled", "oncue", "oncue-jit", "keras-jax")


@dataclass
class Results:
    """The measurements by workload, measure and way, one number per round; and why others are missing.

    Args:
        values: Microseconds per step, seconds, or megabytes.
        cores: Seconds of processor time per second of a slice, with the same keys.
        missing: Why a way has no measurement.
    """

    values: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    cores: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    missing: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def add(self, key: tuple[str, str, str], value: float, cores: float | None = None) -> None:
        self.values.setdefault(key, []).append(value)
        if cores is not None:
            self.cores.setdefault(key, []).append(cores)

    def miss(self, key: tuple[str, str, str], reason: object) -> None:
        self.missing[key] = str(reason)
        self.values.pop(key, None)

    def of(self, workload: str, measure: str) -> dict[str, list[float]]:
        return {way: values for (w, m, way), values in self.values.items() if (w, m) == (workload, measure)}


class Bench:
    """Runs the processes of the ways, and collects their measurements.

    Args:
        options: The command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.results = options, Results()
        self.environments = {None: environments.own()}
        self.workers: dict[str, WorkerProcess] = {}
        self.versions: list[str] = []

    def environment(self, way: Way) -> environments.Environment:
        if way.peer not in self.environments:
            installed = self.environments[way.peer] = environments.install(way.peer)
            self.versions += [version for version in installed.versions if version not in self.versions]
        return self.environments[way.peer]

    def measure(self, workload: Workload) -> None:
        plan = {measure: ways_for(self.options, workload, measure) for measure in MEASURES}
        timed = {measure: [way.name for way in ways] for measure, ways in plan.items() if measure in IN_TURN}
        ready = list(dict.fromkeys(name for names in timed.values() for name in names))
        self.each(ready, workload, "step", lambda worker: worker.ask(do="make", **self.size(workload)))
        for measure, names in timed.items():
            able = [name for name in names if name in self.workers]
            if measure in ("step", "epoch"):
                self.paced(able, workload, measure)
            else:
                self.called(able, workload, measure)
        remembered = plan["memory"]
        for way in dict.fromkeys([*plan["first"], *remembered]):
            self.fresh(way, workload, memory=way in remembered)

    def size(self, workload: Workload) -> dict[str, object]:
        return {"workload": workload.name, "steps": workload.steps if self.options.full else workload.short_steps}

    def each(
        self, names: list[str], workload: Workload, measure: str, prepare: Callable[[WorkerProcess], object]
    ) -> list[str]:
        """Let workers do what is not timed, as many at a time as there are cores; return those that succeeded."""

        def one(name: str) -> bool:
            try:
                if name not in self.workers:
                    way = (WAYS | KERAS_WAYS)[name]
                    self.workers[name] = WorkerProcess(way, self.environment(way), self.options.device)
                prepare(self.workers[name])
            except Failed as failure:
                self.drop(name, workload, measure, failure)
                return False
            return True

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return [name for name, able in zip(names, pool.map(one, names), strict=True) if able]

    def drop(self, name: str, workload: Workload, measure: str, failure: Failed) -> None:
        print(f"{workload.name}, {measure}: {name}: {failure}", file=sys.stderr, flush=True)
        self.results.miss((workload.name, measure, name), failure)
        if name in self.workers:
            self.workers.pop(name).close()

    def paced(self, names: list[str], workload: Workload, measure: str) -> None:
        steps = int(self.size(workload)["steps"])
        epochs: dict[str, int] = {}

        def begin(worker: WorkerProcess) -> None:
            worker.ask(do="train", validation=measure == "epoch")
            # The first epoch includes one-time work; the second determines the length of a slice.
            taken = worker.ask(do="go", epochs=1)["wall"]
            epochs[worker.way.name] = max(1, round(self.options.seconds / taken))

        def go(worker: WorkerProcess) -> tuple[float, float]:
            count = epochs[worker.way.name]
            taken = worker.ask(do="go", epochs=count)
            wall = taken["wall"] / count
            return wall / steps * 1e6 if measure == "step" else wall, taken["cpu"] / taken["wall"]

        names = self.each(names, workload, measure, begin)
        self.rounds(names, workload, measure, go)
        for name in names:
            if name in self.workers:
                self.workers[name].ask(do="end")

    def called(self, names: list[str], workload: Workload, measure: str) -> None:
        def call(worker: WorkerProcess) -> tuple[float, float]:
            taken = worker.ask(do="call", what=measure)
            return taken["wall"], taken["cpu"] / taken["wall"]

        self.rounds(self.each(names, workload, measure, call), workload, measure, call)

    def rounds(
        self,
        names: list[str],
        workload: Workload,
        measure: str,
        take: Callable[[WorkerProcess], tuple[float, float]],
    ) -> None:
        # Whole passes vary less than slices.
        rounds = self.options.rounds if measure == "step" or self.options.full else min(3, self.options.rounds)
        for number in range(rounds):
            # In alternating order, so that no way always follows the same one.
            for name in names if number % 2 == 0 else names[::-1]:
                if name not in self.workers:
                    continue
                try:
                    value, cores = take(self.workers[name])
                except Failed as failure:
                    self.drop(name, workload, measure, failure)
                else:
                    self.results.add((workload.name, measure, name), value, cores)

    def fresh(self, way: Way, workload: Workload, memory: bool) -> None:
        """Measure in new processes: time to the end of the first step, and peak memory."""
        empty = CACHE.with_name("empty-cache")
        # First with an empty cache of compiled code, then with what the first run has cached.
        for number in range(2):
            if number == 0:
                shutil.rmtree(empty, ignore_errors=True)
            try:
                worker = WorkerProcess(way, self.environment(way), self.options.device, cache=empty)
            except Failed as failure:
                self.results.miss((workload.name, "first", way.name), failure)
                return
            try:
                imported = time.perf_counter() - worker.begun
                worker.ask(do="make", workload=workload.name, steps=1)
                worker.ask(do="train", validation=False)
                seconds = time.perf_counter() - worker.begun
                kind = "first" if number == 0 else "first, again"
                self.results.add((workload.name, kind, way.name), seconds)
                self.results.add((workload.name, f"{kind}, after imports", way.name), seconds - imported)
                worker.ask(do="end")
                if number == 1 and memory:
                    worker.ask(do="make", **self.size(workload))
                    worker.ask(do="train", validation=False)
                    worker.ask(do="end")
                    self.results.add((workload.name, "memory", way.name), worker.ask(do="memory")["megabytes"])
            except Failed as failure:
                self.results.miss((workload.name, "first", way.name), failure)
                return
            finally:
                worker.close()
        shutil.rmtree(empty, ignore_errors=True)

    def idle(self, workload: Workload) -> None:
        """Trace an epoch of each way on the GPU, to measure how long the host waits."""
        for way in ways_for(self.options, workload, "step"):
            key = (workload.name, "host idle", way.name)
            size = self.size(workload)
            try:
                worker = WorkerProcess(way, self.environment(way), self.options.device)
                try:
                    worker.ask(do="make", **size)
                    traced = worker.ask(do="idle", epochs=1)
                finally:
                    worker.close()
            except Failed as failure:
                self.results.miss(key, failure)
            else:
                self.results.add(key, traced["idle"] / int(size["steps"]) * 1e6)
                self.results.add((workload.name, "device idle", way.name), 1 - traced["kernels"] / traced["wall"])

    def close(self) -> None:
        while self.workers:
            self.workers.popitem()[1].close()


def ways_for(options: argparse.Namespace, workload: Workload, measure: str) -> list[Way]:
    """Return the ways to time for a workload and a measure; empty if it isn't measured.

    Args:
        options: The command line. The short form chooses what it doesn't name.
        workload: The workload.
        measure: The measure.
    """
    if measure not in (options.measures or MEASURES):
        return []
    named = options.full or options.measures
    if not named and measure != "step" and workload.name not in MEASURED:
        return []
    wanted = ways_wanted(options)
    if not options.full and not options.ways:
        if measure in ("first", "memory"):
            wanted = [way for way in wanted if way.name in FRESH]
        elif workload.name not in IN_EVERY_WAY or measure != "step":
            bare = workload.name in IN_EVERY_BARE_WAY
            wanted = [way for way in wanted if way.short or (bare and way.bare is None)]
        wanted = [way for way in wanted if way.peer not in SLOW or (measure == "step" and way.bare is None)]
    if measure in ("evaluate", "predict"):
        wanted = [way for way in wanted if way.bare is None]
    return wanted


def ways_wanted(options: argparse.Namespace) -> list[Way]:
    """Return the ways that the command line names, and always the hand-written loop, the base of all ratios."""
    wanted = [WAYS[name] for name in options.ways or WAYS]
    if options.no_peers:
        wanted = [way for way in wanted if way.peer is None]
    wanted = [way for way in wanted if (way.cpu if options.device == "cpu" else way.cuda)]
    return wanted if WAYS[BASE] in wanted else [WAYS[BASE], *wanted]


def names(known: object) -> Callable[[str], list[str]]:
    """Return a parser of comma-separated names."""

    def read(text: str) -> list[str]:
        found = text.split(",")
        for name in found:
            if name not in known:  # type: ignore[operator]
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")  # type: ignore[call-overload]
        return found

    return read


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose ways and workloads."""
    parser.add_argument("--full", action="store_true", help="every way on every workload, longer epochs, 15 rounds")
    parser.add_argument("--workloads", type=names(WORKLOADS), default=list(WORKLOADS), help=", ".join(WORKLOADS))
    parser.add_argument("--ways", type=names(WAYS), default=[], help=", ".join(WAYS))
    parser.add_argument("--measures", type=names(MEASURES), default=[], help=", ".join(MEASURES))
    parser.add_argument("--rounds", type=int, help="slices of each way")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a slice, rounded to whole epochs")
    parser.add_argument("--no-peers", action="store_true", help="only hand-written loops and oncue; installs nothing")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for the hand-written loops and oncue")
    parser.add_argument("--output", type=Path, help="a JSON file for all measurements")


def run(options: argparse.Namespace) -> None:
    """Measure, and print each table when it is complete."""
    options.rounds = options.rounds or (15 if options.full else 5)
    environments.FOLDER.mkdir(exist_ok=True)
    began = time.perf_counter()
    bench = Bench(options)
    for way in ways_wanted(options):
        bench.environment(way)
    print(heading(bench.versions, options.device), flush=True)
    try:
        for name in options.workloads:
            bench.measure(WORKLOADS[name])
            if options.device == "cuda":
                bench.idle(WORKLOADS[name])
            print(details(bench.results, WORKLOADS[name]), flush=True)
    finally:
        bench.close()
    print(summary(bench.results, [WORKLOADS[name] for name in options.workloads], options.device))
    print(f"\nTaken in {(time.perf_counter() - began) / 60:.1f} minutes on {platform.node() and os.cpu_count()} cores.")
    if options.output:
        rows = [
            {"workload": w, "measure": m, "way": way, "values": values}
            for (w, m, way), values in bench.results.values.items()
        ]
        missing = [
            {"workload": w, "measure": m, "way": way, "why": why} for (w, m, way), why in bench.results.missing.items()
        ]
        options.output.write_text(json.dumps({"rows": rows, "missing": missing}, indent=1))


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    run(parser.parse_args())


if __name__ == "__main__":
    main()
