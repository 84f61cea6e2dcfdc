"""A save that is killed, or fails, at any of its file-changing system calls leaves the old state or the new one."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crash.share import SHARE, Counted

import oncue as keras
from helpers import cpu_only
from oncue import layers
from oncue.checkpoints import Checkpoints
from oncue.checkpoints.store import Store
from oncue.checkpoints.training_state import TrainingState
from oncue.core import write_behind

CALLS = (
    "openat,write,writev,pwrite64,rename,renameat,renameat2,unlink,unlinkat,fsync,fdatasync,ftruncate,mkdir,mkdirat,chmod,"
    "rmdir"
)

EACH = math.ceil(1 / SHARE)
"""Every so many calls are tried."""

NAMES = [
    "m.keras",
    "m.h5",
    "w.h5",
    "w.weights.h5",
    "w.safetensors",
    "threads.weights.h5",
    "threads.safetensors",
    "store",
    "threads.store",
]


def _can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.crash,
    cpu_only("they fork, and a process that is forked can't use CUDA"),
    pytest.mark.skipif(not _can_trace(), reason="strace isn't installed, or may not trace here: no call was killed"),
]


def model(value: float) -> Any:
    made = keras.Sequential([layers.Input((4,), name="in"), layers.Dense(3, name="a"), layers.Dense(1, name="b")])
    made.compile("adam", "mse")
    made.set_weights([np.full_like(weight, value) for weight in made.get_weights()])
    return made


@pytest.fixture(autouse=True)
def pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "threads" in request.node.name:
        # Small files are then written as large ones are, which are sent to the disk while they are being written.
        for limit, size in (("_SMALL", 0), ("_PIECE", 512), ("_BATCH", 1024)):
            monkeypatch.setattr(write_behind, limit, size)


def _save(name: str, folder: Path, value: float, made: Any) -> None:
    if name.endswith("store"):
        store = Store(folder / name)
        store.prepare()
        store.commit(TrainingState({}, parts={"weights": [torch.full((400,), value)]}).write)
        store.release()
    elif name.startswith("m"):
        made.save(folder / name)
    elif name == "kept":
        saver = keras.callbacks.ModelCheckpoint(
            folder / "{epoch}.weights.h5", save_weights_only=True, keep=1, resume_best=True, save_best_only=True,
            monitor="loss",
        )  # fmt: skip
        saver.set_model(made)
        saver.on_train_begin()
        saver.on_epoch_end(int(value), {"loss": 1.0 / value})
        saver.on_train_end()
    else:
        made.save_weights(folder / name)


def _load(name: str, folder: Path) -> float:
    if name.endswith("store"):
        found = Store(folder / name).newest(TrainingState.read)
        assert found is not None
        return float(found.parts["weights"][0].unique())
    if name == "kept":
        into = model(0.0)
        into.load_weights(Checkpoints(folder / "{epoch}.weights.h5").best())
        return _value(into)
    if name.startswith("m"):
        return _value(keras.models.load_model(folder / name))
    into = model(0.0)
    into.load_weights(folder / name)
    return _value(into)


def _value(made: Any) -> float:
    values = {float(value) for weight in made.get_weights() for value in weight.ravel()}
    assert len(values) == 1, "a mix of two states"
    return values.pop()


def _traced(action: Callable[[], None], inject: str) -> int:
    """Run an action in a child whose system calls are tampered with; return its status."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.kill(os.getpid(), signal.SIGSTOP)
            action()
            code = 0
        except OSError:
            code = 3
        finally:
            os._exit(code)
    os.waitpid(child, os.WUNTRACED)
    command = [
        "strace",
        "-f",
        "-qq",
        "-p",
        str(child),
        "-e",
        f"trace={CALLS}",
        "-e",
        f"inject={inject}",
        "-o",
        "/dev/null",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as tracer:
        while "TracerPid:\t0" in Path(f"/proc/{child}/status").read_text():
            time.sleep(0.002)
        os.kill(child, signal.SIGCONT)
        status = os.waitpid(child, 0)[1]
        tracer.wait()
    return status


@pytest.mark.parametrize("name", [*NAMES, "kept"])
def test_a_kill_at_every_call(name: str, tmp_path: Path, counted: Counted) -> None:
    old, made = tmp_path / "old", model(2.0)
    old.mkdir()
    _save(name, old, 1.0, model(1.0))
    assert _load(name, old) == 1.0
    kills = {1.0: 0, 2.0: 0}
    # strace counts every call by itself.
    for call in CALLS.split(","):
        for place in range(1, 400, EACH):
            folder = tmp_path / f"{call}-{place}"
            shutil.copytree(old, folder)
            inject = f"{call}:signal=SIGKILL:when={place}"
            status = _traced(lambda folder=folder: _save(name, folder, 2.0, made), inject)  # type: ignore[misc]
            found = _load(name, folder)
            assert found in kills, (call, place)
            if not os.WIFSIGNALED(status):
                assert os.WEXITSTATUS(status) == 0 and found == 2.0
                break
            kills[found] += 1
            # The next save lands whatever the kill left.
            _save(name, folder, 2.0, made)
            assert _load(name, folder) == 2.0
            shutil.rmtree(folder)
        else:
            raise AssertionError(f"it never came to the end of {call}")
    counted(kills_of_saves=sum(kills.values()))
    assert (kills[1.0] > 4 and kills[2.0]) or EACH > 1, kills


@pytest.mark.parametrize(
    "fault", ["write,writev:error=ENOSPC", "fsync,fdatasync:error=EIO", "rename,renameat,renameat2:error=EIO"]
)
@pytest.mark.parametrize("name", NAMES)
def test_a_fault_at_every_call(name: str, fault: str, tmp_path: Path, counted: Counted) -> None:
    old, made = tmp_path / "old", model(2.0)
    old.mkdir()
    _save(name, old, 1.0, model(1.0))
    faults = 0
    for place in range(1, 100, EACH):
        folder = tmp_path / str(place)
        shutil.copytree(old, folder)
        before = sorted(path.name for path in folder.iterdir())
        status = _traced(lambda folder=folder: _save(name, folder, 2.0, made), f"{fault}:when={place}")  # type: ignore[misc]
        code = os.WEXITSTATUS(status)
        assert not os.WIFSIGNALED(status) and code in (0, 3), status
        assert _load(name, folder) == (2.0 if code == 0 else _load(name, folder)) and _load(name, folder) in (1.0, 2.0)
        left = [path.name for path in folder.iterdir() if path.name not in before]
        assert not left, "litter"
        if code == 0:
            break
        faults += 1
        shutil.rmtree(folder)
    counted(faults_of_saves=faults)
    assert faults
