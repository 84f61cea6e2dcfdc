"""A run that is interrupted before its first state leaves no rows, events or records behind that come twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import PowerCut
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, CSVLogger, ModelCheckpoint, TensorBoard

X = np.ones((8, 4), dtype="float32")
Y = np.ones((8, 1), dtype="float32")
BEGINNING = Path("backup/beginning.json")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield


class Extra(Callback):
    """Logs a value that not all epochs have."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            logs["zeta"] = 1.0


def train(*callbacks: Any, units: int = 1, epochs: int = 4) -> None:
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential([layers.Input((4,)), layers.Dense(units), layers.Dense(1)])
    model.compile("sgd", loss="mse")
    model.fit(X, Y, epochs=epochs, verbose=0, callbacks=list(callbacks))


def interrupted(*callbacks: Any, cut: PowerCut | None = None, **options: Any) -> None:
    with pytest.raises(ConnectionError):
        train(*callbacks, cut or PowerCut(2), **options)


def backup(**options: Any) -> BackupAndRestore:
    return BackupAndRestore("backup", every="3 epochs", **options)


def epochs_in(path: str = "log.csv") -> list[str]:
    return [line.split(",")[0] for line in Path(path).read_text().splitlines()]


EARLIER = "epoch,loss,val_loss\r\n0,4.5,NA\r\n1,4.25,NA\r\n"


@pytest.mark.parametrize("before", [None, "", EARLIER, EARLIER + "2,4."], ids=["none", "empty", "rows", "torn"])
@pytest.mark.filterwarnings("ignore:.*torn row")
@pytest.mark.parametrize("further", [[], [Extra()]], ids=["", "another column"])
def test_rows_of_a_csv_file(before: str | None, further: list[Any]) -> None:
    for name, cuts in (("whole.csv", []), ("log.csv", [PowerCut(2), PowerCut(1)])):
        if before is not None:
            Path(name).write_bytes(before.encode())
        for cut in cuts:
            interrupted(backup(double_checkpoint=True), CSVLogger(name, append=True), *further, cut=cut)
        train(backup(), CSVLogger(name, append=True), *further)
    assert Path("log.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert not Path("backup").exists()


def test_event_files() -> None:
    earlier = TensorBoard("tb", write_graph=False)
    train(earlier)
    kept = set(Path("tb").rglob("*tfevents*"))
    interrupted(backup(), TensorBoard("tb"))
    train(backup(), TensorBoard("tb"))
    assert kept < set(Path("tb").rglob("*tfevents*")) and len(list(Path("tb").rglob("*tfevents*"))) == len(kept) + 1


def test_records_of_checkpoints() -> None:
    def saver() -> ModelCheckpoint:
        return ModelCheckpoint("best-{epoch}.weights.h5", "loss", save_weights_only=True, keep=2)

    interrupted(backup(), saver())
    train(backup(), saver())
    assert sorted(path.name for path in Path().glob("best-*.h5")) == ["best-3.weights.h5", "best-4.weights.h5"]


def test_a_run_that_starts_over_in_a_folder_with_states_of_another() -> None:
    interrupted(BackupAndRestore("backup"), CSVLogger("other.csv"), units=2)
    for _ in range(2):
        interrupted(backup(on_mismatch="restart"), CSVLogger("log.csv", append=True))
        assert BEGINNING.exists()
    train(backup(on_mismatch="restart"), CSVLogger("log.csv", append=True))
    assert epochs_in() == ["epoch", "0", "1", "2", "3"]


def test_a_folder_whose_states_were_deleted() -> None:
    interrupted(BackupAndRestore("backup"), CSVLogger("log.csv", append=True))
    for path in Path("backup").glob("state-*"):
        path.unlink()
    Path("log.csv").unlink()
    interrupted(backup(), CSVLogger("log.csv", append=True))
    train(backup(), CSVLogger("log.csv", append=True))
    assert epochs_in() == ["epoch", "0", "1", "2", "3"]


def test_marks_end_with_the_first_state() -> None:
    seen: list[bool] = []

    class Look(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            seen.append(BEGINNING.exists())
            if epoch == 0:
                self.text = BEGINNING.read_text()

    look = Look()
    log, board = CSVLogger("log.csv", append=True), TensorBoard("tb", write_graph=False)
    with pytest.raises(ConnectionError):
        train(backup(), log, board, look, PowerCut(3, 0), epochs=5)
    assert (seen[0], BEGINNING.exists()) == (True, False)
    assert json.loads(look.text)["marks"].keys() == {"CSVLogger", "TensorBoard"}
    # As a kill right after the state was saved leaves it.
    BEGINNING.write_text(look.text)
    train(backup(), CSVLogger("log.csv", append=True), TensorBoard("tb", write_graph=False), epochs=5)
    assert epochs_in() == ["epoch", "0", "1", "2", "3", "4"]
    assert len(list(Path("tb").rglob("*tfevents*"))) == 1


def test_a_run_that_adds_to_nothing_leaves_no_mark() -> None:
    interrupted(backup(), CSVLogger("log.csv"))
    assert not BEGINNING.exists()


def test_rows_that_others_wrote_since_stay() -> None:
    interrupted(backup(), CSVLogger("log.csv", append=True))
    train(CSVLogger("log.csv", append=True), epochs=1)
    with pytest.warns(UserWarning, match="can't be told from others, and stay"):
        train(backup(), CSVLogger("log.csv", append=True))
    assert epochs_in() == ["epoch", "0", "1", "0", "0", "1", "2", "3"]


def test_a_damaged_mark_is_said() -> None:
    interrupted(backup(), CSVLogger("log.csv", append=True))
    BEGINNING.write_text("{")
    with pytest.warns(UserWarning, match="stays in its files"):
        train(backup(), CSVLogger("log.csv", append=True))
