"""Automatic names for objects without a given one: `dense`, `dense_1`, `precision`."""

from __future__ import annotations

import re
from collections import Counter

_counts: Counter[str] = Counter()


def auto_name(prefix: str) -> str:
    """Return `prefix` the first time, then `prefix_1`, `prefix_2`, ...

    Args:
        prefix: A name in snake case.

    Returns:
        A name that hasn't been returned before in this process (since `reset`).

    Example:
        >>> reset()
        >>> auto_name("dense"), auto_name("dense")
        ('dense', 'dense_1')
    """
    seen = _counts[prefix]
    _counts[prefix] += 1
    return prefix if seen == 0 else f"{prefix}_{seen}"


def without_number(name: str) -> str:
    """Return the name of a weight without the numbers of automatic names: the same for each model of the same code.

    Args:
        name: Names of layers and that of the weight, with dots between them.

    Example:
        >>> without_number("dense_2.kernel")
        'dense.kernel'
    """
    return re.sub(r"_\d+(?=\.)", "", name)


def to_snake_case(name: str) -> str:
    """Return a class name in the form that Keras uses for automatic names.

    Args:
        name: A class name such as "Conv2D".

    Returns:
        The name in snake case.

    Example:
        >>> to_snake_case("MaxPooling2D"), to_snake_case("LSTM"), to_snake_case("Conv2D")
        ('max_pooling2d', 'lstm', 'conv2d')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def reset() -> None:
    """Start counting again, as `clear_session` does."""
    _counts.clear()
