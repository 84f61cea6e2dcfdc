"""The checks of what is given to compile, fit, evaluate and predict, made before anything runs."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral
from typing import Any


def check_epochs(name: str, value: Any) -> int:
    """Return a number of epochs that is a whole number of 0 or more.

    Raises:
        ValueError: Otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 0:
        raise ValueError(f"`{name}` must be a whole number, 0 or more; got {value!r}.")
    return int(value)


def check_verbose(value: Any) -> Any:
    """Return a `verbose` of 0, 1, 2 or "auto".

    Raises:
        ValueError: Otherwise.
    """
    if value == "auto" or (isinstance(value, (int, Integral)) and int(value) in (0, 1, 2)):
        return value if value == "auto" else int(value)
    raise ValueError(f'`verbose` must be 0 (silent), 1 (bar), 2 (a line for each epoch) or "auto"; got {value!r}.')


def check_frequency(value: Any) -> int | Collection[int]:
    """Return a `validation_freq`: a whole number of 1 or more, or a collection of epochs counted from 1.

    Raises:
        ValueError: Otherwise.
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1:
        return int(value)
    if isinstance(value, Collection) and not isinstance(value, (str, bytes)):
        return value
    raise ValueError(
        f"`validation_freq` must be a whole number of 1 or more, or a list of epochs counted from 1; got {value!r}."
    )
