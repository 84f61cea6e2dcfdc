"""scikit-learn's handwritten digits: 1797 images of 8 by 8 pixels, without a download."""

from __future__ import annotations

import numpy as np

from oncue.core.numbers import number_of
from oncue.datasets.origin import Split


def load_data(test_split: float = 0.2, seed: int = 113) -> Split:
    """Return the handwritten digits that come with scikit-learn.

    Each digit is split in the same proportion; the same seed gives the same split.

    Args:
        test_split: The fraction of the images for testing, between 0 and 1. Default: 0.2.
        seed: The seed of the split. Default: 113.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: float32 images of shape (n, 8, 8) with pixels from 0 to 1, and int64
        labels from 0 to 9.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If `test_split` is not between 0 and 1, or leaves one part without some digit.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_data()
        >>> x_train.shape
        (1438, 8, 8)
    """
    share = number_of(test_split)
    if share is None or not 0 < share < 1:
        raise ValueError(f"`test_split` must be a number between 0 and 1; got {test_split!r}.")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The handwritten digits come with scikit-learn, which is not installed; run "
            "`pip install 'oncue[datasets]'`."
        ) from error
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int64)
    random = np.random.default_rng(seed)
    test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        mine = random.permutation(np.flatnonzero(labels == digit))
        taken = round(len(mine) * share)
        if taken in (0, len(mine)):
            raise ValueError(f"`test_split={test_split}` leaves no image of digit {digit} on one side.")
        test[mine[:taken]] = True
    train_order = random.permutation(np.flatnonzero(~test))
    test_order = random.permutation(np.flatnonzero(test))
    return (images[train_order], labels[train_order]), (images[test_order], labels[test_order])
