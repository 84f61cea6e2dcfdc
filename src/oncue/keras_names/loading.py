"""Keras itself, loaded when a name of it is asked for, on torch and with the settings made here."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

_settings: dict[str, Any] = {}
"""What Keras is to be told when it is loaded: from the names of functions of `keras.config` to their argument."""

_loaded: set[str] = set()
"""Which settings Keras knows by now; empty while oncue hasn't asked it for anything."""

COMMAND = "pip install 'oncue[keras]'"
"""What brings Keras."""


def is_installed() -> bool:
    """Return whether Keras could be imported."""
    return sys.modules.get("keras") is not None or find_spec("keras") is not None


def is_of_keras(thing: Any, kind: str) -> bool:
    """Return whether an object is of a class of Keras's; Keras isn't imported for it.

    Args:
        thing: The object.
        kind: The public name of the class, such as "Optimizer".

    Example:
        >>> is_of_keras(1, "Optimizer")
        False
    """
    cls = getattr(sys.modules.get("keras"), kind, None)
    return isinstance(cls, type) and issubclass(type(thing), cls)


def require_keras(wanted: str) -> None:
    """Refuse to look for something of Keras where it isn't installed.

    Args:
        wanted: What was asked for, for the message.

    Raises:
        ImportError: Without Keras.
    """
    if not is_installed():
        raise ImportError(f"`{wanted}` is Keras's own, which isn't installed. Install it: {COMMAND}", name="keras")


def check_backend() -> None:
    """Refuse Keras on another backend.

    Raises:
        ValueError: When it isn't on torch.
    """
    if "keras" in sys.modules:
        chosen = sys.modules["keras"].backend.backend()
    else:
        chosen = os.environ.get("KERAS_BACKEND", "torch")
    if chosen != "torch":
        raise ValueError(
            f"Keras has the backend {chosen!r}, and oncue trains on torch. Choose it before Keras is "
            'imported: `os.environ["KERAS_BACKEND"] = "torch"` at the top of the script, or `KERAS_BACKEND=torch` in the '
            "shell."
        )


@contextmanager
def _same_draws() -> Iterator[None]:
    """Leave Python's and NumPy's generators as they are: what is drawn doesn't depend on whether Keras was there already."""
    import random

    numpy: Any = sys.modules.get("numpy")
    states = random.getstate(), None if numpy is None else numpy.random.get_state()
    yield
    random.setstate(states[0])
    if numpy is not None:
        numpy.random.set_state(states[1])


def load_keras(wanted: str) -> Any:
    """Return the module `keras`, on torch.

    Args:
        wanted: What was asked for, for the message.

    Raises:
        ImportError: Without Keras.
        ValueError: When it has another backend.
    """
    require_keras(wanted)
    check_backend()
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    with _same_draws():
        keras = importlib.import_module("keras")
    check_backend()
    if not _loaded:
        _loaded.add("keras")
        for setter, value in _settings.items():
            getattr(keras.config, setter)(value)
    return keras


def keras_if_loaded() -> Any:
    """Return the module `keras` if oncue has asked it for anything by now, else None."""
    return sys.modules["keras"] if _loaded else None


def tell_keras(setter: str, value: Any) -> None:
    """Let Keras's layers and functions go by a setting too: at once, or when Keras is loaded.

    Keras that only the user's own script has imported is left alone.

    Args:
        setter: The name of a function of `keras.config`.
        value: Its argument.
    """
    _settings[setter] = value
    keras = keras_if_loaded()
    if keras is not None:
        getattr(keras.config, setter)(value)
