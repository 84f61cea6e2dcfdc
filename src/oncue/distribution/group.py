"""Group: the processes of a run, over torch.distributed."""

from __future__ import annotations

import atexit
import json
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from oncue.core.ranks import ASKED, Ranks
from oncue.distribution.failures import Failures
from oncue.distribution.launched import Place

_Result = TypeVar("_Result")

DEFAULT_TIMEOUT = 600.0
"""Seconds after which processes that wait for another end with an error, unless that one is reading data."""


class Group(Ranks):
    """The processes of a run.

    Its methods but `ask`, `asked` and `settled` are collective: every process must call them, in the same order. When
    another process fails, is killed or hangs, they end with a `PeerFailed` that says which one, where and why.

    Args:
        failures: Knows of processes that have failed.

    Attributes:
        rank: The number of this process.
        size: How many there are.
        failures: Tells the others when this process fails, and finds out when another has.
    """

    def __init__(self, failures: Failures) -> None:
        super().__init__()
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.failures = failures
        self._seen: set[str] = set()

    @classmethod
    def join(cls, place: Place | None, timeout: float = DEFAULT_TIMEOUT) -> Group:
        """Meet the other processes, or take the group that the script has made with torch.distributed itself.

        Args:
            place: Which of them this one is; None for the script's own group.
            timeout: Seconds after which processes that wait for another give up.
        """
        if not dist.is_initialized():
            assert place is not None
            if torch.cuda.is_available():
                torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
            # A collective gives up later than the watch over the other processes, which knows what they are doing.
            dist.init_process_group(
                store=_store_of(place, timeout),
                rank=place.rank,
                world_size=place.size,
                timeout=timedelta(seconds=4 * timeout),
            )
            # Its threads must not outlive the interpreter.
            atexit.register(_leave)
        return cls(Failures.watch(timeout))

    # What callbacks see ------------------------------------------------------------------------------------------

    def agree(self, flag: bool) -> bool:
        """Return whether any process says so."""
        return bool(self.sum_numbers([float(bool(flag))])[0])

    def broadcast(self, value: Any) -> Any:
        """Return what the main process says."""
        text = json.dumps(value).encode("utf-8") if self.main else b""
        return json.loads(self.broadcast_bytes(text).decode("utf-8"))

    def largest(self, number: float) -> float:
        """Return the largest of all processes' numbers."""
        found = torch.tensor([number], dtype=torch.float64)
        self.run(lambda: dist.all_reduce(found, dist.ReduceOp.MAX))
        return float(found)

    def asked(self, what: str) -> bool:
        """Return whether any process had asked for something when the last step was done."""
        return what in self._seen

    def settled(self, what: str) -> None:
        """Take note that what was asked for is done."""
        self._asked.discard(what)
        self._seen.discard(what)

    # What is asked rides along with other numbers ------------------------------------------------------------------

    def questions(self) -> list[float]:
        """Return what this process asks of all, as numbers to be summed over the processes and given to `answer`."""
        return [float(what in self._asked) for what in ASKED]

    def answer(self, sums: Sequence[float]) -> None:
        """Take the sums of what all processes have asked."""
        self._seen = {what for what, number in zip(ASKED, sums, strict=True) if number}

    # Numbers, tensors and bytes --------------------------------------------------------------------------------------

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the processes in place, and return it; equal everywhere to the last bit."""
        self.run(lambda: dist.all_reduce(tensor))
        return tensor

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums of numbers over the processes."""
        found: list[float] = self.sum_(torch.tensor(numbers, dtype=torch.float64)).tolist()
        return found

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Give the main process's values to the tensors of all, in place."""
        for tensor in tensors:
            if tensor.numel():
                # Bytes, because not every type of numbers travels on every device.
                sent = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
                self.run(partial(dist.broadcast, sent, 0))
                tensor.detach().copy_(sent.view(tensor.dtype).view(tensor.shape))

    def broadcast_bytes(self, data: bytes) -> bytes:
        """Return the main process's bytes."""
        length = torch.tensor([len(data)], dtype=torch.int64)
        self.run(lambda: dist.broadcast(length, 0))
        sent = torch.empty(int(length), dtype=torch.uint8)
        if self.main and data:
            sent.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        if len(sent):
            self.run(lambda: dist.broadcast(sent, 0))
        return sent.numpy().tobytes()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, by rank; they must have one shape."""
        own = tensor.detach().contiguous()
        found = [torch.empty_like(own) for _ in range(self.size)]
        self.run(lambda: dist.all_gather(found, own))
        return found

    def gather_texts(self, text: str) -> list[str]:
        """Return the texts of all processes, by rank."""
        return [data.decode("utf-8") for data in self.gather_bytes(text.encode("utf-8"))]

    def gather_bytes(self, data: bytes) -> list[bytes]:
        """Return the bytes of all processes, by rank."""
        lengths = [int(length) for length in self.gather(torch.tensor([len(data)]))]
        own = torch.zeros(max(lengths, default=0), dtype=torch.uint8)
        if data:
            own[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        parts = self.gather(own) if len(own) else [own] * self.size
        return [part[:length].numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]

    def run(self, collective: Callable[[], _Result]) -> _Result:
        """Run a collective of torch.distributed; what ends it because of another process becomes a `PeerFailed`."""
        failures = self.failures
        failures.waiting = True
        try:
            return collective()
        except RuntimeError as error:
            raise failures.explained(error) from error
        finally:
            failures.waiting = False


def _store_of(place: Place, timeout: float) -> Any:
    """Return where the processes meet: torchrun's own store, or one that process 0 opens."""
    hosted = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = dist.TCPStore(  # type: ignore[attr-defined]  # public, but not listed
        place.address,
        place.port,
        place.size,
        is_master=place.rank == 0 and not hosted,
        timeout=timedelta(seconds=timeout),
        multi_tenant=not hosted,
    )
    # torchrun's store may outlive the processes: those that it starts again must not meet those that failed.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return dist.PrefixStore(f"oncue/{attempt}", store)  # type: ignore[attr-defined]  # the same


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
