"""Prices of houses around Boston in the 1970s: 506 places with 13 numbers each.

One of the numbers supposes that people want to live apart by race. Keras warns of using it for anything but to show what is
wrong with such data; `california_housing` is another one.
"""

from __future__ import annotations

from oncue.datasets import housing
from oncue.datasets.origin import Split

_SHA256 = "f553886a1f8d56431e820c5b82552d9d95cfcb96d1e678153f8839538947dff5"


def load_data(path: str = "boston_housing.npz", test_split: float = 0.2, seed: int = 113) -> Split:
    """Return the prices, downloaded once to Keras's cache folder.

    Args:
        path: The file's name in the folder `datasets` of the cache. Default: "boston_housing.npz".
        test_split: The share for testing, from 0 to below 1. Default: 0.2.
        seed: The seed of the order. Default: 113.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: float64 numbers of shape (n, 13), and prices in thousands of dollars.

    Raises:
        DownloadError: If the file is missing and can't be downloaded; the message says where to put it.
        ValueError: For another `test_split`, or if the file is not valid.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_data()  # doctest: +SKIP
    """
    return housing.load(path, "boston_housing.npz", _SHA256, test_split, seed)
