"""Hostile backups with right checksums: refused before the first step, and nothing is changed: no weight, no file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import PowerCut, to_numpy
from oncue.callbacks import BackupAndRestore, Callback, CSVLogger, EarlyStopping, ModelCheckpoint, TensorBoard
from oncue.checkpoints.state_file import blocks_of, read_state, write_state
from oncue.random_state import random_state

X = np.arange(24.0, dtype="float32").reshape(8, 3)


class Counts(Callback):
    """What a callback of the user's own finds wrong with its part is found last."""

    state_fields = ("number",)
    number = 0

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.number.bit_length()


def build() -> Any:
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((3,)),
        keras.layers.Dense(2, name="a"),
        keras.layers.Dropout(0.5, seed=1),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "mse", metrics=["mae"])
    return model


def train(model: Any, folder: Path, *more: Any) -> Any:
    callbacks = [
        BackupAndRestore(folder / "backup", save_freq=1),
        EarlyStopping("loss", patience=9),
        CSVLogger(folder / "log.csv", append=True),
        TensorBoard(folder / "logs", write_graph=False),
        ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True, keep=2),
        Counts(),
    ]
    return model.fit(X, X[:, :1], batch_size=4, epochs=4, verbose=0, callbacks=[*callbacks, *more])


def set_at(*path: Any, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(plain: dict[str, Any], tensors: dict[str, Any]) -> None:
        place: Any = plain
        for step in path[:-1]:
            place = place[step]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value

    return change


def tensor_of(*path: str, value: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    def change(plain: dict[str, Any], tensors: dict[str, Any]) -> None:
        place = plain["parts"]
        for step in path:
            place = place[step]
        (mark,) = place
        tensors[place[mark]] = value

    return change


KERNEL = ("weights", "a.kernel")
CALLBACKS = ("parts", "callbacks")
BOARD = (*CALLBACKS, "TensorBoard", "written", "files")
RECORD = {
    "file": "precious.txt",
    "size": 8,
    "sha256": "",
    "epoch": 1,
    "step": None,
    "score": 1.0,
    "monitor": "",
    "run": "",
}
CHANGES: dict[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "a weight that would be spread": tensor_of(*KERNEL, value=torch.ones(1)),
    "a weight of another shape": tensor_of(*KERNEL, value=torch.ones(2, 3)),
    "a weight of another type": tensor_of(*KERNEL, value=torch.ones(3, 2, dtype=torch.float64)),
    "a weight that is a number": set_at("parts", *KERNEL, value=3),
    "a weight too few": set_at("parts", *KERNEL, value=None),
    "weights that are a number": set_at("parts", "weights", value=3),
    "no weights": set_at("parts", "weights", value=None),
    "no optimizer": set_at("parts", "optimizer", value={}),
    "an optimizer that is a list": set_at("parts", "optimizer", value=[]),
    "slots of the optimizer that are gone": set_at("parts", "optimizer", "state", value={}),
    "counts of the optimizer": set_at("parts", "optimizer", "iterations", value="x"),
    "no random state": set_at("parts", "random", value=None),
    "a short random state": tensor_of("random", "torch", value=torch.zeros(3, dtype=torch.uint8)),
    "a random state of another type": tensor_of("random", "torch", value=torch.zeros(5056)),
    "a random state of Python": set_at("parts", "random", "python", value={"$tuple": [3, 4, 5]}),
    "a random state of NumPy": set_at("parts", "random", "numpy", value={"$tuple": ["MT19937", [1, 2], 3, 0, 0.0]}),
    "a negative epoch": set_at("epoch", value=-1),
    "a huge epoch": set_at("epoch", value=1 << 70),
    "an epoch that is true": set_at("epoch", value=True),
    "an epoch that is text": set_at("epoch", value="3"),
    "a negative batch": set_at("batch", value=-3),
    "a batch that no epoch has": set_at("batch", value=99),
    "stopped by a word": set_at("stopped", value="no"),
    "no callbacks": set_at(*CALLBACKS, value=None),
    "callbacks that are a list": set_at(*CALLBACKS, value=[]),
    "a callback that is a list": set_at(*CALLBACKS, "EarlyStopping", value=[]),
    "a field too few": set_at(*CALLBACKS, "EarlyStopping", value={}),
    "a field too many": set_at(*CALLBACKS, "EarlyStopping", "evil", value=1),
    "an own callback's part": set_at(*CALLBACKS, "Counts", "number", value="x"),
    "an event file elsewhere": set_at(*BOARD, value={"..": ["precious.txt", 0]}),
    "an event file that is another": set_at(*BOARD, value={"train": ["../../precious.txt", 0]}),
    "a file of ModelCheckpoint": set_at(*CALLBACKS, "ModelCheckpoint", "records", value=[RECORD]),
    "a file of ModelCheckpoint elsewhere": set_at(
        *CALLBACKS, "ModelCheckpoint", "records", value=[{**RECORD, "file": "../precious.txt"}]
    ),
    "a CSV file that is a number": set_at(*CALLBACKS, "CSVLogger", "text", value=3),
    "layers that aren't there": set_at("parts", "layers", value={"99": {"seed_generator": 1}}),
    "layers that are a list": set_at("parts", "layers", value=[1]),
    "a journal without entries": set_at("parts", "journal", value={"dropped": 0}),
    "a journal of numbers": set_at("parts", "journal", value={"dropped": 0, "entries": [1]}),
    "an entry with more than entries have": set_at("parts", "journal", "entries", value=[{"evil": 1}]),
    "settings that are a number": set_at("parts", "settings", value=3),
    "settings without the beginning": set_at("parts", "settings", "begin", value=None),
    "a beginning that is no JSON": set_at("parts", "settings", "begin", value="{"),
    "metrics too few": set_at("parts", "metrics", value=[]),
    "metrics that are numbers": set_at("parts", "metrics", value=[1, 2]),
    "an unknown format": set_at("format", value=99),
    "no format": set_at("format", value=None),
    "an unknown mark": set_at("parts", "journal", value={"$call": "os.system"}),
    "a tensor that isn't there": set_at("parts", "weights", value={"$tensor": "999"}),
    "no parts": set_at("parts", value=None),
    "a place in the data that is text": set_at("parts", "data", value="x"),
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("run")
    (folder / "precious.txt").write_bytes(b"precious")
    with pytest.raises(ConnectionError):
        train(build(), folder, PowerCut(2, 1))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_that_no_run_has_saved(
    name: str, interrupted: dict[str, bytes], tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = changed(interrupted, tmp_path / "run", CHANGES[name])
    model = build()
    before, random = [to_numpy(weight) for weight in model.get_weights()], random_state()
    with pytest.raises(ValueError):
        train(model, folder)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, to_numpy(other))
    assert model.optimizer.iterations == 0
    assert torch.equal(random["torch"], torch.get_rng_state())
    assert (folder / "precious.txt").read_bytes() == b"precious"
    for file, content in interrupted.items():
        if not file.startswith("backup"):
            assert (folder / file).read_bytes() == content, file


def test_what_was_not_changed_is_resumed(interrupted: dict[str, bytes], tmp_path: Path) -> None:
    assert train(build(), copied(interrupted, tmp_path)).epoch == [0, 1, 2, 3]


def copied(files: dict[str, bytes], folder: Path) -> Path:
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    return folder


def changed(files: dict[str, bytes], folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """Write the files of a run with states that are changed, and have right checksums."""
    for path in (copied(files, folder) / "backup").glob("state-*"):
        plain, tensors = read_state(path)
        tensors = {key: tensor.clone() for key, tensor in tensors.items()}
        change(plain, tensors)
        write_state(path, [json.dumps(plain).encode()], blocks_of(tensors))
    return folder
