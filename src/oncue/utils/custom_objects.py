"""Registers custom classes and functions under the names by which saved configurations refer to them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from oncue import objects

T = TypeVar("T")


def get_custom_objects() -> dict[str, Any]:
    """Return the registry itself, a dict from names to classes and functions, which may be modified.

    Example:
        >>> "MyLayer" in get_custom_objects()
        False
    """
    return objects.custom


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable[[T], T]:
    """Register the decorated class or function as `package>name`, so that saved models can find it.

    Args:
        package: The first part of the registered name.
        name: The second part; the name of the class or function by default.

    Returns:
        A decorator that returns what it decorates.

    Raises:
        ValueError: For a class without `get_config`.

    Example:
        >>> @register_keras_serializable(package="docs")
        ... def halve(x):
        ...     return x / 2
        >>> get_registered_name(halve)
        'docs>halve'
    """

    def register(thing: T) -> T:
        own = str(getattr(thing, "__name__", ""))
        if inspect.isclass(thing) and not hasattr(thing, "get_config"):
            raise ValueError(f"A registered class must define `get_config(self)`; {own} does not.")
        objects.custom[f"{package}>{own if name is None else name}"] = thing
        return thing

    return register


def get_registered_name(obj: Any) -> str:
    """Return the name under which a class or function is registered, or its own name if it isn't.

    Example:
        >>> get_registered_name(dict)
        'dict'
    """
    return objects.name_of(obj)


def get_registered_object(
    name: str, custom_objects: Mapping[str, Any] | None = None, module_objects: Mapping[str, Any] | None = None
) -> Any:
    """Return the class or function registered under a name, or None.

    Args:
        name: The registered name.
        custom_objects: Searched after the registry.
        module_objects: Searched last.

    Returns:
        The class or function, or None.

    Example:
        >>> get_registered_object("Mine", {"Mine": dict})
        <class 'dict'>
    """
    for table in (objects.custom, custom_objects or {}, module_objects or {}):
        if name in table:
            return table[name]
    return None


@contextmanager
def custom_object_scope(*custom_objects: Mapping[str, Any]) -> Iterator[None]:
    """Register custom classes and functions inside a `with` block.

    Args:
        *custom_objects: Dicts from names to classes and functions.

    Example:
        >>> with custom_object_scope({"Mine": dict}):
        ...     "Mine" in get_custom_objects()
        True
        >>> "Mine" in get_custom_objects()
        False
    """
    before = dict(objects.custom)
    for table in custom_objects:
        objects.custom.update(table)
    try:
        yield
    finally:
        objects.custom.clear()
        objects.custom.update(before)


CustomObjectScope = custom_object_scope
