"""Fashion-MNIST: 70 000 images of clothes of 28 by 28 pixels."""

from __future__ import annotations

import gzip
import os
import struct
import zlib

import numpy as np

from oncue.datasets.origin import Array, Split, url_of
from oncue.utils.files import get_file

_MOST = 64 << 20
"""No file of it unpacks to more bytes: the largest has 47 million."""
_SUBDIR = os.path.join("datasets", "fashion-mnist")


def load_data() -> Split:
    """Return Fashion-MNIST, downloaded once to Keras's cache folder.

    The classes are 0 T-shirt, 1 trouser, 2 pullover, 3 dress, 4 coat, 5 sandal, 6 shirt, 7 sneaker, 8 bag, 9 boot.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: uint8 images of shape (60000, 28, 28) and (10000, 28, 28) with pixels
        from 0 to 255, and uint8 labels from 0 to 9.

    Raises:
        DownloadError: If a file is missing and can't be downloaded; the message says where to put it.
        ValueError: If a file is not valid.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_data()  # doctest: +SKIP
    """
    x_train, y_train = _read("train-images-idx3-ubyte.gz"), _read("train-labels-idx1-ubyte.gz")
    x_test, y_test = _read("t10k-images-idx3-ubyte.gz"), _read("t10k-labels-idx1-ubyte.gz")
    return (x_train, y_train), (x_test, y_test)


def _read(name: str) -> Array:
    """Read an IDX file (http://yann.lecun.com/exdb/mnist): type and rank, then the shape, then the bytes."""
    return _unpacked(get_file(name, url_of(name), cache_subdir=_SUBDIR))


def _unpacked(path: str | os.PathLike[str]) -> Array:
    try:
        with gzip.open(path, "rb") as file:
            data = file.read(_MOST + 1)
        if len(data) > _MOST:
            raise ValueError(f"it unpacks to more than {_MOST} bytes")
        zero, kind, rank = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{rank}I", data[4 : 4 + 4 * rank])
        if zero != 0 or kind != 8:
            raise ValueError("it is not IDX data of bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, EOFError, struct.error, zlib.error, ValueError) as error:
        raise ValueError(f"{path} is not Fashion-MNIST: {error}. Delete it to download it again.") from error
