"""A limit on how many numbers are made while a model is made from the configuration in a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_left: ContextVar[list[int] | None] = ContextVar("left", default=None)
_what: ContextVar[str] = ContextVar("what", default="")
_replaced: ContextVar[bool] = ContextVar("replaced", default=False)


@contextmanager
def allowance(numbers: int, what: str = "the file holds", replaced: bool = False) -> Iterator[None]:
    """Refuse weights and variables, inside the `with` block, that hold more numbers in all than is allowed.

    Args:
        numbers: The largest number of numbers.
        what: What has so many, for the message.
        replaced: Whether the first values of weights are going to be replaced by those in a file, so that it doesn't matter
            what they are.

    Example:
        >>> from oncue.layers import Dense
        >>> with allowance(10):
        ...     Dense(1000).build((None, 1000))
        Traceback (most recent call last):
        ...
        ValueError: The configuration asks for numbers of the shape (1000, 1000), more than the file holds.
    """
    tokens = _left.set([numbers]), _replaced.set(replaced), _what.set(what)
    try:
        yield
    finally:
        _left.reset(tokens[0])
        _replaced.reset(tokens[1])
        _what.reset(tokens[2])


def count_numbers(shape: Sequence[int]) -> None:
    """Subtract new numbers from what is left of the allowance; without one, do nothing.

    Args:
        shape: The shape of the weight, the variable or the list.

    Raises:
        ValueError: When they are more than are left.
    """
    left = _left.get()
    if left is not None:
        left[0] -= math.prod(shape)
        if left[0] < 0:
            raise ValueError(
                f"The configuration asks for numbers of the shape {tuple(shape)}, more than {_what.get()}."
            )


def numbers_left() -> int | None:
    """Return how many numbers are left of the allowance; None without one."""
    left = _left.get()
    return None if left is None else left[0]


def are_replaced() -> bool:
    """Return whether the first values of new weights don't matter."""
    return _replaced.get()
