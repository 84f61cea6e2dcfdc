"""The script of `make gpu` runs without a GPU: it skips itself, or tries its parts on the CPU."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import cpu_only, environment

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
pytestmark = cpu_only("it is tried where there is no GPU")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment())


def test_it_skips_itself() -> None:
    done = run()
    assert done.returncode == 0 and done.stdout.startswith("There is no GPU, so nothing is measured."), done.stderr


def test_what_takes_too_long_is_ended_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import gpu

    code = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    began = time.monotonic()
    ended, said, _ = gpu.ran([sys.executable, "-S", "-c", code], 1.5)
    assert ended is None and time.monotonic() - began < 30
    state = Path(f"/proc/{int(said)}/stat")

    def is_gone() -> bool:
        # One that init hasn't collected yet is a zombie.
        return not state.exists() or ") Z" in state.read_text()

    deadline = time.monotonic() + 10
    while not is_gone() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_gone()


@pytest.mark.slow
def test_its_parts_run(tmp_path: Path) -> None:
    done = run("--device", "cpu", "--parts", "saves,resume,bf16,fits", "--output", str(tmp_path / "gpu.md"))
    text = (tmp_path / "gpu.md").read_text()
    assert done.returncode == 0 and "FAILED" not in text, text
    assert (
        "| eager | equal | equal |" in text
        and "| 20 fits |" in text
        and "| `BackupAndRestore`, every 6 steps |" in text
    )
    assert "DIFFERENT" not in text
