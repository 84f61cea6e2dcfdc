"""Whatever a file declares, opening it takes neither much more memory than its content nor more than some seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import cpu_only, environment

ROOT = Path(__file__).parents[2]

pytestmark = [
    cpu_only("it forks, and a process that is forked can't use CUDA"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks, to measure each input by itself"),
]


def measured(*names: str) -> list[str]:
    """Run the measurements, and return the lines of the table."""
    command = [sys.executable, str(Path(__file__).with_name("hostile.py")), *names]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    done = subprocess.run(command, capture_output=True, text=True, env={**environment(), "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_some_that_say_to_be_much_larger_than_they_are() -> None:
    table = measured(
        "never written", "a metric with", "times the same name", "a pipe", "1 TiB", "a header of", "a layer named"
    )
    assert int(table[-1].split("|")[2]) > 30


@pytest.mark.slow
def test_all_of_them_and_the_table_in_the_docs() -> None:
    inputs = [line.split("|")[1:5] for line in measured()[2:]]
    assert int(inputs[-1][1]) >= 250
    text = (ROOT / "docs" / "files.md").read_text()
    said = [line.split("|")[1:5] for line in text.partition("| most seconds |\n")[2].splitlines()[1:]]
    # Megabytes and seconds are those of another machine.
    assert said[: len(inputs)] == inputs
