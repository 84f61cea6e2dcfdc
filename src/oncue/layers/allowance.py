"""How many numbers the weights may hold that are made on a file's word."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_left: ContextVar[list[int] | None] = ContextVar("left", default=None)


@contextmanager
def allowance(numbers: int) -> Iterator[None]:
    """Let weights of so many numbers be made inside the `with` block, as many as the file that asks for them holds.

    Args:
        numbers: The largest number of numbers.

    Example:
        >>> from oncue.layers import Dense
        >>> with allowance(10):
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


def spend(shape: Sequence[int]) -> None:
    """Take the numbers of a weight from what is left; outside of `allowance` nothing is counted.

    Raises:
        ValueError: When there are not enough left.
    """
    left = _left.get()
    if left is not None:
        left[0] -= math.prod(shape)
        if left[0] < 0:
            raise ValueError(f"The configuration asks for a weight of shape {tuple(shape)}, more than the file holds.")
