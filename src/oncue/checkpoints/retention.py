"""Rules for which saved files are kept: pure functions of their records."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from oncue.checkpoints.record import Record
from oncue.core.numbers import whole_of


class Rule(Protocol):
    """A rule for which files are kept; any object with this method is one."""

    def kept(self, records: Sequence[Record], direction: str | None) -> Iterable[str]:
        """Return the names of the files to keep.

        Args:
            records: The files, in the order in which they were saved.
            direction: The direction in which the score improves: "up", "down", or None if unknown.

        Returns:
            The `file` of each record to keep.
        """
        ...


@dataclass(frozen=True)
class KeepLast:
    """Keeps the files that were saved last.

    Args:
        count: How many.

    Raises:
        ValueError: For less than one.

    Example:
        >>> KeepLast(1).kept([Record("a.keras", epoch=1), Record("b.keras", epoch=2)], None)
        ['b.keras']
    """

    count: int = 1

    def __post_init__(self) -> None:
        _check_count(self)

    def kept(self, records: Sequence[Record], direction: str | None) -> list[str]:
        """Return the last names."""
        return [record.file for record in records[-self.count :]]


@dataclass(frozen=True)
class KeepBest:
    """Keeps the files with the best scores; of equal ones the earlier. A score that isn't finite is never among them.

    Args:
        count: How many.

    Raises:
        ValueError: For less than one.

    Example:
        >>> files = [Record("a.keras", epoch=1, score=0.5), Record("b.keras", epoch=2, score=0.75)]
        >>> KeepBest(1).kept(files, "up"), KeepBest(1).kept(files, "down")
        (['b.keras'], ['a.keras'])
    """

    count: int = 1
    needs_score: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_count(self)

    def kept(self, records: Sequence[Record], direction: str | None) -> list[str]:
        """Return the names with the best scores, the best first."""
        return [record.file for record in by_score(records, direction)[: self.count]]


@dataclass(frozen=True)
class KeepEvery:
    """Keeps the files of every so many epochs for good.

    Args:
        count: The period, in epochs: 5 keeps those of epochs 5, 10, 15, as they are counted in file names.

    Raises:
        ValueError: For less than one.

    Example:
        >>> KeepEvery(2).kept([Record(f"{epoch}.keras", epoch=epoch) for epoch in (1, 2, 3, 4)], None)
        ['2.keras', '4.keras']
    """

    count: int

    def __post_init__(self) -> None:
        _check_count(self)

    def kept(self, records: Sequence[Record], direction: str | None) -> list[str]:
        """Return the names of these epochs."""
        return [record.file for record in records if record.epoch % self.count == 0]


_RULES = {"last": KeepLast, "best": KeepBest, "every": KeepEvery}


def as_rules(keep: Any, owner: str = "ModelCheckpoint") -> tuple[Rule, ...]:
    """Return the rules that `keep` stands for; a file is kept when one of them keeps it.

    Args:
        keep: A number (so many of the last), "best 3", "last 3", "every 5", a rule, or a list of these.
        owner: The class that takes the argument, for messages.

    Returns:
        At least one rule.

    Raises:
        ValueError: For anything else.

    Example:
        >>> as_rules(["best 3", 2])
        (KeepBest(count=3), KeepLast(count=2))
    """
    if isinstance(keep, (list, tuple)) and keep:
        return tuple(rule for one in keep for rule in as_rules(one, owner))
    number = whole_of(keep)
    if number is not None:
        return (KeepLast(number),)
    if isinstance(keep, str):
        found = re.fullmatch(r"\s*(last|best|every)(?:\s+(\d+))?\s*", keep.lower())
        if found is not None:
            return (_RULES[found[1]](int(found[2] or 1)),)
    elif not isinstance(keep, type) and callable(getattr(keep, "kept", None)):
        return (keep,)
    raise ValueError(
        f"`keep` of {owner} must be a number of files, 'best 3', 'last 3', 'every 5' (epochs), a rule such as "
        f"KeepBest(3), or a list of these; got {keep!r} of type {type(keep).__name__}."
    )


def kept(rules: Sequence[Rule], records: Sequence[Record], direction: str | None) -> set[str]:
    """Return the names of the files that the rules keep together; the last file when they would keep none.

    Example:
        >>> kept([KeepBest(1)], [Record("a.keras", epoch=1), Record("b.keras", epoch=2)], "up")
        {'b.keras'}
    """
    names = {name for rule in rules for name in rule.kept(records, direction)}
    return names or {record.file for record in records[-1:]}


def by_score(records: Iterable[Record], direction: str | None) -> list[Record]:
    """Return the records that have a finite score, the best first; none when the direction isn't known."""
    if direction is None:
        return []
    scored = [(record.score, record) for record in records if record.score is not None and math.isfinite(record.score)]
    return [record for _, record in sorted(scored, key=lambda pair: -pair[0] if direction == "up" else pair[0])]


def _check_count(rule: KeepLast | KeepBest | KeepEvery) -> None:
    count = whole_of(rule.count)
    if count is None or count < 1:
        raise ValueError(
            f"{type(rule).__name__} needs a whole number, 1 or more; got {rule.count!r} of type "
            f"{type(rule.count).__name__}."
        )
    object.__setattr__(rule, "count", count)
