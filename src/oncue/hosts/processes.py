"""Processes: the processes that train together, by the process group that a loop's library, or the user, has made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import distributed

from oncue.core.monitor import as_number
from oncue.core.process import process
from oncue.core.ranks import ASKED, Ranks


class Processes(Ranks):
    """The processes of a run in a loop of others; one alone where `torch.distributed` has no process group.

    After `oncue.distribution.set_distribution(None)` each process trains on its own.

    What one of them asks for is known to all at the end of the epoch, where `means` is called: before that, nobody waits for
    the others.

    Args:
        device: Where tensors that are sent must be.

    Example:
        >>> processes = Processes()
        >>> processes.alone, processes.main, processes.means({"loss": 0.5}), processes.agree(True)
        (True, True, {'loss': 0.5}, True)
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()
        on_its_own = process.chosen and process.distribution is None
        if distributed.is_available() and distributed.is_initialized() and not on_its_own:
            self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._device = device
        self._seen: set[str] = set()

    @property
    def alone(self) -> bool:
        """Whether there is one process."""
        return self.size == 1

    def agree(self, flag: bool) -> bool:
        """Return whether any process says so."""
        return self.largest(float(bool(flag))) > 0

    def largest(self, number: float) -> float:
        """Return the largest of all processes' numbers."""
        if self.alone:
            return number
        found = torch.tensor([number], dtype=torch.float64, device=self._device)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        return float(found)

    def total(self, number: float) -> float:
        """Return the sum of all processes' numbers."""
        if self.alone:
            return number
        found = torch.tensor([number], dtype=torch.float64, device=self._device)
        distributed.all_reduce(found)
        return float(found)

    def broadcast(self, value: Any) -> Any:
        """Return what the main process says."""
        sent = [value]
        if not self.alone:
            distributed.broadcast_object_list(sent, 0)
        return sent[0]

    def broadcast_bytes(self, data: bytes) -> bytes:
        """Return the main process's bytes."""
        sent: bytes = self.broadcast(data)
        return sent

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Return the bytes of all processes, by rank."""
        return self.gather(data)

    def gather(self, value: Any) -> list[Any]:
        """Return what all processes say, by rank; with tensors on the CPU."""
        found = [value] * self.size
        if not self.alone:
            distributed.all_gather_object(found, value)
        return found

    def asked(self, what: str) -> bool:
        """Return whether any process had asked for something when the epoch ended."""
        return what in (self._asked if self.alone else self._seen)

    def settled(self, what: str) -> None:
        """Take note that what was asked for is done."""
        self._asked.discard(what)
        self._seen.discard(what)

    def means(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the means of the processes' logs, so that all of them decide the same; and learn what any of them asks for."""
        if self.alone:
            return dict(logs)
        numbers = {name: number for name, value in logs.items() if (number := as_number(value)) is not None}
        asked = [float(what in self._asked) for what in ASKED]
        sums = torch.tensor([*asked, *numbers.values()], dtype=torch.float64, device=self._device)
        distributed.all_reduce(sums)
        found = sums.tolist()
        self._seen |= {what for what, number in zip(ASKED, found, strict=False) if number}
        return {**logs, **{name: number / self.size for name, number in zip(numbers, found[len(ASKED) :], strict=True)}}
