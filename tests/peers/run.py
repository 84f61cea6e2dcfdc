"""Runs Keras's own tests against Keras and against oncue, and compares: `python tests/peers/run.py [AREA or FILE ...]`.

A test counts if it passes with Keras in this environment. With oncue it passes, or `differences.toml` says why it doesn't;
one that fails and isn't named there is a regression, and the exit status is 1. What passes with Keras is kept in `.peers/`,
by versions.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEPT = ROOT / ".peers"
DIFFERENCES = HERE / "differences.toml"
# The shares of the tests that pass with Keras and apply which must pass, wording apart.
AREAS: dict[str, tuple[tuple[str, ...], float]] = {
    "callbacks": (("callbacks",), 0.95),
    "trainers": (("trainers",), 0.90),
    "models": (("models",), 0.90),
    "saving": (("saving", "legacy"), 0.85),
    "losses": (("losses",), 0.95),
    "metrics": (("metrics",), 0.97),
    "optimizers": (("optimizers",), 0.85),
    "layers": (("layers",), 0.85),
    "utils": (("utils",), 0.80),
    "others": (
        ("initializers", "activations", "regularizers", "constraints", "random", "dtype_policies", "datasets"),
        0.0,
    ),
}
KINDS = ("differs", "wording", "not applicable")


@dataclass(frozen=True)
class Result:
    """What became of one test."""

    outcome: str
    text: str


@dataclass(frozen=True)
class Difference:
    """An entry of the list: tests by a pattern, of what kind the difference is, and why."""

    tests: str
    kind: str
    reason: str


def wheel() -> Path:
    """Return where the installed Keras lies, without importing it."""
    spec = find_spec("keras")
    assert spec is not None and spec.origin is not None, "the tests of Keras need Keras: pip install 'oncue[test]'"
    return Path(spec.origin).parent / "src"


def read_results(path: Path) -> dict[str, Result]:
    """Return the results by test; of two for one test, the one that isn't `passed`."""
    found: dict[str, Result] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        entry = json.loads(line)
        if found.get(entry["test"], Result("passed", "")).outcome == "passed":
            found[entry["test"]] = Result(entry["outcome"], entry["text"])
    return found


def run_tests(peer: str, files: list[Path], results: Path, workers: int, traces: Path | None = None) -> None:
    """Run test files of Keras against a peer, `keras` or `oncue`, in a process of their own."""
    results.unlink(missing_ok=True)
    paths = os.pathsep.join([str(ROOT / "src"), str(HERE.parent)])
    environment = {
        # A worker of a run of pytest around this one isn't one of those that are started here.
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")},
        "KERAS_BACKEND": "torch",
        "ONCUE_DEVICE": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        # Compiling takes half a minute a test, and its results are compared elsewhere.
        "TORCH_COMPILE_DISABLE": "1",
        "PYTHONPATH": paths,
        "PEER": peer,
        "PEER_RESULTS": str(results),
    }
    if traces is not None:
        traces.unlink(missing_ok=True)
        environment["PEER_TRACES"] = str(traces)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "peers.plugin", "-c", os.devnull]
    command += ["--rootdir", str(wheel()), "--import-mode=importlib", "-W", "ignore", "--tb=short", "--no-summary"]
    command += ["--continue-on-collection-errors"]
    if workers > 1:
        command += ["-n", str(workers), "--dist", "loadfile"]
    subprocess.run([*command, *map(str, files)], env=environment, cwd=HERE, stdout=subprocess.DEVNULL, check=False)


def area_of(test: str) -> str:
    """Return the area that a test belongs to."""
    return next(area for area, (folders, _) in AREAS.items() if test.split("/")[0] in folders)


def read_differences(path: Path = DIFFERENCES) -> list[Difference]:
    """Return the entries of the list.

    Raises:
        ValueError: For an entry of no known kind, or without a reason.
    """
    found = []
    for entry in tomllib.loads(path.read_text())["difference"]:
        if entry["kind"] not in KINDS or not entry["reason"].strip():
            raise ValueError(f"an entry of {path.name} needs a `kind` of {KINDS} and a `reason`: {entry}")
        tests = [entry["tests"]] if isinstance(entry["tests"], str) else entry["tests"]
        found += [Difference(pattern, entry["kind"], entry["reason"]) for pattern in tests]
    return found


def compare(keras: dict[str, Result], oncue: dict[str, Result], differences: list[Difference]) -> dict[str, Any]:
    """Sort the tests of Keras by what they show.

    Args:
        keras: Their results with Keras.
        oncue: Their results with oncue.
        differences: What is known to differ.

    Returns:
        `counts`: by area, how many tests are of each kind; `regressions`: results that nothing explains, by test;
        `mended`: tests that pass though the list says that they don't.
    """
    counts: dict[str, Counter[str]] = {area: Counter() for area in AREAS}
    regressions: dict[str, Result] = {}
    mended: list[str] = []
    for test, with_keras in sorted(keras.items()):
        count = counts[area_of(test)]
        if with_keras.outcome != "passed":
            count["skipped" if with_keras.outcome == "skipped" else "failing with Keras"] += 1
            continue
        result = oncue.get(test, Result("failed", "no result: the process ended, or the file couldn't be read"))
        listed = next((known for known in differences if fnmatchcase(test, known.tests)), None)
        if listed is not None and listed.kind == "not applicable":
            count["not applicable"] += 1
        elif result.outcome == "passed":
            count["passed"] += 1
            if listed is not None and not re.search(r"[*?\[]", listed.tests):
                mended.append(test)
        elif listed is not None:
            count[listed.kind] += 1
        else:
            count["unexplained"] += 1
            regressions[test] = result
    return {"counts": counts, "regressions": regressions, "mended": mended}


def share(count: Counter[str]) -> float:
    """Return the share of the tests that apply which show the same behaviour, be it in other words."""
    same = count["passed"] + count["wording"]
    applicable = same + count["differs"] + count["unexplained"]
    return same / applicable if applicable else 1.0


COLUMNS = ("passed", "wording", "differs", "unexplained", "not applicable", "skipped", "failing with Keras")


def table(counts: dict[str, Counter[str]]) -> str:
    """Return the counts as a table in Markdown."""
    lines = ["| area | " + " | ".join(COLUMNS) + " | same | wanted |", "|---" * (len(COLUMNS) + 3) + "|"]
    for area, count in counts.items():
        if count:
            numbers = " | ".join(str(count[column]) for column in COLUMNS)
            lines.append(f"| {area} | {numbers} | {share(count):.1%} | {AREAS[area][1]:.0%} |")
    return "\n".join(lines)


def main() -> int:
    """Run what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description="Run Keras's own tests against oncue.")
    parser.add_argument("what", nargs="*", help="areas, or test files such as losses/loss_test.py; all by default")
    parser.add_argument("--workers", type=int, default=int(os.environ.get("WORKERS", "1")), help="processes")
    parser.add_argument("--again", action="store_true", help="run the tests with Keras again")
    parser.add_argument("--traces", type=Path, help="a file for the tracebacks of what fails with oncue")
    arguments = parser.parse_args()
    files = []
    for what in arguments.what or AREAS:
        folders = AREAS[what][0] if what in AREAS else (what,)
        for folder in folders:
            place = wheel() / folder
            files += [place] if place.is_file() else sorted(place.rglob("*_test.py"))
    if not files:
        parser.error(f"no test file of Keras is named {arguments.what}")
    versions = "-".join(version(package) for package in ("keras", "torch", "numpy"))
    kept = KEPT / versions
    kept.mkdir(parents=True, exist_ok=True)
    fresh = [file for file in files if arguments.again or not (kept / _kept_name(file)).exists()]
    if fresh:
        results = kept / "keras.jsonl"
        run_tests("keras", fresh, results, arguments.workers)
        lines = results.read_text().splitlines() if results.exists() else []
        for file in fresh:
            mine = [line for line in lines if json.loads(line)["test"].startswith(_relative(file))]
            (kept / _kept_name(file)).write_text("".join(line + "\n" for line in mine))
    keras: dict[str, Result] = {}
    for file in files:
        keras.update(read_results(kept / _kept_name(file)))
    results = KEPT / "oncue.jsonl"
    run_tests("oncue", files, results, arguments.workers, arguments.traces)
    found = compare(keras, read_results(results), read_differences())
    for test, result in found["regressions"].items():
        print(f"{test}: {_last_line(result.text)}")
    for test in found["mended"]:
        print(f"{test}: passes; take it out of {DIFFERENCES.name}")
    print(table(found["counts"]))
    whole = not arguments.what or all(what in AREAS for what in arguments.what)
    short = [area for area, count in found["counts"].items() if whole and share(count) < AREAS[area][1]]
    if short:
        print(f"below what is wanted: {', '.join(short)}")
    return 1 if found["regressions"] or short else 0


def _relative(file: Path) -> str:
    return str(file.relative_to(wheel()))


def _kept_name(file: Path) -> str:
    return _relative(file).replace("/", "+") + ".jsonl"


def _last_line(text: str) -> str:
    return " ".join(text.split())[:300]


if __name__ == "__main__":
    sys.exit(main())
