"""The random generators that a training step may use: those of Python, NumPy, and torch on every device."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
"""The classes of random generators whose states can be kept."""


def random_state(cuda: bool = True) -> dict[str, Any]:
    """Return the state of the global generators, as plain containers, numbers and tensors.

    Separate generators, such as `numpy.random.default_rng()`, are not included.

    Args:
        cuda: False to leave out the devices, which worker processes of a DataLoader must not touch. Default: True.

    Returns:
        "python", "numpy", "torch", and "cuda": a list with one state per device, empty without CUDA; "mps" where there is
        such a device.

    Example:
        >>> state = random_state()
        >>> first = torch.rand(())
        >>> set_random_state(state)
        >>> bool(torch.rand(()) == first)
        True
    """
    name, keys, *rest = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    found = {
        "python": (version, _as_array(words), gauss),
        "numpy": (str(name), np.array(keys, dtype=np.int64), *(number for number in rest)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda and torch.cuda.is_available() else [],
    }
    if cuda and torch.backends.mps.is_available():
        found["mps"] = torch.mps.get_rng_state()
    return found


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
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def check_random_state(state: dict[str, Any]) -> None:
    """Refuse what `set_random_state` couldn't restore, or only a part of it.

    Raises:
        ValueError: For another state than `random_state` returns.

    Example:
        >>> check_random_state(random_state())
        >>> check_random_state({**random_state(), "torch": torch.zeros(3)})
        Traceback (most recent call last):
        ...
        ValueError: These are no states of random generators: RNG state must be a torch.ByteTensor
    """
    try:
        version, words, gauss = state["python"]
        random.Random().setstate((version, tuple(int(word) for word in words), gauss))
        name, keys, *rest = state["numpy"]
        np.random.RandomState().set_state((name, np.array(keys, dtype=np.uint32), *rest))
        torch.Generator().set_state(torch.as_tensor(state["torch"]))
        for one in [*state["cuda"], *([state["mps"]] if "mps" in state else [])]:
            if not isinstance(one, torch.Tensor) or one.dtype != torch.uint8 or one.ndim != 1:
                raise ValueError("that of a device must be bytes")
    except (LookupError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"These are no states of random generators: {error}") from error


def is_generator(value: Any) -> bool:
    """Return whether an object is a random generator: of torch, of NumPy (old or new), or of Python.

    Example:
        >>> is_generator(np.random.default_rng(0)), is_generator(0)
        (True, False)
    """
    return isinstance(value, GENERATORS)


def generator_state(generator: Any) -> Any:
    """Return the state of a separate generator, as plain containers, numbers and tensors.

    Args:
        generator: One that `is_generator` knows.

    Example:
        >>> draw = np.random.default_rng(0)
        >>> state, first = generator_state(draw), draw.random()
        >>> set_generator_state(draw, state)
        >>> draw.random() == first
        True
    """
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return _listed(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return _listed(generator.get_state(legacy=False))
    return generator.getstate()


def set_generator_state(generator: Any, state: Any) -> None:
    """Restore a state that `generator_state` returned.

    Args:
        generator: A generator of the same kind.
        state: Its state.
    """
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.as_tensor(state, dtype=torch.uint8))
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = _arrays(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(_arrays(state))
    else:
        generator.setstate((state[0], tuple(state[1]), state[2]))


def rewinder(cuda: bool = True) -> Callable[[], None]:
    """Return a function that puts the global generators, also of devices in use, back to where they are now.

    Args:
        cuda: False to leave out the devices, which worker processes of a DataLoader must not touch. Default: True.

    Example:
        >>> rewind = rewinder()
        >>> first = torch.rand(())
        >>> rewind()
        >>> bool(torch.rand(()) == first)
        True
    """
    python, numpy, default = random.getstate(), np.random.get_state(), torch.get_rng_state()
    in_use = cuda and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's, without types
    devices = torch.cuda.get_rng_state_all() if in_use else []
    mps = torch.mps.get_rng_state() if cuda and torch.backends.mps.is_available() else None

    def rewind() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(default)
        for index, state in enumerate(devices):
            torch.cuda.set_rng_state(state, index)
        if mps is not None:
            torch.mps.set_rng_state(mps)

    return rewind


def draws() -> Callable[[], Callable[[], None] | None]:
    """Return a function that tells what the global generators have given since now.

    It returns None where none was used; else a function that puts those that were used to where they are at that time.

    Example:
        >>> since = draws()
        >>> since() is None
        True
        >>> _ = random.random()
        >>> again, next_one = since(), random.random()
        >>> again()
        >>> random.random() == next_one
        True
    """
    python, default = random.getstate(), torch.get_rng_state()
    _, words, *rest = np.random.get_state(legacy=True)
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's, without types
    devices = torch.cuda.get_rng_state_all() if in_use else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def since() -> Callable[[], None] | None:
        puts: list[Callable[[], object]] = []
        if (state := random.getstate()) != python:
            puts.append(partial(random.setstate, state))
        name, now, *others = np.random.get_state(legacy=True)
        if others != rest or not np.array_equal(now, words):
            puts.append(partial(np.random.set_state, (name, now, *others)))
        if not torch.equal(given := torch.get_rng_state(), default):
            puts.append(partial(torch.set_rng_state, given))
        for index, one in enumerate(devices):
            if not torch.equal(given := torch.cuda.get_rng_state(index), one):
                puts.append(partial(torch.cuda.set_rng_state, given, index))
        if mps is not None and not torch.equal(given := torch.mps.get_rng_state(), mps):
            puts.append(partial(torch.mps.set_rng_state, given))

        def put() -> None:
            for one in puts:
                one()

        return put if puts else None

    return since


@contextmanager
def preserved_random_state(*generators: Any) -> Iterator[None]:
    """Restore the CPU random states of Python, NumPy and torch when the block ends.

    Args:
        *generators: Further generators to restore, of any kind that `is_generator` knows.

    Yields:
        Nothing.

    Example:
        >>> before = torch.get_rng_state()
        >>> with preserved_random_state():
        ...     _ = torch.rand(3)
        >>> torch.equal(before, torch.get_rng_state())
        True
    """
    rewind = rewinder(cuda=False)
    own = [(generator, generator_state(generator)) for generator in generators]
    try:
        yield
    finally:
        rewind()
        for generator, state in own:
            set_generator_state(generator, state)


@contextmanager
def fixed_random_state(*generators: Any) -> Iterator[None]:
    """Let the CPU generators of Python, NumPy and torch give the same numbers in each such block, and restore them.

    Args:
        *generators: Further generators, of any kind that `is_generator` knows.

    Yields:
        Nothing.

    Example:
        >>> def draw():
        ...     with fixed_random_state():
        ...         return random.random()
        >>> draw() == draw()
        True
    """
    with preserved_random_state(*generators):
        for generator in (random, np.random, torch.default_generator, *generators):
            if isinstance(generator, torch.Generator):
                generator.manual_seed(0)
            elif isinstance(generator, np.random.Generator):
                generator.bit_generator.state = type(generator.bit_generator)(0).state
            else:
                generator.seed(0)
        yield


def _listed(state: Any) -> Any:
    # Whole numbers of 64 bits without a sign are no tensors.
    if isinstance(state, dict):
        return {key: _listed(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def _arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _arrays(value) for key, value in state.items()}
    return np.array(state, dtype=np.uint64) if isinstance(state, list) else state


@lru_cache(maxsize=1)
def _as_array(words: tuple[int, ...]) -> np.ndarray[Any, Any]:
    # An array is saved a hundred times faster than a tuple. Cached, since most runs never use Python's generator.
    array = np.array(words, dtype=np.int64)
    array.flags.writeable = False
    return array
