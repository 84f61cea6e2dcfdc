"""`set_random_seed`: one seed for Python, NumPy and torch."""

from __future__ import annotations

import random
from typing import SupportsIndex

import numpy as np
import torch

from oncue.core.numbers import whole_of
from oncue.keras_names import keras_if_loaded


def set_random_seed(seed: SupportsIndex | float) -> None:
    """Seed the generators of Python, NumPy and torch, the latter on all devices.

    Args:
        seed: A whole number from 0 to 2**32 - 1, the range that NumPy accepts.

    Raises:
        ValueError: For anything else.

    Example:
        >>> set_random_seed(7)
        >>> first = torch.rand(2)
        >>> set_random_seed(7)
        >>> torch.equal(first, torch.rand(2))
        True
    """
    number = whole_of(seed)
    if number is None:
        raise ValueError(f"`seed` must be a whole number; got {seed!r} of type {type(seed).__name__}.")
    if not 0 <= number < 2**32:
        raise ValueError(f"`seed` must be from 0 to 2**32 - 1; got {number}. Use for example `seed % 2**32`.")
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)
    keras = keras_if_loaded()
    if keras is not None:
        # The same once more, and the seeds that it draws itself.
        keras.utils.set_random_seed(number)
