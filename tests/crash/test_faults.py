"""Runs whose calls to files go wrong, or whose power is cut, end like unbroken ones once they are started again."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from crash.share import SEED, SHARE, Counted, chosen

from helpers import cpu_only, environment

pytestmark = [
    pytest.mark.crash,
    cpu_only("it forks, and a process that is forked can't use CUDA"),
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("cc") is None, reason="it stands before the calls of Linux's C library"
    ),
]


def test_calls_that_go_wrong_and_power_cuts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], counted: Counted
) -> None:
    script, count = str(Path(__file__).with_name("faults.py")), str(math.ceil(230 * SHARE))
    command = [sys.executable, script, str(tmp_path / "runs"), count, str(SEED), *chosen()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=5 * 3600)
    calls = re.search(r"(\d+) calls to files that went wrong", done.stdout)
    others = re.search(r"(\d+) power cuts in \d+ variants; (\d+) differences", done.stdout)
    assert calls is not None and others is not None, done.stdout + done.stderr
    cuts, differences = map(int, others.groups())
    counted(calls_that_went_wrong=int(calls[1]), power_cuts=cuts, differences=differences)
    assert done.returncode == 0, done.stdout + done.stderr
    with capsys.disabled():
        print(f"\n{done.stdout}", end="")
