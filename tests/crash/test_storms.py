"""Many storms of Ctrl-C in one process, from any call of a run on, leave nothing behind in it."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.share import SEED, SHARE, Counted
from crash.storms import calls_of_a_run, campaign

from helpers import cpu_only

pytestmark = [pytest.mark.crash, cpu_only("it counts the calls of the main thread")]


@pytest.fixture(autouse=True)
def caught() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_at_many_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str], counted: Counted) -> None:
    chance, calls = random.Random(SEED), calls_of_a_run(tmp_path / "calls")
    # The end of a run, where all is closed, at every tenth call.
    places = [chance.randrange(1, calls) for _ in range(math.ceil(200 * SHARE))]
    places += list(range(calls - 1000, calls, math.ceil(10 / SHARE)))
    count = campaign(tmp_path / "runs", places, chance)
    counted(storms_of_Ctrl_C=count)
    with capsys.disabled():
        print(
            f"\nseed {SEED}: {count} storms of Ctrl-C in one process, from as many calls on; nothing was left behind in it"
        )
