"""Named objects: how an initializer, a layer or any other part is written into a configuration and found again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from oncue.core.builtin import is_builtin
from oncue.core.suggest import unknown

custom: dict[str, Any] = {}
"""Classes and functions of the user, by the names under which configurations mention them."""


def name_of(thing: Any) -> str:
    """Return the name under which a class or function of the user was registered, or else its own.

    Example:
        >>> name_of(len)
        'len'
    """
    registered = next((name for name, item in custom.items() if item is thing), None)
    return str(getattr(thing, "__name__", type(thing).__name__)) if registered is None else registered


def to_config(thing: Any, module: str) -> dict[str, Any]:
    """Write an object or a function as Keras's saving format spells it.

    Args:
        thing: An object with `get_config()`, or a function.
        module: The public module of Keras where our classes of this kind live, such as "keras.initializers".

    Returns:
        A dict with the keys module, class_name, config and registered_name.

    Raises:
        ValueError: When the object has no `get_config`, so that it could never be made again.

    Example:
        >>> to_config(len, "keras.activations")["config"]
        'len'
    """
    if inspect.isfunction(thing) or inspect.isbuiltin(thing):
        name = name_of(thing)
        return {"module": "builtins", "class_name": "function", "config": name, "registered_name": name}
    cls = type(thing)
    if not hasattr(thing, "get_config"):
        raise ValueError(f"{thing!r} can't be saved: {cls.__name__} must define `get_config(self)`.")
    ours = is_builtin(cls)
    config = thing.get_config()
    if not ours:
        _check_arguments(cls, config)
    return {
        "module": module if ours else cls.__module__,
        "class_name": cls.__name__,
        "config": config,
        "registered_name": None if ours else name_of(cls),
    }


def _check_arguments(cls: type, config: Any) -> None:
    """Refuse a configuration of which `from_config` couldn't make an object again, because an argument is missing."""
    method = getattr(cls, "from_config", None)
    own = method is not None and not any(is_builtin(parent) for parent in cls.__mro__ if "from_config" in vars(parent))
    if own or not isinstance(config, Mapping):
        return
    for name, parameter in inspect.signature(cls).parameters.items():
        needed = parameter.default is parameter.empty and parameter.kind in (
            parameter.POSITIONAL_OR_KEYWORD,
            parameter.KEYWORD_ONLY,
        )
        if needed and name not in config:
            raise ValueError(
                f"{cls.__name__} can't be saved, because it couldn't be made again: it needs `{name}`, which its "
                f"`get_config` doesn't return. Define `{cls.__name__}.get_config(self)` that returns "
                f"{{**super().get_config(), {name!r}: self.{name}}}."
            )


def resolve(
    kind: str,
    identifier: Any,
    known: Mapping[str, Any],
    custom_objects: Mapping[str, Any] | None = None,
    advice: str = "",
    others: Callable[[str], Any] = lambda name: None,
) -> Any:
    """Find or make the object that a name, a configuration, a class or the object itself stands for.

    Only names in `known` and the user's own are looked up; nothing is ever imported by a name in a configuration.

    Args:
        kind: What is looked for, for the error message: "initializer", "layer".
        identifier: A name, a dict with class_name and config, a class, or something callable.
        known: Our classes and functions by name.
        custom_objects: The user's classes and functions by name; they win over ours.
        advice: What to do, at the end of the error for a configuration that names what is not known.
        others: Asked for a name that is not known; returns the class or function, or None.

    Returns:
        The object. A class is called without arguments, or with its configuration through `from_config`.

    Raises:
        ValueError: For a name that is not known, or a value that stands for nothing.

    Example:
        >>> resolve("dtype", "int", {"int": int})
        0
    """
    names: dict[str, Any] = {**known, **custom, **(custom_objects or {})}
    if isinstance(identifier, str):
        found = names[identifier] if identifier in names else others(identifier)
        if found is None:
            raise unknown(kind, identifier, names)
        return found() if inspect.isclass(found) else found
    if isinstance(identifier, Mapping):
        return _from_config(kind, identifier, names, advice, others)
    if inspect.isclass(identifier):
        return identifier()
    if callable(identifier):
        return identifier
    raise ValueError(
        f"The {kind} must be a name, a configuration, or something callable; got {identifier!r} of type "
        f"{type(identifier).__name__}."
    )


def _from_config(
    kind: str, written: Mapping[str, Any], names: Mapping[str, Any], advice: str, others: Callable[[str], Any]
) -> Any:
    class_name, config = written.get("class_name"), written.get("config", {})
    if class_name is None:
        raise ValueError(f"A configuration of the {kind} must have the key 'class_name'; got {dict(written)!r}.")
    wanted = config if class_name == "function" else class_name
    registered = written.get("registered_name")
    found = names.get(registered) if isinstance(registered, str) else None
    if found is None:
        found = names.get(wanted)
    if found is None and isinstance(wanted, str):
        found = others(wanted)
    if found is None:
        error = unknown(kind, wanted, names)
        raise ValueError(f"{error} {advice}") if advice else error
    if not inspect.isclass(found):
        return found
    make = getattr(found, "from_config", None)
    return found(**config) if make is None else make(config)
