"""Extras: packages that come with an extra of oncue's, and are imported when they are asked for."""

from __future__ import annotations

import importlib
from types import ModuleType


def needed(name: str, owner: str) -> ModuleType:
    """Import a module of a package that an extra of the same name brings.

    Args:
        name: The module.
        owner: Who needs it, as the message says it.

    Raises:
        ImportError: Without it, with what to type.

    Example:
        >>> needed("no_such_package.part", "Tracker")
        Traceback (most recent call last):
        ImportError: Tracker needs the package `no_such_package`: pip install 'oncue[no_such_package]'.
    """
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{owner} needs the package `{package}`: pip install 'oncue[{package}]'.", name=package
        ) from error
