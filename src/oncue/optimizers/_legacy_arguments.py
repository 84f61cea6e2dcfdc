"""Words of Keras 1 and 2 in the arguments of optimizers."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from oncue import backend

_DROPPED = ("jit_compile", "is_legacy_optimizer")


def translate_optimizer_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments with the old words replaced by the new ones.

    Args:
        kwargs: What an optimizer got besides its named arguments.

    Returns:
        A new dict: `lr` has become `learning_rate`; `decay` stays when it is a positive number (the optimizer carries
        it out); `jit_compile` and `is_legacy_optimizer` are gone.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     translate_optimizer_arguments({"lr": 0.1})
        {'learning_rate': 0.1}
        >>> caught[0].category.__name__
        'DeprecationWarning'
    """
    new = {name: value for name, value in kwargs.items() if name not in _DROPPED}
    if "lr" in new:
        new["learning_rate"] = new.pop("lr")
        _warn("`lr` is the old name of `learning_rate`; type `learning_rate=` instead.")
    if not new.get("decay", 1):
        del new["decay"]
    elif "decay" in new:
        _warn(
            "`decay` is Keras 2's time-based decay; type `learning_rate=schedules.InverseTimeDecay(learning_rate, "
            "decay_steps=1, decay_rate=decay)` instead."
        )
    return new


def default_epsilon(epsilon: float | None) -> float:
    """Return `epsilon`, or the backend's where it is None, as Keras 1 and 2 mean it.

    Args:
        epsilon: A small number, or None.

    Returns:
        A float.

    Example:
        >>> default_epsilon(None)
        1e-07
    """
    return backend.epsilon() if epsilon is None else float(epsilon)


def _warn(message: str) -> None:
    # The depth of constructors above differs by optimizer; the warning should point at the caller of the outermost.
    depth = 1
    frame = sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("oncue.optimizers"):
        frame = frame.f_back
        depth += 1
    warnings.warn(message, DeprecationWarning, stacklevel=depth)
