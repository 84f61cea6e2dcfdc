"""What differs on Windows and macOS, with their files and calls in place of those of this system."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest

import oncue as keras
from oncue.callbacks import BackupAndRestore, CSVLogger, ModelCheckpoint, RunFolder
from oncue.checkpoints import lock
from oncue.checkpoints.lock import FolderLock
from oncue.checkpoints.record import check_inside
from oncue.core import files
from oncue.core.file_name import FileName
from oncue.core.remote import is_url

X = np.ones((8, 2), "float32")


def model() -> Any:
    made = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


def train(folder: Path, epochs: int = 3) -> Any:
    callbacks = [
        RunFolder(folder / "run", best="loss", resume=True),
        ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True, keep=1),
        CSVLogger(folder / "log.csv", append=True),
    ]
    return model().fit(X, X[:, :1], epochs=epochs, verbose=0, callbacks=callbacks)


# Windows: an open file keeps its name --------------------------------------------------------------------------------


class Open:
    """Windows' `os.replace`, which fails as long as somebody has the target open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.end, self.refused, self._replace = time.monotonic() + seconds, 0, os.replace
        monkeypatch.setattr(files, "SYSTEM", "win32")
        monkeypatch.setattr(os, "replace", self)

    def __call__(self, source: Any, target: Any) -> None:
        if os.path.exists(target) and time.monotonic() < self.end:
            self.refused += 1
            raise PermissionError(errno.EACCES, "The process cannot access the file", os.fspath(target))
        self._replace(source, target)


def test_a_file_that_a_virus_scanner_has_open_is_replaced_a_moment_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model()
    for name in ("m.keras", "w.weights.h5", "w.safetensors"):
        save = made.save if name == "m.keras" else made.save_weights
        save(tmp_path / name)
        with monkeypatch.context() as windows:
            held = Open(windows, 0.1)
            save(tmp_path / name)
        assert held.refused
    keras.models.load_model(tmp_path / "m.keras")


def test_one_that_stays_open_is_an_error_and_the_old_file_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = model()
    made.save_weights(tmp_path / "w.safetensors")
    before = (tmp_path / "w.safetensors").read_bytes()
    monkeypatch.setattr(files, "_PATIENCE", 0.1)
    Open(monkeypatch, 60)
    with pytest.raises(PermissionError, match="cannot access the file"):
        made.save_weights(tmp_path / "w.safetensors")
    assert (tmp_path / "w.safetensors").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_elsewhere_a_file_that_may_not_be_replaced_is_no_matter_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Open(monkeypatch, 60)
    monkeypatch.setattr(files, "SYSTEM", "linux")
    (tmp_path / "a").touch()
    with pytest.raises(PermissionError):
        files.replace(tmp_path / "a", tmp_path / "a")
    assert held.refused == 1


# Windows: locks ------------------------------------------------------------------------------------------------------


class OfWindows:
    """filelock on Windows: who has the file open and locked has the lock; the file goes when it is given back."""

    held: dict[str, OfWindows] = {}

    def __init__(self, lock_file: str, **options: Any) -> None:
        self.lock_file, self.options = lock_file, options
        self.is_locked = False

    def acquire(self, timeout: float, poll_interval: float) -> None:
        os.makedirs(os.path.dirname(self.lock_file), exist_ok=True)
        descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT)
        if self.held.setdefault(self.lock_file, self) is not self:
            os.close(descriptor)
            raise lock.Timeout(self.lock_file)
        self.options["on_acquired"](descriptor)
        os.close(descriptor)
        self.is_locked = True

    def release(self) -> None:
        self.is_locked = False
        os.unlink(self.lock_file)
        del self.held[self.lock_file]


def test_locks_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "FileLock", OfWindows)
    monkeypatch.setattr(lock, "SYSTEM", "win32")
    first, second = FolderLock(tmp_path / "a"), FolderLock(tmp_path / "a")
    assert first.acquire() and not second.acquire()
    # It is removed by nobody but who gives it back: an open file can't be, and another may have the name by then.
    first.release()
    assert second.acquire()
    second.release()
    assert not OfWindows.held and not list((tmp_path / "a").iterdir())


# Windows: names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["con", "PRN", "aux", "Nul", "COM1", "lpt9", "com\u00b9", "con.txt", "nul.tar.gz"])
def test_a_value_makes_no_device(device: str) -> None:
    name = FileName("runs/{city}.keras").fill({"city": device})
    stem = PureWindowsPath(name).name.partition(".")[0]
    assert stem.endswith("_") and stem.casefold() == device.partition(".")[0].casefold() + "_"
    assert FileName("runs/{city}.keras").fits(PureWindowsPath(name).name)
    # Python's own list, from 3.13 on.
    assert not PureWindowsPath(name).is_reserved()


@pytest.mark.parametrize("name", ["console", "nulls", "com10", "auxiliary", "comet", "lpt", "0.5"])
def test_a_value_that_is_no_device_stays(name: str) -> None:
    assert FileName("{city}.keras").fill({"city": name}) == f"{name}.keras"


@pytest.mark.parametrize(
    "value", ["C:", "C:\\x", "\\\\server\\share", "a:stream", "..\\..", "x\\..\\y", "a*?", 'a"b', "a|b<c>"]
)
def test_a_value_leads_nowhere_else_on_windows(value: str) -> None:
    name = PureWindowsPath("C:/runs", FileName("{city}.keras").fill({"city": value}))
    assert name.parent == PureWindowsPath("C:/runs") and name.drive == "C:" and not set(':*?"<>|') & set(name.name)


@pytest.mark.parametrize("path", ["C:/runs/m.keras", "C:\\runs\\m.keras", "\\\\server\\share\\m.keras", "D:m.keras"])
def test_a_path_with_a_drive_is_no_url(path: str) -> None:
    assert not is_url(path)
    assert FileName(path.replace("m.", "{epoch}.")).fill({"epoch": 3}) == path.replace("m.", "3.")


@pytest.mark.parametrize("file", ["C:m.keras", "c:/m.keras", "..\\m.keras", "a\\b.keras", "\\m.keras"])
def test_a_record_names_no_file_elsewhere_on_windows(file: str) -> None:
    with pytest.raises(ValueError):
        check_inside(file)


def test_a_path_that_is_too_long_for_windows_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("x" * 200)
    folder.mkdir()

    def too_long(*rest: Any, **more: Any) -> int:
        raise FileNotFoundError(errno.ENOENT, "The system cannot find the path specified")

    monkeypatch.setattr(files, "SYSTEM", "win32")
    monkeypatch.setattr(lock, "FileLock", OfWindows)
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *rest, **more: too_long() if len(str(path)) > 259 else real(path, *rest, **more)
    )
    with pytest.raises(OSError, match=r"the path has \d+ characters, and .* Windows takes 259. Give a shorter one"):
        model().fit(X, X[:, :1], verbose=0, callbacks=[BackupAndRestore(folder)])


# macOS ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("knows", [True, False])
def test_on_macos_what_is_saved_leaves_the_memory_of_the_drive(
    knows: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed, synced, sync = list[str](), list[str](), os.fsync

    def control(descriptor: int, command: int) -> None:
        assert command == 51
        if not knows:
            raise OSError(errno.ENOTSUP, "Operation not supported")
        flushed.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))

    def noted(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        sync(descriptor)

    monkeypatch.setattr(files, "SYSTEM", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", noted)
    model().save_weights(tmp_path / "w.safetensors")
    train(tmp_path)
    reached, other = (flushed, synced) if knows else (synced, flushed)
    assert not other
    for what in (".w.safetensors", ".state-", "log.csv", "journal.jsonl", tmp_path.name, "backup"):
        assert any(name.startswith(what) for name in reached), what


def test_a_disk_that_fails_on_macos_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(descriptor: int, command: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "SYSTEM", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", failing)
    with pytest.raises(OSError, match="Input/output error"):
        model().save_weights(tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_names_that_differ_in_case_alone_are_one_file_on_macos_and_windows(tmp_path: Path) -> None:
    """There, one run's "A.keras" and "a.keras" are the same file: what `keep` deletes isn't what was saved last."""
    from oncue.checkpoints.manifest import Manifest
    from oncue.checkpoints.record import Record
    from oncue.checkpoints.retention import KeepLast

    manifest = Manifest(tmp_path / "m.oncue.json")
    for number, name in enumerate(("A.keras", "a.keras")):
        manifest.announce(Record(name, epoch=number + 1, score=0.5, monitor="loss", run="run"))
        (tmp_path / "a.keras").write_bytes(b"%d" % number)
        if not number:
            # As both names lead to it there.
            os.link(tmp_path / "a.keras", tmp_path / "A.keras")
        manifest.record()
    assert [record.file for record in manifest.records] == ["a.keras"]
    manifest.prune([KeepLast(1)], "run", None)
    assert (tmp_path / "a.keras").read_bytes() == b"1"
    assert json.loads((tmp_path / "m.oncue.json").read_text())["files"][0]["file"] == "a.keras"
