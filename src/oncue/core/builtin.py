"""Which classes are oncue's own: they say so themselves, wherever they are defined."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")

_builtin: dict[type, dict[str, Any]] = {}
"""From each marked class to what its body defined, to recognize what was replaced since."""


def builtin(cls: type[T]) -> type[T]:
    """Mark a class as one of oncue's own. Subclasses aren't marked: a user's may override anything.

    Files name a marked class as Keras names its namesake; the hooks of a marked callback keep no logs beyond the call.

    Args:
        cls: The class; this is a decorator.

    Returns:
        The same class.

    Example:
        >>> @builtin
        ... class Ours: ...
        >>> class Yours(Ours): ...
        >>> is_builtin(Ours), is_builtin(Yours)
        (True, False)
    """
    _builtin[cls] = dict(vars(cls))
    return cls


def is_builtin(cls: type) -> bool:
    """Return whether a class is one of oncue's own, rather than one of the user's, derived from ours or not."""
    return cls in _builtin


def is_original(cls: type, name: str) -> bool:
    """Return whether what a class defines under a name is oncue's own, and wasn't replaced on the class since.

    Args:
        cls: The class whose body, rather than a parent's, has the name.
        name: The name of a method.

    Example:
        >>> @builtin
        ... class Ours:
        ...     def run(self): ...
        >>> is_original(Ours, "run")
        True
        >>> Ours.run = lambda self: None
        >>> is_original(Ours, "run")
        False
    """
    body = _builtin.get(cls)
    return body is not None and name in body and vars(cls).get(name) is body[name]
