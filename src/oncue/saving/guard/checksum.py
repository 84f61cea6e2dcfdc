"""A checksum after the content of a file, so that damage is noticed before any of it is read.

HDF5 has a checksum of its own, Fletcher-32, but only for the numbers of arrays stored in chunks, which Keras's aren't, and not
for the metadata.
"""

from __future__ import annotations

import zlib
from typing import Any, BinaryIO

from oncue.saving.guard.basics import MEGABYTE, refuse

_MARK = b"\noncue-crc32:"
_LENGTH = len(_MARK) + 8
CHANGED = (
    "its content is not what was written: it was damaged, or changed by another program. Take an older checkpoint; "
    "`oncue.checkpoints.Checkpoints` finds the newest one that is whole."
)


def trailer(checksum: int) -> bytes:
    r"""Return what is appended to content: a marker, and the CRC-32 of the content in hexadecimal.

    HDF5 knows its own length and reads nothing after it. A program that changes the file cuts the checksum off, which
    leaves a file without one, as Keras writes them.

    Example:
        >>> trailer(0xCBF43926)
        b'\noncue-crc32:cbf43926'
    """
    return _MARK + f"{checksum:08x}".encode("ascii")


def verify(file: BinaryIO, source: Any) -> None:
    """Compare an open file with the checksum at its end, if there is one.

    Args:
        file: The file; it is at its beginning afterwards.
        source: Its path, for messages.

    Raises:
        ValueError: When they differ.
    """
    size = file.seek(0, 2)
    file.seek(max(size - _LENGTH, 0))
    end = file.read(_LENGTH)
    file.seek(0)
    if _MARK not in end:
        return
    if not end.startswith(_MARK):
        refuse(source, CHANGED)
    checksum, left = 0, size - _LENGTH
    while left and (piece := file.read(min(left, MEGABYTE))):
        checksum = zlib.crc32(piece, checksum)
        left -= len(piece)
    file.seek(0)
    if trailer(checksum) != end:
        refuse(source, CHANGED)
