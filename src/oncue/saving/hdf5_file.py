"""Writing HDF5 files: the library lays the file out, and the numbers go from the tensors' memory into their places."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from oncue.core.files import replacing
from oncue.core.write_behind import WriteBehind
from oncue.saving import guard
from oncue.saving.tree import Stored, Tree

_PAGE = 4096
# Smaller arrays are written by the library, among what describes them.
_LARGE = 4096


def hdf5_pieces(tree: Tree) -> Iterator[memoryview]:
    """Return what an HDF5 file consists of, from its beginning to its end.

    The HDF5 library ends the process with a segmentation fault when it closes a file after a failed write, as on a full
    disk. So it writes to memory, and plain writes of the bytes fail with an error. What would be large in there, the
    arrays, it only gets to know the size of; one is made at a time.

    Args:
        tree: What is in the file.

    Yields:
        Memory that holds until the next piece is asked for, or longer where somebody has a view of it.

    Example:
        >>> import torch
        >>> tree = Tree()
        >>> tree.create_group("layers")["0"] = Stored(torch.ones(100, 200), (1, 0))
        >>> content = b"".join(hdf5_pieces(tree))
        >>> with h5py.File(io.BytesIO(content)) as file:
        ...     file["layers/0"].shape
        (200, 100)
    """
    memory = _Memory()
    places: list[tuple[int, Stored]] = []
    with h5py.File(memory, "w") as content:
        _describe(tree, content, places)
    end = 0
    for start, stored in sorted(places, key=lambda place: place[0]):
        yield memory.piece(end, start)
        array = stored.array()
        yield array.reshape(-1).view("uint8").data
        end = start + array.nbytes
    yield memory.piece(end, memory.size)


def write_hdf5(tree: Tree, path: Path) -> None:
    """Write an HDF5 file, with a checksum behind the HDF5 content; it takes the place of a file, or doesn't at all.

    Args:
        tree: What is in the file.
        path: The file to replace.

    Raises:
        OSError: When it can't be written; the old file is untouched then.
    """
    with replacing(path) as temporary, WriteBehind(temporary) as file:
        for piece in hdf5_pieces(tree):
            file.write(piece)
        file.write(guard.trailer(file.checksum()))


def _describe(tree: Tree, group: Any, places: list[tuple[int, Stored]]) -> None:
    for name, value in tree.attrs.items():
        group.attrs[name] = value
    for name, member in tree.members.items():
        if isinstance(member, Tree):
            _describe(member, group.create_group(name), places)
        elif member.nbytes < _LARGE:
            group.create_dataset(name, data=member.array())
        else:
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            # The place is given out at once, and nothing is put there.
            properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            made = group.create_dataset(name, member.shape, member.dtype, dcpl=properties)
            places.append((made.id.get_offset(), member))


class _Memory:
    """What h5py takes for a file: pages come into being where something is written."""

    def __init__(self) -> None:
        self.size = 0
        self._position = 0
        self._pages: dict[int, bytearray] = {}

    def piece(self, start: int, end: int) -> memoryview:
        """Return the bytes between two places; those that were never written are zeros."""
        found = bytearray(end - start)
        for number in range(start // _PAGE, -(-end // _PAGE)):
            page = self._pages.get(number)
            if page is not None:
                first = number * _PAGE
                low, high = max(start, first), min(end, first + _PAGE)
                found[low - start : high - start] = page[low - first : high - first]
        return memoryview(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self.size, self._position + size)
        found = self.piece(self._position, max(end, self._position))
        self._position += len(found)
        return bytes(found)

    def readinto(self, target: Any) -> int:
        found = self.read(len(target))
        target[: len(found)] = found
        return len(found)

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        start, end = self._position, self._position + len(view)
        for number in range(start // _PAGE, -(-end // _PAGE)):
            page = self._pages.setdefault(number, bytearray(_PAGE))
            first = number * _PAGE
            low, high = max(start, first), min(end, first + _PAGE)
            page[low - first : high - first] = view[low - start : high - start]
        self._position = end
        self.size = max(self.size, end)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self.size = self._position if size is None else size
        return self.size

    def flush(self) -> None:
        pass
