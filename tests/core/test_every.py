"""Every: what is a period, and when it is due."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from helpers import Clock
from oncue.core.every import Every


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("2 epochs", 2, "epoch"),
        ("epoch", 1, "epoch"),
        ("500 steps", 500, "step"),
        ("3 batches", 3, "step"),
        ("1 batch", 1, "step"),
        (" 10 Minutes ", 600, "second"),
        ("10min", 600, "second"),
        ("1.5 hours", 5400, "second"),
        ("30 s", 30, "second"),
        ("2h", 7200, "second"),
    ],
)
def test_periods_as_text(text: str, amount: float, unit: str) -> None:
    every = Every(text)
    assert (every.amount, every.unit) == (amount, unit)


@pytest.mark.parametrize(
    "text", ["0 epochs", "-2 epochs", "1.5 epochs", "0 seconds", "0.5 steps", "", "7", "2 epochs 3"]
)
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(ValueError, match="every"):
        Every(text)


def test_a_number_without_a_unit_gets_both_readings_suggested() -> None:
    wrong: Any = 5
    with pytest.raises(ValueError, match="'5 epochs' or '5 steps'"):
        Every(wrong)


def test_an_unknown_unit_gets_the_nearest_suggested() -> None:
    with pytest.raises(ValueError, match="Did you mean 'epochs'"):
        Every("2 epohcs")


def test_steps_are_counted_over_epochs() -> None:
    every = Every("4 steps")
    assert [(epoch, batch) for epoch in range(3) for batch in range(3) if every.after_batch(batch)] == [(1, 0), (2, 1)]
    assert not every.after_epoch()


def test_several_steps_at_once_are_all_counted() -> None:
    every = Every("4 steps")
    assert [batch for batch in (2, 5, 8, 11) if every.after_batch(batch)] == [5, 11]


def test_epochs_dont_listen_to_batches() -> None:
    every = Every("2 epochs")
    assert not any(every.after_batch(batch) for batch in range(10))
    assert [every.after_epoch() for _ in range(5)] == [False, True, False, True, False]


def test_time_counts_only_while_training() -> None:
    clock = Clock()
    every = Every("10 seconds", clock=clock)
    every.begin()
    clock.now += 6
    assert not every.after_batch(0)
    clock.now += 1000
    every.begin()
    clock.now += 3
    assert not every.after_batch(0)
    clock.now += 1
    assert every.after_batch(1)
    clock.now += 9
    assert not every.after_batch(2)


def test_of_another_every_only_the_period_is_taken() -> None:
    first = Every("3 epochs")
    first.after_epoch()
    second = Every(first)
    assert str(second) == "3 epochs"
    assert [second.after_epoch() for _ in range(3)] == [False, False, True]


@given(st.integers(1, 7), st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(0, 40))
def test_a_count_continues_where_it_was_saved(period: int, epochs: list[int], cut: int) -> None:
    batches = [batch for count in epochs for batch in range(count)]
    whole = Every(f"{period} steps")
    expected = [whole.after_batch(batch) for batch in batches]
    first, second = Every(f"{period} steps"), Every(f"{period} steps")
    found = [first.after_batch(batch) for batch in batches[:cut]]
    second.load_state_dict(first.state_dict())
    assert found + [second.after_batch(batch) for batch in batches[cut:]] == expected
    assert sum(expected) == len(batches) // period
