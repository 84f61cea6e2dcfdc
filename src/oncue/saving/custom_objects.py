"""The registry of the user's own classes and functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from oncue.keras_names import keras_if_loaded
from oncue.objects import custom, name_of

_Thing = TypeVar("_Thing")


def get_custom_objects() -> dict[str, Any]:
    """Return the registry itself, a dict from names to classes and functions, which may be modified.

    Example:
        >>> isinstance(get_custom_objects(), dict)
        True
    """
    return custom


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable[[_Thing], _Thing]:
    """Return a decorator that registers a custom class or function, so that configurations can refer to it.

    Args:
        package: The first part of the registered name.
        name: The second part; the class's own name by default.

    Returns:
        The decorator.

    Raises:
        ValueError: For a class without `get_config`.

    Example:
        >>> @register_keras_serializable("mine")
        ... def double(x):
        ...     return 2 * x
        >>> get_registered_name(double)
        'mine>double'
        >>> get_custom_objects().pop("mine>double") is double
        True
    """

    def register(thing: _Thing) -> _Thing:
        label = f"{package}>{name if name is not None else thing.__name__}"  # type: ignore[attr-defined]  # class or function
        if inspect.isclass(thing) and not hasattr(thing, "get_config"):
            raise ValueError(f"{thing.__name__} can't be registered: it must define `get_config(self)`.")
        custom[label] = thing
        return thing

    return register


def get_registered_name(obj: Any) -> str:
    """Return the name under which something was registered, or else its own."""
    return name_of(obj)


def get_registered_object(
    name: str, custom_objects: Mapping[str, Any] | None = None, module_objects: Mapping[str, Any] | None = None
) -> Any:
    """Return what was registered under a name, or None.

    Args:
        name: The registered name.
        custom_objects: Looked up first.
        module_objects: Looked up last.
    """
    for table in (custom_objects or {}, custom, module_objects or {}):
        if name in table:
            return table[name]
    return None


class CustomObjectScope:
    """Registers names for the length of a `with` block.

    Args:
        *custom_objects: Dicts from names to classes and functions; None stands for an empty one.

    Example:
        >>> with CustomObjectScope({"double": lambda x: 2 * x}):
        ...     "double" in get_custom_objects()
        True
        >>> "double" in get_custom_objects()
        False
    """

    def __init__(self, *custom_objects: Mapping[str, Any] | None) -> None:
        self.custom_objects = {name: thing for table in custom_objects for name, thing in (table or {}).items()}
        self._before: dict[str, Any] = {}
        self._in_keras: Any = None

    def __enter__(self) -> CustomObjectScope:
        self._before = dict(custom)
        custom.update(self.custom_objects)
        keras = keras_if_loaded()
        if keras is not None:
            # What Keras's own layers are made of is looked up there.
            self._in_keras = keras.saving.CustomObjectScope(self.custom_objects)
            self._in_keras.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        custom.clear()
        custom.update(self._before)
        if self._in_keras is not None:
            self._in_keras.__exit__(kind, error, traceback)
            self._in_keras = None


custom_object_scope = CustomObjectScope
