"""How old names are looked up: the tables of them are imported when the first one is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from oncue.legacy.warning import warn_once

STEPS: set[Callable[..., Any]] = set()
"""The functions that symbolic tensors take as a step; `backend_functions` fills it in."""


def old_attribute(module: str, name: str) -> Any:
    """Return what an older Keras had as `name` in a module, and warn once; for the module's own `__getattr__`.

    Args:
        module: The full name of a module of today.
        name: A name that it doesn't have.

    Raises:
        AttributeError: When no version had it there, or it can't be honoured.

    Example:
        >>> old_attribute("oncue.optimizers", "legacy").__name__
        'oncue.optimizers.legacy'
        >>> old_attribute("oncue", "GradientTape")
        Traceback (most recent call last):
        ...
        AttributeError: `GradientTape` is from TensorFlow and is not here: gradients are torch's. ...
    """
    # Python and its tools ask modules for names such as these.
    if name.startswith("_") and name != "__version__":
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    from oncue.legacy.modules import found

    return found(module, name)


def no_method(name: str) -> str | None:
    """Return why a method of layers, models or optimizers can't be honoured; None for one that isn't refused.

    Example:
        >>> no_method("to_yaml")
        '`to_yaml` is from Keras 1 and is not here: reading YAML could run code. Use `model.to_json()`, or save the ...'
    """
    if name.startswith("_"):
        return None
    from oncue.legacy.modules import METHODS_REFUSED

    word = METHODS_REFUSED.get(name)
    return None if word is None else word.text(name)


def is_backend_function(function: Any) -> bool:
    """Return whether something is one of the old backend's functions that symbolic tensors take as a step."""
    return function in STEPS


def backend_function(name: str) -> Callable[..., Any] | None:
    """Return the function of a name in the old backend that symbolic tensors take as a step; None for another name.

    Example:
        >>> backend_function("square").__name__
        'square'
    """
    from oncue.legacy.backend_functions import FUNCTIONS

    return FUNCTIONS.get(name)


class CallableModule(ModuleType):
    """A module whose name was that of a class or a function in Keras 1 and 2: `optimizers.rmsprop(lr=0.1)`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what had the module's name, and warn once."""
        from oncue.legacy.modules import CALLED

        word = CALLED[self.__name__]
        warn_once(f"{self.__name__}(...)", f"{word.new}(...)")
        home, _, name = (word.home or word.new or "").rpartition(".")
        return getattr(importlib.import_module(home), name)(*args, **kwargs)


def call_as(module: str) -> None:
    """Let a module be called, as what had its name.

    Args:
        module: The full name of a module that is imported, one of `CALLED`.
    """
    sys.modules[module].__class__ = CallableModule
