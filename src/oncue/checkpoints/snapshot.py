"""Snapshot: copies of tensors on the CPU, in memory that is used again for the next copies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Snapshot:
    """Copies named tensors so that training may change them at once.

    The memory of the copies belongs to the snapshot and is written over by the next `take`: whoever reads them must be
    done by then. Memory that is there already is also why a second copy is faster than a first one, which waits for the
    system to hand out pages. Tensors of the CPU lie in it one after the other, those of the largest numbers first, so
    that they can be written in one go. Tensors of a GPU are copied into pinned memory, all together, with one wait at the
    end.

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
        self._buffers: dict[str, torch.Tensor] = {}
        self._layout: list[tuple[str, torch.Size, torch.dtype]] = []

    def take(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return copies of tensors, by the same names.

        Args:
            tensors: Tensors on any device.

        Returns:
            Contiguous tensors on the CPU, of the same shapes and types, which share no memory with the tensors; valid
            until the next call.
        """
        import torch

        with torch.no_grad():
            sources = {name: tensor.detach() for name, tensor in tensors.items()}
            self._buffers = self._placed(sources)
            devices = {source.device for source in sources.values() if source.device.type != "cpu"}
            groups: dict[tuple[torch.device, torch.dtype], list[str]] = {}
            for name, source in sources.items():
                groups.setdefault((source.device, source.dtype), []).append(name)
            for names in groups.values():
                torch._foreach_copy_([self._buffers[name] for name in names], [sources[name] for name in names], True)
            for device in devices:
                # The copies out of a device are only begun until now.
                torch.accelerator.synchronize(device)
        return dict(self._buffers)

    def _placed(self, sources: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        import torch

        host = {name: source for name, source in sources.items() if source.device.type == "cpu"}
        layout = [(name, source.shape, source.dtype) for name, source in host.items()]
        placed: dict[str, torch.Tensor] = {}
        if layout == self._layout:
            placed.update((name, self._buffers[name]) for name in host)
        else:
            self._buffers = {name: buffer for name, buffer in self._buffers.items() if name not in host}
            self._layout, end = layout, 0
            block = torch.empty(sum(source.nbytes for source in host.values()), dtype=torch.uint8)
            # Larger numbers first: each then begins at a multiple of its size.
            for name, source in sorted(host.items(), key=lambda pair: -pair[1].element_size()):
                start, end = end, end + source.nbytes
                placed[name] = block[start:end].view(source.dtype).view(source.shape)
        for name, source in sources.items():
            if name not in host:
                placed[name] = self._pinned(name, source)
        return {name: placed[name] for name in sources}

    def _pinned(self, name: str, source: torch.Tensor) -> torch.Tensor:
        import torch

        buffer = self._buffers.get(name)
        if buffer is not None and buffer.shape == source.shape and buffer.dtype == source.dtype:
            return buffer
        return torch.empty(source.shape, dtype=source.dtype, pin_memory=source.device.type == "cuda")
