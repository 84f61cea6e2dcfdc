"""What a stream has given since a certain place, so that a run can go back there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from oncue.nested import flatten

LIMIT = 1 << 30
"""So many bytes are kept at most."""
_STATES = 1 << 15
"""About so many bytes have the states of random generators."""

PutBack = Callable[[], None]


class Tape:
    """Keeps the batches of a stream and the ends of its passes, and gives them once more after `rewind`.

    What the stream drew from the global random generators counts as drawn once more, too.

    Args:
        passes: The number of passes that had ended when it began.
        taken: The number of batches that had been read.

    Example:
        >>> tape = Tape(passes=0, taken=5)
        >>> tape.record(("a",)), tape.record(("b",)), tape.record(None)
        (None, None, None)
        >>> tape.rewind(passes=0, taken=6), tape.left, tape.play(), tape.play(), tape.left
        (True, True, ('b',), None, False)
    """

    def __init__(self, passes: int, taken: int) -> None:
        # Each with what puts the random generators that were used to where they were afterwards, if any was.
        self._given: list[tuple[tuple[Any] | None, PutBack | None]] = []
        self._next = self._bytes = 0
        self._full = False
        self.begin(passes, taken)

    @property
    def left(self) -> bool:
        """Whether there is something to play."""
        return self._next < len(self._given)

    def begin(self, passes: int, taken: int) -> None:
        """Let the tape begin at the present place, and forget what was before it."""
        self._given = self._given[self._next :]
        self._next, self._full = 0, False
        self._bytes = sum(_size(*given) for given in self._given)
        self._passes, self._taken = passes, taken

    def record(self, item: tuple[Any] | None, drawn: PutBack | None = None) -> None:
        """Keep a copy of a batch.

        Args:
            item: The batch as `(batch,)`, or None, the end of a pass.
            drawn: Puts the random generators to where they are now; None where none was used.
        """
        self._bytes += _size(item, drawn)
        self._full = self._full or self._bytes > LIMIT
        if self._full:
            self._given.clear()
        else:
            # A generator may fill the same arrays each time.
            self._given.append((copy.deepcopy(item, _copies(item)), drawn))
        self._next = len(self._given)

    def play(self) -> tuple[Any] | None:
        """Return the next thing that the stream had given."""
        self._next += 1
        item, drawn = self._given[self._next - 1]
        if drawn is not None:
            drawn()
        return item

    def rewind(self, passes: int, taken: int) -> bool:
        """Go back to a place, and return whether it is on the tape."""
        place = (passes - self._passes) + (taken - self._taken)
        if self._full or not 0 <= place <= len(self._given):
            return False
        self._next = place
        return True


def _copies(item: tuple[Any] | None) -> dict[int, Any]:
    """Return copies of the tensors by their identities: one that a model has computed can't be copied with its graph."""
    tensors = [] if item is None else [leaf for leaf in flatten(item) if isinstance(leaf, torch.Tensor)]
    return {id(tensor): tensor.detach().clone() for tensor in tensors}


def _size(item: tuple[Any] | None, drawn: PutBack | None) -> int:
    states = 0 if drawn is None else _STATES
    return states if item is None else states + sum(int(getattr(leaf, "nbytes", 0)) for leaf in flatten(item))
