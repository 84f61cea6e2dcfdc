"""Checkpoints: the newest and the best file that is what was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue as keras
from helpers import damage
from oncue.checkpoints import Checkpoints, NoSoundCheckpointError
from oncue.cli import main

TEMPLATE = "{epoch}.weights.h5"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Four files whose scores are 3, 1, 2, 4."""
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    saver = keras.callbacks.ModelCheckpoint(tmp_path / TEMPLATE, "loss", save_weights_only=True, keep=9)
    saver.set_model(model)
    saver.on_train_begin()
    for epoch, score in enumerate([3.0, 1.0, 2.0, 4.0]):
        model.set_weights([np.full_like(weight, epoch + 1) for weight in model.get_weights()])
        saver.on_epoch_end(epoch, {"loss": score})
    saver.on_train_end()
    return tmp_path


def test_the_last_and_the_best(files: Path) -> None:
    found = Checkpoints(files / TEMPLATE)
    assert Path(found.last()).name == "4.weights.h5" and Path(found.best()).name == "2.weights.h5"
    assert Path(found.best("max")).name == "4.weights.h5"
    assert Path(Checkpoints(files / "epoch.weights.h5.oncue.json").last()).name == "4.weights.h5"
    assert set(found.verify().values()) == {True}


def test_a_damaged_one_is_set_aside_and_reported(files: Path) -> None:
    damage(files / "4.weights.h5")
    damage(files / "2.weights.h5")
    (files / "3.weights.h5").unlink()
    with (
        pytest.warns(UserWarning, match="4.weights.h5' is not what was saved.*set aside as '4.weights.h5.damaged'"),
        pytest.warns(UserWarning, match="2.weights.h5' is not what was saved.*set aside as '2.weights.h5.damaged'"),
    ):
        assert Path(Checkpoints(files / TEMPLATE).last()).name == "1.weights.h5"
    assert sorted(path.name for path in files.glob("*.damaged")) == ["2.weights.h5.damaged", "4.weights.h5.damaged"]


def test_none_is_left(files: Path) -> None:
    for path in files.glob("*.h5"):
        damage(path)
    with (
        pytest.warns(UserWarning, match="set aside"),
        pytest.raises(NoSoundCheckpointError, match=r"2\.weights\.h5.*3\.weights\.h5.*1\.weights\.h5.*4\.weights\.h5"),
    ):
        Checkpoints(files / TEMPLATE).best()


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no manifest.*`keep` or `resume_best`"):
        Checkpoints(tmp_path / TEMPLATE)


def test_the_command(files: Path, capsys: Any) -> None:
    assert main(["verify", str(files / TEMPLATE)]) == 0
    damage(files / "3.weights.h5")
    assert main(["verify", str(files / TEMPLATE)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 and [line for line in lines if line.startswith("DAMAGED")] == [
        f"DAMAGED  {files / '3.weights.h5'}: its content isn't what the manifest says"
    ]
    assert main(["verify", str(files / "other.h5")]) == 2
    assert "There is no manifest" in capsys.readouterr().err
