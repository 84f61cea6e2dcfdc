"""Nested lists, tuples and dicts of tensors: the shapes in which inputs, targets and outputs come.

Written without optree, which treats some containers that users pass as leaves: mappings that aren't dicts, such as the output
of Hugging Face's tokenizers, and subclasses of list and tuple. Handling these too would take the code below anyway. It also
orders the leaves of an OrderedDict, which torchvision's models return, differently from losses and metrics. Paths take 2 to 4
times as long with it, a single tensor 2 to 4 times, the rest 0.6 to 1.5 times (`python benchmarks/own_code.py trees`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def flatten(value: Any) -> list[Any]:
    """Return the leaves of nested lists, tuples and dicts, in order; dicts by sorted key, as Keras does.

    Example:
        >>> flatten({"b": 1, "a": [2, (3,)]})
        [2, 3, 1]
    """
    return list(_leaves(value)) if is_nested(value) else [value]


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key in sorted(value):
            yield from _leaves(value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def is_nested(data: Any) -> bool:
    """Return whether `data` is a tuple, list or mapping."""
    return isinstance(data, (tuple, list, Mapping))


def map_leaves(function: Callable[[Any], Any], data: Any) -> Any:
    """Apply `function` to every leaf that is not None, and keep the structure.

    Args:
        function: Called with one leaf.
        data: A leaf, None, or nested tuples, lists and dicts of them.

    Returns:
        The same structure; mappings become dicts, named tuples stay what they are.

    Example:
        >>> map_leaves(lambda n: n + 1, {"a": 1, "b": (2, None)})
        {'a': 2, 'b': (3, None)}
    """
    if data is None:
        return None
    if isinstance(data, Mapping):
        return {key: map_leaves(function, value) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(map_leaves(function, value) for value in data))
    if isinstance(data, (tuple, list)):
        mapped = [map_leaves(function, value) for value in data]
        return tuple(mapped) if isinstance(data, tuple) else mapped
    return function(data)


def named_leaves(data: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield every leaf that is not None with the path that leads to it.

    Args:
        data: A leaf, None, or nested tuples, lists and dicts of them.
        name: What `data` itself is called.

    Yields:
        Pairs of path and leaf, in the order of `map_leaves`.

    Example:
        >>> list(named_leaves({"a": 1, "b": [2, None]}, "x"))
        [("x['a']", 1), ("x['b'][0]", 2)]
    """
    if data is None:
        return
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from named_leaves(value, f"{name}[{key!r}]")
    elif isinstance(data, (tuple, list)):
        for index, value in enumerate(data):
            yield from named_leaves(value, f"{name}[{index}]")
    else:
        yield name, data


def map_named(function: Callable[[str, Any], Any], data: Any, name: str) -> Any:
    """Apply `function(path, leaf)` to every leaf that is not None, and keep the structure.

    Args:
        function: Called with the path and the leaf, as `named_leaves` gives them.
        data: A leaf, None, or nested tuples, lists and dicts of them.
        name: What `data` itself is called.

    Returns:
        The same structure as `map_leaves` returns.

    Example:
        >>> map_named(lambda path, leaf: path, (1, [2]), "y")
        ('y[0]', ['y[1][0]'])
    """
    paths = iter(named_leaves(data, name))
    return map_leaves(lambda leaf: function(next(paths)[0], leaf), data)


def first_leaf(value: Any) -> Any:
    """Return the first leaf that is not None; None when there is none.

    Example:
        >>> first_leaf([None, (5, 6)])
        5
    """
    return next((leaf for leaf in _leaves(value) if leaf is not None), None)
