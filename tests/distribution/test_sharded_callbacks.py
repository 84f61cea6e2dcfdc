"""Every built-in callback does the same where processes have parts of each weight as on one process that has all."""

from __future__ import annotations

from pathlib import Path

import pytest
from distribution import sharded_callback_runs
from distribution.sharded_callback_runs import NOISE, REFUSED, TABLE
from distribution.test_equal_runs import same
from processes import run_together

from helpers import cpu_only
from oncue import callbacks as built_in
from oncue.callbacks import Callback, CallbackList

pytestmark = cpu_only("several processes can't share one GPU")


def test_the_table_has_every_callback() -> None:
    kinds = {name: getattr(built_in, name) for name in built_in.__all__}
    found = {name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Callback)}
    assert found - {CallbackList.__name__} == {*TABLE, *NOISE, *REFUSED}


@pytest.mark.processes
def test_each_callback_does_what_it_does_on_one_process_that_has_shards(tmp_path: Path) -> None:
    alone = sharded_callback_runs.all_callbacks_of_modules(tmp_path / "alone")
    (found,) = run_together("distribution.sharded_callback_runs", ["all_callbacks_of_one"], 1, tmp_path)
    for name, expected in alone.items():
        same(found["all_callbacks_of_one"][name], expected, name)


@pytest.mark.processes
@pytest.mark.parametrize("size", [2, 3])
def test_each_callback_does_what_it_does_on_one_process(size: int, tmp_path: Path) -> None:
    alone = sharded_callback_runs.all_callbacks(tmp_path / "alone")
    found = run_together("distribution.sharded_callback_runs", ["sharded_all_callbacks"], size, tmp_path)
    for process in found:
        of_all = process["sharded_all_callbacks"]
        for name in TABLE | NOISE:
            same(of_all[name], alone[name], name)
        for name in REFUSED:
            assert of_all[name].startswith("ValueError") and f"this run is on {size} processes" in of_all[name]
