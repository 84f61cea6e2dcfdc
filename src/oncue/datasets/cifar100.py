"""CIFAR-100: 60 000 pictures of 32 by 32 pixels, of a hundred kinds of things in twenty groups."""

from __future__ import annotations

from oncue.datasets.cifar import read_parts
from oncue.datasets.origin import Split

_SHA256 = "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
_FOLDER = "cifar-100-python"


def load_data(label_mode: str = "fine") -> Split:
    """Return CIFAR-100, downloaded once to Keras's cache folder.

    Args:
        label_mode: "fine" for the hundred classes (default), "coarse" for the twenty groups.

    Returns:
        `((x_train, y_train), (x_test, y_test))`: uint8 pictures of shape (50000, 32, 32, 3) and (10000, 32, 32, 3) with
        pixels from 0 to 255, and uint8 labels of shape (n, 1).

    Raises:
        DownloadError: If the file is missing and can't be downloaded; the message says where to put it.
        ValueError: For another `label_mode`, or if the file is not valid.

    Example:
        >>> (x_train, y_train), (x_test, y_test) = load_data()  # doctest: +SKIP
    """
    if label_mode not in ("fine", "coarse"):
        raise ValueError(f'`label_mode` must be "fine" or "coarse"; got {label_mode!r}.')
    names = [f"{_FOLDER}/train", f"{_FOLDER}/test"]
    train, test = read_parts(f"{_FOLDER}-target", "cifar-100-python.tar.gz", _SHA256, names, f"{label_mode}_labels")
    return train, test
