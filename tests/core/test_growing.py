"""Lists that grow are encoded once, and what is written is what they hold, whatever was done to them."""

from __future__ import annotations

import copy
import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest

from helpers import samples, small_model
from oncue.callbacks import BackupAndRestore, Callback
from oncue.checkpoints import encoding
from oncue.checkpoints.encoding import decode, encode, json_of
from oncue.core.growing import Growing
from oncue.core.journal import Journal


def written(value: Any) -> Any:
    """What comes back from a file."""
    return decode(json.loads(b"".join(json_of(encode(value, {})))), {})


class Counts:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, item: Any) -> bytes:
        self.calls += 1
        return json.dumps(item).encode()


@pytest.mark.parametrize("seed", range(3))
def test_it_holds_what_a_list_holds(seed: int) -> None:
    draws = random.Random(seed)
    rows: Growing[int] = Growing(range(draws.randrange(1200)))
    plain = list(rows)
    for number in range(300):
        place = draws.randrange(len(plain)) if plain else 0
        what = draws.choice(["append"] * 4 + ["extend", "drop", "drop", "set", "del", "insert", "pop", "end", "sort"])
        for one in (rows, plain):
            if what == "append":
                one.append(number)
            elif what == "extend":
                one += list(range(number))
            elif what == "drop" and plain:
                one.drop(place) if isinstance(one, Growing) else one.__delitem__(place)
            elif what == "set" and plain:
                one[place] = -number
            elif what == "del":
                del one[place : place + 3]
            elif what == "insert":
                one.insert(place, number)
            elif what == "pop" and plain:
                one.pop()
            elif what == "end":
                one[place + 600 :] = []
            elif what == "sort" and number % 7 == 0:
                one.sort()
        if draws.random() < 0.5:
            assert written(rows) == plain == rows
    assert written(rows) == plain == rows


@pytest.mark.parametrize("size", [1000, 20_000])
def test_each_item_is_encoded_once(size: int) -> None:
    rows, counts = Growing([0.5] * size), Counts()
    rows.texts(counts)
    assert counts.calls == size
    pieces = 0
    for number in range(1200):
        rows.append(number / 2)
        pieces = len(rows.texts(counts) or ())
    assert counts.calls == size + 1200
    assert pieces <= (size + 1200) / 512 + 1


def test_removing_from_the_beginning_costs_what_is_near() -> None:
    rows, counts = Growing(range(20_000)), Counts()
    rows.texts(counts)
    for number in range(2000):
        rows.drop(3)
        rows.append(number)
        rows.texts(counts)
    # Each of what was added, and each neighbour of what was removed once more.
    assert counts.calls <= 20_000 + 2000 + 2000 + 2 * 512
    assert written(rows) == list(rows)


@pytest.mark.parametrize("odd", [float("nan"), float("-inf"), None, "é", True, 2**70, [1, (2, 3)], {4: 0.5}])
def test_whatever_an_item_is(odd: Any) -> None:
    rows = Growing([0.5, odd, 1])
    assert repr(written({"a": [rows, (rows,)]})) == repr({"a": [[0.5, odd, 1], ([0.5, odd, 1],)]})


def test_a_container_that_is_changed_in_place_is_seen() -> None:
    rows = Growing([[1]])
    written(rows)
    rows[0].append(2)
    assert written(rows) == [[1, 2]]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_copies_are_their_own(again: Any) -> None:
    rows = Growing([1, 2])
    written(rows)
    twin = again(rows)
    twin[0] = 5
    assert written(twin) == [5, 2] and written(rows) == [1, 2] and type(twin) is Growing


def test_a_full_journal_is_searched_and_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, encoded = 0, encoding._text_of_fixed

    def counted(item: Any) -> Any:
        nonlocal calls
        calls += 1
        return encoded(item)

    monkeypatch.setattr(encoding, "_text_of_fixed", counted)
    journal, limit = Journal(limit=2000), 2000
    for number in range(limit):
        journal.write("A", f"{number}", kind="note" if number % 3 else "stop", epoch=number)
    assert written(journal.state_dict()) == {"dropped": 0, "entries": [entry.plain() for entry in journal]}
    before = calls
    for number in range(600):
        journal.write("A", f"later {number}", epoch=number)
        encode(journal.state_dict(), {})
    assert calls - before <= 600 + 600 + 4 * 512
    assert len(journal) == limit and journal.dropped == 600
    assert [entry.kind for entry in journal[:250]] == ["stop"] * 250
    assert written(journal.state_dict()) == {"dropped": 600, "entries": [entry.plain() for entry in journal]}


def test_a_long_run_pays_the_same_for_each_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[int] = []

    class Marks(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.note(f"epoch {epoch}")
            calls.append(0)

    def counts(encoded: Any) -> Any:
        def counted(item: Any) -> Any:
            calls[-1] += 1
            return encoded(item)

        return counted

    for name in ("_text_of", "_text_of_fixed"):
        monkeypatch.setattr(encoding, name, counts(getattr(encoding, name)))
    backup = BackupAndRestore(tmp_path)
    small_model().fit(samples(2), samples(1), epochs=30, verbose=0, callbacks=[Marks(), backup])
    # The epoch's index, its loss, in which epoch that was, and the note.
    assert set(calls) == {4}
