"""What a report warns of: with the numbers, and only when they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from oncue.core.journal import Entry
from oncue.core.run_record import RunRecord
from oncue.report.findings import findings
from oncue.report.run import Run

FALLING = [1.0 / (epoch + 1) for epoch in range(20)]


def found(documents: Any = None, **history: list[float]) -> dict[str, Any]:
    length = max(map(len, history.values()))
    epochs = list(range(length))
    record = RunRecord(Path("x"), epochs, dict(history), {name: epochs[: len(v)] for name, v in history.items()})
    return {one.kind: one for one in findings(Run(Path("x"), record, documents or {}))}


def test_a_good_run_has_none() -> None:
    assert found(loss=FALLING, val_loss=[value * 1.1 for value in FALLING]) == {}


def test_overfitting() -> None:
    validation = FALLING[:8] + [FALLING[7] + 0.01 * step for step in range(1, 13)]
    one = found(loss=FALLING, val_loss=validation)["overfitting"]
    assert one.title == "Overfitting since epoch 9" and one.epoch == 8
    assert "best in epoch 8 (0.125) and has risen to 0.235, while loss fell from 0.125 to 0.05263" in one.text
    assert "would have kept the best weights" in one.text


def test_overfitting_of_a_run_that_has_put_better_weights_back() -> None:
    validation = FALLING[:8] + [FALLING[7] + 0.01 * step for step in range(1, 13)]
    history = {"loss": FALLING, "val_loss": validation}
    record = RunRecord(Path("x"), list(range(20)), dict(history), {name: list(range(20)) for name in history})
    record.entries.append(Entry(0.0, 19, None, "EarlyStopping", kind="restore", data={"epoch": 7}))
    (one,) = findings(Run(Path("x"), record, {}))
    assert one.text.endswith("may help. Better weights were put back.")


@pytest.mark.parametrize(
    "validation",
    [
        [*FALLING[:18], 1.0, 1.0],  # Two epochs are not enough.
        FALLING[:8] + [FALLING[7] * 1.02] * 12,  # It hasn't risen by 5 %.
        [*FALLING[:8], 0.5, *FALLING[9:]],  # It has come back.
    ],
)
def test_no_overfitting(validation: list[float]) -> None:
    assert "overfitting" not in found(loss=FALLING, val_loss=validation)


def test_no_overfitting_where_training_gets_worse_too() -> None:
    rising = FALLING[:8] + [0.2 + 0.01 * step for step in range(12)]
    assert "overfitting" not in found(loss=rising, val_loss=rising)


def test_a_plateau() -> None:
    one = found(loss=FALLING[:10] + [0.1, 0.1001, 0.0999, 0.1] * 3)["plateau"]
    assert one.title == "No progress since epoch 10" and "For 12 epochs" in one.text and "below 0.1;" in one.text
    assert "plateau" not in found(loss=FALLING)
    assert "plateau" not in found(loss=[0.5] * 5)


def test_a_rate_that_is_too_high() -> None:
    rates = [0.1] * 8
    one = found(loss=[1.0, 2.0, 0.9, 3.0, 1.0, 2.5, 0.8, 2.0], learning_rate=rates)["rate"]
    assert "loss rose in 4 of 7 epochs, most in epoch 4, to 3.33 times" in one.text and "rate 0.1" in one.text
    assert "It is 2 now, and was 1 after the first epoch." in one.text
    assert "rate" not in found(loss=[1.0, 0.9, 0.95, 0.8, 0.82, 0.7])


def test_values_that_are_not_finite() -> None:
    one = found(loss=[1.0, float("nan"), float("nan")], acc=[0.1, 0.2, float("inf")])["not_finite"]
    assert one.epoch == 1 and one.title == "loss was not a finite number in epoch 2" and "loss was nan" in one.text


def test_validation_that_is_better_than_training() -> None:
    better = [value * 0.8 for value in FALLING]
    one = found(loss=FALLING, val_loss=better)["validation"]
    assert "In 20 of 20 epochs val_loss was below loss; in epoch 20 0.04 against 0.05." in one.text
    assert "rows that are in both sets" in one.text
    model = {"model": {"layers": [{"class_name": "Dropout"}, {"class_name": "Dense"}, {"class_name": "Dropout"}]}}
    assert "the model has 2 layers of dropout" in found(model, loss=FALLING, val_loss=better)["validation"].text
    assert "validation" not in found(loss=FALLING, val_loss=[value * 0.99 for value in FALLING])


def test_callbacks_that_take_long() -> None:
    record = RunRecord(Path("x"), [0], {"loss": [1.0]}, {"loss": [0]}, costs={"Slow": {"close": 9.0}}, seconds=30.0)
    assert "most of it Slow in close" in findings(Run(Path("x"), record))[0].text


def test_values_of_any_kind_do_no_harm() -> None:
    odd: Any = [None, "a", {"a": 1}, 1, 2.0, True, [1]]
    found(loss=odd, val_loss=odd)
    assert found(loss=[0.0] * 20, val_loss=[0.0] * 20).keys() <= {"plateau"}
    assert "rate" not in found(loss=[-1.0, -2.0, -3.0, -4.0, -5.0])
