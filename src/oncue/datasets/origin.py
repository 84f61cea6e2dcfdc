"""Where the data sets are downloaded from."""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Split: TypeAlias = tuple[tuple[Array, Array], tuple[Array, Array]]
"""`((x_train, y_train), (x_test, y_test))`."""

_KERAS_FILES = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"


def url_of(name: str) -> str:
    """Return the URL of a data set's file.

    Args:
        name: The file's name.

    Returns:
        Its URL in Keras's public folder, or below `ONCUE_DATASETS_ORIGIN` if that environment variable is set.

    Example:
        >>> url_of("mnist.npz").endswith("/mnist.npz")
        True
    """
    return (os.environ.get("ONCUE_DATASETS_ORIGIN") or _KERAS_FILES).rstrip("/") + "/" + name
