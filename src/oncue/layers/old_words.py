"""The arguments of layers as Keras 1 and 2 spelled them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

from oncue.legacy import LAYER_WORDS, warn_once

P = ParamSpec("P")

_DIM_ORDERING = {"tf": "channels_last", "th": "channels_first"}


def accepts_old_words(init: Callable[P, None]) -> Callable[P, None]:
    """Let a layer's `__init__` also take the words of older Kerases; each one warns once.

    Args:
        init: The `__init__` of one of the layers in the table `LAYER_WORDS`.

    Returns:
        The `__init__` that translates first.
    """
    words = LAYER_WORDS[init.__qualname__.split(".")[0]]

    @functools.wraps(init)
    def translated(*args: P.args, **kwargs: P.kwargs) -> None:
        init(*args, **(_modern(words, kwargs) if kwargs else kwargs))

    return translated


def _modern(words: dict[str, str | None], given: dict[str, Any]) -> dict[str, Any]:
    if "nb_row" in given and "nb_col" in given and "nb_filter" in words:
        given = {**given, "kernel_size": (given["nb_row"], given["nb_col"])}
        del given["nb_row"], given["nb_col"]
    modern: dict[str, Any] = {}
    for word, value in given.items():
        if word not in words:
            modern[word] = value
            continue
        new = words[word]
        if new is None:
            continue
        warn_once(word, new)
        modern[new] = _DIM_ORDERING.get(value, value) if word == "dim_ordering" else value
    return modern
