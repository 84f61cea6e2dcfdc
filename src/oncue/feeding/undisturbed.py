"""A look at data that leaves no trace in the random states."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def undisturbed_random_state(*generators: torch.Generator | None) -> Iterator[None]:
    """Put the CPU random states of Python, NumPy and torch back when the block ends.

    Args:
        *generators: Further torch generators to put back; None is skipped.

    Yields:
        Nothing.

    Example:
        >>> before = torch.get_rng_state()
        >>> with undisturbed_random_state():
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
