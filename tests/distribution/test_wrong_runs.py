"""Processes that don't fit together are told so before the first step, or after the epoch in which they drift apart."""

from __future__ import annotations

from typing import Any

import pytest
from distribution import wrong_runs
from processes import run_together

SAID = {
    "another_dataset": ["RanksDiverged", "different data", "set_random_seed(0)"],
    "another_length": ["RanksDiverged", "different data", "rows"],
    "another_batch_size": ["RanksDiverged", "rows of a batch", "process 0 has 6, process 1 8"],
    "another_model": ["RanksDiverged", "different weights"],
    "another_rate": ["RanksDiverged", "different optimizers", "0.1", "0.2"],
    "another_callback": ["RanksDiverged", "different callbacks", "EarlyStopping"],
    "another_method": [
        "RanksDiverged",
        "process 0 has come to the start of `fit`, process 1 to the start of `evaluate`",
    ],
    "own_evaluation": ["RanksDiverged", "don't do the same", "a step", "the start of `evaluate`"],
    "drift_of_weights": ["RanksDiverged", "came in epoch 2 to different weights", "bias", "if self.ranks.main"],
    "drift_of_rate": ["RanksDiverged", "came in epoch 1 to different learning rate", "0.5", "0.01"],
    "wrapped": ["ValueError", "DistributedDataParallel", "summed twice"],
    "penalty_of_whole_weights": ["ValueError", "kernel`, OrthogonalRegularizer", "Use 'l1', 'l2' or 'l1_l2'"],
    "weights_of_several_types": [
        "ValueError",
        "one type in each layer",
        "`0.bias` is of torch.bfloat16",
        "one `dtype`",
    ],
}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    names = [run.__name__ for run in wrong_runs.RUNS]
    return run_together("distribution.wrong_runs", names, 2, tmp_path_factory.mktemp("together"))


@pytest.mark.parametrize("name", SAID)
def test_all_processes_are_told_what_differs(name: str, together: list[dict[str, Any]]) -> None:
    for one in together:
        for part in SAID[name]:
            assert part in one[name], one[name]


def test_a_batch_with_fewer_rows_than_processes_is_a_warning(together: list[dict[str, Any]]) -> None:
    assert "`batch_size` is 1 for 2 processes" in together[0]["tiny_batches"]
    assert together[1]["tiny_batches"] == ""


def test_the_main_process_warns_for_all(together: list[dict[str, Any]]) -> None:
    for part in ("mode 'odd' is unknown", "Your input ran out of data"):
        assert part in together[0]["warnings_of_callbacks"]
    assert together[1]["warnings_of_callbacks"] == ""


def test_processes_that_have_caught_an_error_meet_again(together: list[dict[str, Any]]) -> None:
    assert [one["nothing_wrong"] for one in together] == ["", ""]
