"""HDF5: only hard links, only data in the file itself, and no more of it than is stored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from oncue.saving.guard.basics import MAX_DEPTH, MEGABYTE, refuse
from oncue.saving.guard.checksum import verify

# gzip, shuffle and fletcher32 are built into HDF5; any other filter would be a plugin loaded from a folder.
_FILTERS = {1, 2, 3}
# So much more than a multiple of what is stored may arrays be when they are read: compressed ones, and those of which a part
# was never written.
_LARGE = 192 * MEGABYTE
_EXPANSION = 8
_MOST_ENTRIES, _MOST_ARRAYS = 40_000, 20_000


@contextmanager
def opened_hdf5(file: BinaryIO, source: Any) -> Iterator[h5py.File]:
    """Open HDF5 content for reading; any error of the library about broken content becomes a ValueError.

    A checksum at the end is verified first, because the library may loop forever or crash on damaged content.
    """
    verify(file, source)
    try:
        with h5py.File(file, "r") as content:
            yield content
    except (OSError, RuntimeError, LookupError, TypeError, UnicodeDecodeError) as error:
        if not _from_h5py(error):
            raise
        refuse(source, f"it is not a whole HDF5 file ({type(error).__name__}).")


def _from_h5py(error: BaseException) -> bool:
    step = error.__traceback__
    while step is not None:
        if str(step.tb_frame.f_globals.get("__name__", "")).startswith("h5py"):
            return True
        step = step.tb_next
    return False


def child(group: Any, name: str, source: Any) -> Any:
    """Return the group or data set at a path below a group, or None; every step must be a hard link.

    Args:
        group: Where to start.
        name: Names joined by "/".
        source: The file, for messages.

    Raises:
        ValueError: If a step is a soft, external or user-defined link, or there is a data set in place of a group.
    """
    found = group
    for part in name.split("/"):
        if part in ("", ".", ".."):
            refuse(source, f"it names the path {name[:100]!r}.")
        if not isinstance(found, h5py.Group):
            refuse(source, f"there is a data set where a group should be, on the way to {name[:100]!r}.")
        encoded, links = part.encode("utf-8", "surrogatepass"), found.id.links
        if not links.exists(encoded):
            return None
        if links.get_info(encoded).type != h5py.h5l.TYPE_HARD:
            _refuse_link(name, source)
        found = found[part]
    return found


def _refuse_link(name: str, source: Any) -> NoReturn:
    refuse(source, f"{name[:100]!r} is reached through a link to elsewhere; only what is in the file is read.")


def group_at(group: Any, name: str, source: Any) -> Any:
    """Return the group at a path below a group, or None; see `child`."""
    found = child(group, name, source)
    if found is not None and not isinstance(found, h5py.Group):
        refuse(source, f"{name[:100]!r} is no group.")
    return found


def dataset_at(group: Any, name: str, source: Any) -> Any:
    """Return the data set at a path below a group, or None; its data is in this file, in a supported form.

    Raises:
        ValueError: If it is virtual, external, not numeric, or stored through an unknown filter.
    """
    found = child(group, name, source)
    if found is None:
        return None
    label = name[:100]
    if not isinstance(found, h5py.Dataset):
        refuse(source, f"{label!r} is no data set.")
    properties = found.id.get_create_plist()
    if found.is_virtual or properties.get_external_count() != 0:
        refuse(source, f"{label!r} keeps its numbers in another file.")
    if found.shape is None or (found.dtype.kind not in "fiubc" and found.dtype != np.dtype("V2")):
        refuse(source, f"{label!r} is no array of numbers; its type is {found.dtype}.")
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    if not set(filters) <= _FILTERS:
        refuse(
            source, f"{label!r} is stored through the filters {filters}; only gzip, shuffle and fletcher32 are read."
        )
    size = math.prod(found.shape)
    if found.chunks is not None and math.prod(found.chunks) > 2 * size + MEGABYTE:
        refuse(source, f"{label!r} is stored in chunks larger than itself.")
    stored = found.id.get_storage_size()
    if size * found.dtype.itemsize > _LARGE + _EXPANSION * stored:
        refuse(source, f"{label!r} says to have {size} numbers, of which only {stored} bytes are stored.")
    return found


def count_of_numbers(group: Any, source: Any) -> int:
    """Return how many numbers are stored in all data sets below a group; those that were never written are none.

    Raises:
        ValueError: When they take far more memory than the file.
    """
    numbers = unpacked = kept = 0
    for path in paths_of_arrays(group, source):
        dataset = dataset_at(group, path, source)
        size, width = math.prod(dataset.shape), dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        packed = dataset.id.get_create_plist().get_nfilters() > 0
        numbers += size if packed and stored else min(size, stored // width)
        unpacked, kept = unpacked + size * width, kept + stored
    if unpacked > _LARGE + _EXPANSION * kept:
        refuse(source, f"its arrays say to have {unpacked} bytes, of which only {kept} are stored.")
    return numbers


class Arrays:
    """The data sets of one HDF5 file, or of several that belong together, by their paths.

    Args:
        files: Where to look, each with the file for messages.

    Raises:
        ValueError: For links to elsewhere, more entries than any model has, and a path that is in two files.
    """

    def __init__(self, files: Sequence[tuple[Any, Any]]) -> None:
        self._files: dict[str, tuple[Any, Any]] = {}
        self._groups: dict[str, dict[int, tuple[Any, Any]]] = {}
        for group, source in files:
            for path in paths_of_arrays(group, source):
                if path in self._files:
                    refuse(source, f"{path[:100]!r} is in two files: here and in '{self._files[path][1]}'.")
                self._files[path] = group, source
                self._groups.setdefault(path.rpartition("/")[0], {})[id(group)] = group, source

    @property
    def paths(self) -> list[str]:
        """All paths, sorted."""
        return sorted(self._files)

    def names(self, group: str) -> list[str]:
        """Return the names of all that is in a group which has data sets."""
        return [
            name for above, source in self._groups.get(group, {}).values() for name in group_at(above, group, source)
        ]

    def dataset(self, path: str) -> Any:
        """Return the data set at a path, or None; see `dataset_at`."""
        if path in self._files:
            group, source = self._files[path]
            return dataset_at(group, path, source)
        for group, source in self._groups.get(path.rpartition("/")[0], {}).values():
            if child(group, path, source) is not None:
                refuse(source, f"{path[:100]!r} is no data set.")
        return None


def read_array(dataset: Any) -> NDArray[Any]:
    """Read a data set whose shape has been checked already; bfloat16 becomes float32."""
    array: NDArray[Any] = dataset[()]
    array = np.asarray(array)
    if array.dtype == np.dtype("V2"):
        wide = array.view(np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(array.shape)
    return array


def paths_of_arrays(group: Any, source: Any) -> set[str]:
    """Return the paths of all data sets below a group, without following soft or external links."""
    found: set[str] = set()
    # By the library's own numbers, because objects for groups take ten times as long.
    waiting: list[tuple[str, Any, int]] = [("", group.id, 0)]
    count = 0
    while waiting:
        prefix, here, depth = waiting.pop()
        for encoded in here:
            try:
                name = encoded.decode("utf-8")
            except UnicodeDecodeError:
                refuse(source, "it has a name that isn't text.")
            count += 1
            if count > _MOST_ENTRIES or depth > MAX_DEPTH:
                refuse(source, f"it has more than {_MOST_ENTRIES} entries, or deeper ones than any model.")
            if name in ("", ".", "..") or "/" in name:
                refuse(source, f"it names the path {name[:100]!r}.")
            if here.links.get_info(encoded).type != h5py.h5l.TYPE_HARD:
                _refuse_link(name, source)
            path = f"{prefix}/{name}" if prefix else name
            if h5py.h5o.get_info(here, encoded).type == h5py.h5o.TYPE_GROUP:
                waiting.append((path, h5py.h5g.open(here, encoded), depth + 1))
            else:
                found.add(path)
                if len(found) > _MOST_ARRAYS:
                    refuse(source, f"it has more than {_MOST_ARRAYS} arrays.")
    return found
