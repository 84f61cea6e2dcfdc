"""Writer and Snapshot: saves in the background, from copies."""

from __future__ import annotations

import _thread
import gc
import os
import sys
import threading
import time
import weakref
from pathlib import Path
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


def test_idle_work_waits_for_the_current_job() -> None:
    writer, seen, gate = Writer("it"), [], threading.Event()
    writer.when_idle(lambda: seen.append(threading.get_ident()))
    assert seen == [threading.get_ident()]
    writer.submit(lambda: (gate.wait(10), seen.append("job")))
    done = threading.Event()
    writer.when_idle(lambda: (seen.append("after"), done.set()))
    assert len(seen) == 1
    gate.set()
    assert done.wait(10)
    assert seen[1:] == ["job", "after"]


def test_check_never_waits() -> None:
    writer, gate = Writer("it"), threading.Event()
    writer.submit(lambda: gate.wait(10))
    writer.check()
    gate.set()
    writer.wait()


def test_jobs_that_follow_soon_share_a_thread_which_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.checkpoints.writer._LINGERS", 0.2)
    writer, threads = Writer("it"), list[int]()
    before = set(sys._current_frames())
    for _ in range(3):
        writer.submit(lambda: threads.append(threading.get_ident()))
        writer.wait()
    assert len(set(threads)) == 1
    deadline = time.monotonic() + 10
    while set(sys._current_frames()) - before:
        assert time.monotonic() < deadline, "the thread stays"
        time.sleep(0.01)
    writer.submit(lambda: threads.append(0))
    writer.wait()
    assert len(threads) == 4


def test_a_job_that_comes_as_the_thread_ends_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.checkpoints.writer._LINGERS", 0.001)
    writer, done = Writer("it"), 0

    def job() -> None:
        nonlocal done
        done += 1

    for count in range(1, 300):
        writer.submit(job)
        writer.wait()
        assert done == count
        time.sleep(0.0005 + count % 10 / 10_000)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked there")
def test_a_process_that_is_forked_begins_a_thread_of_its_own(tmp_path: Path) -> None:
    writer = Writer("it")
    writer.submit(lambda: None)
    writer.wait()
    child = os.fork()
    if child == 0:
        try:
            writer.submit(lambda: (tmp_path / "a").write_text("done"))
            writer.wait()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "a").read_text() == "done"


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), KeyboardInterrupt()])
def test_a_job_that_cannot_be_begun_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*arguments: object) -> NoReturn:
        raise error

    writer, seen = Writer("it"), []
    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(_thread, "start_new_thread", fail)
        writer.submit(lambda: seen.append(1))
    writer.wait()
    assert not writer.busy and not seen
    writer.submit(lambda: seen.append(2))
    writer.wait()
    assert seen == [2]


def test_a_finished_job_holds_no_references() -> None:
    class Model:
        pass

    writer, model = Writer("it"), Model()
    gone = weakref.ref(model)
    writer.submit(lambda model=model: None)
    writer.wait()
    del model
    gc.collect()
    assert gone() is None


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
