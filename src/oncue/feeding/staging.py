"""Reused page-locked (pinned) buffers, from which batches are copied to a GPU asynchronously."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from oncue import backend


class Sent(Protocol):
    """A copy that was begun."""

    def synchronize(self) -> None:
        """Wait until it is done."""
        ...


Send = Callable[[Tensor, torch.device, torch.dtype], tuple[Tensor, Sent | None]]


class StagingBuffers:
    """Copies rows of a host tensor to a device while the device is still working on the previous rows.

    Two buffers take turns: each is filled again only after its last copy has finished, two batches later.

    Args:
        device: Where the rows go.
        dtype: Their dtype there.
        pinned: Whether the buffers are page-locked, which asynchronous copies need.
        send: Begins a copy, and returns what is there when the device gets to it, and the copy; None for one that is done. By
            default it is torch that copies.

    Example:
        >>> staging = StagingBuffers(torch.device("cpu"), torch.float32, pinned=False)
        >>> staging.send(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 0]))
        tensor([[3.],
                [1.]])
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, pinned: bool = True, send: Send | None = None) -> None:
        self._send = send_beside if send is None else send
        self._device, self._dtype, self._pinned = device, dtype, pinned
        self._buffers: list[Tensor | None] = [None, None]
        self._copied: list[Sent | None] = [None, None]
        self._turn = 0

    def send(self, tensor: Tensor, rows: Tensor | slice) -> Tensor:
        """Return the rows on the device.

        Args:
            tensor: A tensor of shape `(samples, ...)` on the host.
            rows: Row indices on the host, or a slice.
        """
        turn = self._turn
        self._turn = 1 - turn
        copied = self._copied[turn]
        if copied is not None:
            copied.synchronize()
        if isinstance(rows, slice):
            part = tensor[rows]
            buffer = self._buffer(turn, tensor, len(part)).copy_(part)
        else:
            buffer = self._buffer(turn, tensor, len(rows))
            torch.index_select(tensor, 0, rows, out=buffer)
        sent, self._copied[turn] = self._send(buffer, self._device, self._dtype)
        return sent

    def _buffer(self, turn: int, tensor: Tensor, number: int) -> Tensor:
        buffer = self._buffers[turn]
        if buffer is None or len(buffer) < number:
            shape = (number, *tensor.shape[1:])
            buffer = self._buffers[turn] = torch.empty(shape, dtype=tensor.dtype, pin_memory=self._pinned)
        return buffer[:number]


def send_beside(buffer: Tensor, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Sent | None]:
    """Begin to copy a buffer to a device; done at once for the CPU.

    Args:
        buffer: A tensor on the host; page-locked, for the host to go on meanwhile.
        device: Where it goes.
        dtype: Its dtype there.
    """
    sent = buffer.to(device=device, dtype=dtype, non_blocking=True)
    if device.type != "cuda":
        return sent.clone() if sent is buffer else sent, None
    return sent, backend.work_so_far(sent.device)
