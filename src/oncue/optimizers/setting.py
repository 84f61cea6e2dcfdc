"""Settings of optimizers: attributes that are checked when they are set, and count from the next update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from oncue import backend
from oncue.core.numbers import came, number_of, whole_of
from oncue.optimizers.learning_rate import LearningRate, checked_rate

Check = Callable[[str, Any], Any]


class Setting(property):
    """A property of an optimizer class that `setting` made."""


def setting(
    name: str,
    check: Check,
    doc: str,
    fixed: str | None = None,
    fits: Callable[[Any, Any], bool] | None = None,
    alone: Sequence[str] = (),
) -> Any:
    """Return a property of an optimizer class that is checked when it is set.

    The value is kept as `_<name>`. What follows from it is made at once by `Optimizer._settings_changed`, so that a
    step has nothing to look at. A number that is read also answers as a Keras variable does, for `K.set_value`.

    Args:
        name: The name of the attribute.
        check: Gets the name and a value, and returns the value to keep; a ValueError says why it can't be one.
        doc: What the setting means.
        fixed: Why it can't be set to another value once the optimizer is built; None where it can.
        fits: Gets an optimizer that is built, and another value; returns whether it can all the same. None for no value.
        alone: Names of settings of which only one may be something else than None.

    Example:
        >>> class Plain:
        ...     built, _tell_of_read, rho = False, None, setting("rho", share, "What is kept.")
        ...     def _settings_changed(self):
        ...         print("kept", self.rho)
        >>> Plain().rho = 1
        kept 1.0
    """
    kept = f"_{name}"

    def assign(optimizer: Any, value: Any) -> None:
        value = check(name, value)
        if fixed is not None and optimizer.built:
            before = getattr(optimizer, kept)
            if value != before and not (fits is not None and fits(optimizer, value)):
                raise fixed_setting(optimizer, name, before, value, fixed)
        rivals = [rival for rival in alone if rival != name and getattr(optimizer, f"_{rival}") is not None]
        if value is not None and rivals:
            raise ValueError(
                f"Only one of {', '.join(f'`{rival}`' for rival in alone)} can be set; got {name}={value!r} beside "
                f"{rivals[0]}={getattr(optimizer, f'_{rivals[0]}')!r}. Set `{rivals[0]}` to None first."
            )
        setattr(optimizer, kept, value)
        optimizer._settings_changed()

    def read(optimizer: Any) -> Any:
        if optimizer._tell_of_read is not None:
            optimizer._tell_of_read(name)
        value = getattr(optimizer, kept)
        return LearningRate(value, partial(assign, optimizer)) if type(value) is float else value

    return Setting(read, assign, doc=doc)


def has_velocity(optimizer: Any, momentum: float) -> bool:
    """Return whether an optimizer that is built can have a momentum: 0, or any where it was built with a velocity."""
    return momentum == 0 or optimizer.keeps_velocity


def fixed_setting(optimizer: Any, name: str, before: Any, value: Any, reason: str) -> ValueError:
    """Return the error for a setting that can't be changed any more."""
    kind = type(optimizer).__name__
    return ValueError(
        f"`{name}` of {kind} can't be set from {before!r} to {value!r} once the optimizer is built: {reason}. "
        f"Create a new optimizer, `{kind}(..., {name}={value!r})`, and compile the model with it."
    )


def number(name: str, value: Any, wanted: str, fits: Callable[[float], bool]) -> float:
    """Return a number as a float.

    Args:
        name: How it is called.
        value: What came.
        wanted: What it must be, for the error.
        fits: Returns whether a number is that.

    Raises:
        ValueError: When it isn't.
    """
    found = number_of(value)
    if found is None or not fits(found):
        raise ValueError(f"`{name}` must be {wanted}; {came(value)}.")
    return float(found)


def share(name: str, value: Any) -> float:
    """Return a number from 0 to 1.

    Example:
        >>> share("momentum", 1)
        1.0
    """
    return number(name, value, "a number in [0, 1]", lambda found: 0 <= found <= 1)


def decaying_share(name: str, value: Any) -> float:
    """Return a number from 0 to below 1: by 1, the correction of a moving average would divide by 0.

    Example:
        >>> decaying_share("beta_1", 0.9)
        0.9
    """
    return number(name, value, "a number of at least 0 and below 1", lambda found: 0 <= found < 1)


def small_number(name: str, value: Any) -> float:
    """Return a number of at least 0, the backend's epsilon for None as in Keras 1 and 2.

    Example:
        >>> small_number("epsilon", None)
        1e-07
    """
    if value is None:
        return backend.epsilon()
    return number(name, value, "a finite number of at least 0, or None", lambda found: 0 <= found < math.inf)


def switch(name: str, value: Any) -> bool:
    """Return True or False; 1 and 0 are the same.

    Example:
        >>> switch("nesterov", 1)
        True
    """
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if not isinstance(plain, (bool, int)) or plain not in (0, 1):
        raise ValueError(f"`{name}` must be True or False; {came(value)}.")
    return bool(plain)


def rate(name: str, value: Any) -> float | None:
    """Return a finite number of at least 0, or None.

    Example:
        >>> rate("weight_decay", 0)
        0.0
    """
    return None if value is None else checked_rate(value, name)


def limit(name: str, value: Any) -> float | None:
    """Return the limit of a clip: a number, or None; 0 clips nothing, as in Keras.

    Example:
        >>> limit("clipnorm", 1)
        1.0
    """
    if value is None:
        return None
    return number(name, value, "a number above 0, or None to clip nothing", lambda found: found >= 0)


def factor(name: str, value: Any) -> float | None:
    """Return a finite number above 0, or None.

    Example:
        >>> factor("loss_scale_factor", 8)
        8.0
    """
    if value is None:
        return None
    return number(name, value, "a number above 0, or None", lambda found: 0 < found < math.inf)


def count(name: str, value: Any, least: int = 1) -> int | None:
    """Return a whole number, or None.

    Example:
        >>> count("ema_overwrite_frequency", 20 / 10)
        2
    """
    if value is None:
        return None
    found = whole_of(value)
    if found is None or found < least:
        raise ValueError(f"`{name}` must be an int of at least {least}, or None; {came(value)}.")
    return found
