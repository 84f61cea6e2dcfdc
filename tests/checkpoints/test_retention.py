"""Retention: which files the rules keep."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from oncue.checkpoints import KeepBest, KeepEvery, KeepLast
from oncue.checkpoints.record import Record
from oncue.checkpoints.retention import as_rules, kept


def records(*scores: float | None) -> list[Record]:
    return [Record(f"m{epoch}", epoch=epoch, score=score) for epoch, score in enumerate(scores, 1)]


@pytest.mark.parametrize(
    ("keep", "rules"),
    [
        (3, (KeepLast(3),)),
        ("last 2", (KeepLast(2),)),
        ("best", (KeepBest(1),)),
        ("Best 3", (KeepBest(3),)),
        ("every 5", (KeepEvery(5),)),
        (KeepBest(2), (KeepBest(2),)),
        ([1, "best 2", KeepEvery(10)], (KeepLast(1), KeepBest(2), KeepEvery(10))),
    ],
)
def test_what_keep_may_be(keep: Any, rules: tuple[Any, ...]) -> None:
    assert as_rules(keep) == rules


@pytest.mark.parametrize("keep", [0, -1, True, 2.5, "worst 3", "best -1", "best 0", "", [], KeepBest, None])
def test_what_keep_may_not_be(keep: Any) -> None:
    with pytest.raises(ValueError, match=r"`keep` of ModelCheckpoint|whole number, 1 or more"):
        as_rules(keep)


def test_the_best_are_finite_and_of_equals_the_earlier() -> None:
    files = records(0.5, math.nan, 0.25, None, 0.25, -math.inf, 0.125)
    assert KeepBest(2).kept(files, "down") == ["m7", "m3"]
    assert KeepBest(2).kept(files, "up") == ["m1", "m3"]
    assert KeepBest(9).kept(files, "up") == ["m1", "m3", "m5", "m7"]
    assert KeepBest(2).kept(files, None) == []


def test_rules_add_up() -> None:
    files = records(1.0, 5.0, 3.0, 2.0, 4.0, 6.0)
    assert kept([KeepLast(1), KeepBest(1), KeepEvery(3)], files, "down") == {"m6", "m1", "m3"}


def test_never_nothing() -> None:
    assert kept([KeepBest(2)], records(math.nan, None), "up") == {"m2"}
    assert kept([KeepLast(2)], [], None) == set()


@given(st.lists(st.none() | st.floats()), st.integers(1, 5), st.sampled_from(["up", "down"]))
def test_no_file_that_went_was_better(scores: list[float | None], count: int, direction: str) -> None:
    files = records(*scores)
    names = KeepBest(count).kept(files, direction)
    best = [file.score for file in files if file.file in names]
    gone = [
        file.score for file in files if file.file not in names and file.score is not None and math.isfinite(file.score)
    ]
    assert len(names) <= count
    assert not gone or len(names) == count
    sign = 1 if direction == "up" else -1
    assert all(sign * went <= sign * (kept_one or 0.0) for went in gone for kept_one in best)
