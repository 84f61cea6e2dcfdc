"""What the two data sets of house prices have in common: numbers of places, and a price of each."""

from __future__ import annotations

import numpy as np

from oncue.core.numbers import number_of
from oncue.datasets.arrays_file import read_npz
from oncue.datasets.origin import Split, url_of
from oncue.utils.files import get_file


def load(path: str, archive: str, sha256: str, test_split: float, seed: int, most: int | None = None) -> Split:
    """Return a data set of numbers, split as Keras splits it.

    Args:
        path: The file's name in the cache.
        archive: Its name where it is downloaded.
        sha256: Its hash.
        test_split: The share for testing, from 0 to below 1.
        seed: The seed of the order.
        most: How many of the first rows count; None for all.

    Raises:
        DownloadError: If the file is missing and can't be downloaded.
        ValueError: For another `test_split`, or a file that is not valid.
    """
    share = number_of(test_split)
    if share is None or not 0 <= share < 1:
        raise ValueError(f"`test_split` must be a number of at least 0 and below 1; got {test_split!r}.")
    x, y = read_npz(get_file(path, url_of(archive), file_hash=sha256), "x", "y")
    x, y = x[:most], y[:most]
    order = np.arange(len(x))
    # Keras's generator, so that the parts are the same.
    np.random.RandomState(seed).shuffle(order)
    trained = int(len(x) * (1 - share))
    train, test = order[:trained], order[trained:]
    return (x[train], y[train]), (x[test], y[test])
