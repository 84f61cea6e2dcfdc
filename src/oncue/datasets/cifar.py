"""What CIFAR-10 and CIFAR-100 have in common: pictures of 32 by 32 pixels with three colours, pickled."""

from __future__ import annotations

from typing import Any

import numpy as np

from oncue import backend
from oncue.datasets.arrays_file import broken, read_tar, unpickled
from oncue.datasets.origin import Array, url_of
from oncue.utils.files import get_file

_ORIGIN = "https://www.cs.toronto.edu/~kriz/"


def read_parts(cached: str, archive: str, sha256: str, names: list[str], labels: str) -> list[tuple[Array, Array]]:
    """Return pictures and labels of parts of an archive, which is downloaded once.

    Args:
        cached: The archive's name in the cache folder, which is Keras's.
        archive: Its name where it is downloaded.
        sha256: Its hash.
        names: The parts, by their paths in the archive.
        labels: The key of the labels.

    Returns:
        For each part uint8 pictures, in the order of axes of `image_data_format`, and uint8 labels of shape (n, 1).

    Raises:
        DownloadError: If the archive is missing and can't be downloaded.
        ValueError: If it is not valid.
    """
    path = get_file(cached, url_of(archive, _ORIGIN), file_hash=sha256)
    return [_pictures(unpickled(data, path), labels, path) for data in read_tar(path, *names)]


def _pictures(part: Any, labels: str, path: str) -> tuple[Array, Array]:
    try:
        pixels = np.asarray(part[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        numbers = np.asarray(part[labels.encode()], dtype=np.uint8).reshape(-1, 1)
    except (KeyError, TypeError, ValueError) as error:
        raise broken(path, error) from error
    if backend.image_data_format() == "channels_last":
        pixels = pixels.transpose(0, 2, 3, 1)
    return pixels, numbers
