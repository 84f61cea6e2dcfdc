"""Snapshot: copies of tensors on the CPU, in memory that is used again for the next copies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from oncue.checkpoints import device_copies
from oncue.checkpoints.state_file import TensorBlocks, blocks_of
from oncue.core.warn import warn

if TYPE_CHECKING:
    import torch

    from oncue.checkpoints.device_copies import DeviceCopies, Event, Stream
    from oncue.checkpoints.owed_waits import OwedWaits

    Place = tuple[str, torch.Size, torch.dtype, torch.device]

# A state within an epoch has a few more numbers than one at its end: the memory is for both.
_SPARE = 64, 1 << 16


class Snapshot:
    """Copies named tensors so that training may change them at once.

    All copies lie in one block of memory, those with the largest elements first, so that they can be written in one go. The
    block belongs to the snapshot and is overwritten by the next `take`, so readers must be done by then. Using it again also
    makes later copies faster than the first, which waits for the system to allocate pages.

    Tensors of a GPU are copied to page-locked memory, on a stream beside its work: the copies begin after all that it has to
    do, and what it gets to do afterwards waits for them, without the host; where the run says what only an update changes, the
    forward and backward pass before it don't wait.

    Args:
        beside: Whether `take` returns before the copies out of a GPU are done: whoever reads them calls `finish` first,
            which may be on another thread.
        page_locked: The most bytes of page-locked memory; where there are more, ordinary memory is used. None for no limit.
        owed: Takes over the waits for copies of what only an update changes; None to let all work wait that comes afterwards.

    Example:
        >>> import torch
        >>> weight = torch.ones(2)
        >>> snapshot = Snapshot()
        >>> copies = snapshot.take({"weight": weight})
        >>> _ = weight.zero_()
        >>> copies["weight"].tolist()
        [1.0, 1.0]
    """

    def __init__(self, beside: bool = False, page_locked: int | None = None, owed: OwedWaits | None = None) -> None:
        self._beside, self._most, self._owed = beside, page_locked, owed
        self._block: torch.Tensor | None = None
        # Held while the block is allocated, which may be on another thread.
        self._allocating = threading.Lock()
        # Why there is no page-locked memory, until it is said.
        self._refused: str | None = None
        self._said = False
        self._copies: dict[str, torch.Tensor] = {}
        # What the copies were arranged for, and of each device and type which copies are made from which tensors.
        self._layout: list[Place] = []
        self._groups: dict[torch.device, list[tuple[list[torch.Tensor], list[int]]]] = {}
        self._streams: dict[torch.device, Stream] = {}
        # When the copies under way are done, each with the tensors, whose memory nobody else may get before.
        self._under_way: list[tuple[Event, list[torch.Tensor]]] = []
        self._blocks: TensorBlocks | None = None

    def __del__(self) -> None:
        # The device may still write to the block, which goes with this.
        self.finish()

    def reserve(
        self, tensors: Iterable[torch.Tensor], size: Callable[[], int], later: Callable[[Callable[[], object]], None]
    ) -> None:
        """Get page-locked memory, which takes longer than the copies, before they are taken; none where it is of no use.

        Args:
            tensors: Some of the tensors that `take` will get.
            size: Returns about how many bytes it will get.
            later: Calls a function on another thread.
        """
        devices = {one.device for one in tensors if device_copies.copies_of(one.device) is not None}
        if devices:
            most = size()
            later(lambda: self._get_page_locked(most, devices))

    def take(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return copies of tensors, by the same names.

        Args:
            tensors: Tensors on any device.

        Returns:
            Contiguous tensors on the CPU, of the same shapes and types, which share no memory with the tensors; valid
            until the next call.
        """
        import torch

        self.finish()
        sources = list(tensors.values())
        layout = [(name, tensor.shape, tensor.dtype, tensor.device) for name, tensor in tensors.items()]
        with torch.no_grad():
            if layout != self._layout:
                self._arrange(tensors, layout)
            for device, groups in self._groups.items():
                beside = device_copies.copies_of(device)
                if beside is None:
                    for copies, places in groups:
                        torch._foreach_copy_(copies, [sources[place] for place in places], False)
                else:
                    self._begin(device, beside, [(copies, [sources[at] for at in places]) for copies, places in groups])
        if not self._beside:
            self.finish()
        self._say_refused()
        return dict(self._copies)

    def finish(self) -> None:
        """Wait until the copies are done."""
        while self._under_way:
            self._under_way[-1][0].synchronize()
            self._under_way.pop()

    def blocks(self) -> TensorBlocks:
        """Return the copies as they stand in a file.

        Raises:
            ValueError: For a type of numbers that the format doesn't have.

        Example:
            >>> import torch
            >>> snapshot = Snapshot()
            >>> _ = snapshot.take({"weight": torch.ones(2), "bias": torch.ones(1)})
            >>> [len(block) for block in snapshot.blocks().blocks]
            [12]
        """
        if self._blocks is None:
            # The same memory holds every state of a run.
            self._blocks = blocks_of(dict(sorted(self._copies.items(), key=_larger_first)))
        return self._blocks

    def _begin(
        self,
        device: torch.device,
        beside: DeviceCopies,
        groups: list[tuple[list[torch.Tensor], list[torch.Tensor]]],
    ) -> None:
        if device not in self._streams:
            self._streams[device] = beside.beside()
        stream, working = self._streams[device], beside.working()
        put_off = frozenset[int]() if self._owed is None else self._owed.put_off()
        for later in (False, True) if put_off else (False,):
            stream.wait_event(working.record_event())
            taken: list[torch.Tensor] = []
            for copies, sources in groups:
                pairs = [
                    pair
                    for pair in zip(copies, sources, strict=True)
                    if (pair[1].untyped_storage().data_ptr() in put_off) is later
                ]
                if pairs:
                    beside.copy(stream, [copy for copy, _ in pairs], [source for _, source in pairs])
                    taken += [source.detach() for _, source in pairs]
            done = stream.record_event()
            self._under_way.append((done, taken))
            # The next step writes to these very tensors: in its forward pass, or in its update.
            if later and self._owed is not None:
                self._owed.owe(working, done)
            else:
                working.wait_event(done)

    def _arrange(self, tensors: Mapping[str, torch.Tensor], layout: list[Place]) -> None:
        # What is interrupted here is done again by the next call.
        self._layout, self._groups, self._blocks, self._copies = [], {}, None, {}
        placed, end = dict[str, "torch.Tensor"](), 0
        block = self._get(sum(one.nbytes for one in tensors.values()), {one.device for one in tensors.values()})
        # Larger numbers first: each then begins at a multiple of its size.
        for name, one in sorted(tensors.items(), key=_larger_first):
            start, end = end, end + one.nbytes
            placed[name] = block[start:end].view(one.dtype).view(one.shape)
        self._copies = {name: placed[name] for name in tensors}
        places: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for place, (_, _, dtype, device) in enumerate(layout):
            places.setdefault((device, dtype), []).append(place)
        copies = list(self._copies.values())
        for (device, _), found in places.items():
            self._groups.setdefault(device, []).append(([copies[place] for place in found], found))
        self._layout = layout

    def _get(self, size: int, devices: set[torch.device]) -> torch.Tensor:
        import torch

        block = self._get_page_locked(size, devices)
        if block is None:
            block = self._block = torch.empty(size + size // _SPARE[0] + _SPARE[1], dtype=torch.uint8)
        return block

    def _get_page_locked(self, size: int, devices: set[torch.device]) -> torch.Tensor | None:
        """Return the block where it is large enough, or a new one of page-locked memory; None where that can't be."""
        with self._allocating:
            if self._block is not None and len(self._block) >= size:
                return self._block
            # The old block goes before the new one comes.
            self._block = None
            size += size // _SPARE[0] + _SPARE[1]
            beside = next(filter(None, map(device_copies.copies_of, devices)), None)
            if beside is not None and self._refused is None and (self._most is None or size <= self._most):
                try:
                    self._block = beside.page_locked(size)
                except RuntimeError as error:
                    self._refused = f"{size / 1e6:.1f} MB of page-locked memory can't be had ({error})"
            return self._block

    def _say_refused(self) -> None:
        # On the thread that trains, whose line the warning shows.
        if self._refused is not None and not self._said:
            self._said = True
            warn(
                f"{self._refused}, so what is saved is copied to ordinary memory, and training waits about four times as long "
                "for it. Give the process more, or save less often; `page_locked=0` uses ordinary memory without this warning."
            )


def _larger_first(pair: tuple[str, torch.Tensor]) -> int:
    return -pair[1].element_size()
