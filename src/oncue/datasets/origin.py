"""Where the data sets are downloaded from."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Split: TypeAlias = tuple[tuple[Array, Array], tuple[Array, Array]]
"""`((x_train, y_train), (x_test, y_test))`."""

_KERAS_FILES = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"


def url_of(name: str, origin: str = _KERAS_FILES) -> str:
    """Return the URL of a data set's file.

    Args:
        name: The file's name.
        origin: The folder that it is in. Default: Keras's public folder.

    Returns:
        Its URL there, or below `ONCUE_DATASETS_ORIGIN` if that environment variable is set.

    Example:
        >>> url_of("mnist.npz").endswith("/mnist.npz")
        True
    """
    return (os.environ.get("ONCUE_DATASETS_ORIGIN") or origin).rstrip("/") + "/" + name
