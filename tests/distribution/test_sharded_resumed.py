"""Runs whose processes have parts of each weight go on where they were, from the parts that each has saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from distribution.test_resumed_runs import goes_on_elsewhere
from processes import run_together

from helpers import cpu_only

pytestmark = cpu_only("several processes can't share one GPU")
DAMAGED = ["missing_part", "damaged_part", "part_of_another_state"]
SAID = {"missing_part": "is missing", "damaged_part": "is damaged", "part_of_another_state": "is of another state"}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    names = ["exactly", "not_a_number", "by_time", "kept", "at_url", "slow_disks", *DAMAGED]
    return run_together("distribution.sharded_resumed_runs", names, 2, tmp_path_factory.mktemp("together"))


@pytest.mark.slow
def test_a_run_goes_on_to_the_bit(found: list[dict[str, Any]]) -> None:
    for process in found:
        run = process["exactly"]
        assert run["ended"] == "SIGUSR1 ended the run; the state of that moment was saved."
        assert run["resumed"] == run["whole"]


@pytest.mark.slow
def test_a_run_goes_on_from_parts_at_a_url(found: list[dict[str, Any]]) -> None:
    for process in found:
        run = process["at_url"]
        assert run["ended"] == "SIGUSR1 ended the run; the state of that moment was saved."
        assert run["resumed"] == run["whole"] and run["after"] == []
    assert [name.split(".", 1)[1] for name in found[0]["at_url"]["left"]] == ["part-1.safetensors", "safetensors"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["0", "1"])
def test_all_leave_out_the_same_states(slow: str, found: list[dict[str, Any]]) -> None:
    main, other = (process["slow_disks"][slow] for process in found)
    # Whose disk it is that is slow makes no difference.
    assert main["skipped"] == other["skipped"] and 0 < len(main["skipped"]) < 12
    assert main["again"] and other["again"]
    whole = {name.split(".")[0] for name in main["left"] if "part" not in name}
    assert whole and {f"{name}.part-1.safetensors" for name in whole} <= set(main["left"])


@pytest.mark.slow
def test_states_are_kept_with_their_parts(found: list[dict[str, Any]]) -> None:
    for process in found:
        run = process["kept"]
        assert run["again"] == run["whole"]
        assert [name for name in run["left"] if "epoch" in name] == [
            f"state-epoch-{epochs}.{part}safetensors" for epochs in (3, 4) for part in ("part-1.", "")
        ]


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGED)
def test_the_state_before_is_used_where_a_part_is_no_good(name: str, found: list[dict[str, Any]]) -> None:
    main, other = (process[name] for process in found)
    (text,) = main["said"]
    assert main["name"] in text and SAID[name] in text
    for one in (main, other):
        assert one["weights"] and one["left"] == []


@pytest.mark.slow
def test_what_ends_a_run_ends_it_with_parts(found: list[dict[str, Any]]) -> None:
    assert [process["not_a_number"] for process in found] == [{"epochs": 1, "steps": 2}] * 2
    assert found[0]["by_time"]["weights"] == found[1]["by_time"]["weights"]


@pytest.mark.processes
@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 3), (3, 2), (1, 2)])
def test_another_number_of_processes_goes_on(before: int, after: int, tmp_path: Path) -> None:
    goes_on_elsewhere("sharded_resumed_runs", (before, after), tmp_path)
