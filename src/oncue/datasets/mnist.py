"""MNIST: 70 000 handwritten digits of 28 by 28 pixels."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from oncue.core.warn import warn
from oncue.datasets.origin import Split, url_of
from oncue.utils.files import DownloadError, cache_home, get_file, hash_file

_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
_BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, AttributeError, TypeError, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip
_MOST = 64 << 20
"""No array of it has more bytes: the largest has 47 million."""
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def load_data(path: str = "mnist.npz") -> Split:
    """Return MNIST, downloaded once to Keras's cache folder.

    A cached file with another hash is downloaded again. If that fails and the file has the four arrays, it is used,
    with a warning. Pickled arrays are never read.

    Args:
        path: The file's name in the folder `datasets` of the cache. Default: "mnist.npz".

    Returns:
        `((x_train, y_train), (x_test, y_test))`: uint8 images of shape (60000, 28, 28) and (10000, 28, 28) with pixels
        from 0 to 255, and uint8 labels from 0 to 9.

    Raises:
        DownloadError: If the file is missing and can't be downloaded; the message says where to put it.
        ValueError: If the file is not valid.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_data()  # doctest: +SKIP
    """
    try:
        found = get_file(path, url_of("mnist.npz"), file_hash=_SHA256)
    except (DownloadError, ValueError):
        cached = cache_home() / "datasets" / path
        if cached.name != path or not cached.is_file():
            raise
        try:
            arrays = _read(cached)
        except ValueError as error:
            error.add_note("The file's hash is not MNIST's, and downloading it again failed.")
            raise
        warn(
            f"{cached} is not the original MNIST (SHA-256 {hash_file(cached)} instead of {_SHA256}), and it could not "
            "be downloaded again; the file is used anyway."
        )
        return arrays
    return _read(Path(found))


def _read(path: Path) -> Split:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive)
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in _ARRAYS if name not in file]
            if missing:
                raise ValueError(f"it lacks the arrays {missing}; it has {sorted(file)[:8]}")
            x_train, y_train, x_test, y_test = (file[name] for name in _ARRAYS)
    except (
        zipfile.BadZipFile,
        EOFError,
        AttributeError,
        TypeError,
        NotImplementedError,
        RuntimeError,
        zlib.error,
        ValueError,
    ) as error:
        raise ValueError(f"{path} is not a readable .npz file: {error}. Delete it to download it again.") from error
    return (x_train, y_train), (x_test, y_test)


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Refuse arrays that say to be larger than what is there, or than any of MNIST's: memory is taken by what they say."""
    for info in archive.infolist():
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = read(member)
        size = math.prod(shape) * kind.itemsize
        if size > min(_MOST, info.file_size) or info.file_size > _MOST:
            raise ValueError(
                f"its array {info.filename[:100]!r} says to have {size} bytes, and the file {info.file_size}"
            )
