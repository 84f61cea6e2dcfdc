"""Snapshot: copies of tensors on the CPU, in memory that is used again for the next copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from oncue.checkpoints.state_file import TensorBlocks, blocks_of

if TYPE_CHECKING:
    import torch

    Place = tuple[str, torch.Size, torch.dtype, torch.device]


class Snapshot:
    """Copies named tensors so that training may change them at once.

    The memory of the copies belongs to the snapshot and is overwritten by the next `take`, so readers must be done by
    then. Reusing it also makes later copies faster than the first, which waits for the system to allocate pages. CPU
    tensors are packed into it, those with the largest elements first, so that they can be written in one go. GPU tensors
    are copied into pinned memory, all together, with a single synchronization at the end.

    Example:
        >>> import torch
        >>> weight = torch.ones(2)
        >>> snapshot = Snapshot()
        >>> copies = snapshot.take({"weight": weight})
        >>> _ = weight.zero_()
        >>> copies["weight"].tolist()
        [1.0, 1.0]
    """

    def __init__(self) -> None:
        self._copies: dict[str, torch.Tensor] = {}
        # What the copies were arranged for, and of each device and type which copies are made from which tensors.
        self._layout: list[Place] = []
        self._groups: list[tuple[list[torch.Tensor], list[int]]] = []
        self._devices: set[torch.device] = set()
        self._blocks: TensorBlocks | None = None

    def take(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return copies of tensors, by the same names.

        Args:
            tensors: Tensors on any device.

        Returns:
            Contiguous tensors on the CPU, of the same shapes and types, which share no memory with the tensors; valid
            until the next call.
        """
        import torch

        sources = list(tensors.values())
        layout = [(name, tensor.shape, tensor.dtype, tensor.device) for name, tensor in tensors.items()]
        with torch.no_grad():
            if layout != self._layout:
                self._arrange(tensors, layout)
            for copies, places in self._groups:
                torch._foreach_copy_(copies, [sources[place] for place in places], True)
            for device in self._devices:
                # The copies out of a device are only begun until now.
                torch.accelerator.synchronize(device)
        return dict(self._copies)

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

    def _arrange(self, tensors: Mapping[str, torch.Tensor], layout: list[Place]) -> None:
        import torch

        placed: dict[str, torch.Tensor] = {}
        on_host = {name: tensor for name, tensor in tensors.items() if tensor.device.type == "cpu"}
        before, self._layout, self._groups, self._blocks = self._layout, [], [], None
        if [one for one in layout if one[0] in on_host] == [one for one in before if one[3].type == "cpu"]:
            placed.update((name, self._copies[name]) for name in on_host)
        else:
            # The old block goes before the new one comes.
            self._copies = {name: self._copies[name] for name, _, _, device in before if device.type != "cpu"}
            block, end = torch.empty(sum(one.nbytes for one in on_host.values()), dtype=torch.uint8), 0
            # Larger numbers first: each then begins at a multiple of its size.
            for name, one in sorted(on_host.items(), key=_larger_first):
                start, end = end, end + one.nbytes
                placed[name] = block[start:end].view(one.dtype).view(one.shape)
        self._copies = {
            name: placed[name] if name in placed else self._pinned(name, tensor) for name, tensor in tensors.items()
        }
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for place, (_, _, dtype, device) in enumerate(layout):
            groups.setdefault((device, dtype), []).append(place)
        copies = list(self._copies.values())
        self._groups = [([copies[place] for place in places], places) for places in groups.values()]
        self._devices = {device for _, _, _, device in layout if device.type != "cpu"}
        # Last: what was interrupted before is done again by the next call.
        self._layout = layout

    def _pinned(self, name: str, source: torch.Tensor) -> torch.Tensor:
        import torch

        buffer = self._copies.get(name)
        if buffer is not None and buffer.shape == source.shape and buffer.dtype == source.dtype:
            return buffer
        return torch.empty(source.shape, dtype=source.dtype, pin_memory=source.device.type == "cuda")


def _larger_first(pair: tuple[str, torch.Tensor]) -> int:
    return -pair[1].element_size()
