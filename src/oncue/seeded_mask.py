"""Random masks that depend only on a seed and the number of draws before: an operation opaque to torch's compiler."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

_MASK = "oncue::seeded_mask"

_numbers = itertools.count()
_registered: WeakValueDictionary[int, Any] = WeakValueDictionary()


class Seeds(Protocol):
    """A seed with a count of draws, such as `oncue.random.SeedGenerator`."""

    number: int

    def next(self) -> tuple[int, int]:
        """Return the seed and the number of draws before this one."""
        ...


def register(seeds: Any) -> int:
    """Return a number by which a graph, which can't contain objects, refers to one.

    Args:
        seeds: The object; only a weak reference is kept.
    """
    number = next(_numbers)
    _registered[number] = seeds
    return number


def seeded_mask(seeds: Seeds, shape: Sequence[int], keep: float, like: Tensor) -> Tensor:
    """Draw ones and zeros; the n-th mask depends only on the seed and n.

    A mode for torch's functions sees a call of this function as one.

    Args:
        seeds: The seed and its count of draws.
        shape: The mask's shape.
        keep: The probability of a one.
        like: A tensor with the mask's dtype and device.

    Returns:
        The mask.

    Example:
        >>> from oncue.random import SeedGenerator
        >>> first = seeded_mask(SeedGenerator(3), (2, 3), 0.5, torch.ones(1))
        >>> torch.equal(first, seeded_mask(SeedGenerator(3), (2, 3), 0.5, torch.ones(1)))
        True
    """
    if has_torch_function_unary(like):
        seen: Tensor = handle_torch_function(seeded_mask, (like,), seeds, shape, keep, like)
        return seen
    return _draw(seeds, shape, keep, like.dtype, like.device)


def seeded_mask_in_graph(seeds: Seeds, shape: Sequence[int], keep: float, like: Tensor) -> Tensor:
    """Do as `seeded_mask`, by an operation that draws and counts when a graph runs, not when it is traced.

    Args:
        seeds: The seed and its count of draws.
        shape: The mask's shape.
        keep: The probability of a one.
        like: A tensor with the mask's dtype and device.

    Returns:
        The same mask.

    Raises:
        RuntimeError: On another device than the CPU.

    Example:
        >>> from oncue.random import SeedGenerator
        >>> like, seeds = torch.ones(1), [SeedGenerator(3), SeedGenerator(3)]
        >>> torch.equal(*[way(seeds.pop(), (2, 3), 0.5, like) for way in (seeded_mask, seeded_mask_in_graph)])
        True
    """
    if like.device.type != "cpu":
        # There a graph is recorded and replayed.
        raise RuntimeError("a mask from a seed of its own would be the same in every step of a recorded graph")
    found: Tensor = torch.ops.oncue.seeded_mask.default(seeds.number, list(shape), keep, like.dtype)
    return found


def _draw(seeds: Seeds, shape: Sequence[int], keep: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    seed, draws = seeds.next()
    # One seed for each draw, as in Keras.
    generator = torch.Generator(device).manual_seed((seed + draws) & 0xFFFFFFFF)
    return torch.bernoulli(torch.full(tuple(shape), keep, dtype=dtype, device=device), generator=generator)


def _in_graph(number: int, shape: Sequence[int], keep: float, dtype: torch.dtype) -> Tensor:
    # Imported here, because reloading this module (in a notebook) makes a new registry.
    from oncue import seeded_mask

    return seeded_mask._draw(seeded_mask._registered[number], shape, keep, dtype, torch.device("cpu"))


if not hasattr(torch.ops.oncue, "seeded_mask"):
    # The tag keeps the compiler from merging two draws into one.
    torch.library.define(
        _MASK,
        "(int seeds, SymInt[] shape, float keep, ScalarType dtype) -> Tensor",
        tags=(torch.Tag.nondeterministic_seeded,),
    )
    torch.library.impl(_MASK, "CompositeExplicitAutograd", _in_graph)
    torch.library.register_fake(_MASK, lambda number, shape, keep, dtype: torch.empty(shape, dtype=dtype))
