"""The checks of what is given to compile, fit, evaluate and predict, made before anything runs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from oncue.core.every import Every
from oncue.core.numbers import whole, whole_of


def check_verbose(value: Any) -> Any:
    """Return a `verbose` of 0, 1, 2 or "auto".

    Raises:
        ValueError: Otherwise.
    """
    if isinstance(value, str) and value == "auto":
        return value
    number = int(value) if isinstance(value, (bool, np.bool_)) else whole_of(value)
    if number in (0, 1, 2):
        return number
    raise ValueError(f'`verbose` must be 0 (silent), 1 (bar), 2 (a line for each epoch) or "auto"; got {value!r}.')


def check_frequency(value: Any) -> int | Collection[int] | Every:
    """Return a `validation_freq`: a number of epochs of 1 or more, a collection of epochs counted from 1, or another period.

    Raises:
        ValueError: Otherwise.
    """
    number = whole_of(value)
    if number is not None and number >= 1:
        return number
    if isinstance(value, range):
        return value
    if isinstance(value, (str, Every)):
        period = Every(value, "fit", argument="validation_freq") if isinstance(value, str) else value
        return int(period.amount) if period.unit == "epoch" else period
    if isinstance(value, Collection) and not isinstance(value, (str, bytes)) and getattr(value, "ndim", 1) == 1:
        return {whole("", "validation_freq", epoch) for epoch in value}
    raise ValueError(
        "`validation_freq` must be a whole number of 1 or more, a list of epochs counted from 1, or a period such as "
        f"'500 steps' or '10 minutes'; got {value!r}."
    )
