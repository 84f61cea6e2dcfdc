"""Some rows of data that can be read by index, as digests: do two runs have the same data, and have data changed since?"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from oncue.core.warn import warn
from oncue.feeding.digest import batch_digest
from oncue.feeding.parts import generators_of, is_stateful, random_of
from oncue.random_state import fixed_random_state, generator_state, preserved_random_state

_NUMBER = 18
_FEW = 3
_SECONDS = 0.05
"""No further rows are read when those before took so long."""
_SLOW = 0.02
"""Of data where one row takes so long, two are read, once, when the run begins."""


class Rows:
    """Reads rows outside of a pass, without a trace: random generators are put back, and data sets that have a state.

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
        # The rows to read again, once it is known which say something.
        self._few: list[int] | None = None

    def contents(self) -> dict[str, str]:
        """Return digests of some rows by name.

        None, with a warning, when reading a row twice doesn't give the same; and none of rows that can't be read.
        """
        self._few = []
        stateful = any(is_stateful(part) for part in self._parts)
        try:
            with _restored(self._parts):
                looks = self._look()
        except Exception:
            # Only a pass shows what can be read: a data set may refuse, with any error, what no sampler asks it for. What is
            # wrong with a row that is needed shows when its batch is read.
            return {}
        changed = [look.row for look in looks if not look.repeats]
        # The state of those that have one says how they have changed.
        if not changed and not stateful and not _slow(looks):
            self._few = [look.row for look in looks][:_FEW]
        if changed and not stateful:
            warn(
                f"The {self._kind} gives another row {changed[0]} when it is read twice with the same random numbers, or keeps "
                "what it has drawn. A run that is interrupted and resumed therefore gets other data than one that is not. "
                "Keep random generators in attributes of the data set, and draw anew for each sample; or give the data set "
                "`state_dict` and `load_state_dict`."
            )
        return {} if changed else {f"row {look.row}": look.digest for look in looks}

    def few(self) -> dict[str, str]:
        """Return digests of a few rows, as they are now; none when they would be others the next time."""
        if self._few is None:
            self.contents()
        try:
            return {f"row {row}": self._fixed(row) for row in self._few or ()}
        except Exception:
            # As in `contents`. Nothing is read again after that.
            self._few = []
            return {}

    def draws(self) -> bool:
        """Return whether reading a row draws random numbers or changes a state: others than this row's depend on it then."""
        if any(is_stateful(part) for part in self._parts):
            return True
        generators = generators_of(self._parts)
        try:
            with preserved_random_state(*generators):
                before = _drawn(generators)
                self._read(0)
                return _drawn(generators) != before
        except Exception:
            # As in `contents`.
            return True

    def _look(self) -> list[_Look]:
        began, looks = time.perf_counter(), list[_Look]()
        for row in spread(self._number):
            looks.append(self._first_look(row))
            # The first one may have opened a file.
            if _slow(looks) and (len(looks) == 2 or looks[-1].drew):
                return looks
            if time.perf_counter() - began > _SECONDS:
                break
        for look in looks:
            digest, drew = self._digest(look.row)
            look.repeats = look.digest == digest and look.drew == drew
        return looks

    def _first_look(self, row: int) -> _Look:
        # What a data set keeps of a row must not come from other random numbers than those of the run.
        with preserved_random_state(*generators_of(self._parts)):
            before, began = self._random(), time.perf_counter()
            data = self._read(row)
            seconds = time.perf_counter() - began
            look = _Look(row, batch_digest(data), batch_digest(before) != batch_digest(self._random()), seconds)
        if look.drew:
            # Another run may have other seeds.
            began = time.perf_counter()
            look.digest = self._fixed(row)
            look.seconds = min(seconds, time.perf_counter() - began)
        return look

    def _fixed(self, row: int) -> str:
        """Return the digest of a row with the same random numbers each time."""
        with fixed_random_state(*generators_of(self._parts)):
            return batch_digest(self._read(row))

    def _digest(self, row: int) -> tuple[str, bool]:
        """Return the digest of a row with the same random numbers each time, and whether any were drawn."""
        with fixed_random_state(*generators_of(self._parts)):
            before = self._random()
            digest = batch_digest(self._read(row))
            return digest, batch_digest(before) != batch_digest(self._random())

    def _random(self) -> Any:
        return random_of(self._parts)


@dataclass
class _Look:
    row: int
    digest: str
    drew: bool
    seconds: float
    repeats: bool = True


def _slow(looks: list[_Look]) -> bool:
    return min(look.seconds for look in looks) > _SLOW


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


def _drawn(generators: Sequence[Any]) -> list[Any]:
    """Return where random generators are, so that it can be compared."""
    states = [generator_state(generator) for generator in generators]
    own = [state.tolist() if isinstance(state, torch.Tensor) else state for state in states]
    _, words, place, *_ = np.random.get_state(legacy=True)
    return [random.getstate(), np.asarray(words).tolist(), place, torch.get_rng_state().tolist(), *own]
