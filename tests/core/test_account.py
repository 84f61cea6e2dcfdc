"""The account of a run, from its parts; tests/callbacks/test_history.py has whole runs."""

from __future__ import annotations

from typing import Any

import pytest

from oncue.core.account import Ending, explain
from oncue.core.journal import Entry


def entry(
    text: str, kind: str, epoch: int | None = 0, batch: int | None = None, by: str = "Mine", **data: Any
) -> Entry:
    return Entry(0.0, epoch, batch, by, text, kind, data or None)


def decided(
    what: str, kind: str, epoch: int | None = 0, batch: int | None = None, by: str = "Mine", **data: Any
) -> Entry:
    """Return an entry of one of oncue's own callbacks, whose words are made from the data."""
    return Entry(0.0, epoch, batch, by, kind=kind, data=data, what=what)


def account(
    entries: list[Entry], ending: Ending | None = None, epochs: int = 3, costs: Any = None, **kwargs: Any
) -> list[str]:
    ending = Ending("finished", planned=epochs) if ending is None else ending
    return explain(list(range(epochs)), {}, entries, costs or {}, ending, 10.0, **kwargs).splitlines()


@pytest.mark.parametrize(
    ("ending", "line"),
    [
        (Ending(), "It is still running."),
        (Ending("finished", planned=3), "It ended because all its epochs were done."),
        (Ending("finished"), "It ended because all its epochs were done."),
        (Ending("finished", planned=9), "It ended after epoch 3 of 9, because the data had nothing left."),
        (
            Ending("asked", planned=9),
            "It was stopped after epoch 3 of 9: a callback set `stop_training` and noted no reason.",
        ),
        (Ending("failed", "ValueError: no", epoch=3), "It ended with an error in epoch 4: ValueError: no"),
        (Ending("failed", "ValueError"), "It ended with an error before the first epoch: ValueError"),
        (Ending("interrupted", epoch=3), "It was interrupted by Ctrl-C in epoch 4."),
    ],
)
def test_why_it_ended(ending: Ending, line: str) -> None:
    assert account([], ending)[1] == line


def test_a_stop_by_a_custom_callback_is_quoted() -> None:
    stop = entry("the loss is good enough", "stop", 2, by="StopWhenGood")
    assert account([stop], Ending("asked", planned=9))[1] == (
        "It was stopped by StopWhenGood after epoch 3: the loss is good enough."
    )


def test_of_several_stops_the_first_of_the_last_epoch_counts() -> None:
    stops = [
        entry("of an earlier run", "stop", 0, by="Early"),
        decided("time_is_over", "stop", 2, 4, by="Clock", seconds=7.0, limit=9.0, saved=False),
        entry("no better", "stop", 2, by="Early"),
    ]
    assert account(stops, Ending("asked"))[1] == (
        "It was stopped by Clock in epoch 3, batch 5: 7 of 9 seconds are over; the state was not saved."
    )


@pytest.mark.parametrize(
    ("entries", "ending", "line"),
    [
        (
            [
                Entry(
                    0.0,
                    2,
                    None,
                    "Early",
                    "",
                    "restore",
                    {"epoch": 1, "monitor": "loss", "value": 0.5},
                    "weights_restored",
                )
            ],
            None,
            "The model holds the weights of epoch 2, where loss was 0.5; Early put them back.",
        ),
        (
            [Entry(0.0, 2, None, "Mine", "averaged the last two", "restore", {"epoch": 1})],
            None,
            "The model holds the weights of epoch 2, put back by Mine: averaged the last two.",
        ),
        (
            [entry("weights of another run", "restore", 2)],
            None,
            "The model holds weights that Mine put back: weights of another run.",
        ),
        (
            [entry("went back", "restore", 1)],
            None,
            "The model holds the weights of epoch 3, the last one.",
        ),
        (
            [],
            Ending("finished", averaged=True),
            "The model holds the moving average of the weights, as of epoch 3 (`use_ema`).",
        ),
        (
            [],
            Ending("failed", "E", epoch=3),
            "The model holds what it had learnt when epoch 4 broke off; epoch 3 was the last to be finished.",
        ),
        ([], Ending("failed", "E", epoch=2), "The model holds the weights of epoch 3, the last one."),
    ],
)
def test_what_is_in_the_model(entries: list[Entry], ending: Ending | None, line: str) -> None:
    assert account(entries, ending)[2] == line


def test_nothing_was_trained() -> None:
    assert account([], Ending("failed", "E"), epochs=0)[2] == "No epoch was finished."
    broken = account([], Ending("failed", "E", epoch=0), epochs=0)
    assert broken[2] == "The model holds what it had learnt when epoch 1 broke off."


def test_where_the_files_are() -> None:
    lines = account(
        [
            decided("best_file", "best", 0, path="a", monitor="val_loss", score=0.5, before=None),
            decided("best_file", "best", 1, path="b", monitor="val_loss", score=0.4, before=0.5),
            decided("best_file", "best", 1, path="c", monitor="val_accuracy", score=0.4, before=None),
            decided("best_weights", "best", 1, monitor="loss", value=1.0, before=None),
            decided("file", "save", 2, 99, path="last"),
            entry("uploaded it", "save", 2, by="Uploads", path="s3://runs/last"),
        ]
    )
    assert lines[3:] == [
        "The best file is c, saved after epoch 2: val_accuracy 0.4 is the first.",
        "The best file is b, saved after epoch 2: val_loss 0.4 is better than 0.5.",
        "The last file is last, saved in epoch 3, batch 100.",
        "The last file is s3://runs/last, saved after epoch 3: uploaded it.",
    ]


def test_a_few_changes_of_the_rate_are_listed_each() -> None:
    lines = account(
        [
            decided("schedule", "learning_rate", 1, by="Sets", optimizer="", before=0.1, after=0.05, last_set=None),
            entry("0.05 to 0.1: by hand", "learning_rate", 2, 1, by="Mine", before=0.05, after=0.1),
        ]
    )
    assert lines[3:] == [
        "The learning rate changed 2 times, from 0.1 to 0.1:",
        "  epoch 2, Sets: 0.1 to 0.05: by the schedule",
        "  epoch 3, batch 2, Mine: 0.05 to 0.1: by hand",
    ]


def test_rates_of_several_optimizers_make_no_sum() -> None:
    lines = account(
        [
            decided("schedule", "learning_rate", 1, optimizer="disc", before=0.2, after=0.1, last_set=None),
            decided("schedule", "learning_rate", 1, optimizer="gen", before=0.4, after=0.3, last_set=None),
        ]
    )
    assert lines[3:5] == [
        "The learning rate changed:",
        "  epoch 2, Mine: disc learning rate 0.2 to 0.1: by the schedule",
    ]


def test_many_entries_stay_short() -> None:
    many = [entry(f"note {number}", "note", number) for number in range(1000)]
    lines = account(many, dropped=7)
    assert len(lines) < 20
    assert lines[4] == "  epoch 1: Mine: note 0"
    assert "  ... 990 more ..." in lines
    assert lines[-2:] == ["  epoch 1000: Mine: note 999", "7 older notes made room for later ones."]


def test_costs_name_the_most_expensive_first_and_omit_small_ones() -> None:
    costs = {"A": {"on_epoch_end": 0.5, "close": 0.25}, "B": {"close": 0.05}, "C": {"close": 1e-6}}
    assert account([], costs=costs)[-1] == "Callbacks took 0.8 s, 8.0% of the run: A 0.8 s, B 50.0 ms."
    assert account([], costs={"C": {"close": 1e-5}})[-1] == "Callbacks took 0.0 ms, 0.0% of the run."


@pytest.mark.parametrize(
    ("epochs", "values", "line"),
    [
        ([], {}, "0 epochs in 10.0 s."),
        ([4], {"loss": [0.123456789]}, "1 epoch in 10.0 s; the last one logged loss 0.1235."),
        ([0, 1], {"loss": [1.0, float("nan")], "n": [1, 2]}, "2 epochs in 10.0 s; the last one logged loss nan, n 2."),
    ],
)
def test_what_was_done(epochs: list[int], values: dict[str, list[Any]], line: str) -> None:
    assert explain(epochs, values, [], {}, Ending(), 10.0).splitlines()[0] == line
