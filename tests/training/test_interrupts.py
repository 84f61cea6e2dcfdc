"""Ctrl-C at any moment of a run, and again at any moment after it, leaves nothing behind in the process."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.storms import calls_of_a_run, campaign

from helpers import cpu_only


@pytest.fixture(autouse=True)
def caught() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@cpu_only("it counts the calls of the main thread")
def test_at_some_calls(tmp_path: Path) -> None:
    chance = random.Random(int(os.environ.get("ONCUE_SEED", "0")))
    calls = calls_of_a_run(tmp_path / "calls")
    places = [chance.randrange(1, calls) for _ in range(6)] + [calls - 100 * back for back in range(4)]
    assert campaign(tmp_path / "runs", places, chance) > 5
