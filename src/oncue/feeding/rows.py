"""Some rows of data that can be read by index, as digests: do two runs have the same data, and have data changed since?"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from oncue.core.warn import warn
from oncue.feeding.digest import batch_digest
from oncue.feeding.parts import generators_of, is_stateful
from oncue.random_state import fixed_random_state

_NUMBER = 18
_FEW = 3
_SECONDS = 0.05
"""No further rows are read when those before took so long."""


class Rows:
    """Reads rows outside of a pass, without a trace: with random numbers of their own, and data sets as they were.

    Args:
        kind: What the data are, for messages.
        number: How many rows there are.
        read: Returns the row for an index.
        parts: What is read from.

    Example:
        >>> rows = Rows("list", 3, [1.0, 2.0, 3.0].__getitem__, [])
        >>> sorted(rows.contents()) == sorted(rows.few()) == ["row 0", "row 1", "row 2"]
        True
    """

    def __init__(self, kind: str, number: int, read: Callable[[int], Any], parts: Sequence[Any]) -> None:
        self._kind = kind
        self._number = number
        self._read = read
        self._parts = parts
        self._repeats: bool | None = None

    def contents(self) -> dict[str, str]:
        """Return digests of some rows by name; none, with a warning, when reading a row twice doesn't give the same."""
        with _restored(self._parts):
            digests = {row: {self._digest(row), self._digest(row)} for row in self._in_time(_NUMBER)}
        changed = [row for row, found in digests.items() if len(found) > 1]
        stateful = any(is_stateful(part) for part in self._parts)
        # The state of those that have one says how they have changed.
        self._repeats = not changed and not stateful
        if not changed:
            return {f"row {row}": next(iter(found)) for row, found in digests.items()}
        if not stateful:
            warn(
                f"The {self._kind} gives another row {changed[0]} when it is read twice with the same random numbers. A run "
                "that is interrupted and resumed therefore gets other data than one that is not. Keep random generators in "
                "attributes of the data set, or give it `state_dict` and `load_state_dict`."
            )
        return {}

    def few(self) -> dict[str, str]:
        """Return digests of a few rows, as they are now; none when they would be others the next time."""
        if self._repeats is None:
            self.contents()
        return {f"row {row}": self._digest(row) for row in self._in_time(_FEW)} if self._repeats else {}

    def _in_time(self, number: int) -> Iterator[int]:
        began = time.perf_counter()
        for row in spread(self._number, number):
            yield row
            if time.perf_counter() - began > _SECONDS:
                return

    def _digest(self, row: int) -> str:
        with fixed_random_state(*generators_of(self._parts)):
            return batch_digest(self._read(row))


def spread(length: int, number: int = _NUMBER) -> list[int]:
    """Return some indices of a sequence, evenly spaced: the ends first, so that the first few of them say most.

    Args:
        length: The length of the sequence.
        number: How many, at most; 3 or more.

    Example:
        >>> spread(101, 5)
        [0, 100, 50, 25, 75]
    """
    number = min(number, length)
    places = [round(place * (length - 1) / max(number - 1, 1)) for place in range(number)]
    step, order = max(number - 1, 1), list[int]()
    while True:
        order += [place for place in range(0, number, step) if place not in order]
        if step == 1:
            return [places[place] for place in order]
        step = max(step // 2, 1)


@contextmanager
def _restored(parts: Sequence[Any]) -> Iterator[None]:
    states = [(part, copy.deepcopy(part.state_dict())) for part in parts if is_stateful(part)]
    try:
        yield
    finally:
        for part, state in states:
            part.load_state_dict(state)
