"""Several processes come to what one comes to: weights, logs, decisions, predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distribution import equal_runs
from processes import run_together

from helpers import cpu_only

pytestmark = cpu_only("several processes can't share one GPU")
NAMES = [run.__name__ for run in equal_runs.RUNS]


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


SIZES = [2, *(pytest.param(size, marks=pytest.mark.processes) for size in (3, 4))]


@pytest.fixture(
    scope="module",
    params=SIZES,
)
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_together("distribution.equal_runs", NAMES, request.param, tmp_path_factory.mktemp("together"))


@pytest.mark.parametrize("name", NAMES)
def test_several_processes_come_to_what_one_comes_to(name: str, together: list[dict[str, Any]], tmp_path: Path) -> None:
    alone = getattr(equal_runs, name)(tmp_path)
    same(together[0][name], alone, name)
    for other in together[1:]:
        # To the last bit, so that decisions are the same everywhere.
        assert json.dumps(other[name]) == json.dumps(together[0][name])
