"""Copies out of a device beside its work: page-locked memory, a stream of their own, and events that order both.

The operations are a protocol, so that tests can put a device in CUDA's place on which a wrong order gives wrong values.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import torch


class Event(Protocol):
    """A moment in a stream's work."""

    def synchronize(self) -> None:
        """Let the host wait until that work is done."""
        ...

    def query(self) -> bool:
        """Return whether that work is done; nobody waits."""
        ...


class Stream(Protocol):
    """Work of a device that is done in order; streams of CUDA are some."""

    def record_event(self) -> Event:
        """Return the moment after all work that the stream has got so far."""
        ...

    def wait_event(self, event: Event) -> None:
        """Let work that the stream gets from now on wait for a moment of another stream; the host goes on at once."""
        ...


class DeviceCopies(Protocol):
    """What copies out of a device need of it."""

    def free(self) -> int:
        """Return how many bytes of its memory nobody has."""
        ...

    def page_locked(self, size: int) -> torch.Tensor:
        """Return so many bytes of host memory that the device writes to by itself.

        Raises:
            RuntimeError: When there is none.
        """
        ...

    def flag(self) -> torch.Tensor:
        """Return page-locked memory for one truth value."""
        ...

    def working(self) -> Stream:
        """Return the stream that gets the work of this moment."""
        ...

    def beside(self) -> Stream:
        """Return a new stream, whose work goes on beside that of others."""
        ...

    def copy(self, stream: Stream, copies: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
        """Give a stream the work of copying tensors to the host; returns before it is done."""
        ...


_OF_ALL_DEVICES = 1
"""`cudaHostRegisterPortable`."""


class _Pages(mmap.mmap):
    """Pages of the system's, which are unlocked before they go."""

    unlock: Callable[[], object] | None = None

    def __del__(self) -> None:
        if self.unlock is not None:
            self.unlock()


class CudaCopies:
    """Copies out of a CUDA device.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free(self) -> int:
        """Return the free memory of the device; what torch keeps for itself counts as taken."""
        import torch

        return int(torch.cuda.mem_get_info(self._device)[0])

    def page_locked(self, size: int) -> torch.Tensor:
        """Return so many bytes of page-locked memory, which goes with the last tensor in it.

        It isn't torch's, which takes the next power of two, nearly twice as much at worst, and keeps it.

        Raises:
            RuntimeError: When there is none.
        """
        import torch

        pages = _Pages(-1, size)
        block = torch.frombuffer(pages, dtype=torch.uint8)
        cudart: Any = torch.cuda.cudart
        runtime = cudart()
        outcome: list[Any] = []

        def lock() -> None:
            with torch.cuda.device(self._device):
                outcome.append(runtime.cudaHostRegister(block.data_ptr(), size, _OF_ALL_DEVICES))

        # CUDA remembers an error for the thread that has met it, where the next kernel would be taken to have failed.
        thread = threading.Thread(target=lock)
        thread.start()
        thread.join()
        if not outcome:
            raise RuntimeError("CUDA can't be asked for it")
        if outcome[0] != runtime.cudaError.success:
            raise RuntimeError(str(runtime.cudaGetErrorString(outcome[0])))
        address = block.data_ptr()
        pages.unlock = lambda: runtime.cudaHostUnregister(address)
        return block

    def flag(self) -> torch.Tensor:
        """Return page-locked memory of torch's own, which may be large for its size where it is that small."""
        import torch

        return torch.empty(1, dtype=torch.bool, pin_memory=True)

    def working(self) -> Stream:
        """Return the current stream."""
        import torch

        stream: Any = torch.cuda.current_stream(self._device)
        return cast("Stream", stream)

    def beside(self) -> Stream:
        """Return another stream."""
        import torch

        make: Any = torch.cuda.Stream
        return cast("Stream", make(self._device))

    def copy(self, stream: Any, copies: Sequence[torch.Tensor], sources: Sequence[torch.Tensor]) -> None:
        """Begin copies on a stream."""
        import torch

        with torch.cuda.stream(stream):
            torch._foreach_copy_(list(copies), list(sources), True)


def copies_of(device: torch.device) -> DeviceCopies | None:
    """Return how tensors are copied out of a device beside its work; None where that can't be, or makes no sense.

    Example:
        >>> import torch
        >>> copies_of(torch.device("cpu")) is None
        True
    """
    return CudaCopies(device) if device.type == "cuda" else None
