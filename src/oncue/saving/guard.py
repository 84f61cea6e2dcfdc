"""What is believed of a model file, and no more: every entry point reads through these functions.

A file is data. It names no class to import, holds no pickle, points to no other file, and is never larger in memory than
on disk allows. Whatever is found otherwise raises a ValueError that names the file and the rule.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

_MEGABYTE = 1 << 20
MAX_JSON_BYTES = 32 * _MEGABYTE
MAX_DEPTH = 200
MAX_ENTRIES = 200_000
MEMBERS = {"metadata.json": _MEGABYTE, "config.json": MAX_JSON_BYTES, "model.weights.h5": None}
_SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2}
_SIZES |= {"U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8}
# gzip, shuffle and fletcher32 are compiled into HDF5; any other filter would be a plug-in loaded from a folder.
_FILTERS = {1, 2, 3}


class MissingFileError(FileNotFoundError, ValueError):
    """The file is not there. Keras raises either class, depending on the format."""


def refuse(source: Any, rule: str) -> NoReturn:
    """Raise the error for a file that breaks a rule.

    Args:
        source: The file.
        rule: What is wrong, and what was expected.

    Raises:
        ValueError: Always.

    Example:
        >>> refuse("a.keras", "it is empty.")
        Traceback (most recent call last):
        ...
        ValueError: 'a.keras' was not loaded: it is empty.
    """
    raise ValueError(f"{str(source)!r} was not loaded: {rule}")


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file for reading; a pipe or a device would block or never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no file {os.fspath(path)!r}.") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            refuse(path, "it is not a regular file.")
        yield file


# JSON ------------------------------------------------------------------------------------------------------------


def read_json(content: bytes | str, source: Any) -> dict[str, Any]:
    """Parse a JSON object of bounded size and depth, without duplicate keys.

    Args:
        content: The text.
        source: The file, for messages.

    Returns:
        The object.

    Raises:
        ValueError: When it is something else.

    Example:
        >>> read_json('{"a": [1]}', "file")
        {'a': [1]}
    """
    if len(content) > MAX_JSON_BYTES:
        refuse(source, f"its JSON has {len(content)} bytes, more than {MAX_JSON_BYTES}.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key comes twice")
        return found

    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        refuse(source, f"its JSON is not valid ({type(error).__name__}).")
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            refuse(source, f"its JSON is nested more than {MAX_DEPTH} deep.")
        level = [
            part
            for item in level
            if isinstance(item, (dict, list))
            for part in (item.values() if isinstance(item, dict) else item)
        ]
    if not isinstance(value, dict):
        refuse(source, f"its JSON must be an object, not a {type(value).__name__}.")
    return value


# Zip -------------------------------------------------------------------------------------------------------------


def read_archive(file: BinaryIO, source: Any) -> dict[str, bytes]:
    """Read the three members of a `.keras` archive, each once and each bounded by the bytes that really come.

    Args:
        file: The archive.
        source: Its path, for messages.

    Returns:
        The contents by name.

    Raises:
        ValueError: When members are missing, more, twice, linked, encrypted, or unpack to more than they may.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if sorted(names) != sorted(MEMBERS):
                known = ", ".join(MEMBERS)
                more = sorted(set(names) - set(MEMBERS))
                if any(name.startswith("assets/") for name in more):
                    refuse(source, "it has assets, which only layers have that oncue doesn't make.")
                refuse(source, f"a .keras archive has the members {known}, each once; this one has {names[:8]}.")
            if min(member.header_offset for member in members) != 0:
                refuse(source, "there is something before the archive.")
            return {member.filename: _read_member(archive, member, source) for member in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        refuse(source, f"it is not a whole .keras archive ({type(error).__name__}).")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: Any) -> bytes:
    name = member.filename
    if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
        refuse(source, f"its member {name!r} is a link or encrypted.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        refuse(source, f"its member {name!r} is compressed in a way that Keras doesn't use.")
    # Keras stores without compression. A repacked archive is fine, a bomb is not.
    limit = MEMBERS[name] or max(256 * _MEGABYTE, 100 * member.compress_size)
    if member.compress_type == zipfile.ZIP_STORED:
        limit = min(limit, member.compress_size) if MEMBERS[name] else member.compress_size
    parts, size = [], 0
    with archive.open(member) as stream:
        while part := stream.read(_MEGABYTE):
            size += len(part)
            if size > limit:
                refuse(source, f"its member {name!r} unpacks to more than {limit} bytes.")
            parts.append(part)
    return b"".join(parts)


# HDF5 ------------------------------------------------------------------------------------------------------------


@contextmanager
def opened_hdf5(file: BinaryIO, source: Any) -> Iterator[h5py.File]:
    """Open HDF5 content for reading; whatever the library says about broken content becomes a ValueError."""
    try:
        with h5py.File(file, "r") as content:
            yield content
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        refuse(source, f"it is not a whole HDF5 file ({type(error).__name__}).")


def child(group: Any, name: str, source: Any) -> Any:
    """Return the group or data set at a path below a group, or None; every step must be a hard link.

    Args:
        group: Where to start.
        name: Names joined by "/".
        source: The file, for messages.

    Raises:
        ValueError: When a step is a soft, external or user-defined link, or a data set has a group's place.
    """
    found = group
    for part in name.split("/"):
        if part in ("", ".", ".."):
            refuse(source, f"it names the path {name[:100]!r}.")
        if not isinstance(found, h5py.Group):
            refuse(source, f"there is a data set where a group should be, on the way to {name[:100]!r}.")
        if found.get(part, getlink=True, default=None) is None:
            return None
        if found.get(part, getlink=True, getclass=True) is not h5py.HardLink:
            refuse(
                source, f"{name[:100]!r} is reached through a link to elsewhere; only what lies in the file is read."
            )
        found = found[part]
    return found


def group_at(group: Any, name: str, source: Any) -> Any:
    """Return the group at a path below a group, or None; see `child`."""
    found = child(group, name, source)
    if found is not None and not isinstance(found, h5py.Group):
        refuse(source, f"{name[:100]!r} is no group.")
    return found


def dataset_at(group: Any, name: str, source: Any) -> Any:
    """Return the data set at a path below a group, or None; its numbers lie in this file, in a form that is read.

    Raises:
        ValueError: When it is virtual, external, no array of numbers, or stored through an unknown filter.
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
    if found.shape is None or (found.dtype.kind not in "fiub" and found.dtype != np.dtype("V2")):
        refuse(source, f"{label!r} is no array of numbers; its type is {found.dtype}.")
    filters = [properties.get_filter(index)[0] for index in range(properties.get_nfilters())]
    if not set(filters) <= _FILTERS:
        refuse(
            source, f"{label!r} is stored through the filters {filters}; only gzip, shuffle and fletcher32 are read."
        )
    size = int(np.prod(found.shape, dtype=object))
    if found.chunks is not None and int(np.prod(found.chunks, dtype=object)) > 2 * size + _MEGABYTE:
        refuse(source, f"{label!r} is stored in chunks larger than itself.")
    return found


def read_array(dataset: Any) -> NDArray[Any]:
    """Read a data set whose shape was compared with what it is for; bfloat16 comes as float32."""
    array: NDArray[Any] = dataset[()]
    array = np.asarray(array)
    if array.dtype == np.dtype("V2"):
        wide = array.view(np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(array.shape)
    return array


def paths_of_arrays(group: Any, source: Any) -> set[str]:
    """Return the paths of all data sets below a group, without following any link to elsewhere."""
    found: set[str] = set()
    waiting: list[tuple[str, Any, int]] = [("", group, 0)]
    count = 0
    while waiting:
        prefix, here, depth = waiting.pop()
        for name in here:
            count += 1
            if count > MAX_ENTRIES or depth > MAX_DEPTH:
                refuse(source, "it has more entries, or deeper ones, than any model.")
            below = child(here, name, source)
            path = f"{prefix}/{name}" if prefix else name
            if isinstance(below, h5py.Group):
                waiting.append((path, below, depth + 1))
            else:
                found.add(path)
    return found


# safetensors -----------------------------------------------------------------------------------------------------


def read_header(file: BinaryIO, source: Any) -> tuple[dict[str, dict[str, Any]], dict[str, str], int]:
    """Read and check the header of a safetensors file before any number is read.

    Args:
        file: The file.
        source: Its path, for messages.

    Returns:
        The entries (dtype, shape, data_offsets) by name, the metadata, and where the numbers begin.

    Raises:
        ValueError: When sizes, types, names or offsets are not what the format says.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MAX_JSON_BYTES, size - 8):
        refuse(source, f"its header says {length} bytes; the file has {size}.")
    entries = read_json(file.read(length), source)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        refuse(source, "its metadata must be a dict of strings.")
    if len(entries) > MAX_ENTRIES:
        refuse(source, f"it has {len(entries)} tensors, more than {MAX_ENTRIES}.")
    spans = [(*_span(name, entry, source), name) for name, entry in entries.items()]
    end = 0
    for first, last, name in sorted(spans):
        if first != end:
            refuse(source, f"its tensors overlap or leave gaps, at {name[:100]!r}.")
        end = last
    if 8 + length + end != size:
        refuse(source, f"its tensors need {8 + length + end} bytes; the file has {size}.")
    return entries, metadata, 8 + length


def _span(name: str, entry: Any, source: Any) -> tuple[int, int]:
    label = name[:100]
    if not name or len(name) > 1024 or not isinstance(entry, dict):
        refuse(source, f"it has a tensor named {label!r} that is none.")
    if set(entry) != {"dtype", "shape", "data_offsets"} or entry["dtype"] not in _SIZES:
        refuse(source, f"the tensor {label!r} has a type or keys that are not known.")
    shape, span = entry["shape"], entry["data_offsets"]
    for numbers in (shape, span):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
            refuse(source, f"the tensor {label!r} has a shape or offsets that are not whole numbers.")
    if len(shape) > 64 or len(span) != 2:
        refuse(source, f"the tensor {label!r} has too many axes or offsets.")
    if int(np.prod(shape, dtype=object)) * _SIZES[entry["dtype"]] != span[1] - span[0]:
        refuse(source, f"the tensor {label!r} of shape {shape} does not fill its bytes.")
    return span[0], span[1]
