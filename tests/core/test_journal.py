"""The journal: a bounded list of decisions that prints readably and survives a stop."""

from __future__ import annotations

import json
import time
from typing import Any

import pandas as pd
import pytest

from oncue.core.journal import Entry, Journal


def test_it_is_a_list_of_records() -> None:
    journal = Journal()
    journal.write("EarlyStopping", "stopped", epoch=4, kind="stop", data={"wait": 2})
    journal.write("Mine", "looked at it", epoch=4, batch=6)
    assert isinstance(journal, list) and len(journal) == 2
    first, second = journal
    assert (first.callback, first.epoch, first.batch, first.kind, first.data) == (
        "EarlyStopping",
        4,
        None,
        "stop",
        {"wait": 2},
    )
    assert abs(first.time - time.time()) < 60
    assert journal[-1] is second and journal[:1] == [first]
    assert journal.of("stop", "save") == [first]
    assert list(pd.DataFrame(journal)["text"]) == ["stopped", "looked at it"]


def test_it_prints_readably() -> None:
    journal = Journal()
    assert repr(journal) == "<empty journal>"
    journal.write("A", "began")
    journal.write("B", "changed it", epoch=0)
    journal.write("C", "saw it", epoch=1, batch=9)
    assert str(journal).splitlines() == [
        "before training: A: began",
        "epoch 1: B: changed it",
        "epoch 2, batch 10: C: saw it",
    ]


def test_the_oldest_notes_make_room_and_decisions_stay() -> None:
    journal = Journal(limit=4)
    journal.write("A", "stopped", kind="stop")
    for number in range(10):
        journal.write("A", f"note {number}")
    assert [entry.text for entry in journal] == ["stopped", "note 7", "note 8", "note 9"]
    assert journal.dropped == 7


def test_a_journal_of_decisions_alone_is_bounded_too() -> None:
    journal = Journal(limit=2)
    for number in range(5):
        journal.write("A", f"{number}", kind="learning_rate")
    assert [entry.text for entry in journal] == ["3", "4"]


def test_clear_forgets_everything() -> None:
    journal = Journal(limit=1)
    journal.write("A", "x")
    journal.write("A", "y")
    journal.clear()
    assert journal == [] and journal.dropped == 0


def test_the_state_is_plain_data_and_comes_back() -> None:
    journal = Journal(limit=2)
    for number in range(3):
        journal.write("A", f"{number}", epoch=number, data={"rate": 0.5})
    state = json.loads(json.dumps(journal.state_dict()))
    again = Journal(limit=2)
    again.load_state_dict(state)
    assert again == journal and again.dropped == 1
    assert isinstance(again[0], Entry)


@pytest.mark.parametrize(
    "data",
    [
        None,
        {"wait": 2, "best": 0.5},
        {"best": float("inf")},
        {"range": (1, 2)},
        {"by_epoch": {3: 0.5}},
        {"seen": [1, None]},
    ],
)
def test_entries_come_back_from_a_state(data: Any) -> None:
    journal, again = Journal(), Journal()
    journal.write("A", "did it \u00e9", epoch=4, batch=2, kind="save", data=data)
    again.load_state_dict(journal.state_dict())
    assert again == journal and repr(again[0]) == repr(journal[0])


def test_words_are_made_from_the_data_and_not_saved() -> None:
    journal, again = Journal(), Journal()
    entry = journal.write("Saver", what="file", kind="save", epoch=0, data={"path": "last.keras"})
    assert entry is journal[0] and entry.text == entry.cited + "saved last.keras"
    state = json.loads(json.dumps(journal.state_dict()))
    assert "text" not in state["entries"][0]
    again.load_state_dict(state)
    assert again == journal and str(again[0]) == "epoch 1: Saver: saved last.keras"


def test_an_entry_that_has_only_text_keeps_it() -> None:
    # So were all entries before the words were made from the data, and so are those of users.
    kept = {
        "time": 1.0,
        "epoch": 4,
        "batch": None,
        "callback": "Early",
        "text": "stopped",
        "kind": "stop",
        "data": None,
    }
    journal = Journal()
    journal.load_state_dict({"dropped": 0, "entries": [json.dumps(kept), kept]})
    assert [entry.text for entry in journal] == [entry.cited for entry in journal] == ["stopped", "stopped"]
    again = Journal()
    again.load_state_dict(journal.state_dict())
    assert again == journal


@pytest.mark.parametrize("what", ["of_a_later_version", "no_improvement"])
def test_an_entry_without_words_here_keeps_no_run_from_resuming(what: str) -> None:
    entry = Entry(0.0, 0, None, "Early", data={"value": 0.5}, what=what)
    assert what in entry.text and "0.5" in entry.cited


def test_an_entry_is_written_down_once() -> None:
    journal = Journal()
    journal.write("A", "did it")
    first = journal.state_dict()["entries"][0]
    assert journal.state_dict()["entries"][0] is first
