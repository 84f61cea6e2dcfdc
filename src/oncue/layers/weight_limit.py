"""A limit on how many numbers new weights may hold while a model is made from the configuration in a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_left: ContextVar[list[int] | None] = ContextVar("left", default=None)


@contextmanager
def weight_limit(numbers: int) -> Iterator[None]:
    """Refuse weights, inside the `with` block, that hold more numbers in all than the file that asks for them.

    Args:
        numbers: The largest number of numbers.

    Example:
        >>> from oncue.layers import Dense
        >>> with weight_limit(10):
        ...     Dense(1000).build((None, 1000))
        Traceback (most recent call last):
        ...
        ValueError: The configuration asks for a weight of shape (1000, 1000), more than the file holds.
    """
    token = _left.set([numbers])
    try:
        yield
    finally:
        _left.reset(token)


def count_weight(shape: Sequence[int]) -> None:
    """Subtract a new weight from what is left of the limit; without a limit, do nothing.

    Args:
        shape: The shape of the weight.

    Raises:
        ValueError: When it holds more numbers than are left.
    """
    left = _left.get()
    if left is not None:
        left[0] -= math.prod(shape)
        if left[0] < 0:
            raise ValueError(f"The configuration asks for a weight of shape {tuple(shape)}, more than the file holds.")
