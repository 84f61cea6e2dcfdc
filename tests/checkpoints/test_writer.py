"""Writer and Snapshot: saves in the background, from copies."""

from __future__ import annotations

import threading
from typing import NoReturn

import pytest
import torch

from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.writer import Writer


def test_one_job_at_a_time_in_order() -> None:
    writer, seen, gate = Writer("it"), [], threading.Event()
    writer.submit(lambda: (gate.wait(10), seen.append(1)))
    assert writer.busy
    threading.Timer(0.05, gate.set).start()
    writer.submit(lambda: seen.append(2))
    writer.wait()
    assert seen == [1, 2] and not writer.busy


def _fails() -> NoReturn:
    raise OSError("disk full")


def test_an_error_comes_out_once_at_the_next_call() -> None:
    writer = Writer("the model")
    writer.submit(_fails)
    with pytest.raises(OSError, match="disk full") as caught:
        writer.wait()
    assert caught.value.__notes__ == ["raised while the model was being written in the background"]
    writer.check()
    writer.wait()


def test_an_error_keeps_the_next_job_from_beginning() -> None:
    writer, seen = Writer("the model"), []
    writer.submit(_fails)
    with pytest.raises(OSError):
        writer.submit(lambda: seen.append(1))
    writer.wait()
    assert not seen


def test_check_waits_for_nothing() -> None:
    writer, gate = Writer("it"), threading.Event()
    writer.submit(lambda: gate.wait(10))
    writer.check()
    gate.set()
    writer.wait()


def test_a_snapshot_owns_its_values_and_uses_its_memory_again() -> None:
    snapshot, weight, count = Snapshot(), torch.arange(6.0).reshape(2, 3).t(), torch.tensor(3)
    first = snapshot.take({"weight": weight, "count": count})
    kept = first["weight"].clone()
    weight.zero_()
    assert torch.equal(first["weight"], kept) and first["weight"].is_contiguous() and first["count"] == 3
    second = snapshot.take({"weight": weight, "count": count})
    assert second["weight"].data_ptr() == first["weight"].data_ptr()
    assert not second["weight"].any()


def test_a_snapshot_of_other_tensors() -> None:
    snapshot = Snapshot()
    snapshot.take({"a": torch.ones(2), "b": torch.ones(3)})
    taken = snapshot.take({"a": torch.ones(2, dtype=torch.float64), "c": torch.ones(3, requires_grad=True)})
    assert list(taken) == ["a", "c"] and taken["a"].dtype == torch.float64 and not taken["c"].requires_grad
    assert not snapshot.take({})
