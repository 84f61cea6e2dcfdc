"""A device for tests on the CPU, on which copies beside its work that are ordered wrongly give wrong values."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from oncue.checkpoints import device_copies


class LateDevice:
    """Takes the place of CUDA for CPU tensors; each copy is made as late as events allow.

    What a copy reads is what its source has when the stream of the work begins to wait for it, or the host does; the host sees
    it only when it has waited, and numbers of no meaning before.

    Attributes:
        order: What was asked of it.
        allocated: The sizes of the page-locked blocks, each with whether the main thread asked for it.
        refuses: Whether there is no page-locked memory.
        room: How many bytes of its own memory are free.
        behind: Whether no copy is done yet that nobody waits for.
        lazy: Whether copies that only the writer waits for begin no sooner than the work waits for them.
    """

    def __init__(self) -> None:
        self.order: list[str] = []
        self.allocated: list[tuple[int, bool]] = []
        self.refuses = False
        self.room = 0
        self.moments = 0
        self.behind = self.lazy = False
        self._working = WorkStream(self)

    def install(self, patch: pytest.MonkeyPatch) -> LateDevice:
        """Put it in CUDA's place."""
        patch.setattr(device_copies, "copies_of", lambda device: self)
        return self

    def free(self) -> int:
        return self.room

    def page_locked(self, size: int) -> torch.Tensor:
        if self.refuses:
            raise RuntimeError("out of page-locked memory")
        self.allocated.append((size, threading.current_thread() is threading.main_thread()))
        return torch.empty(size, dtype=torch.uint8)

    def flag(self) -> torch.Tensor:
        return torch.empty(1, dtype=torch.bool)

    def working(self) -> WorkStream:
        return self._working

    def beside(self) -> CopyStream:
        return CopyStream(self)

    def copy(self, stream: CopyStream, copies: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
        self.order.append("copy")
        assert stream.waits_for > stream.copied or stream.copied_since, "copies begin before the work is done"
        stream.copied, stream.copied_since = self.moments, True
        for copy, source in zip(copies, sources, strict=True):
            copy.fill_(77)
            stream.pending.append(Late(copy, source))


class Late:
    """A copy that is under way."""

    def __init__(self, copy: torch.Tensor, source: torch.Tensor) -> None:
        self.copy, self.source, self.read = copy, source, None

    def begin(self) -> None:
        if self.read is None:
            self.read: Any = self.source.detach().clone()

    def end(self) -> None:
        self.begin()
        self.copy.copy_(self.read)


class WorkMoment:
    """A moment in the work."""

    def __init__(self, number: int) -> None:
        self.number = number

    def synchronize(self) -> None:
        raise AssertionError("the host waits for all the work")

    def query(self) -> bool:
        raise AssertionError("the host asks for all the work")


class CopyMoment:
    """The moment after some copies."""

    def __init__(self, device: LateDevice, copies: list[Late]) -> None:
        self.device, self.copies = device, copies
        self.begun = threading.Event()

    def synchronize(self) -> None:
        main = threading.current_thread() is threading.main_thread()
        if self.device.lazy and not main:
            assert self.begun.wait(20), "nothing waits for the copies"
        self.device.order.append("host waits" if main else "writer waits")
        for one in self.copies:
            one.end()

    def query(self) -> bool:
        if self.device.behind:
            return False
        for one in self.copies:
            one.end()
        return True


class WorkStream:
    """The stream that trains: on the CPU each operation is done at once."""

    def __init__(self, device: LateDevice) -> None:
        self.device = device

    def record_event(self) -> WorkMoment:
        self.device.moments += 1
        return WorkMoment(self.device.moments)

    def wait_event(self, event: CopyMoment) -> None:
        self.device.order.append("work waits")
        for one in event.copies:
            one.begin()
        event.begun.set()


class CopyStream:
    """A stream beside it, which does nothing before it must."""

    def __init__(self, device: LateDevice) -> None:
        self.device = device
        self.pending: list[Late] = []
        self.waits_for = self.copied = 0
        self.copied_since = False

    def record_event(self) -> CopyMoment:
        pending, self.pending, self.copied_since = self.pending, [], False
        return CopyMoment(self.device, pending)

    def wait_event(self, event: WorkMoment) -> None:
        self.waits_for = event.number
