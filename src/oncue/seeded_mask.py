"""Random masks that depend only on a seed and the number of draws before: an operation opaque to torch's compiler."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextvars import ContextVar, Token
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

_MASK = "oncue::seeded_mask"
_MOST_DRAWN = 8
"""For how many processes each draws the masks of all rows. With more, that would cost more than it is worth."""

_numbers = itertools.count()
_registered: WeakValueDictionary[int, Any] = WeakValueDictionary()


class Seeds(Protocol):
    """A seed with a count of draws, such as `oncue.random.SeedGenerator`."""

    number: int

    def next(self) -> tuple[int, int]:
        """Return the seed and the number of draws before this one."""
        ...


class Share(Protocol):
    """One process's rows of a batch, such as `oncue.feeding.row_share.RowShare`."""

    rank: int
    size: int
    rows: int
    total: int

    def bounds(self, total: int, rank: int) -> tuple[int, int]:
        """Return where the rows of a process begin and end."""
        ...


_share: ContextVar[Share | None] = ContextVar("_share", default=None)


class RowsOfBatch:
    """A block in which what is drawn from seeds is for one process's rows of a batch.

    Args:
        share: Which rows these are.
    """

    def __init__(self, share: Share) -> None:
        self._share = share
        self._token: Token[Share | None] | None = None

    def __enter__(self) -> None:
        self._token = _share.set(self._share)

    def __exit__(self, *error: object) -> None:
        assert self._token is not None
        _share.reset(self._token)


def is_shared() -> bool:
    """Return whether a batch is computed of which other processes have other rows."""
    return _share.get() is not None


def seed_of_process(seed: int) -> int:
    """Return the seed from which this process draws for its own rows: for one process alone, the seed itself.

    Args:
        seed: The seed of all processes.
    """
    share = _share.get()
    return seed if share is None else seed + 0x9E3779B1 * share.rank


def register(seeds: Any) -> int:
    """Return a number by which a graph, which can't contain objects, refers to one.

    Args:
        seeds: The object; only a weak reference is kept.
    """
    number = next(_numbers)
    _registered[number] = seeds
    return number


def seeded_mask(seeds: Seeds, shape: Sequence[int], keep: float, like: Tensor, by_row: bool = True) -> Tensor:
    """Draw ones and zeros; the n-th mask depends only on the seed and n.

    A mode for torch's functions sees a call of this function as one.

    Args:
        seeds: The seed and its count of draws.
        shape: The mask's shape.
        keep: The probability of a one.
        like: A tensor with the mask's dtype and device.
        by_row: Whether each row of a batch has values of its own, along the first axis.

    Returns:
        The mask.

    Example:
        >>> from oncue.random import SeedGenerator
        >>> first = seeded_mask(SeedGenerator(3), (2, 3), 0.5, torch.ones(1))
        >>> torch.equal(first, seeded_mask(SeedGenerator(3), (2, 3), 0.5, torch.ones(1)))
        True
    """
    if has_torch_function_unary(like):
        seen: Tensor = handle_torch_function(seeded_mask, (like,), seeds, shape, keep, like, by_row)
        return seen
    return _draw(seeds, shape, keep, like.dtype, like.device, by_row)


def seeded_mask_in_graph(seeds: Seeds, shape: Sequence[int], keep: float, like: Tensor, by_row: bool = True) -> Tensor:
    """Do as `seeded_mask`, by an operation that draws and counts when a graph runs, not when it is traced.

    Args:
        seeds: The seed and its count of draws.
        shape: The mask's shape.
        keep: The probability of a one.
        like: A tensor with the mask's dtype and device.
        by_row: Whether each row of a batch has values of its own, along the first axis.

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
    found: Tensor = torch.ops.oncue.seeded_mask.default(seeds.number, list(shape), keep, like.dtype, by_row)
    return found


def _draw(
    seeds: Seeds, shape: Sequence[int], keep: float, dtype: torch.dtype, device: torch.device, by_row: bool
) -> Tensor:
    # One seed for each draw, as in Keras.
    seed, share, rows = sum(seeds.next()), _share.get(), slice(None)
    whole = list(shape)
    if share is not None:
        each = _values_of_a_row(shape, share) if by_row else None
        if each is None or share.size > _MOST_DRAWN:
            # Without an axis of rows, the mask is the same for all.
            seed = seed if each is None else seed_of_process(seed)
        else:
            begin, end = share.bounds(share.total, share.rank)
            whole[0] = share.total * each
            rows = slice(begin * each, end * each) if share.rows else slice(0, each)
    generator = torch.Generator(device).manual_seed(seed & 0xFFFFFFFF)
    return torch.bernoulli(torch.full(whole, keep, dtype=dtype, device=device), generator=generator)[rows]


def _values_of_a_row(shape: Sequence[int], share: Share) -> int | None:
    """Return how long the first axis is for each row of a batch: more than one where a layer has joined axes."""
    rows = share.rows or 1
    return shape[0] // rows if shape and shape[0] % rows == 0 else None


def _in_graph(number: int, shape: Sequence[int], keep: float, dtype: torch.dtype, by_row: bool) -> Tensor:
    # Imported here, because reloading this module (in a notebook) makes a new registry.
    from oncue import seeded_mask

    return seeded_mask._draw(seeded_mask._registered[number], shape, keep, dtype, torch.device("cpu"), by_row)


if not hasattr(torch.ops.oncue, "seeded_mask"):
    # The tag keeps the compiler from merging two draws into one.
    torch.library.define(
        _MASK,
        "(int seeds, SymInt[] shape, float keep, ScalarType dtype, bool by_row) -> Tensor",
        tags=(torch.Tag.nondeterministic_seeded,),
    )
    torch.library.impl(_MASK, "CompositeExplicitAutograd", _in_graph)
    torch.library.register_fake(_MASK, lambda number, shape, keep, dtype, by_row: torch.empty(shape, dtype=dtype))
