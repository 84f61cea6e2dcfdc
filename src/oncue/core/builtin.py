"""Which classes are oncue's own: they say so themselves, wherever they are defined."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from oncue.core.suggest import nearest

T = TypeVar("T")

_builtin: dict[type, dict[str, Any]] = {}
"""From each marked class to what its body defined, to recognize what was replaced since."""

_stands_for: dict[type, type] = {}
"""From each class that passes for another one to that one."""


def builtin(cls: type[T]) -> type[T]:
    """Mark a class as one of oncue's own. Subclasses aren't marked: a user's may override anything.

    A keyword argument that it doesn't have is an error with the name that was probably meant. Files name a marked class as
    Keras names its namesake; the hooks of a marked callback keep no logs beyond the call.

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
    names_arguments(cls)
    _builtin[cls] = dict(vars(cls))
    return cls


def names_arguments(cls: type[T]) -> type[T]:
    """Let a class answer a keyword argument that it doesn't have with the name that was probably meant.

    Args:
        cls: The class; this is a decorator, and a part of `builtin`.

    Returns:
        The same class.

    Example:
        >>> @names_arguments
        ... class Decay:
        ...     def __init__(self, decay_steps): ...
        >>> Decay(decay_step=3)
        Traceback (most recent call last):
        ...
        TypeError: Decay has no argument `decay_step`. Did you mean `decay_steps`?
    """
    made = vars(cls).get("__init__")
    if made is not None:
        type.__setattr__(cls, "__init__", _naming_arguments(cls, made))
    return cls


def _naming_arguments(cls: type, made: Callable[..., None]) -> Callable[..., None]:
    @wraps(made)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            made(self, *args, **kwargs)
        except TypeError:
            parameters = inspect.signature(made).parameters
            takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
            unknown = [] if takes_all else [name for name in kwargs if name not in parameters]
            if not unknown:
                raise
            known = list(parameters)[1:]
            guess = nearest(unknown[0], known)
            hint = f"It takes: {', '.join(known) or 'none'}." if guess is None else f"Did you mean `{guess}`?"
            raise TypeError(f"{cls.__name__} has no argument `{unknown[0]}`. {hint}") from None

    return __init__


def is_builtin(cls: type) -> bool:
    """Return whether a class is one of oncue's own, rather than one of the user's, derived from ours or not."""
    return cls in _builtin


def stands_for(cls: type, original: type) -> None:
    """Let a class that a library has made of another one, for objects of that one, pass for it.

    Args:
        cls: The class that was made.
        original: What it was made of.

    Example:
        >>> @builtin
        ... class Ours: ...
        >>> class Wrapped(Ours): ...
        >>> stands_for(Wrapped, Ours)
        >>> Wrapped.__name__, is_builtin(Wrapped), kind_of(Wrapped()) is Ours
        ('Ours', True, True)
    """
    if cls is original:
        return
    cls.__name__, cls.__qualname__ = original.__name__, original.__qualname__
    _stands_for[cls] = original
    if original in _builtin:
        _builtin[cls] = _builtin[original]


def kind_of(value: object) -> type:
    """Return the class of an object; for one that passes for another, that one."""
    return _stands_for.get(type(value), type(value))


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
