"""Safetensors files, opened by the library of that name, which checks that the header accounts for the whole file."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NoReturn

from safetensors import SafetensorError, safe_open

from oncue.core.bounded_json import check_amount
from oncue.saving.guard.basics import MAX_ENTRIES, MAX_JSON_BYTES, opened, read_json, refuse

_END = re.compile(rb'"data_offsets"\s*:\s*\[\s*\d+\s*,\s*(\d{1,18})\s*\]')
"""Where the bytes of a tensor end, in a header."""


@contextmanager
def opened_tensors(path: Any) -> Iterator[tuple[BinaryIO, Any]]:
    """Open a safetensors file for reading; tensors are read from the disk when they are used.

    The library accepts more than any file of weights has: headers of up to 100 MB, any number of tensors, duplicate names,
    unknown keys. These are refused here.

    Args:
        path: The file.

    Yields:
        The file itself, and the library's view of its tensors.

    Raises:
        ValueError: When sizes, types, names or offsets are not what the format says.
    """
    while True:
        with opened(path) as file:
            header = _header(file, path)
            try:
                view = safe_open(path, framework="pt")
            except (SafetensorError, RuntimeError) as error:
                # torch maps the file by its name once more, and finds another size where another run has replaced it.
                if _replaced(file, path):
                    continue
                if isinstance(error, SafetensorError):
                    _refuse_damaged(file, path, header, error)
                raise
            with view as tensors:
                if _replaced(file, path):
                    continue
                _check_entries(read_json(header, path), path)
                try:
                    yield file, tensors
                except SafetensorError as error:
                    _refuse_damaged(file, path, header, error)
                return


def _replaced(file: BinaryIO, path: Any) -> bool:
    return not os.path.samestat(os.fstat(file.fileno()), os.stat(path))


def _refuse_damaged(file: BinaryIO, path: Any, header: bytes, error: SafetensorError) -> NoReturn:
    # The header may be damaged too, so it isn't parsed.
    needed = 8 + len(header) + max(map(int, _END.findall(header)), default=0)
    refuse(
        path,
        f"it is not a whole safetensors file: its header and tensors need {needed} bytes; the file has {_size(file)}. "
        f"The library says {str(error)[:200]!r}.",
    )


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _header(file: BinaryIO, source: Any) -> bytes:
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    size = _size(file)
    if not 2 <= length <= min(MAX_JSON_BYTES, size - 8):
        refuse(source, f"its header says {length} bytes; it must have 2 to {MAX_JSON_BYTES}, and the file has {size}.")
    header = file.read(length)
    try:
        check_amount(header)
    except ValueError as error:
        refuse(source, f"{error}.")
    if header.count(b'"data_offsets"') > MAX_ENTRIES:
        # Checked before any tensor is created.
        refuse(source, f"it has more than {MAX_ENTRIES} tensors.")
    return header


def _check_entries(entries: dict[str, Any], source: Any) -> None:
    if not isinstance(entries.pop("__metadata__", {}), dict):
        refuse(source, "its metadata must be a dict of strings.")
    for name, entry in entries.items():
        if not name or len(name) > 1024:
            refuse(source, f"it has a tensor named {name[:100]!r}.")
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"} or len(entry["shape"]) > 64:
            refuse(source, f"the tensor {name[:100]!r} has keys that are not known, or too many axes.")
