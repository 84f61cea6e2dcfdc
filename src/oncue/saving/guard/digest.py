"""A digest behind the content of a file: what was damaged since it was written is noticed before any of it is read."""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO

from oncue.saving.guard.basics import MEGABYTE, refuse

_MARK = b"\noncue-sha256:"
_LENGTH = len(_MARK) + 64
CHANGED = (
    "its content is not what was written: it was damaged, or changed by another program. Take an older checkpoint; "
    "`oncue.checkpoints.Checkpoints` finds the newest one that is whole."
)


def trailer(content: Any) -> bytes:
    """Return what is put behind content: a mark, and the SHA-256 digest of the content in hexadecimal.

    HDF5 knows its own length and reads nothing behind it. A program that changes the file cuts the digest off, and the
    file is one without a digest, as Keras writes them.

    Example:
        >>> len(trailer(b"content"))
        78
    """
    return _MARK + hashlib.sha256(content).hexdigest().encode("ascii")


def verify(file: BinaryIO, source: Any) -> None:
    """Compare an open file with the digest at its end, if there is one.

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
    digest, left = hashlib.sha256(), size - _LENGTH
    while left and (piece := file.read(min(left, MEGABYTE))):
        digest.update(piece)
        left -= len(piece)
    file.seek(0)
    if digest.hexdigest().encode("ascii") != end[len(_MARK) :]:
        refuse(source, CHANGED)
