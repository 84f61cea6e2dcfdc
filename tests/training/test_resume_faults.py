"""Faults of the disk and of the clock: what was saved before stands, and the run that goes on ends as one without them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, CSVLogger, EarlyStopping, TensorBoard
from oncue.checkpoints import state_files, store

X = np.random.default_rng(0).normal(size=(22, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


class Cut(Callback):
    """Ends a run as a power cut would."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 2 and self._run is not None and self._run.progress.epoch == 2:
            raise ConnectionError("power cut")


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
@pytest.mark.parametrize("number", [1, 2, 7, 8, 9, 10, 11, 12, 13, 20, 33])
def test_a_disk_that_fails_while_a_state_is_saved(
    code: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(state_files.os, "fsync", failing(number, code))
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            run(tmp_path / "parts")
    assert any("state of the run" in note and "in the background" in note for note in caught.value.__notes__)
    left = [path.name for path in (tmp_path / "parts" / "backup").glob("*")]
    assert all(name.startswith("state-") or name == "latest.json" for name in left), "litter"
    assert run(tmp_path / "parts") == whole


def flip(place: Path) -> None:
    path = place / "tensors.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_manifest(place: Path) -> None:
    path = place / "manifest.json"
    path.write_bytes(path.read_bytes()[:20])


def wrong_json(place: Path) -> None:
    # With the right digest: what a later version of the library, or a fault in it, may have written.
    text = b'{"format": 1, "parts": {}}'
    (place / "state.json").write_bytes(text)
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["files"]["state.json"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    (place / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("damage", [flip, cut_manifest, wrong_json])
def test_a_damaged_backup_falls_back_to_the_one_before_and_ends_equal(damage: Any, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    folder = tmp_path / "parts"
    with pytest.raises(ConnectionError):
        run(folder, Cut())
    newest = json.loads((folder / "backup" / "latest.json").read_text())["newest"]
    damage(folder / "backup" / newest)
    with pytest.warns(UserWarning, match=f"{newest}' is damaged.* is used instead"):
        assert run(folder) == whole


def test_two_damaged_backups_are_not_started_over(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        run(tmp_path, Cut())
    for place in (tmp_path / "backup").glob("state-*"):
        cut_manifest(place)
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


def test_a_lost_pointer_does_no_harm(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(ConnectionError):
        run(tmp_path / "parts", Cut())
    (tmp_path / "parts" / "backup" / "latest.json").unlink()
    assert run(tmp_path / "parts") == whole


def test_a_clock_that_goes_backwards_between_and_within_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path / "whole")
    now, real = [0.0], time.time

    def backwards() -> float:
        now[0] -= 3600.0
        return real() + now[0]

    monkeypatch.setattr(time, "time", backwards)
    boards = [TensorBoard(tmp_path / "events", update_freq=2) for _ in range(2)]
    with pytest.raises(ConnectionError):
        run(tmp_path / "parts", boards[0], Cut())
    monkeypatch.setattr(time, "time", lambda: real() - 1e6)
    assert run(tmp_path / "parts", boards[1]) == whole


def test_the_folder_of_states_is_flushed_before_anything_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, remove = store.sync_folder, store.Store._remove
    monkeypatch.setattr(
        store, "sync_folder", lambda folder: (done.append(f"sync {Path(folder).name[:4]}"), sync(folder))
    )
    monkeypatch.setattr(store.Store, "_remove", lambda self, path: (done.append("remove"), remove(self, path)))
    saved = store.Store(tmp_path)
    for number in range(3):
        done.clear()
        saved.commit(lambda place, number=number: (place / "a").write_text(str(number)))
    assert done == ["sync .tmp", f"sync {tmp_path.name[:4]}", "remove"]
