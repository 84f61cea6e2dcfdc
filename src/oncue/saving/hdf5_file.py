"""Writing HDF5 files: h5py makes the layout, and the arrays are written directly from the tensors' memory.

h5py alone crashes the process with a segmentation fault if the disk is full, and makes the same layout again at every save.
Here that is done once: a checkpoint of a small network takes 3 ms rather than 7.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from oncue.core.files import replacing
from oncue.core.write_behind import WriteBehind
from oncue.saving import guard
from oncue.saving.tree import Stored, Tree
from oncue.shards import is_sharded

_PAGE = 4096
# Smaller arrays are written by the library, among what describes them.
_LARGE = 4096
# A run saves its best model, its last and its weights alone.
_MOST_FORMS = 4


def hdf5_pieces(tree: Tree) -> Iterator[memoryview]:
    """Return the content of an HDF5 file in pieces, from beginning to end.

    The library crashes the process with a segmentation fault when it closes a file after a failed write, as on a full
    disk. So it writes to memory, and the bytes are written to the file without it, which fails with a plain error. It only
    reserves space for the arrays; these are made one at a time. The layout is made once for files of the same structure,
    such as a run's checkpoints, since that takes longer than a flush to the disk.

    Args:
        tree: What is in the file.

    Yields:
        Memory that is valid until the next piece is requested, or as long as there is a view of it.

    Example:
        >>> import torch
        >>> tree = Tree()
        >>> tree.create_group("layers")["0"] = Stored(torch.ones(100, 200), (1, 0))
        >>> content = b"".join(hdf5_pieces(tree))
        >>> with h5py.File(io.BytesIO(content)) as file:
        ...     file["layers/0"].shape
        (200, 100)
    """
    arrays: list[Stored] = []
    form = _form(tree, arrays)
    # Files are written on a background thread too.
    with _lock:
        layout = _known.pop(form, None)
    if layout is None:
        layout = _laid_out(tree)
    with _lock:
        _known[form] = layout
        while len(_known) > _MOST_FORMS:
            del _known[next(iter(_known))]
    for gap, place in zip(layout.gaps, layout.order, strict=False):
        yield memoryview(gap)
        yield arrays[place].array().reshape(-1).view("uint8").data
    yield memoryview(layout.gaps[-1])


def follow(tree: Tree) -> None:
    """Bring this process's parts of what the main process writes.

    Args:
        tree: What is in the file.
    """
    for _ in hdf5_pieces(tree):
        pass


def write_hdf5(tree: Tree, path: Path, after: bytes = b"") -> None:
    """Write an HDF5 file, followed by a checksum; an existing file is replaced completely or not at all.

    Args:
        tree: What is in the file.
        path: The file to replace.
        after: Bytes between the content and the checksum, which HDF5 doesn't read.

    Raises:
        OSError: When it can't be written; the old file is untouched then.
    """
    write_pieces(hdf5_pieces(tree), path, after)


def write_pieces(pieces: Iterable[memoryview], path: Path, after: bytes = b"") -> None:
    """Write the content of an HDF5 file, followed by a checksum, as `write_hdf5` does.

    Args:
        pieces: The content.
        path: The file to replace.
        after: Bytes between the content and the checksum, which HDF5 doesn't read.

    Raises:
        OSError: When it can't be written; the old file is untouched then.
    """
    with replacing(path) as temporary, WriteBehind(temporary) as file:
        for piece in pieces:
            file.write(piece)
        if after:
            file.write(after)
        file.write(guard.trailer(file.checksum()))


class _Layout(NamedTuple):
    """The layout of a file: its bytes before, between and after the arrays, and the order of the arrays."""

    order: list[int]
    gaps: list[bytes]


_known: dict[Any, _Layout] = {}
_lock = threading.Lock()


def _form(tree: Tree, arrays: list[Stored]) -> Any:
    """Return everything that the layout of a file depends on, and collect its arrays in a list, in the same order."""
    members = []
    for name, member in tree.members.items():
        if isinstance(member, Tree):
            members.append((name, _form(member, arrays)))
        else:
            arrays.append(member)
            members.append((name, (member.shape, member.dtype.str)))
    return tuple([(name, _of_attribute(value)) for name, value in tree.attrs.items()]), tuple(members)


def _of_attribute(value: Any) -> Any:
    if isinstance(value, (str, bytes)):
        return type(value), value
    array = np.asarray(value)
    return type(value), array.dtype.str, array.shape, repr(array.tolist())


def _laid_out(tree: Tree) -> _Layout:
    memory = _Memory()
    places: list[tuple[int, int]] = []
    with h5py.File(memory, "w") as content:
        _describe(tree, content, places)
    order = sorted((place for place, (_, size) in enumerate(places) if size), key=lambda place: places[place][0])
    gaps, end = [], 0
    for place in order:
        start, size = places[place]
        gaps.append(bytes(memory.piece(end, start)))
        end = start + size
    return _Layout(order, [*gaps, bytes(memory.piece(end, memory.size))])


def _describe(tree: Tree, group: Any, places: list[tuple[int, int]]) -> None:
    for name, value in tree.attrs.items():
        group.attrs[name] = value
    for name, member in tree.members.items():
        if isinstance(member, Tree):
            _describe(member, group.create_group(name), places)
        elif member.nbytes < _LARGE:
            # One of which processes have parts gets its numbers with the larger ones, in the order of the file.
            data = np.zeros(member.shape, member.dtype) if is_sharded(member.tensor) else member.array()
            made = group.create_dataset(name, data=data)
            places.append((_place_of(made, member), member.nbytes))
        else:
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            # The place is given out at once, and nothing is put there.
            properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            made = group.create_dataset(name, member.shape, member.dtype, dcpl=properties)
            places.append((_place_of(made, member), member.nbytes))


def _place_of(made: Any, member: Stored) -> int:
    place = made.id.get_offset()
    if place is None and member.nbytes:
        raise RuntimeError(f"The HDF5 library reserved no space for {made.name!r}.")
    return place or 0


class _Memory:
    """A file in memory for h5py; pages are allocated where something is written."""

    def __init__(self) -> None:
        self.size = 0
        self._position = 0
        self._pages: dict[int, bytearray] = {}

    def piece(self, start: int, end: int) -> memoryview:
        """Return the bytes between two positions; bytes that were never written are zeros."""
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
