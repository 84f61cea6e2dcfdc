"""Group: the processes of a run, over torch.distributed."""

from __future__ import annotations

import atexit
import json
import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from oncue.core.ranks import ASKED, Ranks
from oncue.distribution.failures import ALL_MUST_COME, Failures
from oncue.distribution.launched import Place
from oncue.distribution.meeting import Meeting, common_store

DEFAULT_TIMEOUT = 600.0
"""Seconds after which processes that wait for another end with an error, unless that one is reading data."""
_FOREVER = timedelta(days=10)
_ROOM = 20
"""How many numbers `sum_numbers` takes; always as many are sent."""
_MARKS = 1 << 20
"""Below which marks are, so that sums of their squares are exact."""


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

    def __init__(
        self, failures: Failures, controls: dist.ProcessGroup, place: Place | None = None, number: int = 0
    ) -> None:
        super().__init__()
        self._place, self._number = place, number
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.failures, self._controls = failures, controls
        self._seen: set[str] = set()
        # What was done since the last answer that came a step late.
        self._done: set[str] = set()

    @classmethod
    def join(cls, place: Place | None, timeout: float = DEFAULT_TIMEOUT, number: int = 0) -> Group:
        """Meet the other processes, or take the group that the script has made with torch.distributed itself.

        Args:
            place: Which of them this one is; None for the script's own group.
            timeout: Seconds after which processes that wait for another give up.
            number: How often this process has joined others before.

        Raises:
            TimeoutError: When some of the processes don't come.
            RuntimeError: When they don't fit together.
        """
        meeting = None
        if dist.is_initialized():
            place = None
            store, rank, size = common_store(timeout), dist.get_rank(), dist.get_world_size()
            failures = Failures(store, rank, size, timeout, serves=rank == 0)
        else:
            assert place is not None
            meeting = Meeting(place, timeout, number)
            failures = Failures(meeting.for_failures, place.rank, place.size, timeout, meeting.serves)
            if torch.cuda.is_available():
                torch.cuda.set_device(place.local_rank % torch.cuda.device_count())

        def make() -> dist.ProcessGroup:
            patience = timedelta(seconds=timeout)
            if meeting is not None and place is not None:
                dist.init_process_group(
                    store=meeting.for_group, rank=place.rank, world_size=place.size, timeout=patience
                )
            controls: dist.ProcessGroup = dist.new_group(timeout=patience, backend="gloo")
            world = dist.group.WORLD
            assert world is not None
            for made in (controls,) if place is None else (world, controls):
                # The other processes are watched, which know what they wait for: one may read data for an hour.
                made.set_timeout(_FOREVER)
            return controls

        failures.watch()
        try:
            group = cls(failures, failures.make(make, "the start"), place, number)
            group.together("the start")
        except BaseException as error:
            failures.failed(error)
            failures.leave()
            raise
        atexit.register(group.leave)
        return group

    def joined_again(self) -> Group:
        """Meet the other processes again, after a run that has ended because of one of them.

        Raises:
            PeerFailed: When they can't come, or the run isn't over yet.
            RuntimeError: When the script has made the group itself.
        """
        failures = self.failures
        if failures.is_final:
            raise failures.ended()
        if self._place is None and self.size > 1:
            raise RuntimeError(
                f"The group of processes that this script has made can't be used any more: {failures.reason}. Start the script "
                "again, or leave it to `fit` to make the group."
            )
        atexit.unregister(self.leave)
        failures.stop()
        self._let_go()
        try:
            return Group.join(self._place, failures.timeout, self._number + 1)
        except TimeoutError as error:
            raise failures.ended() from error

    def leave(self) -> None:
        """Leave the others at the end of the process."""
        if self.failures.leave():
            self._let_go()

    def _let_go(self) -> None:
        if self.failures.reason is not None:
            # A collective that never ends would keep the group from being taken down, and the process from ending. A thread
            # that only waits, and so is never taken down itself, keeps the group.
            threading.Thread(target=_keep, args=(dist.group.WORLD, self), daemon=True).start()
        if self._place is not None and dist.is_initialized():
            # Its threads must not outlive the interpreter.
            dist.destroy_process_group()

    # What callbacks see ------------------------------------------------------------------------------------------

    def agree(self, flag: bool) -> bool:
        """Return whether any process says so."""
        return bool(self.sum_numbers([float(bool(flag))], "`ranks.agree`")[0])

    def broadcast(self, value: Any) -> Any:
        """Return what the main process says."""
        text = json.dumps(value).encode("utf-8") if self.main else b""
        return json.loads(self.broadcast_bytes(text, "`ranks.broadcast`").decode("utf-8"))

    def largest(self, number: float) -> float:
        """Return the largest of all processes' numbers."""
        return max(map(float, self.gather(torch.tensor(number, dtype=torch.float64), "the largest number")))

    def total(self, number: float) -> float:
        """Return the sum of all processes' numbers."""
        return self.sum_numbers([number], "the sum of numbers")[0]

    def asked(self, what: str) -> bool:
        """Return whether any process had asked for something when the last step was done."""
        return what in self._seen

    def failed(self, error: BaseException) -> None:
        """Tell the other processes that this one fails."""
        self.failures.failed(error)

    def tell(self, what: str) -> None:
        """Tell the other processes that something is done; see `Ranks`."""
        self.failures.count(f"done {what}", 1)

    def wait_until_told(self, what: str, count: int) -> None:
        """Wait until so many processes have told that something is done; see `Ranks`.

        Raises:
            PeerFailed: When a process fails meanwhile.
        """
        self.failures.wait(f"done {what}", count)

    def settled(self, what: str) -> None:
        """Take note that what was asked for is done."""
        self._asked.discard(what)
        self._seen.discard(what)
        self._done.add(what)

    # What is asked rides along with other numbers ------------------------------------------------------------------

    def questions(self) -> list[float]:
        """Return what this process asks of all, as numbers to be summed over the processes and given to `answer`."""
        return [float(what in self._asked) for what in ASKED]

    def answer(self, sums: Sequence[float], late: bool = False) -> None:
        """Take the sums of what all processes have asked.

        Args:
            sums: The sums.
            late: Whether they are those of the step before: what has been done since was still asked in them.
        """
        self._seen = {what for what, number in zip(ASKED, sums, strict=True) if number}
        if late:
            self._seen -= self._done
            self._done.clear()

    # Numbers, tensors and bytes --------------------------------------------------------------------------------------

    def together(self, what: str) -> None:
        """Make sure that all processes have come to the same place.

        Args:
            what: What they are about to do.

        Raises:
            RanksDiverged: When they are about to do different things.
        """
        self.sum_numbers([], what)

    def diverged(self, text: str) -> RuntimeError:
        """Return the error of processes that differ, which all of them have found out at the same place.

        Args:
            text: What differs.
        """
        return self.failures.diverged(text)

    def sum_(self, tensor: Tensor, what: str = "a step") -> Tensor:
        """Sum a tensor over the processes in place, and return it; equal everywhere to the last bit.

        Outside a step, and where its size isn't certain to be the same, call `together` before.
        """
        self.failures.run(lambda: dist.all_reduce(tensor, async_op=True), what, not _on_host(tensor))
        return tensor

    def begin_sum(self, tensor: Tensor, what: str = "a step") -> Callable[[], None]:
        """Begin to sum a tensor over the processes in place, as `sum_` does, and return what waits until that is done.

        The tensor is left alone meanwhile. All processes begin their sums in the same order.
        """
        on_device = not _on_host(tensor)
        work = self.failures.begin(lambda: dist.all_reduce(tensor, async_op=True), what)
        return lambda: self.failures.finish(work, what, on_device)

    def sum_numbers(self, numbers: Sequence[float], what: str = "numbers to be summed") -> list[float]:
        """Return the sums of numbers over the processes; not too many.

        Args:
            numbers: The numbers of this process.
            what: What they are for.

        Raises:
            RanksDiverged: When another process sums something else.
        """
        return self._summed(numbers, what, "")

    def sum_compared(self, numbers: Sequence[float], texts: Sequence[str], what: str) -> tuple[list[float], bool]:
        """Return the sums of numbers over the processes, and whether texts are the same on all of them, in one message.

        Args:
            numbers: The numbers of this process.
            texts: What is to be the same; not too many.
            what: What it is for.

        Raises:
            RanksDiverged: When another process sums something else.
        """
        marks = [_mark_of(text) for text in texts]
        sums = self._summed([*numbers, *marks, *(mark * mark for mark in marks)], what, "")
        totals, squares = sums[len(numbers) : len(numbers) + len(marks)], sums[len(numbers) + len(marks) :]
        return sums[: len(numbers)], self._are_same(totals, squares)

    def _are_same(self, totals: Sequence[float], squares: Sequence[float]) -> bool:
        # Where all are equal, the mean of their squares is the square of their mean.
        return all(square * self.size == total * total for total, square in zip(totals, squares, strict=True))

    def _summed(self, numbers: Sequence[float], what: str, form: str) -> list[float]:
        # A mark of what all do travels along: messages of different lengths would end the process.
        mark = _mark_of(f"{what} {len(numbers)} {form}")
        sent = torch.tensor([mark, mark * mark, *numbers, *[0.0] * (_ROOM - len(numbers))], dtype=torch.float64)
        self.failures.run(lambda: dist.all_reduce(sent, group=self._controls, async_op=True), what)
        total, squares, *sums = sent.tolist()
        if not self._are_same([total], [squares]):
            self._differ(what, form)
        return sums[: len(numbers)]

    def _differ(self, what: str, form: str) -> None:
        found = self.gather_texts(what, checked=False)
        if len(set(found)) == 1:
            found = self.gather_texts(f"{what} with {form}", checked=False)
        other = next(rank for rank, one in enumerate(found) if one != found[0])
        raise self.diverged(
            f"The processes of this run don't do the same: process 0 has come to {found[0]}, process "
            f"{other} to {found[other]}. {ALL_MUST_COME}"
        )

    def broadcast_(self, tensors: Iterable[Tensor], what: str = "tensors") -> None:
        """Give the main process's values to the tensors of all, in place."""
        listed = [tensor for tensor in tensors if tensor.numel()]
        self._summed([], what, f"{[(str(one.dtype), list(one.shape)) for one in listed]}")
        for tensor in listed:
            # Bytes, because not every type of numbers travels on every device.
            sent = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            # The script's own group may be for a device alone.
            group = self._controls if _on_host(sent) else None
            self.failures.run(partial(dist.broadcast, sent, 0, group=group, async_op=True), what, group is None)
            tensor.detach().copy_(sent.view(tensor.dtype).view(tensor.shape))

    def broadcast_bytes(self, data: bytes, what: str = "bytes") -> bytes:
        """Return the main process's bytes."""
        (length,) = self.sum_numbers([float(len(data)) if self.main else 0.0], what)
        sent = torch.empty(int(length), dtype=torch.uint8)
        if self.main and data:
            sent.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        if len(sent):
            self.failures.run(lambda: dist.broadcast(sent, 0, group=self._controls, async_op=True), what)
        return sent.numpy().tobytes()

    def gather(self, tensor: Tensor, what: str = "tensors") -> list[Tensor]:
        """Return the tensors of all processes, by rank; they must have one shape."""
        self._summed([], what, f"{tensor.dtype} {list(tensor.shape)}")
        return self._gather(tensor, what)

    def _gather(self, tensor: Tensor, what: str) -> list[Tensor]:
        own = tensor.detach().contiguous()
        found = [torch.empty_like(own) for _ in range(self.size)]
        group = self._controls if _on_host(own) else None
        self.failures.run(lambda: dist.all_gather(found, own, group=group, async_op=True), what, group is None)
        return found

    def gather_texts(self, text: str, what: str = "texts", checked: bool = True) -> list[str]:
        """Return the texts of all processes, by rank."""
        return [data.decode("utf-8") for data in self.gather_bytes(text.encode("utf-8"), what, checked)]

    def gather_bytes(self, data: bytes, what: str = "bytes", checked: bool = True) -> list[bytes]:
        """Return the bytes of all processes, by rank."""
        if checked:
            self.together(what)
        lengths = [int(length) for length in self._gather(torch.tensor([len(data)]), what)]
        own = torch.zeros(max(lengths, default=0), dtype=torch.uint8)
        if data:
            own[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        parts = self._gather(own, what) if len(own) else [own] * self.size
        return [part[:length].numpy().tobytes() for part, length in zip(parts, lengths, strict=True)]

    def wait(self, wait: Callable[[], None], what: str = "a step") -> None:
        """Wait for a device that is done when all processes have come so far."""
        self.failures.read(wait, what)

    def read(self, tensor: Tensor, what: str = "a step") -> list[float]:
        """Return the values of a tensor that was summed; on a device this is where the process waits for others."""
        found: list[float] = tensor.tolist() if _on_host(tensor) else self.failures.read(tensor.tolist, what)
        return found


def _mark_of(text: str) -> float:
    """Return a whole number that stands for a text."""
    return float(zlib.crc32(text.encode()) % _MARKS)


def _on_host(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _keep(*_: Any) -> None:
    threading.Event().wait()
