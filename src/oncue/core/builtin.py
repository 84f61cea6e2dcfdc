"""Which classes are oncue's own: they say so themselves, wherever they are defined."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")

_builtin: set[type] = set()


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
    _builtin.add(cls)
    return cls


def is_builtin(cls: type) -> bool:
    """Return whether a class is one of oncue's own, rather than one of the user's, derived from ours or not."""
    return cls in _builtin
