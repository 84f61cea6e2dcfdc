"""What Keras does otherwise in a thread: while a model of its own is traced, and on the rows of one process of several."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from oncue.training.graph.draws import generator_for
from oncue.with_keras import keras_private


class _Exchanged:
    """Who traces now, and the function that Keras had before."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads: list[int] = []
        self.theirs: Callable[[Any], Any] | None = None


_exchanged = _Exchanged()


@contextmanager
def traceable() -> Iterator[None]:
    """Let calls of Keras's layers in this thread be part of a graph while the block runs.

    Generators with a seed get it as a tensor, so that a graph can draw from it, and errors keep all lines that led to them.
    Other threads get from Keras what they always get.

    Example:
        >>> import os
        >>> os.environ["KERAS_BACKEND"] = "torch"
        >>> import keras
        >>> with traceable():
        ...     keras.random.uniform((2,), seed=1).shape
        torch.Size([2])
    """
    import keras

    filtered = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        with draws_of_process():
            yield
    finally:
        if filtered:
            keras.config.enable_traceback_filtering()


@contextmanager
def draws_of_process() -> Iterator[None]:
    """Let Keras's layers in this thread draw other random numbers for the rows of each process while the block runs.

    They follow from the same seed, the count of draws and the process. On one process they are those that Keras draws.

    Example:
        >>> import os
        >>> os.environ["KERAS_BACKEND"] = "torch"
        >>> import keras
        >>> with draws_of_process():
        ...     first = keras.random.uniform((2,), seed=1)
        >>> first.equal(keras.random.uniform((2,), seed=1))
        True
    """
    here = threading.get_ident()
    with _exchanged.lock:
        if not _exchanged.threads:
            _exchanged.theirs = keras_private.exchange_generator(_generator)
        _exchanged.threads.append(here)
    try:
        yield
    finally:
        with _exchanged.lock:
            _exchanged.threads.remove(here)
            if not _exchanged.threads and _exchanged.theirs is not None:
                keras_private.exchange_generator(_exchanged.theirs)


def _generator(seed: Any) -> torch.Generator | None:
    if threading.get_ident() not in _exchanged.threads:
        assert _exchanged.theirs is not None
        theirs: torch.Generator | None = _exchanged.theirs(seed)
        return theirs
    drawn = keras_private.draw_seed(seed)
    if drawn is None:
        return None
    first, second = drawn
    return generator_for(first + second, of_process=seed is None)
