"""The numbers of an optimizer that can be read and set: the learning rate, settings, and the count of iterations."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np


def checked_rate(value: object, argument: str = "learning_rate") -> float:
    """Return a learning rate as a float, or say why it can't be one.

    Args:
        value: A float, an int, a NumPy number, a 0-d array or tensor, or a `LearningRate`.
        argument: What the error calls the value.

    Returns:
        A plain, finite, non-negative float.

    Raises:
        ValueError: When `value` is not a number, is NaN or infinite, or is negative.

    Example:
        >>> checked_rate(1)
        1.0
        >>> checked_rate(-0.1)
        Traceback (most recent call last):
        ...
        ValueError: `learning_rate` must be a finite number of at least 0, such as 0.001; got -0.1.
    """
    wanted = f"`{argument}` must be a finite number of at least 0, such as 0.001"
    if isinstance(value, (str, bytes, bool)) or getattr(value, "ndim", 0) != 0:
        raise ValueError(f"{wanted}; got {value!r} of type {type(value).__name__}.")
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever has no __float__ is refused on the next line
    except (TypeError, ValueError) as error:
        raise ValueError(f"{wanted}; got {value!r} of type {type(value).__name__}.") from error
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{wanted}; got {number!r}.")
    return number


class LearningRate(float):
    """A learning rate: a float that also answers as a Keras variable does.

    It is what reading `optimizer.learning_rate` gives, and reading settings such as `optimizer.momentum`: a snapshot that
    compares, prints, pickles and goes into JSON as the plain float it is. `assign` sets the optimizer it was read from, not
    the snapshot.

    Args:
        value: The rate.
        assign: Sets the optimizer that the rate was read from.

    Example:
        >>> from oncue.optimizers import SGD
        >>> optimizer = SGD(0.5)
        >>> optimizer.learning_rate.assign(0.25)
        0.25
        >>> optimizer.learning_rate
        0.25
        >>> optimizer.learning_rate.numpy()
        np.float32(0.25)
    """

    __slots__ = ("_assign",)
    _assign: Callable[[Any], None]

    def __new__(cls, value: float, assign: Callable[[Any], None]) -> LearningRate:
        """Make the float."""
        rate = super().__new__(cls, value)
        rate._assign = assign
        return rate

    @property
    def value(self) -> float:
        """The rate as a plain float (a property, as in Keras 3, not a method)."""
        return float(self)

    def assign(self, value: Any) -> float:
        """Set the optimizer's rate, or setting, and return the new value."""
        self._assign(value)
        return checked_rate(value)

    def numpy(self) -> np.float32:
        """Return the rate as Keras stores it, in 32 bits."""
        return np.float32(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """Return a 0-d array, of 32-bit floats if nothing else is asked for."""
        return np.array(float(self), dtype=np.float32 if dtype is None else dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy as the plain float, without the optimizer behind it."""
        return float, (float(self),)


class Iterations(int):
    """A count of updates: an int that also answers as a Keras variable does.

    Args:
        value: The count.
        assign: Sets the optimizer that the count was read from.

    Example:
        >>> from oncue.optimizers import SGD
        >>> optimizer = SGD(0.5)
        >>> optimizer.iterations.assign(7)
        7
        >>> optimizer.iterations
        7
    """

    _assign: Callable[[int], None]

    def __new__(cls, value: int, assign: Callable[[int], None]) -> Iterations:
        """Make the int."""
        count = super().__new__(cls, value)
        count._assign = assign
        return count

    @property
    def value(self) -> int:
        """The count as a plain int."""
        return int(self)

    def assign(self, value: Any) -> int:
        """Set the optimizer's count and return the new value."""
        number = checked_count(value, "iterations")
        self._assign(number)
        return number

    def numpy(self) -> np.int64:
        """Return the count as a NumPy number."""
        return np.int64(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy as the plain int, without the optimizer behind it."""
        return int, (int(self),)


def checked_count(value: Any, argument: str) -> int:
    """Return a count as an int, or say why it can't be one.

    Args:
        value: An int, a NumPy integer, or a 0-d integer array or tensor.
        argument: What the error calls the value.

    Returns:
        A plain int of at least 0.

    Raises:
        ValueError: When `value` is not a whole number or is negative.

    Example:
        >>> checked_count(3, "iterations")
        3
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ValueError(f"`{argument}` must be an int of at least 0; got {value!r}.") from error
    if number < 0:
        raise ValueError(f"`{argument}` must be an int of at least 0; got {number}.")
    return number
