"""Processes that have parts of each weight come to what one process comes to that has all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distribution import sharded_runs
from distribution.test_equal_runs import runs_together, same
from processes import run_together

import oncue as keras
from helpers import cpu_only
from oncue.core.process import process
from oncue.training.sharded import shard

pytestmark = cpu_only("several processes can't share one GPU")
PROCESSES = pytest.mark.processes

FEW = [f"sharded_{run.__name__}" for run in (*sharded_runs.OWN, *sharded_runs.FEW)]
MORE = [f"sharded_{run.__name__}" for run in sharded_runs.MORE]
ALL = [(2, name) for name in FEW] + [
    pytest.param(size, name, marks=PROCESSES) for size in (2, 3) for name in MORE + FEW * (size > 2)
]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], list[dict[str, Any]]]:
    return runs_together("distribution.sharded_runs", FEW, MORE, tmp_path_factory)


@pytest.fixture(autouse=True)
def chosen_here_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a run chooses in this process count for it alone."""
    for name in ("distribution", "chosen"):
        monkeypatch.setattr(process, name, getattr(process, name))


@pytest.mark.parametrize(("size", "name"), ALL)
def test_parts_of_weights_come_to_what_whole_ones_come_to(
    size: int, name: str, together: Callable[[int, str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    alone, found = getattr(sharded_runs, name)(tmp_path), together(size, name)
    for one in found:
        same(one, alone, name)


@PROCESSES
@pytest.mark.parametrize("size", [1, 3])
def test_another_number_of_processes_reads_what_was_saved(size: int, tmp_path: Path) -> None:
    saved = run_together("distribution.sharded_runs", ["sharded_parts_of_others"], 2, tmp_path)
    read = run_together("distribution.sharded_runs", ["sharded_parts_of_others"], size, tmp_path)
    assert all(one == saved[0] for one in read)


def test_weights_of_several_types_in_one_layer_are_refused() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.bias = torch.nn.Parameter(layer.bias.detach().double())
    model = keras.Model(torch.nn.Sequential(torch.nn.Linear(2, 2), layer))
    with pytest.raises(ValueError, match="`1.weight` is of torch.float32|`1.bias` is of torch.float64"):
        shard(model, 0)
