"""Callbacks on two processes: both decide the same, one writes, and the results are those of one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from distribution import callback_runs
from processes import run_together

from helpers import cpu_only

pytestmark = cpu_only("several processes can't share one GPU")
NAMES = ["forked", "finder", "predictions", "mixed"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_together("distribution.callback_runs", NAMES, 2, tmp_path_factory.mktemp("together"))


def close(one: Any, other: Any) -> None:
    for mine, yours in zip(one["weights"], other["weights"], strict=True):
        np.testing.assert_allclose(mine, yours, rtol=1e-4, atol=1e-6)
    for name, values in other["history"].items():
        np.testing.assert_allclose(one["history"][name], values, rtol=1e-4, err_msg=name)


def test_all_go_on_from_where_a_run_was_forked(found: list[dict[str, Any]]) -> None:
    for process in found:
        again, whole = process["forked"]["again"], process["forked"]["whole"]
        assert (again["history"], again["weights"]) == (whole["history"], whole["weights"])
        assert any("fork: forked from" in entry for entry in again["journal"])
    close(found[0]["forked"]["again"], callback_runs.fit())


def test_sizes_are_tested_on_one_process(found: list[dict[str, Any]]) -> None:
    for process in found:
        assert "this run is on 2 processes" in process["finder"] and "2 times the size" in process["finder"]


def test_the_main_process_writes_the_predictions_of_all(found: list[dict[str, Any]]) -> None:
    main, other = (process["predictions"] for process in found)
    assert main["whole"] == main["written"] == other["written"] and len(main["whole"]) == 17
    assert main["names"] == ["2.csv", "all.npz"] and main["rows"] == 1 + 8
    assert main["history"] == other["history"]


def test_each_process_mixes_its_own_rows_and_goes_on_with_that(found: list[dict[str, Any]]) -> None:
    first, second = (process["mixed"] for process in found)
    assert [len(rows) for rows in first["seen"]] == [4] * 15
    assert first["seen"] != second["seen"]
    for one in (first, second):
        assert one["before"]["weights"] == one["after"]["weights"] == first["before"]["weights"]
        assert one["before"]["history"] == one["after"]["history"]
        # The state was saved before the last batch of the epoch, which came once more.
        assert one["again"][:5] == one["seen"][:5] and one["again"][5:] == one["seen"][4:]
