"""Runs that are killed at random moments end like uninterrupted ones."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from crash.share import SEED, SHARE, Counted, chosen

from helpers import cpu_only, environment

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks, to spare each run the imports")


def campaign(folder: Path, kills: int, seed: int, *names: str, counted: Counted) -> str:
    script = str(Path(__file__).with_name("campaign.py"))
    arguments = [sys.executable, script, str(folder), str(kills), str(seed), *names]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), timeout=5 * 3600)
    found = re.search(r"(\d+) kills in (\d+) runs of \d+ variants; (\d+) differences", done.stdout)
    assert found is not None, done.stdout + done.stderr
    killed, runs, differences = map(int, found.groups())
    counted(kills=killed, runs=runs, differences=differences)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@cpu_only("it forks, and a process that is forked can't use CUDA")
@pytest.mark.slow
def test_twenty_kills(tmp_path: Path, counted: Counted) -> None:
    assert "20 kills" in campaign(tmp_path / "runs", 20, 1, "everything", counted=counted)


@cpu_only("it forks, and a process that is forked can't use CUDA")
@pytest.mark.crash
def test_two_hundred_kills_of_a_run_with_all_callbacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], counted: Counted
) -> None:
    line = campaign(tmp_path / "runs", math.ceil(200 * SHARE), SEED, "everything", counted=counted)
    with capsys.disabled():
        print(f"\n{line}", end="")


@cpu_only("it forks, and a process that is forked can't use CUDA")
@pytest.mark.crash
def test_four_hundred_kills_of_all_variants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], counted: Counted
) -> None:
    line = campaign(tmp_path / "runs", math.ceil(400 * SHARE), SEED, *chosen(), counted=counted)
    with capsys.disabled():
        print(f"\n{line}", end="")
