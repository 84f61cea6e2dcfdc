"""Event files of an interrupted run: on the disk before the state that knows their sizes, mended, and never elsewhere."""

from __future__ import annotations

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue as keras
from helpers import PowerCut
from oncue.callbacks import BackupAndRestore, TensorBoard
from oncue.checkpoints.state_file import blocks_of, read_state, write_state
from oncue.core import files
from oncue.tensorboard.event_file import whole_until

X = np.ones((8, 3), "float32")


def train(folder: Path, *more: Any, save_freq: Any = "epoch") -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    board = TensorBoard(folder / "logs", write_graph=False)
    backup = BackupAndRestore(folder / "backup", save_freq=save_freq)
    model.fit(X, X[:, :1], batch_size=4, epochs=5, verbose=0, callbacks=[backup, board, *more])


def cut(folder: Path) -> Path:
    with pytest.raises(ConnectionError):
        train(folder, PowerCut(3))
    (path,) = (folder / "logs" / "train").iterdir()
    return path


def steps(folder: Path, scalars: Any) -> list[int]:
    return [step for step, _ in scalars(folder / "logs" / "train")["epoch_loss"]]


@pytest.mark.parametrize("lost", [1, 30, 200])
@pytest.mark.parametrize("how", ["shorter", "zeros"])
def test_a_file_that_lost_its_end_is_continued_after_its_last_whole_event(
    how: str, lost: int, tmp_path: Path, scalars: Any
) -> None:
    path = cut(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-lost] + (bytes(lost) if how == "zeros" else b""))
    whole = whole_until(str(path), len(content))
    assert 0 < whole <= len(content) - lost and whole_until(str(path), whole) == whole
    with pytest.warns(UserWarning, match=f"has lost its end, as after a power cut: {len(content) - whole} bytes"):
        train(tmp_path)
    assert path.read_bytes()[:whole] == content[:whole]
    found = steps(tmp_path, scalars)
    assert found == [*range(len(found) - 2), 3, 4] and len(found) < 5


def test_a_file_that_lost_everything_is_begun_again(tmp_path: Path, scalars: Any) -> None:
    path = cut(tmp_path)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.warns(UserWarning, match="has lost its end"):
        train(tmp_path)
    assert steps(tmp_path, scalars) == [3, 4]


def test_it_reaches_the_disk_before_the_state_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        order.append((path, os.fstat(descriptor).st_size))
        fsync(descriptor)

    def note_name(old: Any, new: Any) -> None:
        order.append((os.fspath(new), 0))
        replace(old, new)

    monkeypatch.setattr(files.os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_name)
    with pytest.raises(ConnectionError):
        train(tmp_path, PowerCut(3), save_freq=1)
    checked = 0
    for path in (tmp_path / "backup").glob("state-*"):
        plain, _ = read_state(path)
        named = order.index((str(path), 0))
        for run, (name, size) in plain["parts"]["callbacks"]["TensorBoard"]["written"]["files"].items():
            whole = [there for one, there in order[:named] if one == str(tmp_path / "logs" / run / name)]
            assert max(whole) >= size
            checked += 1
    assert checked == 2


@pytest.mark.parametrize(
    "written",
    [
        {"files": {"../home": ["events.out.tfevents.1.x.LABEL.v2", 0]}},
        {"files": {"HOME": ["authorized_keys", 0]}},
        {"files": {"train": ["authorized_keys", 0]}},
        {"files": {"train": ["../home/events.out.tfevents.1.x.LABEL.v2", 0]}},
        {"files": {"train": ["events.out.tfevents.1.x.LABEL.v2", -1]}},
        {"files": {"train": ["events.out.tfevents.1.x.LABEL.v2", True]}},
        {"files": {"train": "events"}},
        {"files": []},
        {"label": "", "files": {}},
        {"label": ".*", "files": {}},
        {"label": 3, "files": {}},
    ],
)
def test_a_state_can_name_no_file_elsewhere(written: dict[str, Any], tmp_path: Path) -> None:
    path = cut(tmp_path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "authorized_keys").write_text("precious")
    before = path.read_bytes()
    for state in (tmp_path / "backup").glob("state-*"):
        plain, tensors = read_state(state)
        own = plain["parts"]["callbacks"]["TensorBoard"]["written"]
        text = json.dumps({**own, **written}).replace("LABEL", own["label"]).replace("HOME", str(tmp_path / "home"))
        plain["parts"]["callbacks"]["TensorBoard"]["written"] = json.loads(text)
        write_state(
            state, [json.dumps(plain).encode()], blocks_of({name: one.clone() for name, one in tensors.items()})
        )
    with pytest.raises(ValueError, match="The state of TensorBoard must have"):
        train(tmp_path)
    assert (tmp_path / "home" / "authorized_keys").read_text() == "precious" and path.read_bytes() == before


def test_links_are_not_followed(tmp_path: Path) -> None:
    path = cut(tmp_path)
    (tmp_path / "other").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "other")
    before = (tmp_path / "other").read_bytes()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(tmp_path)
    assert any(re.search("is gone", str(one.message)) for one in said)
    assert (tmp_path / "other").read_bytes() == before
