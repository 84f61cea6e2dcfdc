"""Nested lists, tuples and dicts of tensors: the shapes in which inputs, targets and outputs come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def flatten(value: Any) -> list[Any]:
    """Return the leaves of nested lists, tuples and dicts, in order; dicts by sorted key, as Keras does.

    Example:
        >>> flatten({"b": 1, "a": [2, (3,)]})
        [2, 3, 1]
    """
    return list(_leaves(value))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _leaves(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to each leaf and keep the structure.

    Example:
        >>> map_leaves(lambda n: n + 1, {"a": [1, (2,)]})
        {'a': [2, (3,)]}
    """
    if isinstance(value, Mapping):
        return {key: map_leaves(function, item) for key, item in value.items()}
    if isinstance(value, tuple):
        parts = [map_leaves(function, item) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [map_leaves(function, item) for item in value]
    return function(value)


def first_leaf(value: Any) -> Any:
    """Return the first leaf that is not None; None when there is none.

    Example:
        >>> first_leaf([None, (5, 6)])
        5
    """
    return next((leaf for leaf in _leaves(value) if leaf is not None), None)
