"""Numbers as users hand them over: Python's, NumPy's, torch's, and whatever else turns into one."""

from __future__ import annotations

import math
import operator
from typing import Any


def number_of(value: Any) -> int | float | None:
    """Return a number as a plain int or float, which goes into JSON; None for anything that isn't one number.

    Python's, NumPy's and torch's numbers are the same here, as are arrays and tensors without axes, decimals and
    fractions. A truth value is no number, nor is text, nor an array with axes.

    Args:
        value: Anything.

    Returns:
        An int for whole types, a float for others.

    Example:
        >>> import numpy as np
        >>> number_of(np.float32(0.5)), number_of(np.int64(3)), number_of(True), number_of("3")
        (0.5, 3, None, None)
    """
    if getattr(value, "ndim", 0) != 0:
        return None
    if hasattr(value, "ndim") and hasattr(value, "item"):
        # The truth values of arrays and tensors become Python's here, whose type tells.
        value = value.item()
    if isinstance(value, (bool, str, bytes)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        pass
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def whole_of(value: Any) -> int | None:
    """Return a whole number as a plain int, also one that came as a float, such as 20 / 10; None for anything else.

    Args:
        value: Anything.

    Example:
        >>> whole_of(20 / 10), whole_of(2.5), whole_of(True)
        (2, None, None)
    """
    number = number_of(value)
    if isinstance(number, float):
        return int(number) if number.is_integer() else None
    return number


def plain(value: Any) -> Any:
    """Return an argument as a configuration holds it: numbers as Python's, arrays as nested lists, all else as it is.

    Args:
        value: Anything.

    Example:
        >>> import numpy as np
        >>> plain(np.float32(0.5)), plain([np.int64(1), 2]), plain(np.array([1, 2])), plain("same")
        (0.5, [1, 2], [1, 2], 'same')
    """
    number = number_of(value)
    if number is not None:
        return number
    if isinstance(value, list):
        return [plain(part) for part in value]
    if type(value) is tuple:
        return tuple([plain(part) for part in value])
    return value.tolist() if hasattr(value, "ndim") and hasattr(value, "tolist") else value


def sizes_of(shape: Any) -> tuple[Any, ...]:
    """Return the sizes that a shape stands for, as plain ints where they are whole; one number stands for itself.

    Example:
        >>> sizes_of(3), sizes_of([None, 2.0])
        ((3,), (None, 2))
    """
    alone = number_of(shape) is not None or getattr(shape, "ndim", 1) == 0
    sizes = (shape,) if alone else tuple(shape)
    wholes = [whole_of(size) for size in sizes]
    return tuple([size if whole is None else whole for size, whole in zip(sizes, wholes, strict=True)])


def whole(owner: str, name: str, value: Any, least: int = 0) -> int:
    """Return a count as an int, or say why it can't be one.

    Args:
        owner: The class that takes the argument; "" where its name says enough.
        name: The argument.
        value: What came: a whole number, which may be a float such as `20 / 10`.
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
    number = whole_of(value)
    if number is None or number < least:
        raise ValueError(f"{argument(owner, name)} must be a whole number, {least} or more; {came(value)}.")
    return number


def finite(owner: str, name: str, value: Any) -> float:
    """Return a number as a float, or say why it can't be one.

    Args:
        owner: The class that takes the argument; "" where its name says enough.
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
    number = number_of(value)
    if number is None or not math.isfinite(number):
        raise ValueError(f"{argument(owner, name)} must be a finite number; {came(value)}.")
    return float(number)


def argument(owner: str, name: str) -> str:
    """Return what a message calls an argument.

    Example:
        >>> argument("SGD", "momentum"), argument("", "epochs")
        ('`momentum` of SGD', '`epochs`')
    """
    return f"`{name}` of {owner}" if owner else f"`{name}`"


def came(value: Any) -> str:
    """Return what a message says of the value that came: itself, and its type.

    Example:
        >>> came("3")
        "got '3' of type str"
    """
    return f"got {value!r} of type {type(value).__name__}"


def bytes_in_words(size: float) -> str:
    """Return a number of bytes as people read it.

    Example:
        >>> bytes_in_words(1_440_000_000), bytes_in_words(52_000)
        ('1.44 GB', '0.052 MB')
    """
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
