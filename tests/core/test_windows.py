"""What Windows does otherwise, done here: fewer signals, no folder that is opened, no open file that is replaced or removed."""

from __future__ import annotations

import enum
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import normal
from oncue import layers
from oncue.callbacks import (
    BackupAndRestore,
    CSVLogger,
    LambdaCallback,
    ModelCheckpoint,
    Preempted,
    Preemption,
    RunFolder,
    TensorBoard,
)
from oncue.checkpoints import lock
from oncue.checkpoints.lock import FolderLock
from oncue.checkpoints.store import Store
from oncue.cli import main
from oncue.core import files
from oncue.report import find_run

X = normal(12, 3)
Y = X[:, :1]

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="it asks Linux which files are open")

_MISSING = ("fork", "geteuid", "getuid", "fdatasync", "O_NONBLOCK", "O_DIRECTORY", "mkfifo", "register_at_fork")
_NO_SIGNALS = ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGALRM", "SIGKILL", "SIGQUIT", "pthread_sigmask")
_SIGNALS = ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM")


class Windows(ModuleType):
    """The module `os` as it is there."""

    name = "nt"

    def __getattr__(self, name: str) -> Any:
        if name in _MISSING:
            raise AttributeError(name)
        return getattr(os, name)


def _is_open(path: Any) -> bool:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    for entry in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(os.stat(f"/proc/self/fd/{entry}"), found):
                return True
        except OSError:
            continue
    return False


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unless_open(call: Callable[..., Any], both: bool) -> Callable[..., Any]:
        def called(path: Any, *others: Any, **options: Any) -> Any:
            for one in (path, *others[: int(both)]):
                if _is_open(one):
                    raise PermissionError(errno.EACCES, "The process cannot access the file", os.fspath(one))
            return call(path, *others, **options)

        return called

    def opened(path: Any, *arguments: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return before(path, *arguments, **options)

    before = os.open
    for module in (files, lock):
        monkeypatch.setattr(module, "SYSTEM", "win32")
    for name in ("unlink", "remove"):
        monkeypatch.setattr(os, name, unless_open(getattr(os, name), both=False))
    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, unless_open(getattr(os, name), both=True))
    known = enum.IntEnum("Signals", {name: int(getattr(signal, name)) for name in _SIGNALS})  # type: ignore[misc]
    monkeypatch.setattr(signal, "Signals", known)
    for name in _NO_SIGNALS:
        monkeypatch.delattr(signal, name)
    there = Windows("os")
    there.open = opened  # type: ignore[attr-defined]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "oncue" and getattr(module, "os", None) is os:
            monkeypatch.setattr(module, "os", there)


def model() -> Any:
    oncue.utils.set_random_seed(0)
    made = oncue.Sequential([layers.Input((3,)), layers.Dropout(0.1), layers.Dense(1, name="d")], name="m")
    made.compile("adam", "mse")
    return made


def train(folder: Path, *more: Any) -> Any:
    made = model()
    callbacks = [
        RunFolder(folder / "run", best="val_loss", weights_freq=1),
        BackupAndRestore(folder / "backup", save_freq=1),
        ModelCheckpoint(str(folder / "kept" / "{epoch}.weights.h5"), save_weights_only=True, keep="best 2"),
        CSVLogger(folder / "log.csv", append=True),
        TensorBoard(folder / "events", histogram_freq=1),
        *more,
    ]
    made.fit(X, Y, epochs=4, batch_size=4, validation_split=0.25, verbose=0, callbacks=callbacks)
    return made


def names(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name
    )


def test_a_run_with_everything_is_interrupted_and_resumed(windows: None, tmp_path: Path) -> None:
    def stop(epoch: int, logs: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "one", LambdaCallback(on_epoch_begin=stop))
    made = train(tmp_path / "one", LambdaCallback(on_epoch_begin=lambda epoch, logs: None))
    other = train(tmp_path / "other", LambdaCallback(on_epoch_begin=lambda epoch, logs: None))
    for mine, theirs in zip(made.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # There the files of locks stay, as nobody may remove one that is open.
    assert [name for name in names(tmp_path / "one") if not name.endswith(".lock")] == [
        name for name in names(tmp_path / "other") if not name.endswith(".lock")
    ]
    assert (tmp_path / "one" / "log.csv").read_bytes() == (tmp_path / "other" / "log.csv").read_bytes()
    assert find_run(tmp_path / "one" / "run").record.weights == find_run(tmp_path / "other" / "run").record.weights
    for command in ("explain", "verify", "inspect"):
        assert main([command, str(tmp_path / "one" / "run")]) == 0


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5", "m.safetensors"])
def test_files_are_saved_over_older_ones_and_loaded(name: str, windows: None, tmp_path: Path) -> None:
    made = model()
    save = made.save if name in ("m.keras", "m.h5") else made.save_weights
    for _ in range(2):
        save(tmp_path / name)
    if name in ("m.keras", "m.h5"):
        oncue.models.load_model(tmp_path / name)
    else:
        model().load_weights(tmp_path / name)
    assert names(tmp_path) == [name]


def test_a_part_of_a_state_takes_the_place_of_one_that_is_read(windows: None, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"old")
    reader = (tmp_path / "part").open("rb")
    closing = threading.Timer(0.05, reader.close)
    closing.start()
    Store(tmp_path).commit_part("part", lambda path: path.write_bytes(b"new"))
    closing.join()
    assert (tmp_path / "part").read_bytes() == b"new"


def test_signals_that_are_not_there(windows: None, tmp_path: Path) -> None:
    assert Preemption().signals == ["SIGTERM"]
    with pytest.raises(ValueError, match="SIGUSR1"):
        Preemption(signals=["SIGUSR1"])

    def end(batch: int, logs: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Preempted):
        train(tmp_path, Preemption(action="raise"), LambdaCallback(on_train_batch_end=end))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_lock_whose_file_stays_can_be_taken_again(windows: None, tmp_path: Path) -> None:
    for _ in range(2):
        first, other = FolderLock(tmp_path), FolderLock(tmp_path)
        assert first.acquire() and not other.acquire()
        first.release()
    assert (tmp_path / ".oncue.lock").exists()


def test_no_process_is_ended_by_asking_whether_it_runs(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(process: int, number: int) -> None:
        raise AssertionError("there, that ends it")

    monkeypatch.setattr(os, "kill", kill)
    assert files.is_alive(1 << 22)


@pytest.mark.parametrize("path", ["C:\\runs\\today\\best.keras", "runs\\best.keras"])
def test_paths_with_backslashes_are_names(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = model()
    made.save(path)
    assert oncue.models.load_model(path).count_params() == made.count_params()
