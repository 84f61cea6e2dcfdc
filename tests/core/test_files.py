"""Writing files, and removing what killed writers left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import oncue as keras
from helpers import environment
from oncue.core.files import replace_file, replacing, sweep

KILLED = """
import os, signal, sys
from oncue.core.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment()).returncode == -signal.SIGKILL


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "model_03.keras"
    path.write_text("old")
    kill_while_writing(path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    assert not sweep(tmp_path, r"other.*")
    assert len(sweep(tmp_path, r"model_.*\.keras")) == 1 and list(tmp_path.iterdir()) == [path]


def test_files_of_a_living_process_stay(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.txt") as temporary:
        assert not sweep(tmp_path, ".*") and temporary.exists()


def test_a_run_removes_what_the_killed_one_left(tmp_path: Path) -> None:
    kill_while_writing(tmp_path / "m_07-0.25.weights.h5")
    kill_while_writing(tmp_path / "notes.txt")
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "m_{epoch:02d}-{loss:.2f}.weights.h5", save_weights_only=True)
    saver.set_model(model)
    saver.on_train_begin()
    left = [entry.name for entry in tmp_path.iterdir()]
    assert len(left) == 1 and left[0].startswith(".notes.txt.")


def occupy(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        target = path.with_name("elsewhere")
        if kind == "link":
            target.write_text("somebody's")
        path.symlink_to(target)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "w.weights.h5", "w.h5", "w.safetensors"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("folder", "this one is a folder"),
        ("pipe", "a pipe or a device"),
        ("link", "a link to '.*elsewhere'"),
        ("a link to nothing", "a link to '.*elsewhere'"),
    ],
)
def test_a_file_takes_no_place_of_something_else(name: str, kind: str, words: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    occupy(tmp_path / name, kind)
    before = sorted(path.name for path in tmp_path.iterdir())
    weights = name.startswith("w")
    with pytest.raises(OSError, match=f"{words}.*{name}"):
        (model.save_weights if weights else model.save)(tmp_path / name)
    saver = keras.callbacks.ModelCheckpoint(tmp_path / name, save_weights_only=weights)
    with pytest.raises(OSError, match=f"{words}.*{name}"):
        model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0, callbacks=[saver])
    assert model.optimizer.iterations == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert kind != "link" or (tmp_path / "elsewhere").read_text() == "somebody's"


def test_texts_go_where_a_link_leads(tmp_path: Path) -> None:
    occupy(tmp_path / "log.csv", "link")
    replace_file(tmp_path / "log.csv", b"new")
    assert (tmp_path / "log.csv").is_symlink() and (tmp_path / "elsewhere").read_text() == "new"
