"""Checks of the callbacks of a run, so that a mistake is reported before the first step."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from oncue.callbacks.foreign import library_of, refusal
from oncue.callbacks.roles import with_brought
from oncue.core.builtin import is_original
from oncue.core.hooks import ALIASES, HOOKS, arguments_of

_KNOWN = (*HOOKS, *ALIASES)
_NAMES = {hook: (hook, *(old for old, new in ALIASES.items() if new == hook)) for hook in HOOKS}
"""From a hook to the names under which a callback may have it."""


def own_method(callback: Any, hook: str) -> tuple[Callable[..., Any], bool] | None:
    """Return the callback's method for a hook, or None when it has none or only the one that does nothing.

    A callback that defines only the old name of a hook is called under the new one.

    Returns:
        The method, and whether it is oncue's own code.
    """
    for name in _NAMES[hook]:
        method = getattr(callback, name, None)
        if callable(method) and getattr(method, "_is_default", False) is not True:
            return method, is_ours(callback, name)
    return None


def is_ours(owner: Any, name: str) -> bool:
    """Return whether an object's method is oncue's own code."""
    if name in getattr(owner, "__dict__", ()):
        return False
    for kind in type(owner).__mro__:
        if name in kind.__dict__:
            return is_original(kind, name)
    return False


def flatten(callbacks: Any) -> list[tuple[str, Any]]:
    """Return callbacks given as one, a list, or nested lists, and those that they bring, each with the place where it stood.

    Args:
        callbacks: None, a callback, or nested lists, tuples and dicts of callbacks.

    Returns:
        Pairs of a place such as `callbacks[1][0]` and a callback.
    """
    found: list[tuple[str, Any]] = []

    def walk(item: Any, place: str) -> None:
        if isinstance(item, (list, tuple)):
            for index, part in enumerate(item):
                walk(part, f"{place}[{index}]")
        elif isinstance(item, dict):
            for key in sorted(item):
                walk(item[key], f"{place}[{key!r}]")
        elif isinstance(getattr(item, "callbacks", None), list) and hasattr(item, "append"):
            # Such a list has what its callbacks bring.
            found.extend((f"{place}.callbacks[{index}]", part) for index, part in enumerate(item.callbacks))
        else:
            found.extend(with_brought(place, item))

    if callbacks is not None:
        walk(callbacks, "callbacks")
    return found


def check(place: str, callback: Any) -> None:
    """Refuse objects that aren't callbacks, hooks with wrong arguments, and methods with misspelt hook names.

    Args:
        place: Where it stood, for the message.
        callback: The object to check.

    Raises:
        TypeError: With the place and the fix.
    """
    if isinstance(callback, type):
        raise TypeError(
            f"`{place}` is the class {callback.__name__}, not an instance of it: use `{callback.__name__}()`, with its "
            "arguments in the parentheses."
        )
    library = library_of(callback)
    if library is not None:
        raise TypeError(refusal(place, callback, library))
    if not any(callable(getattr(callback, hook, None)) for hook in _KNOWN if hook != "close"):
        raise TypeError(
            f"`{place}` is no callback: {_brief(callback)} of type {type(callback).__name__}. Give an object of a subclass of "
            f"`Callback`, or wrap a function: `LambdaCallback(on_epoch_end=lambda epoch, logs: ...)`."
        )
    _check_signatures(place, callback)
    _check_names(place, callback)


def check_twins(found: Iterable[tuple[str, Any]]) -> None:
    """Refuse the same object twice: it would write every row and count every epoch twice.

    Raises:
        ValueError: With both places.
    """
    seen: dict[int, str] = {}
    for place, callback in found:
        if id(callback) in seen:
            raise ValueError(
                f"`{place}` is the same {type(callback).__name__} object as `{seen[id(callback)]}`. Remove one, or make "
                "a second object."
            )
        seen[id(callback)] = place


def _check_signatures(place: str, callback: Any) -> None:
    for hook in _KNOWN:
        method = getattr(callback, hook, None)
        if method is None or getattr(method, "_is_default", False) is True:
            continue
        if not callable(method):
            raise TypeError(f"`{place}`: {type(callback).__name__}.{hook} must be a method; it is {_brief(method)}.")
        arguments = arguments_of(hook)
        try:
            signature = inspect.signature(method)
        except (TypeError, ValueError):
            continue
        try:
            signature.bind(*arguments)
        except TypeError:
            names = ", ".join(("self", *arguments[:-1], f"{arguments[-1]}=None")) if arguments else "self"
            raise TypeError(
                f"`{place}`: {type(callback).__name__}.{hook} must accept ({', '.join(arguments)}); it is defined as "
                f"{hook}{signature}. Define it as `def {hook}({names}):`."
            ) from None


def _check_names(place: str, callback: Any) -> None:
    for name in dir(type(callback)):
        if not name.startswith("on") or name in _KNOWN or not callable(getattr(type(callback), name, None)):
            continue
        near = [known for known in _KNOWN if _letters(known) == _letters(name)]
        if not near and name.startswith("on_"):
            near = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.85)
        if near:
            raise TypeError(
                f"`{place}`: {type(callback).__name__}.{name} is no hook, so it would never be called. Did you mean "
                f"`{near[0]}`? (If it is a helper of your own, let its name start with an underscore.)"
            )


def _letters(name: str) -> str:
    return name.replace("_", "").lower()


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
