"""Prices of houses in California in 1990: 20 640 districts with 8 numbers each."""

from __future__ import annotations

from oncue.datasets import housing
from oncue.datasets.origin import Split

_SHA256 = "1a2e3a52e0398de6463aebe6f4a8da34fb21fbb6b934cf88c3425e766f2a1a6f"


def load_data(
    version: str = "large", path: str = "california_housing.npz", test_split: float = 0.2, seed: int = 113
) -> Split:
    """Return the prices, downloaded once to Keras's cache folder.

    The numbers are the median income, the age of houses, rooms, bedrooms, people, people in a household, latitude and
    longitude.

    Args:
        version: "large" for all districts (default), "small" for 600.
        path: The file's name in the folder `datasets` of the cache. Default: "california_housing.npz".
        test_split: The share for testing, from 0 to below 1. Default: 0.2.
        seed: The seed of the order. Default: 113.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: float32 numbers of shape (n, 8), and median prices in dollars.

    Raises:
        DownloadError: If the file is missing and can't be downloaded; the message says where to put it.
        ValueError: For another `version` or `test_split`, or if the file is not valid.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_data()  # doctest: +SKIP
    """
    if version not in ("large", "small"):
        raise ValueError(f'`version` must be "large" or "small"; got {version!r}.')
    return housing.load(
        path, "california_housing.npz", _SHA256, test_split, seed, most=600 if version == "small" else None
    )
