"""Runs whose calls to files go wrong, or whose power is cut, end like unbroken ones once they are started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import cpu_only, environment

pytestmark = [
    pytest.mark.crash,
    cpu_only("it forks, and a process that is forked can't use CUDA"),
    pytest.mark.skipif(
        sys.platform != "linux" or shutil.which("cc") is None, reason="it stands before the calls of Linux's C library"
    ),
]


def test_calls_that_go_wrong_and_power_cuts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, seed = str(Path(__file__).with_name("faults.py")), os.environ.get("ONCUE_SEED", "0")
    command = [sys.executable, script, str(tmp_path / "runs"), "120", seed]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=2700)
    assert done.returncode == 0, done.stdout + done.stderr
    with capsys.disabled():
        print(f"\n{done.stdout}", end="")
