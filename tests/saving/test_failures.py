"""A write that fails, or a process that dies in it, leaves the old file whole."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

import oncue as keras
from helpers import cpu_only
from oncue import layers
from oncue.core import files

SAVES: dict[str, Callable[[Any, Path], None]] = {
    "m.keras": lambda model, path: model.save(path),
    "m.h5": lambda model, path: model.save(path),
    "w.h5": lambda model, path: model.save_weights(path),
    "w.weights.h5": lambda model, path: model.save_weights(path),
    "w.safetensors": lambda model, path: model.save_weights(path),
}


def model(width: int = 3) -> Any:
    made = keras.Sequential([layers.Input((4,)), layers.Dense(width), layers.Dense(1)])
    made.compile("adam", "mse")
    return made


def broken(*args: Any, **kwargs: Any) -> Any:
    raise OSError(28, "No space left on device")


def fails_at(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    if step == "write":
        monkeypatch.setattr(h5py.Group, "__setitem__", broken)
        monkeypatch.setattr(h5py.Group, "create_dataset", broken)
        monkeypatch.setattr("oncue.saving.safetensors_file.write_tensors", broken)
    elif step == "fsync":
        monkeypatch.setattr(files.os, "fsync", broken)
    elif step == "replace":
        monkeypatch.setattr(files.os, "replace", broken)
    else:
        monkeypatch.setattr(files.tempfile, "mkstemp", broken)


@pytest.mark.parametrize("step", ["create", "write", "fsync", "replace"])
@pytest.mark.parametrize("name", SAVES)
def test_only_the_old_file_stays(name: str, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    SAVES[name](model(), path)
    before = path.read_bytes()
    other = model(5)
    with monkeypatch.context() as patch:
        fails_at(patch, step)
        with pytest.raises(OSError, match="No space left"):
            SAVES[name](other, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    SAVES[name](other, path)
    assert path.read_bytes() != before


@pytest.mark.parametrize("name", SAVES)
def test_a_first_write_that_fails_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_at(monkeypatch, "replace")
    with pytest.raises(OSError, match="No space left"):
        SAVES[name](model(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SAVES)
def test_a_full_disk(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    SAVES[name](model(), path)
    before = path.read_bytes()
    large = model(4000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Beyond this size the kernel refuses to write, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    try:
        with pytest.raises(Exception) as caught:
            SAVES[name](large, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(caught.value, (OSError, RuntimeError)) or "SafetensorError" in type(caught.value).__name__
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@cpu_only("it forks, and a process that is forked can't use CUDA")
@pytest.mark.parametrize(("step", "at", "new"), [("fsync", 1, False), ("replace", 1, False), ("fsync", 2, True)])
@pytest.mark.parametrize("name", SAVES)
def test_a_process_that_is_killed(name: str, step: str, at: int, new: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    SAVES[name](model(), path)
    before = path.read_bytes()
    other, real, calls = model(5), getattr(os, step), []
    child = os.fork()
    if child == 0:

        def dies(*args: Any) -> Any:
            calls.append(args)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)

        setattr(os, step, dies)
        try:
            SAVES[name](other, path)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert (path.read_bytes() != before) == new
    expected = other if new else model()
    # Whole either way: all of it can be read.
    expected.load_weights(path)


def test_names_at_the_limit_and_permissions(tmp_path: Path) -> None:
    path = tmp_path / ("m" * 240 + ".keras")
    model().save(path)
    path.chmod(0o640)
    model().save(path)
    assert path.stat().st_mode & 0o777 == 0o640


@cpu_only("it forks, and a process that is forked can't use CUDA")
@pytest.mark.parametrize("name", SAVES)
def test_two_writers_of_one_file(name: str, tmp_path: Path) -> None:
    path, widths = tmp_path / name, (3, 5)
    SAVES[name](model(), path)
    children = []
    for width in widths:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                made = model(width)
                for _ in range(15):
                    SAVES[name](made, path)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    loads = 0
    while children:
        # Whole at every moment, from the one or the other.
        fits = []
        for width in widths:
            try:
                model(width).load_weights(path)
                fits.append(width)
            except ValueError as error:
                assert "don't fit" in str(error), error
        loads += len(fits)
        done, status = os.waitpid(-1, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            children.remove(done)
    assert loads and [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", SAVES)
def test_a_folder_that_is_gone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs"
    real = files.os.replace

    def gone(source: Any, target: Any) -> None:
        shutil.rmtree(folder)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", gone)
        with pytest.raises(FileNotFoundError, match="runs"):
            SAVES[name](model(), folder / name)
    assert list(tmp_path.iterdir()) == []
    # The next save makes it again.
    SAVES[name](model(), folder / name)
    assert [entry.name for entry in folder.iterdir()] == [name]
