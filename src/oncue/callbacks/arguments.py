"""Checks of the numbers that callbacks are made with."""

from __future__ import annotations

import math
import numbers
from typing import Any


def whole(owner: str, name: str, value: Any, least: int = 0) -> int:
    """Return a count as an int, or say why it can't be one.

    Args:
        owner: The class that takes the argument.
        name: The argument.
        value: What came.
        least: The smallest count that makes sense.

    Returns:
        A plain int.

    Raises:
        ValueError: If it isn't a whole number, or is too small.

    Example:
        >>> whole("EarlyStopping", "patience", -1)
        Traceback (most recent call last):
        ...
        ValueError: `patience` of EarlyStopping must be a whole number, 0 or more; got -1 of type int.
    """
    if not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(
            f"`{name}` of {owner} must be a whole number, {least} or more; got {value!r} of type "
            f"{type(value).__name__}."
        )
    return int(value)


def finite(owner: str, name: str, value: Any) -> float:
    """Return a number as a float, or say why it can't be one.

    Args:
        owner: The class that takes the argument.
        name: The argument.
        value: What came.

    Returns:
        A plain, finite float.

    Raises:
        ValueError: If it isn't a finite number.

    Example:
        >>> finite("EarlyStopping", "baseline", 1)
        1.0
    """
    if isinstance(value, (bool, str, bytes)) or getattr(value, "ndim", 0) != 0:
        number = math.nan
    else:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"`{name}` of {owner} must be a finite number; got {value!r} of type {type(value).__name__}.")
    return number
