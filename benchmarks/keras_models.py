"""Times models of the real Keras: trained by `keras.Model.fit` on torch and on JAX, and by oncue, eagerly and compiled.

    python benchmarks/keras_models.py                                       all models, seven rounds, and time to the first step
    python benchmarks/keras_models.py --models mlp32,lstm --rounds 3 --no-first

It is timed as `training.py` times: a process for each way, in turn, within one `fit`; ratios compare slices of the same
round, to Keras on torch. Processor time counts most on a machine that does other things too.
"""

from __future__ import annotations

import argparse
import statistics

import environments
from tables import heading
from training import Bench, Results, names
from ways import KERAS_WAYS
from workloads import KERAS_MODELS, Workload

BASE = "keras-here"


def main() -> None:
    """Read the command line, measure, and print a row for each model when it is complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=names(KERAS_MODELS), default=list(KERAS_MODELS), help=", ".join(KERAS_MODELS))
    parser.add_argument("--ways", type=names(KERAS_WAYS), default=list(KERAS_WAYS), help=", ".join(KERAS_WAYS))
    parser.add_argument("--rounds", type=int, default=7, help="slices of each way")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a slice, rounded to whole epochs")
    parser.add_argument("--no-first", action="store_true", help="without the time to the first step of a new process")
    options = parser.parse_args()
    options.full, options.device = False, "cpu"
    ways = list(dict.fromkeys([BASE, *options.ways]))
    environments.FOLDER.mkdir(exist_ok=True)
    bench = Bench(options)
    for name in ways:
        bench.environment(KERAS_WAYS[name])
    print(heading(bench.versions, options.device), "\n", flush=True)
    others = [KERAS_WAYS[name].title for name in ways if name != BASE]
    print(f"| Step | Keras on torch, \u00b5s | {' | '.join(others)} |\n|---|---|{'---|' * len(others)}", flush=True)
    try:
        for name in options.models:
            workload = KERAS_MODELS[name]
            bench.paced(
                bench.each(ways, workload, "step", lambda worker: worker.ask(do="make", **bench.size(workload))),  # noqa: B023
                workload,
                "step",
            )
            print(row(bench.results, workload, ways), flush=True)
        bench.close()
        if not options.no_first:
            columns = " | ".join(KERAS_WAYS[name].title for name in ways)
            print(f"\n| First step, s, empty cache; warm | {columns} |\n|---|{'---|' * len(ways)}", flush=True)
            for name in options.models:
                for way in ways:
                    bench.fresh(KERAS_WAYS[way], KERAS_MODELS[name], memory=False)
                print(first(bench.results, KERAS_MODELS[name], ways), flush=True)
    finally:
        bench.close()


def row(results: Results, workload: Workload, ways: list[str]) -> str:
    """Return a model's row: how long a step of Keras on torch takes, and the others' ratios, elapsed and processor time."""
    found = results.of(workload.name, "step")
    cells = [f"{statistics.median(found[BASE]):.0f}" if BASE in found else results.missing[workload.name, "step", BASE]]
    cells += [compared(results, workload, name) for name in ways if name != BASE]
    return f"| {workload.title} | {' | '.join(cells)} |"


def compared(results: Results, workload: Workload, name: str) -> str:
    """Return the medians of a way's ratios: of elapsed time, and in parentheses of processor time."""
    found = results.of(workload.name, "step")
    if name not in found or BASE not in found:
        return results.missing.get((workload.name, "step", name), "")
    mine, theirs = (results.cores[workload.name, "step", way] for way in (name, BASE))
    elapsed = [one / other for one, other in zip(found[name], found[BASE], strict=False)]
    used = [ratio * one / other for ratio, one, other in zip(elapsed, mine, theirs, strict=False)]
    return f"{statistics.median(elapsed):.2f} ({statistics.median(used):.2f})"


def first(results: Results, workload: Workload, ways: list[str]) -> str:
    """Return a model's row of the seconds from the start of a process to the end of its first step."""
    cells = []
    for name in ways:
        empty, warm = (results.of(workload.name, kind).get(name) for kind in ("first", "first, again"))
        cells.append(f"{empty[0]:.1f}; {warm[0]:.1f}" if empty and warm else "")
    return f"| {workload.title} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
