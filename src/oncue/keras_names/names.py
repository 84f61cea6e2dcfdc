"""Names that a room of oncue hasn't: those of older versions of Keras, and those that are Keras's own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from typing import Any

from oncue.keras_names.impossible import impossible
from oncue.keras_names.loading import is_installed, load_keras
from oncue.keras_names.table import NAMES
from oncue.legacy import old_attribute

_ROOT = "oncue"

_HOLDERS = frozenset(f"layers.{name}" for name in ("Pipeline", "SpectralNormalization", "StackedRNNCells", "Wrapper"))
"""Layers of Keras that are given other layers, which may be oncue's."""

_own: dict[str, frozenset[str]] = {}

_OF_OPTIMIZERS = ("optimizers.MultiOptimizer", "optimizers.OptimizerMap")
"""What Keras has that is given optimizers, which may be oncue's."""


def elsewhere(module: str, name: str) -> Any:
    """Return what a room doesn't have itself; for its `__getattr__`. Keras is loaded only for a name that it has.

    Args:
        module: The full name of the room, such as "oncue.layers".
        name: The name that was asked for.

    Returns:
        What an older version of Keras had there, as it is today, or what Keras has there.

    Raises:
        AttributeError: When neither has it.
        ImportError: When Keras has it, and isn't installed.
        ValueError: When Keras has another backend than torch.
    """
    if not name.startswith("_"):
        # A name of today's Keras is none of its past.
        inside = module[len(_ROOT) + 1 :]
        if name in NAMES.get(inside, "").split():
            place = f"{inside}.{name}" if inside else name
            found = importlib.import_module(f"{_ROOT}.{place}") if place in NAMES else of_keras(module, name)
            # Next time it is there at once.
            vars(sys.modules[module])[name] = found
            return found
    return old_attribute(module, name)


def of_keras(module: str, name: str) -> Any:
    """Return what Keras itself has under a name.

    Args:
        module: The full name of the room, such as "oncue.layers".
        name: A public name of Keras.
    """
    place = f"{module}.{name}".removeprefix(f"{_ROOT}.")
    refused = impossible(place)
    if refused is not None:
        return refused
    keras = load_keras(f"{_ROOT}.{place}")
    home = keras
    for step in place.split(".")[:-1]:
        home = getattr(home, step, None)
    if not hasattr(home, name):
        raise AttributeError(
            f"Keras {keras.__version__}, which is installed, has no `{place}`. Install a newer one: "
            "pip install --upgrade keras"
        )
    found = getattr(home, name)
    if place in _HOLDERS:
        from oncue.with_keras.holders import holder

        return holder(found)
    if place in _OF_OPTIMIZERS:
        from oncue.with_keras.holders import optimizer_holder

        return optimizer_holder(found)
    if place.startswith("applications.") and callable(found):
        from oncue.with_keras.applications import application

        return application(found)
    return found


def found_in_keras(module: str, name: str) -> Any:
    """Return what Keras has under a name that a configuration or an identifier gives; None where it has none, or isn't there.

    Args:
        module: The full name of the room, such as "oncue.losses".
        name: The name, in any case.
    """
    own = next((known for known in names_of_keras(module) if known == name or known.lower() == name.lower()), None)
    return None if own is None else of_keras(module, own)


def beside(module: str, own: Iterable[str]) -> list[str]:
    """Return the public names of Keras that stand in the `__all__` of a room beside its own, and take note which are its own.

    Args:
        module: The full name of the room, such as "oncue.layers".
        own: What the room has itself.
    """
    _own[module] = frozenset(own)
    return [name for name in names_of_keras(module) if name not in _own[module]]


def own_names(module: str, listed: Iterable[str]) -> frozenset[str]:
    """Return which names are a room's own.

    Args:
        module: The full name of the room, such as "oncue.layers".
        listed: Its `__all__`.
    """
    return _own.get(module, frozenset(listed))


def names_of_keras(module: str) -> list[str]:
    """Return the public names that Keras has in a module, without loading it; none where it isn't installed.

    Args:
        module: The full name of the room, such as "oncue.layers".
    """
    if not is_installed():
        return []
    return NAMES.get(module[len(_ROOT) + 1 :], "").split()
