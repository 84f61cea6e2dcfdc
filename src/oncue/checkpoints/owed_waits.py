"""OwedWaits: what the work of a device still has to wait for before it may change what is being copied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from oncue.checkpoints import device_copies

if TYPE_CHECKING:
    import torch

    from oncue.checkpoints.device_copies import Event, Stream


class OwedWaits:
    """Lets copies out of a device go on beside the next forward and backward pass; the update waits for them.

    That is for tensors that only an update changes. A forward pass may change them, too: a step is looked at after the first
    copies, which are waited for at once, and nothing is put off unless it left them alone.

    Example:
        >>> OwedWaits().put_off()
        frozenset()
    """

    def __init__(self) -> None:
        self._found: Callable[[], Iterable[torch.Tensor]] | None = None
        self._waits: list[tuple[Stream, Event]] = []
        # What a step is looked at for: whether one is to be, what the tensors came to before it, and whether that changed.
        self._wanted = False
        self._before: list[torch.Tensor] = []
        self._looked: list[tuple[list[torch.Tensor], Event]] | None = None
        self._holds: bool | None = None

    def __reduce__(self) -> tuple[type[OwedWaits], tuple[()]]:
        # Neither copies nor files owe anything.
        return OwedWaits, ()

    def begin(self, found: Callable[[], Iterable[torch.Tensor]]) -> None:
        """Begin to put off waits; whoever does sees to `before_step`, `before_update` and `end`.

        Args:
            found: Returns the tensors that only an update changes.
        """
        self._found = found

    def end(self) -> None:
        """Wait for what is owed, and put nothing off any more."""
        self.settle()
        self._found, self._wanted, self._before = None, False, []

    def put_off(self) -> frozenset[int]:
        """Return the addresses of the memory that the work needn't wait for at once; asked when copies begin."""
        if self._found is None:
            return frozenset()
        if self._holds is None:
            self._holds = self._told()
            self._wanted = self._holds is None and self._looked is None
        if not self._holds:
            return frozenset()
        return frozenset(one.untyped_storage().data_ptr() for one in self._found())

    def owe(self, working: Stream, done: Event) -> None:
        """Let a stream wait for a moment, not now, but before the next update."""
        self._waits.append((working, done))

    def settle(self) -> None:
        """Let the work wait, from here on, for all that is owed; the host goes on."""
        while self._waits:
            working, done = self._waits.pop()
            working.wait_event(done)

    def before_step(self) -> None:
        """Take note that a step begins, with its forward pass."""
        if self._wanted:
            self._before = self._sums()

    def before_update(self) -> None:
        """Take note that an update comes next."""
        if self._waits:
            self.settle()
        if self._before:
            self._look()

    def _look(self) -> None:
        # Each answer comes beside the work, and is read when the next copies begin, if it is there by then.
        import torch

        changed = [one != other for one, other in zip(self._before, self._sums(), strict=True)]
        self._wanted, self._before, self._looked = False, [], []
        for device in {one.device for one in changed}:
            copies = device_copies.copies_of(device)
            if copies is not None:
                found = torch.stack([one for one in changed if one.device == device]).any().reshape(1)
                answer, stream = copies.flag(), copies.beside()
                stream.wait_event(copies.working().record_event())
                copies.copy(stream, [answer], [found])
                self._looked.append(([found, answer], stream.record_event()))

    def _told(self) -> bool | None:
        """Return whether the step left the tensors alone; None while that isn't known."""
        if self._looked is None or not all(event.query() for _, event in self._looked):
            return None
        return not any(bool(answer) for (_, answer), _ in self._looked)

    def _sums(self) -> list[torch.Tensor]:
        import torch

        assert self._found is not None
        found = [one.detach() for one in self._found()]
        wide = [one.float() if one.dtype in (torch.float16, torch.bfloat16) else one for one in found]
        return [torch.stack([one.sum(), torch.linalg.vector_norm(one)]) for one in wide if one.is_floating_point()]
