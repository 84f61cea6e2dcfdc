"""Reused page-locked (pinned) buffers, from which batches are copied to a GPU asynchronously."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class StagingBuffers:
    """Copies rows of a host tensor to a device while the device is still working on the previous rows.

    Two buffers take turns: each is filled again only after its last copy has finished, two batches later.

    Args:
        device: Where the rows go.
        dtype: Their dtype there.
        pinned: Whether the buffers are page-locked, which asynchronous copies need.

    Example:
        >>> staging = StagingBuffers(torch.device("cpu"), torch.float32, pinned=False)
        >>> staging.send(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([2, 0]))
        tensor([[3.],
                [1.]])
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, pinned: bool = True) -> None:
        self._device, self._dtype, self._pinned = device, dtype, pinned
        self._buffers: list[Tensor | None] = [None, None]
        self._copied: list[Any] = [None, None]
        self._turn = 0

    def send(self, tensor: Tensor, rows: Tensor | slice) -> Tensor:
        """Return the rows on the device.

        Args:
            tensor: A tensor of shape `(samples, ...)` on the host.
            rows: Row indices on the host, or a slice.
        """
        turn = self._turn
        self._turn = 1 - turn
        if self._copied[turn] is not None:
            self._copied[turn].synchronize()
        if isinstance(rows, slice):
            part = tensor[rows]
            buffer = self._buffer(turn, tensor, len(part)).copy_(part)
        else:
            buffer = self._buffer(turn, tensor, len(rows))
            torch.index_select(tensor, 0, rows, out=buffer)
        sent = buffer.to(device=self._device, dtype=self._dtype, non_blocking=True)
        if self._device.type == "cuda":
            self._copied[turn] = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types there
            self._copied[turn].record()
        return sent.clone() if sent is buffer else sent

    def _buffer(self, turn: int, tensor: Tensor, number: int) -> Tensor:
        buffer = self._buffers[turn]
        if buffer is None or len(buffer) < number:
            shape = (number, *tensor.shape[1:])
            buffer = self._buffers[turn] = torch.empty(shape, dtype=tensor.dtype, pin_memory=self._pinned)
        return buffer[:number]
