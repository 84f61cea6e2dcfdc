"""The table of what waits for the device is what is counted now."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from helpers import cpu_only
from oncue import callbacks

ROOT = Path(__file__).parents[2]
pytestmark = cpu_only("what would wait for a device is counted on the CPU")


@pytest.fixture
def host_waits(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "host_waits", raising=False)
    import host_waits

    yield host_waits
    sys.modules.pop("host_waits", None)


def test_the_table_in_the_docs_is_what_is_counted(host_waits: Any, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "gpu.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("|")] == host_waits.table("cpu")


def test_every_callback_is_in_it(host_waits: Any) -> None:
    # They call what the user gives, need a server, do nothing by themselves in training, or search before it.
    others = {"BaseLogger", "Callback", "CallbackList", "History", "LambdaCallback", "LearningRateFinder", "Preempted"}
    others |= {"RemoteMonitor", "BatchSizeFinder", "PredictionWriter"}
    # It is for pictures, and draws as MixUp does.
    others |= {"CutMix"}
    assert {name.partition(",")[0] for name in host_waits.CALLBACKS} == set(callbacks.__all__) - others


def test_the_counter_counts(host_waits: Any) -> None:
    class Reads(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float(logs["loss"])
            self.model.get_weights()

    step, _ = host_waits.waits_of(lambda folder: [Reads()], "cpu")
    # One transfer for the logs, and each of four weights.
    assert step == 5
