"""Processes of tests end in time, with all that they have started."""

from __future__ import annotations

import sys
import time

import pytest
from processes import run_bounded


def test_what_a_command_has_started_ends_with_it() -> None:
    # The shell is gone at once; what it has left holds its output.
    left = f'{sys.executable} -c "import time; time.sleep(60)" & sleep 0.5'
    begun = time.monotonic()
    with pytest.raises(AssertionError, match=r"took more than 1 s(?s:.*)Fatal Python error: Aborted(?s:.*)<module>"):
        run_bounded(["sh", "-c", left], 1.0)
    assert time.monotonic() - begun < 30
    done = run_bounded(["sh", "-c", "echo said; exit 3"])
    assert (done.returncode, done.stdout) == (3, "said\n")
