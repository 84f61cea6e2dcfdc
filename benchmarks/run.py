"""Runs all benchmarks with one command, each peer in its own environment, which is created first.

    python benchmarks/run.py                                the short form, under ten minutes on two cores
    python benchmarks/run.py --full                         every way on every workload, and the long form of all others
    python benchmarks/run.py --tables training --workloads mlp32 --ways hand,oncue,keras-jax --measures step

The options for workloads and ways only affect the training benchmark.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import training
from environments import HERE

# The arguments of the other scripts in the short form, and in the long form.
SCRIPTS = {
    "limits": (["--rounds", "9"], ["--rounds", "15"]),
    "dispatch": (["--rounds", "5"], ["--rounds", "9"]),
    "growth": (["--steps", "10000"], ["--steps", "1000000"]),
    "tensorboard_histograms": (["--rounds", "3"], ["--rounds", "9"]),
    "saving": (["--parameters", "2000000"], ["--parameters", "50000000"]),
}
TABLES = ("training", *SCRIPTS)


def main() -> None:
    """Read the command line and run the tables in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=training.names(TABLES), default=list(TABLES), help=", ".join(TABLES))
    training.add_options(parser)
    options = parser.parse_args()
    failed = []
    for table in options.tables:
        print(f"\n## {table}\n", flush=True)
        if table == "training":
            training.run(options)
        elif subprocess.run([sys.executable, str(HERE / f"{table}.py"), *SCRIPTS[table][options.full]]).returncode:
            failed.append(table)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
