"""Writing files, and removing what killed writers left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import oncue as keras
from oncue.core.files import replacing, sweep

KILLED = """
import os, signal, sys
from oncue.core.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment).returncode == -signal.SIGKILL


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "model_03.keras"
    path.write_text("old")
    kill_while_writing(path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    assert not sweep(tmp_path, r"other.*")
    assert len(sweep(tmp_path, r"model_.*\.keras")) == 1 and list(tmp_path.iterdir()) == [path]


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
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
