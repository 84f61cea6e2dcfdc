"""Where callbacks write: what can't work is said before the first step, and tidying up never fails a run that is done."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import small_model
from oncue.callbacks import BackupAndRestore, Callback, CSVLogger, LambdaCallback, ModelCheckpoint, TensorBoard
from oncue.core import files

X = np.linspace(-1, 1, 16, dtype="float32").reshape(8, 2)
Y = X.sum(axis=1, keepdims=True)


def _link(folder: Path) -> Path:
    (folder / "real").mkdir()
    (folder / "link").symlink_to(folder / "real")
    return folder / "link"


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EACCES, errno.EROFS, errno.EINVAL, errno.ENOTEMPTY])
def test_a_folder_that_can_not_be_removed_is_no_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mount point, one in a folder that is read-only, the current folder, and one with the user's own files."""

    def refuse(path: Any, *arguments: Any, **options: Any) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "rmdir", refuse)
    backup = BackupAndRestore(tmp_path / "backup")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = small_model().fit(X, Y, epochs=2, verbose=0, callbacks=[backup])
    assert history.epoch == [0, 1] and os.listdir(tmp_path / "backup") == []


def test_a_backup_behind_a_link_or_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for folder in (_link(tmp_path), "."):
        history = small_model().fit(X, Y, epochs=2, verbose=0, callbacks=[BackupAndRestore(folder)])
        assert history.epoch == [0, 1] and os.listdir(folder) == []
    assert (tmp_path / "link").is_symlink() and here.is_dir()


@pytest.mark.parametrize("saver", ["backup", "keep"])
def test_a_lock_that_can_not_be_removed_keeps_nobody_out(
    saver: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def refuse(path: Any, **options: Any) -> None:
        if str(path).endswith(".lock"):
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, **options)

    monkeypatch.setattr(os, "unlink", refuse)

    def made() -> Callback:
        return BackupAndRestore(tmp_path) if saver == "backup" else ModelCheckpoint(tmp_path / "{epoch}.keras", keep=1)

    for _ in range(2):
        assert len(small_model().fit(X, Y, epochs=2, verbose=0, callbacks=[made()]).epoch) == 2


class Unwritten(oncue.layers.Layer):
    """A layer whose configuration is of no kind that a file can hold."""

    def call(self, inputs: Any) -> Any:
        return inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "function": lambda: 0}


class Own(oncue.Model):
    def __init__(self, rule: Any = None) -> None:
        super().__init__()
        self.dense = oncue.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


UNDESCRIBED: dict[str, Callable[[], Any]] = {
    "module Linear": lambda: oncue.Model(torch.nn.Linear(X.shape[1], 1)),
    "torch module Linear inside": lambda: oncue.Sequential([oncue.Input(X.shape[1:]), torch.nn.Linear(X.shape[1], 1)]),
    "Define `Own.get_config(self)`": lambda: Own(object()),
    "A lambda can't be written": lambda: oncue.Sequential(
        [oncue.Input(X.shape[1:]), Unwritten(), oncue.layers.Dense(1)]
    ),
}


@pytest.mark.parametrize("words", UNDESCRIBED)
@pytest.mark.parametrize(("name", "asynchronous"), [("m.keras", False), ("m.h5", True)])
def test_a_model_that_the_file_can_not_hold_is_refused_before_the_first_step(
    words: str, name: str, asynchronous: bool, tmp_path: Path
) -> None:
    made = UNDESCRIBED[words]()
    made.compile("sgd", "mse")
    steps: list[int] = []
    count = LambdaCallback(on_train_batch_begin=lambda batch, logs: steps.append(batch))
    with pytest.raises(ValueError) as caught:
        made.fit(X, Y, verbose=0, callbacks=[count, ModelCheckpoint(tmp_path / name, asynchronous=asynchronous)])
    assert all(
        part in str(caught.value) for part in (words, name, "so training doesn't begin", "save_weights_only=True")
    )
    assert steps == [] and os.listdir(tmp_path) == []
    made.fit(X, Y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "m.weights.h5", save_weights_only=True)])


def test_a_save_of_the_user_s_own_is_never_tried(tmp_path: Path) -> None:
    class Saves(Own):
        def save(self, filepath: Any, *arguments: Any, **options: Any) -> None:
            Path(filepath).write_text("mine")

    made = Saves()
    made.compile("sgd", "mse")
    made.fit(X, Y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "m.keras")])
    assert (tmp_path / "m.keras").read_text() == "mine"
    with pytest.raises(ValueError, match=r"Saves\.save.*asynchronous=True"):
        made.fit(X, Y, verbose=0, callbacks=[ModelCheckpoint(tmp_path / "m.keras", asynchronous=True)])
    assert made.history is None or len(made.history.epoch) == 0


WRITERS: dict[str, Callable[[Path], Callback]] = {
    "BackupAndRestore": BackupAndRestore,
    "CSVLogger": lambda place: CSVLogger(place / "log.csv"),
    "ModelCheckpoint": lambda place: ModelCheckpoint(place / "m.keras"),
    "TensorBoard": TensorBoard,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_place_that_can_not_be_a_folder_is_named_before_the_first_step(
    writer: str, below: bool, kind: str, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "missing")
    steps: list[int] = []
    count = LambdaCallback(on_train_batch_begin=lambda batch, logs: steps.append(batch))
    callback = WRITERS[writer](place / "below" if below else place)
    with pytest.raises(OSError) as caught:
        small_model().fit(X, Y, verbose=0, callbacks=[count, callback])
    what = f"'{place}' is a file" if kind == "file" else f"'{place}' is a link to "
    assert what in str(caught.value) and steps == []


@pytest.mark.parametrize("place", ["log.csv", "epoch.keras.oncue.json"])
def test_a_pipe_is_not_waited_for(place: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / place)
    saver = ModelCheckpoint(tmp_path / "{epoch}.keras", keep=1)
    callback = CSVLogger(tmp_path / place, append=True) if place == "log.csv" else saver
    with pytest.raises(OSError, match="must be the path of a file, and there is a pipe"):
        small_model().fit(X, Y, verbose=0, callbacks=[callback])


def test_a_killed_try_leaves_nothing_that_the_next_does_not_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = ModelCheckpoint(tmp_path / "{epoch}.keras")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files.Path, "unlink", raises(KeyboardInterrupt))
        small_model().fit(X, Y, verbose=0, callbacks=[saver])
    (left,) = os.listdir(tmp_path)
    # Of a process that is no more.
    os.rename(tmp_path / left, tmp_path / left.replace(f"-{os.getpid()}-", "-999999999-"))
    small_model().fit(X, Y, verbose=0, callbacks=[saver])
    assert os.listdir(tmp_path) == ["1.keras"]


def raises(kind: type[BaseException]) -> Callable[..., None]:
    def call(*arguments: Any, **options: Any) -> None:
        raise kind

    return call
