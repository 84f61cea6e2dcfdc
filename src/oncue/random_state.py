"""The random generators that a training step may use: those of Python, NumPy, and torch on every device."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch


def random_state(cuda: bool = True) -> dict[str, Any]:
    """Return the state of the global generators, as plain containers, numbers and tensors.

    Separate generators, such as `numpy.random.default_rng()`, are not included.

    Args:
        cuda: False to leave out the devices, which worker processes of a DataLoader must not touch. Default: True.

    Returns:
        "python", "numpy", "torch", and "cuda": a list with one state per device, empty without CUDA.

    Example:
        >>> state = random_state()
        >>> first = torch.rand(())
        >>> set_random_state(state)
        >>> bool(torch.rand(()) == first)
        True
    """
    name, keys, *rest = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    return {
        "python": (version, _as_array(words), gauss),
        "numpy": (str(name), np.array(keys, dtype=np.int64), *(number for number in rest)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda and torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore a state that `random_state` returned; devices that no longer exist are skipped."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(int(word) for word in words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(torch.as_tensor(state["torch"]))
    if state["cuda"] and torch.cuda.is_available():
        for index, one in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(one, index)


@contextmanager
def preserved_random_state(*generators: torch.Generator | None) -> Iterator[None]:
    """Restore the CPU random states of Python, NumPy and torch when the block ends.

    Args:
        *generators: Further torch generators to restore; None is skipped.

    Yields:
        Nothing.

    Example:
        >>> before = torch.get_rng_state()
        >>> with preserved_random_state():
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    python, numpy, default = random.getstate(), np.random.get_state(), torch.get_rng_state()
    own = [(generator, generator.get_state()) for generator in generators if generator is not None]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(default)
        for generator, state in own:
            generator.set_state(state)


@lru_cache(maxsize=1)
def _as_array(words: tuple[int, ...]) -> np.ndarray[Any, Any]:
    # An array is saved a hundred times faster than a tuple. Cached, since most runs never use Python's generator.
    array = np.array(words, dtype=np.int64)
    array.flags.writeable = False
    return array
