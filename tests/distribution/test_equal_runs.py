"""Several processes come to what one comes to: weights, logs, decisions, predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distribution import equal_runs
from processes import run_together

from helpers import cpu_only

pytestmark = cpu_only("several processes can't share one GPU")


def same(found: Any, expected: Any, place: str) -> None:
    """Compare what two processes found, within what the order of sums in float32 changes."""
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected), place
        for name in expected:
            same(found[name], expected[name], f"{place}: {name}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), place
        for one, other in zip(found, expected, strict=True):
            same(one, other, place)
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6, err_msg=place)
    else:
        assert found == expected, place


PROCESSES = pytest.mark.processes
FEW, MORE = ([run.__name__ for run in runs] for runs in (equal_runs.RUNS, equal_runs.MORE_IN_GRAPHS))
ALL = [(2, name) for name in FEW] + [
    pytest.param(size, name, marks=PROCESSES) for size in (2, 3, 4) for name in MORE + FEW * (size > 2)
]


def runs_together(
    module: str, few: list[str], more: list[str], folders: pytest.TempPathFactory, records: bool = False
) -> Callable[..., Any]:
    """Return what returns what runs came to on some processes; the few run in the same ones, and so do the others."""
    found: dict[tuple[int, bool], list[dict[str, Any]]] = {}

    def run(size: int, name: str) -> list[dict[str, Any]]:
        kind = size, name in few
        if kind not in found:
            folder = folders.mktemp("together")
            names = few if name in few else more
            found[kind] = run_together(module, names, size, folder, seconds=900.0, records=records)
        return [one[name] for one in found[kind]]

    return run


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], list[dict[str, Any]]]:
    return runs_together("distribution.equal_runs", FEW, MORE, tmp_path_factory, records=True)


@pytest.mark.parametrize(("size", "name"), ALL)
def test_several_processes_come_to_what_one_comes_to(
    size: int, name: str, together: Callable[[int, str], list[dict[str, Any]]], tmp_path: Path
) -> None:
    alone, (main, *others) = getattr(equal_runs, name)(tmp_path), together(size, name)
    same({key: value for key, value in main.items() if key != "messages"}, alone, name)
    assert main["messages"]
    for other in others:
        # To the last bit, so that decisions are the same everywhere; and with the same messages in the same order.
        assert json.dumps(other) == json.dumps(main)
