"""Arrays out of the files of data sets, also those that were pickled, of which nothing but arrays is made."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
import zlib
from typing import Any

import numpy as np

from oncue.datasets.origin import Array

_MOST = 512 << 20
"""No file unpacks to more bytes: the largest has 160 million."""

_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, AttributeError, IndexError, KeyError, TypeError,
    NotImplementedError, RuntimeError, ValueError, OSError, pickle.UnpicklingError,
)  # fmt: skip


class _Arrays(pickle.Unpickler):
    """Reads lists, dicts and arrays; nothing else is looked up."""

    _KNOWN = frozenset(
        {
            ("_codecs", "encode"),
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            *(
                (f"{package}.multiarray", name)
                for package in ("numpy.core", "numpy._core")
                for name in ("_reconstruct", "scalar")
            ),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        """Return one of the few functions that arrays are made by."""
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it holds a `{module}.{name}`, which is no array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def unpickled(data: bytes, path: str) -> Any:
    """Return what was pickled, if it is made of arrays, lists, dicts, numbers and text.

    Args:
        data: The bytes.
        path: The file's path, for the error.

    Raises:
        ValueError: For anything else.

    Example:
        >>> unpickled(pickle.dumps({"labels": [1, 2]}), "labels.pkl")
        {'labels': [1, 2]}
    """
    try:
        return _Arrays(io.BytesIO(data), encoding="bytes").load()
    except _BROKEN as error:
        raise broken(path, error) from error


def read_npz(path: str, *names: str) -> list[Array]:
    """Return arrays of a .npz file, also arrays of lists.

    Args:
        path: The file.
        *names: The names of the arrays.

    Raises:
        ValueError: For a file that isn't valid.
    """
    found: list[Array] = []
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > _MOST:
                raise ValueError(f"it unpacks to more than {_MOST} bytes")
            for name in names:
                found.append(_member(io.BytesIO(archive.read(f"{name}.npy")), path))
    except _BROKEN as error:
        raise broken(path, error) from error
    return found


def _member(file: io.BytesIO, path: str) -> Array:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(file)
    if kind.hasobject:
        array: Array = np.asarray(unpickled(file.read(), path))
        return array
    if int(np.prod(shape, dtype=np.int64)) * kind.itemsize > len(file.getbuffer()):
        raise ValueError("an array says to be larger than the file")
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def read_tar(path: str, *names: str) -> list[bytes]:
    """Return files of a .tar.gz file, which is not unpacked to the disk.

    Args:
        path: The file.
        *names: The paths inside it.

    Raises:
        ValueError: For a file that isn't valid.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name in names and member.isfile():
                    if member.size > _MOST:
                        raise ValueError(f"`{member.name}` unpacks to more than {_MOST} bytes")
                    file = archive.extractfile(member)
                    found[member.name] = b"" if file is None else file.read()
        return [found[name] for name in names]
    except _BROKEN as error:
        raise broken(path, error) from error


def broken(path: str | os.PathLike[str], error: Exception) -> ValueError:
    """Return the error for a file that isn't what it should be."""
    reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    return ValueError(f"{path} is not a readable data set: {reason}. Delete it to download it again.")
