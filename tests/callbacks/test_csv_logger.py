"""CSVLogger: what is in the file, and what survives a bad one."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

import oncue as keras
from helpers import environment
from oncue.callbacks import Callback, CallbackList, CSVLogger


def rows(path: Path, separator: str = ",") -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter=separator))


def write(path: Path, epochs: list[dict[str, Any]], start: int = 0, **kwargs: Any) -> None:
    logger = CSVLogger(path, **kwargs)
    callbacks = CallbackList([logger])
    with callbacks.run():
        callbacks.on_train_begin()
        for epoch, logs in enumerate(epochs, start):
            callbacks.on_epoch_begin(epoch)
            callbacks.on_epoch_end(epoch, logs)
        callbacks.on_train_end()


def model() -> Any:
    made = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


def test_later_columns_widen_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    write(path, [{"loss": 1.0}, {"loss": 0.5, "val_loss": 2.0, "extra": 7.0}, {"loss": 0.25}])
    assert rows(path) == [
        ["epoch", "loss", "val_loss", "extra"],
        ["0", "1.0", "NA", "NA"],
        ["1", "0.5", "2.0", "7.0"],
        ["2", "0.25", "NA", "NA"],
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.csv"]


def test_validation_every_second_epoch_keeps_every_value(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    history = model().fit(
        x, y, epochs=4, validation_data=(x, y), validation_freq=2, verbose=0, callbacks=[CSVLogger(path)]
    )
    # As text: pandas reads some numbers a bit off.
    frame = pd.read_csv(path, dtype=str)
    assert [float(value) for value in frame["loss"]] == history.history["loss"]
    assert [float(value) for value in frame["val_loss"].dropna()] == history.history["val_loss"]
    assert frame["val_loss"].isna().tolist() == [True, False, True, False]


def test_sees_what_earlier_callbacks_add(tmp_path: Path) -> None:
    class Add(Callback):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs[self.name] = 3.0

    path = tmp_path / "log.csv"
    x, y = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
    history = model().fit(x, y, verbose=0, callbacks=[Add("early"), CSVLogger(path), Add("late")])
    assert rows(path)[0] == ["epoch", "early", "loss", "val_early", "val_loss"]
    assert list(history.history) == ["loss", "early", "late"]


@pytest.mark.parametrize("torn", ["2", "2,0.1", '2,0.1,"ab', "2,0.1,0.2"])
def test_torn_last_row_is_removed_never_glued(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "log.csv"
    write(path, [{"loss": 1.0, "val_loss": 1.0}, {"loss": 0.5, "val_loss": 0.5}])
    with path.open("a", newline="") as file:
        file.write(torn)
    with pytest.warns(UserWarning, match="torn row"):
        write(path, [{"loss": 0.25, "val_loss": 0.25}], start=2, append=True)
    assert [row[0] for row in rows(path)] == ["epoch", "0", "1", "2"]
    assert rows(path)[-1] == ["2", "0.25", "0.25"]


def test_a_torn_header_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("epoch,lo")
    with pytest.warns(UserWarning, match="torn"):
        write(path, [{"loss": 1.0, "val_loss": 2.0}], append=True)
    assert rows(path) == [["epoch", "loss", "val_loss"], ["0", "1.0", "2.0"]]


def test_appending_other_columns_never_shifts_values(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    write(path, [{"accuracy": 0.1, "loss": 1.0, "val_loss": 3.0}])
    write(path, [{"aaa": 9.0, "loss": 0.5, "val_loss": 2.0}], start=1, append=True)
    assert rows(path) == [
        ["epoch", "accuracy", "loss", "val_loss", "aaa"],
        ["0", "0.1", "1.0", "3.0", "NA"],
        ["1", "NA", "0.5", "2.0", "9.0"],
    ]


def test_foreign_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "names.csv"
    path.write_text("name,age\nAda,36\n")
    logger = CSVLogger(path, append=True)
    with pytest.raises(ValueError, match="first column is 'name'"):
        logger.on_train_begin()
    assert path.read_text() == "name,age\nAda,36\n"


def test_an_unwritable_path_is_reported_before_the_first_step(tmp_path: Path) -> None:
    made = model()
    before = made.get_weights()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file' is a file"):
        made.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[CSVLogger(tmp_path / "file" / "log.csv")])
    assert all(np.array_equal(a, b) for a, b in zip(before, made.get_weights(), strict=True))


def test_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "log.csv"
    model().fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[CSVLogger(path)])
    assert path.read_text().startswith("epoch,loss")


def test_rows_are_there_after_an_error(tmp_path: Path) -> None:
    class Boom(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    path = tmp_path / "log.csv"
    logger = CSVLogger(path)
    with pytest.raises(KeyboardInterrupt):
        model().fit(np.ones((4, 2)), np.ones((4, 1)), epochs=5, verbose=0, callbacks=[logger, Boom()])
    assert [row[0] for row in rows(path)] == ["epoch", "0", "1"]
    assert logger._file is None


@pytest.mark.parametrize("separator", ["", ",,", '"', "\n", 3])
def test_bad_separator(tmp_path: Path, separator: Any) -> None:
    with pytest.raises(ValueError, match="separator"):
        CSVLogger(tmp_path / "log.csv", separator=separator)


def test_iterables_as_keras_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    write(path, [{"loss": np.array([1.0, 2.0]), "note": 'a,b\n"c"', "val_loss": 1.0}])
    assert rows(path)[1] == ["0", '"[1.0, 2.0]"', 'a,b\n"c"', "1.0"]


@given(
    st.lists(
        st.dictionaries(
            st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=6).filter(
                lambda name: name not in ("loss", "epoch")
            ),
            st.floats(allow_nan=False),
            max_size=3,
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([",", "\t", ";", "|"]),
)
def test_parses_back_to_the_logs(tmp_path_factory: pytest.TempPathFactory, epochs: Any, separator: str) -> None:
    path = tmp_path_factory.mktemp("csv") / "log.csv"
    epochs = [{**logs, "loss": 1.0} for logs in epochs]
    write(path, epochs, separator=separator)
    table = rows(path, separator)
    for epoch, (logs, row) in enumerate(zip(epochs, table[1:], strict=True)):
        read = {name: cell for name, cell in zip(table[0], row, strict=True) if cell != "NA"}
        assert read.pop("epoch") == str(epoch)
        # What a spreadsheet would compute is marked as text.
        marked = {f"'{name}" if name[:1] in tuple("=+-@\t\r") else name: value for name, value in logs.items()}
        assert {name: float(cell) for name, cell in read.items()} == marked
        assert all(math.isfinite(float(cell)) or "inf" in cell for cell in read.values())


def test_the_state_is_what_is_in_the_file_and_reads_what_was_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = tmp_path / "log.csv", 0
    logger = CSVLogger(path)
    logger.on_train_begin()

    def whole(self: Path) -> bytes:
        nonlocal read
        read += 1
        with open(self, "rb") as file:
            return file.read()

    monkeypatch.setattr(Path, "read_bytes", whole)

    def state_is_right() -> bool:
        with open(path, newline="", encoding="utf-8") as file:
            return str(logger.state_dict()["text"]) == file.read()

    for epoch in range(300):
        logger.on_epoch_end(epoch, {"loss": epoch / 7, "who": "\u00e9\n"})
        assert state_is_right()
    assert read == 1
    # A new column, a row of somebody else's, and a file that was written anew in its place.
    logger.on_epoch_end(300, {"loss": 0.0, "who": "", "more": 1})
    assert state_is_right()
    with open(path, "a", encoding="utf-8") as other:
        other.write("301,1,2,3\n")
    assert state_is_right()
    with open(path, "r+", encoding="utf-8") as other:
        other.write("x" * 20_000)
    assert state_is_right()
    logger.close()


@pytest.mark.parametrize(
    "text",
    [
        'epoch,loss,note\n0,1.0,5" lens\n1,1.0,x\n',
        "epoch,loss\r0,1.0\r1,0.5\r",
        "epoch,loss\n0,1.0\n1,0.5",
        "epoch,loss\r\n0,1.0\r\n1,0.5\n",
        "epoch,loss\r\n0,1.0\r\n\r\n1,0.5,7\r\n",
        'epoch,loss\n0,1.0\n1,"0.5',
    ],
)
def test_no_row_of_another_programs_file_is_dropped(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text, newline="")
    before = rows(path)
    if text.endswith('"0.5'):
        with pytest.raises(ValueError, match="can't be read as CSV.*line 3"):
            write(path, [{"loss": 0.25}], start=2, append=True)
        assert rows(path) == before
        return
    write(path, [{"loss": 0.25}], start=2, append=True)
    after = rows(path)
    assert after[: len(before)] == before and after[len(before)][:2] == ["2", "0.25"] and len(after) == len(before) + 1
    write(path, [{"loss": 0.25, "more": 1.0}], start=3, append=True)
    kept = [row for row in before if row]
    assert [row[: len(old)] for old, row in zip(kept, rows(path), strict=False)] == kept


def test_what_a_spreadsheet_would_compute_is_text(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for start in (0, 1):
        write(path, [{"=1+1": 0.5, "word": "=HYPERLINK()", "loss": -1.0}], start=start, append=True)
    table = [dict(zip(rows(path)[0], row, strict=True)) for row in rows(path)[1:]]
    assert [(row["'=1+1"], row["word"], row["loss"]) for row in table] == [("0.5", "'=HYPERLINK()", "-1.0")] * 2


WRITES = """
import sys
from oncue.callbacks import CSVLogger
logger = CSVLogger(sys.argv[1], append=True)
try:
    logger.on_train_begin()
    print("writes", flush=True)
except RuntimeError as error:
    print(error, flush=True)
sys.stdin.read()
"""


def test_two_runs_write_into_one_file_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    command = [sys.executable, "-c", WRITES, str(path)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment()}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout is not None and other.stdout.readline() == "writes\n"
        with pytest.raises(RuntimeError, match="Another run that is still going on writes to .*log.csv"):
            write(path, [{"loss": 1.0}], append=True)
        other.kill()
    write(path, [{"loss": 1.0}], append=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log.csv"]
