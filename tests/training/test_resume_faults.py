"""Faults of the disk and of the clock: what was saved before is kept, and the resumed run ends as one without them."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import oncue
from helpers import PowerCut, damage, normal
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, CSVLogger, EarlyStopping, TensorBoard
from oncue.checkpoints import store
from oncue.checkpoints.state_file import blocks_of, write_state
from oncue.checkpoints.training_state import TrainingState

X = normal(22, 3)
Y = X.sum(axis=1, keepdims=True)


def run(folder: Path, *further: Any) -> Any:
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential(
        [layers.Input((3,), name="x"), layers.Dense(4, name="a"), layers.Dropout(0.3), layers.Dense(1)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    callbacks = [
        BackupAndRestore(folder / "backup", save_freq=2),
        CSVLogger(folder / "log.csv"),
        EarlyStopping("loss", patience=9),
        *further,
    ]
    folder.mkdir(exist_ok=True)
    history = model.fit(X, Y, batch_size=5, epochs=4, verbose=0, callbacks=callbacks)
    weights = [weight.tobytes() for weight in model.get_weights()]
    return history.history, weights, (folder / "log.csv").read_bytes()


def failing(number: int, code: int) -> Callable[..., Any]:
    """Return an `os.fsync` whose n-th call in the background fails."""
    real, calls = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            calls[0] += 1
            if calls[0] == number:
                raise OSError(code, os.strerror(code))
        real(descriptor)

    return fsync


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 9, 12])
def test_a_disk_that_fails_while_a_state_is_saved(
    code: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(number, code))
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            run(tmp_path / "parts")
    assert any("state of the run" in note and "in the background" in note for note in caught.value.__notes__)
    left = [path.name for path in (tmp_path / "parts" / "backup").glob("*")]
    assert all(name.startswith("state-") for name in left), "litter"
    assert run(tmp_path / "parts") == whole


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def wrong_json(path: Path) -> None:
    # With the right checksum: what a later version of the library, or a fault in it, may have written.
    write_state(path, [json.dumps({"format": 2, "parts": {}}).encode()], blocks_of({}))


@pytest.mark.parametrize("damage", [damage, cut, wrong_json])
def test_a_damaged_backup_falls_back_to_the_one_before_and_ends_equal(damage: Any, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    folder = tmp_path / "parts"
    with pytest.raises(ConnectionError):
        run(folder, PowerCut(2, 2))
    newest = max((folder / "backup").glob("state-*"), key=number_of)
    damage(newest)
    with pytest.warns(UserWarning, match=f"{newest.name}' is damaged.* is used instead"):
        assert run(folder) == whole


def number_of(path: Path) -> int:
    return int(path.stem.removeprefix("state-"))


def test_two_damaged_backups_are_not_started_over(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        run(tmp_path, PowerCut(2, 2))
    for place in (tmp_path / "backup").glob("state-*"):
        cut(place)
    rows = (tmp_path / "log.csv").read_bytes()
    with pytest.raises(ValueError, match=r"No saved state in .* can be read.*To start over, delete the folder"):
        run(tmp_path)
    assert (tmp_path / "log.csv").read_bytes() == rows


def test_a_cut_after_the_last_epoch_gives_the_same_journal(tmp_path: Path) -> None:
    class Late(Callback):
        def on_train_end(self, logs: Any = None) -> None:
            raise ConnectionError("power cut")

    def journal(folder: Path, *further: Any) -> Any:
        oncue.utils.set_random_seed(0)
        model = oncue.Sequential([layers.Input((3,)), layers.Dense(1)])
        model.compile("adam", "mse")
        stop = EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True)
        backup = BackupAndRestore(folder, delete_checkpoint=False)
        history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[*further, backup, stop])
        return [(entry.epoch, entry.text) for entry in history.journal if entry.kind != "resume"]

    whole = journal(tmp_path / "whole")
    with pytest.raises(ConnectionError):
        journal(tmp_path / "parts", Late())
    assert journal(tmp_path / "parts") == whole and whole[-1][0] == 2


def test_a_clock_that_goes_backwards_between_and_within_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole")
    now, real = [0.0], time.time

    def backwards() -> float:
        now[0] -= 3600.0
        return real() + now[0]

    monkeypatch.setattr(time, "time", backwards)
    boards = [TensorBoard(tmp_path / "events", update_freq=2) for _ in range(2)]
    with pytest.raises(ConnectionError):
        run(tmp_path / "parts", boards[0], PowerCut(2, 2))
    monkeypatch.setattr(time, "time", lambda: real() - 1e6)
    assert run(tmp_path / "parts", boards[1]) == whole


def test_a_state_is_flushed_then_named_and_the_name_flushed_before_anything_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    originals = {name: getattr(os, name) for name in ("fsync", "replace", "unlink")}

    def noted(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            of_folder = name == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            done.append(f"{name} of the folder" if of_folder else name)
            return originals[name](*arguments)

        return call

    saved = store.Store(tmp_path)
    for name in originals:
        monkeypatch.setattr(os, name, noted(name))
    for _ in range(3):
        done.clear()
        saved.commit(TrainingState({}, parts={"weights": [torch.ones(2)]}).write)
    assert done == ["fsync", "replace", "fsync of the folder", "unlink"]
