"""Runs of several processes that are interrupted: all of them end together, and go on where they were."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import run_together

from helpers import cpu_only

pytestmark = cpu_only("several processes can't share one GPU")
NAMES = [
    "exactly",
    "noise_differs",
    "one_stops",
    "not_a_number",
    "not_a_number_saved",
    "by_time",
    "other_names",
    "loaded",
    "noise_of_keras",
    "at_url",
]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_together("distribution.resumed_runs", NAMES, 2, tmp_path_factory.mktemp("together"))


def test_a_run_goes_on_to_the_bit_with_its_own_noise(found: list[dict[str, Any]]) -> None:
    for process in found:
        run = process["exactly"]
        assert run["ended"] == "SIGUSR1 ended the run; the state of that moment was saved."
        assert run["resumed"] == run["whole"]
    assert found[0]["exactly"]["whole"]["weights"] == found[1]["exactly"]["whole"]["weights"]


def test_each_process_draws_noise_of_its_own_and_the_rest_is_equal(found: list[dict[str, Any]]) -> None:
    first, second = (process["noise_differs"] for process in found)
    assert len(first["drawn"]) == len(second["drawn"]) == 10
    assert len({*first["drawn"], *second["drawn"]}) == 20
    assert not {*first["seeded"]} & {*second["seeded"]}
    assert (first["after"], first["numpy"]) == (second["after"], second["numpy"])


def test_layers_of_keras_draw_for_the_rows_of_each_process(found: list[dict[str, Any]]) -> None:
    first, second = (process["noise_of_keras"] for process in found)
    for name in ("theirs", "ours"):
        assert len(first[name]) == len(second[name]) == 4
        assert len({*first[name], *second[name]}) == 8
        # Their seeds have counted alike, and out of a run each draws what Keras does.
        assert first[f"{name} alone"] == second[f"{name} alone"]


def test_automatic_names_needn_t_be_equal(found: list[dict[str, Any]]) -> None:
    check_resumed(found, "other_names")


def test_loaders_go_on_whose_rows_each_process_loads_alone(found: list[dict[str, Any]]) -> None:
    check_resumed(found, "loaded")


def test_a_run_goes_on_from_a_url(found: list[dict[str, Any]]) -> None:
    check_resumed(found, "at_url")
    # The newest, and the one before it.
    assert found[0]["at_url"]["left"] == ["state-4.safetensors", "state-5.safetensors"]
    assert found[0]["at_url"]["after"] == []


def check_resumed(found: list[dict[str, Any]], name: str) -> None:
    for process in found:
        run = process[name]
        assert "was saved" in run["ended"] and run["resumed"] == run["whole"]


def test_what_one_process_asks_for_all_do_after_the_next_step(found: list[dict[str, Any]]) -> None:
    assert [process["one_stops"] for process in found] == [{"epochs": 2, "steps": 8}] * 2


def test_a_value_that_is_not_finite_on_one_process_ends_all(found: list[dict[str, Any]]) -> None:
    assert [process["not_a_number"] for process in found] == [{"epochs": 1, "steps": 2}] * 2


def test_a_loss_that_one_process_finds_not_finite_is_saved_by_none(found: list[dict[str, Any]]) -> None:
    ended = "SIGUSR1 ended the run; the state of that moment was not saved."
    assert [process["not_a_number_saved"] for process in found] == [{"ended": ended, "epochs": 2}] * 2


def test_the_clock_of_the_main_process_says_when_all_save(found: list[dict[str, Any]]) -> None:
    assert found[0]["by_time"]["weights"] == found[1]["by_time"]["weights"]


def goes_on_elsewhere(runs: str, sizes: Sequence[int], path: Path) -> None:
    """Interrupt a run on some processes, go on with it on others, and compare it with one that nothing interrupted.

    Args:
        runs: The module of the runs.
        sizes: How many processes at first, and after each interruption.
        path: A folder.
    """
    module = importlib.import_module(f"distribution.{runs}")

    def run(name: str, size: int) -> dict[str, Any]:
        if size > 1:
            return run_together(f"distribution.{runs}", [name], size, path)[0][name]
        folder = path / name
        folder.mkdir(exist_ok=True)
        result: dict[str, Any] = getattr(module, name)(folder)
        return result

    whole = run("whole_run", 1)
    for name, size in zip(("interrupt_here", "interrupt_later"), sizes[:-1], strict=False):
        assert "was saved" in run(name, size)["ended"]
    resumed = run("resume_here", sizes[-1])
    assert list(resumed["history"]) == list(whole["history"])
    for name, values in whole["history"].items():
        np.testing.assert_allclose(resumed["history"][name], values, rtol=2e-5, err_msg=name)
    for one, other in zip(resumed["weights"], whole["weights"], strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)


@pytest.mark.processes
@pytest.mark.parametrize("sizes", [(2, 1), (2, 3), (3, 2), (1, 2), (2, 1, 3)], ids=str)
def test_another_number_of_processes_goes_on(sizes: tuple[int, ...], tmp_path: Path) -> None:
    goes_on_elsewhere("resumed_runs", sizes, tmp_path)
