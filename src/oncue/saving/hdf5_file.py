"""Writing HDF5 files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from oncue.core.files import replacing
from oncue.saving import guard


@contextmanager
def hdf5_in_memory(buffer: io.BytesIO) -> Iterator[Any]:
    """Give an HDF5 file to be written inside the `with` block; its bytes go into a buffer.

    Behind the HDF5 content lies a digest of it, which `guard.opened_hdf5` compares.

    The HDF5 library ends the process with a segmentation fault when it closes a file after a failed write, as on a full
    disk. In memory its writes don't fail, and plain writes of the bytes fail with an error.

    Args:
        buffer: Where the bytes go.

    Example:
        >>> buffer = io.BytesIO()
        >>> with hdf5_in_memory(buffer) as content:
        ...     content["x"] = [1, 2]
        >>> buffer.getvalue()[1:4]
        b'HDF'
    """
    with h5py.File(buffer, "w") as content:
        yield content
    buffer.seek(0, io.SEEK_END)
    buffer.write(guard.trailer(buffer.getbuffer()))


@contextmanager
def hdf5_replacing(path: Path) -> Iterator[Any]:
    """Give an HDF5 file to be written inside the `with` block; then it takes the place of a file, or doesn't at all.

    Args:
        path: The file to replace.

    Raises:
        OSError: When it can't be written; the old file is untouched then.
    """
    buffer = io.BytesIO()
    with hdf5_in_memory(buffer) as content:
        yield content
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
