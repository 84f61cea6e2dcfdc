"""When one process fails, is killed or hangs, the others end soon, say why, and close what they have begun."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from distribution import failing
from processes import environment

NAMES = {
    "raise": "ValueError: this is the fault",
    "interrupt": "KeyboardInterrupt",
    "full": "OSError: [Errno 28] No space",
}
SHORT = ["raise batch 1", "kill data 0", "sleep epoch 1", "stop step 0"]
OUTSIDE = ("start", "between")
"""Places where no run is going on, so that nothing is to be closed."""
LONG = {
    size: [
        f"{fault} {place} {who}"
        for who in range(size)
        for fault in failing.FAULTS
        for place in failing.PLACES
        if (fault, place) not in (("sleep", "data"), ("sleep", "validation_data"))
        # The main process saves for all.
        if place != "save" or who == 0
        if size == 2 or (fault in ("raise", "kill") and who == 1)
    ]
    for size in (2, 3)
}


def campaign(folder: Path, size: int, cases: list[str], *options: str) -> list[dict[str, Any]]:
    """Run cases, and return what came of each."""
    found = subprocess.run(
        [sys.executable, failing.__file__, *options, str(folder), str(size), *cases],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def check(result: dict[str, Any]) -> None:
    """Make sure that the processes that didn't fail know why they ended, in time, and have closed everything."""
    fault, place, who = result["case"].split()
    for rank, one in enumerate(result["processes"]):
        said = f"{result['case']}, process {rank}: {one}"
        if rank == int(who):
            if fault not in failing.SILENT:
                assert one["error"] == NAMES[fault].partition(":")[0], said
                assert one["gone"] is not None, said
                assert place in OUTSIDE or one["ends"][-1] == "close", said
            continue
        assert one["error"] == "PeerFailed", said
        assert f"process {who}" in one["text"], said
        if fault in NAMES:
            assert NAMES[fault] in one["text"], said
        # Much less when the machine isn't busy.
        limit = failing.TIMEOUT + 15.0 if fault in failing.HANGS else 15.0
        assert one["seconds"] < limit and one["gone"] is not None and one["gone"] < limit + 30.0, said
        if place not in OUTSIDE and place != "predict":
            assert one["ends"] == ["on_exception", "close"], said
    folder = Path(result["folder"])
    if (folder / "log.csv").exists():
        with open(folder / "log.csv") as file:
            rows = list(csv.reader(file))
        assert all(len(row) == len(rows[0]) for row in rows), rows
    assert not [path for path in folder.glob("*.weights.h5*") if path.name != "kept.weights.h5"]


def test_the_others_end_soon_and_say_why(tmp_path: Path) -> None:
    for result in campaign(tmp_path, 2, SHORT):
        check(result)


@pytest.mark.processes
@pytest.mark.parametrize("size", LONG)
def test_whatever_fails_anywhere_ends_all(size: int, tmp_path: Path) -> None:
    # One that nobody disturbs comes first: what the others come to in the end, when they are started again.
    whole, *results = campaign(tmp_path, size, ["none none 0", *LONG[size]], "--resumed")
    expected = [one["came_to"] for one in whole["processes"]]
    failures = []
    for result in results:
        try:
            check(result)
            assert result["resumed"] == expected, f"{result['case']} came to {result['resumed']}, not to {expected}"
        except AssertionError as error:
            failures.append(str(error))
    assert not failures, f"{len(failures)} of {len(LONG[size])}: " + "\n".join(failures)
