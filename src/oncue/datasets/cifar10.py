"""CIFAR-10: 60 000 pictures of 32 by 32 pixels, of ten kinds of things."""

from __future__ import annotations

import numpy as np

from oncue.datasets.cifar import read_parts
from oncue.datasets.origin import Split

_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
_FOLDER = "cifar-10-batches-py"


def load_data() -> Split:
    """Return CIFAR-10, downloaded once to Keras's cache folder.

    The classes are 0 airplane, 1 automobile, 2 bird, 3 cat, 4 deer, 5 dog, 6 frog, 7 horse, 8 ship, 9 truck.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: uint8 pictures of shape (50000, 32, 32, 3) and (10000, 32, 32, 3) with
        pixels from 0 to 255, and uint8 labels from 0 to 9 of shape (n, 1).

    Raises:
        DownloadError: If the file is missing and can't be downloaded; the message says where to put it.
        ValueError: If the file is not valid.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_data()  # doctest: +SKIP
    """
    names = [f"{_FOLDER}/data_batch_{part}" for part in range(1, 6)]
    *train, test = read_parts(
        f"{_FOLDER}-target", "cifar-10-python.tar.gz", _SHA256, [*names, f"{_FOLDER}/test_batch"], "labels"
    )
    return (np.concatenate([x for x, _ in train]), np.concatenate([y for _, y in train])), test
