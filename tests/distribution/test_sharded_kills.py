"""A process that is killed in or around a save of parts leaves a state from which any number of processes goes on."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distribution import sharded_kills
from processes import run_bounded

from helpers import cpu_only
from oncue.distribution.failures import Failures, PeerFailed

pytestmark = cpu_only("several processes can't share one GPU")
KILLS = int(os.environ.get("SHARDED_KILLS", "24"))
"""How many processes are killed; `make processes` kills a hundred."""


@pytest.mark.processes
def test_a_killed_process_leaves_a_state_to_go_on_from(tmp_path: Path) -> None:
    command = [sys.executable, sharded_kills.__file__, str(tmp_path), str(KILLS)]
    done = run_bounded(command, 7200.0)
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == KILLS
    for one in found:
        assert one["said"].startswith("PeerFailed") and "killed" in one["said"], one
        assert one["difference"] < 2e-6, one


def test_a_save_waits_for_no_process_that_is_gone() -> None:
    """Nothing is sent to a process whose part is waited for, so that no connection breaks when it is gone."""
    for last, said in (("works", "process 1: not heard of for 0.6 s"), ("left", "their scripts ended")):
        failures = Failures(torch.distributed.HashStore(), 0, 2, timeout=0.6)
        failures._interval = 0.05
        failures._store.set("beat 1", json.dumps({"does": last}))
        with pytest.raises(PeerFailed, match=said):
            failures.wait("part", 1)
        assert failures.reason is not None


def test_a_collective_that_fails_without_an_end_is_broken() -> None:
    class Work:
        """As torch's of several messages, such as a sum whose parts go to different processes."""

        waits = 0

        def wait(self, patience: Any = None) -> None:
            self.waits += 1
            raise RuntimeError("Connection closed by peer")

        def is_completed(self) -> bool:
            return False

    failures, work = Failures(torch.distributed.HashStore(), 0, 1, timeout=0.2), Work()
    failures._interval = 0.05
    with pytest.raises(PeerFailed, match="a connection that broke: Connection closed by peer"):
        failures.run(lambda: work, "a step")
    assert work.waits == 1
