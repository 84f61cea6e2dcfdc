"""Snapshot on a device that copies beside its work: the values are those of the moment, and training doesn't wait."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from late_device import LateDevice

from oncue.checkpoints import device_copies
from oncue.checkpoints.device_copies import CudaCopies
from oncue.checkpoints.snapshot import Snapshot


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> LateDevice:
    return LateDevice().install(monkeypatch)


def on_a_thread(job: Callable[[], Any]) -> None:
    thread = threading.Thread(target=job)
    thread.start()
    thread.join()


def test_copies_are_those_of_the_moment_though_they_are_made_late(device: LateDevice) -> None:
    weight, snapshot = torch.ones(3), Snapshot(beside=True)
    copies = snapshot.take({"weight": weight})
    weight.zero_()
    assert device.order == ["copy", "work waits"]
    on_a_thread(snapshot.finish)
    assert copies["weight"].tolist() == [1.0, 1.0, 1.0]
    assert device.order == ["copy", "work waits", "writer waits"]


def test_whoever_reads_at_once_waits(device: LateDevice) -> None:
    copies = Snapshot().take({"weight": torch.ones(2), "count": torch.tensor(3)})
    assert copies["weight"].tolist() == [1.0, 1.0] and copies["count"] == 3
    assert device.order[-1] == "host waits"


def test_each_copy_waits_for_the_work_before_it(device: LateDevice) -> None:
    weight, snapshot = torch.zeros(2), Snapshot(beside=True)
    for value in (1.0, 2.0, 3.0):
        weight.fill_(value)
        copies = snapshot.take({"weight": weight, "half": weight.half()})
        snapshot.finish()
        assert copies["weight"].tolist() == [value, value] and copies["half"].tolist() == [value, value]


def test_memory_that_training_gives_up_is_held_until_it_is_copied(device: LateDevice) -> None:
    snapshot, weight = Snapshot(beside=True), torch.ones(4)
    snapshot.take({"weight": weight})
    held = [one for _, tensors in snapshot._under_way for one in tensors]
    assert [one.data_ptr() for one in held] == [weight.data_ptr()]
    snapshot.finish()
    assert not snapshot._under_way


def test_all_copies_are_in_one_block_which_is_kept(device: LateDevice) -> None:
    snapshot = Snapshot()
    tensors = {"weight": torch.ones(100, 10), "count": torch.tensor(3), "half": torch.ones(7).half()}
    copies = snapshot.take(tensors)
    memory = {copy.untyped_storage().data_ptr() for copy in copies.values()}
    snapshot.take({"weight": torch.ones(100, 10)})
    again = snapshot.take({**tensors, "sum": torch.ones(5)})
    assert memory == {copy.untyped_storage().data_ptr() for copy in again.values()} and len(memory) == 1
    assert len(device.allocated) == 1 and device.allocated[0][0] < 4020 + 100_000
    assert len(snapshot.blocks().blocks) == 1


def test_the_memory_is_there_before_the_first_copies(device: LateDevice) -> None:
    snapshot, weight = Snapshot(beside=True), torch.ones(1000)
    snapshot.reserve([weight], lambda: weight.nbytes, on_a_thread)
    snapshot.take({"weight": weight})
    assert [on_main for _, on_main in device.allocated] == [False]


def test_without_page_locked_memory_there_is_one_warning_and_the_same_copies(device: LateDevice) -> None:
    device.refuses = True
    snapshot, weight = Snapshot(), torch.ones(3)
    snapshot.reserve([weight], lambda: weight.nbytes, on_a_thread)
    with pytest.warns(UserWarning, match="page-locked memory can't be had .out of page-locked memory.") as caught:
        assert snapshot.take({"weight": weight})["weight"].tolist() == [1.0, 1.0, 1.0]
        assert snapshot.take({"weight": torch.ones(100_000)})["weight"].sum() == 100_000
    assert len(caught) == 1


def test_a_limit_of_page_locked_memory_is_kept(device: LateDevice) -> None:
    snapshot = Snapshot(page_locked=0)
    snapshot.reserve([torch.ones(3)], lambda: 12, on_a_thread)
    assert snapshot.take({"weight": torch.ones(3)})["weight"].tolist() == [1.0, 1.0, 1.0]
    assert not device.allocated
    large = Snapshot(page_locked=200_000)
    large.take({"weight": torch.ones(3)})
    assert len(device.allocated) == 1
    large.take({"weight": torch.ones(100_000)})
    assert len(device.allocated) == 1


class Runtime:
    """Takes the place of CUDA's functions for page-locked memory."""

    cudaError = SimpleNamespace(success=0)  # CUDA's name

    def __init__(self) -> None:
        self.locked: dict[int, int] = {}
        self.asked: list[tuple[bool, Any]] = []
        self.gives, self.device = 0, None

    def install(self, patch: pytest.MonkeyPatch) -> Runtime:
        @contextmanager
        def device(place: Any) -> Iterator[None]:
            self.device = place
            yield
            self.device = None

        patch.setattr(torch.cuda, "cudart", lambda: self)
        patch.setattr(torch.cuda, "device", device)
        return self

    def cudaHostRegister(self, address: int, size: int, flags: int) -> int:  # CUDA's name
        self.asked.append((threading.current_thread() is threading.main_thread(), self.device))
        if not self.gives:
            self.locked[address] = size
        return self.gives

    def cudaHostUnregister(self, address: int) -> None:  # CUDA's name
        del self.locked[address]

    def cudaGetErrorString(self, error: int) -> str:  # CUDA's name
        return f"error {error} of CUDA"


def test_page_locked_memory_is_hardly_more_than_what_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, size = Runtime().install(monkeypatch), 1_440_000_000
    copies = CudaCopies(torch.device("cuda", 1))
    monkeypatch.setattr(device_copies, "copies_of", lambda device: copies)
    snapshot = Snapshot()
    snapshot.reserve([torch.ones(3)], lambda: size, on_a_thread)
    # Pages that nobody writes to take no memory.
    assert [size <= one < size * 1.03 for one in runtime.locked.values()] == [True]
    assert runtime.asked == [(False, torch.device("cuda", 1))]
    del snapshot
    gc.collect()
    assert not runtime.locked


def test_page_locked_memory_lasts_as_long_as_a_tensor_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime().install(monkeypatch)
    block = CudaCopies(torch.device("cuda", 0)).page_locked(5000)
    block.fill_(7)
    part = block[10:20]
    del block
    gc.collect()
    assert part.tolist() == [7] * 10 and list(runtime.locked.values()) == [5000]
    del part
    gc.collect()
    assert not runtime.locked


def test_memory_that_cuda_does_not_lock_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime().install(monkeypatch)
    runtime.gives = 2
    with pytest.raises(RuntimeError, match="error 2 of CUDA"):
        CudaCopies(torch.device("cuda", 0)).page_locked(5000)
    # On a thread of its own, where CUDA's memory of the error ends.
    assert runtime.asked == [(False, torch.device("cuda", 0))] and not runtime.locked


def test_copies_under_way_are_waited_for_before_their_memory_goes(device: LateDevice) -> None:
    snapshot = Snapshot(beside=True)
    snapshot.take({"weight": torch.ones(3)})
    del snapshot
    gc.collect()
    assert device.order == ["copy", "work waits", "host waits"]


def test_tensors_of_the_cpu_need_no_memory_ahead() -> None:
    asked: list[Any] = []
    Snapshot().reserve([torch.ones(3)], lambda: 12, asked.append)
    assert not asked
