"""Scripts as people wrote them for each generation of Keras: they run, and come to what Keras comes to where it runs them."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import oncue
from made_scripts import GENERATIONS, SCRIPTS, put_data, with_keras, with_oncue
from oncue.cli import main
from oncue.cli.scripts import MISSING, OLD, names_of
from oncue.legacy.warning import _warned

NAMES = [
    f"{generation}/{path.stem}" for generation in GENERATIONS for path in sorted((SCRIPTS / generation).glob("*.py"))
]

BY_KERAS = (
    *("keras_2/conv_sequential", "keras_2/two_outputs"),
    *(f"tf_keras/{name}" for name in ("early_stop_at_min", "encoder_decoder", "linear_without_chance")),
    *(f"tf_keras/{name}" for name in ("residual_block", "sequence_tagging")),
    *(f"keras_3/{name}" for name in ("attention_over_words", "averaged_weights", "backup_and_restore")),
    *(f"keras_3/{name}" for name in ("batches_of_ones_own", "digits", "functions_of_tensors", "linear_without_chance")),
    *(f"keras_3/{name}" for name in ("loss_of_ones_own", "own_layer_saved", "schedules", "several_heads")),
    *(f"keras_3/{name}" for name in ("torch_train_step", "up_and_down")),
)
"""Those that the real Keras runs too."""

WITHOUT_CHANCE = (
    "tf_keras/linear_without_chance",
    *(f"keras_3/{name}" for name in ("averaged_weights", "linear_without_chance", "loss_of_ones_own", "schedules")),
)
"""Those that begin with known weights and go through the data in order, so that every number is the same."""


class Outcome(NamedTuple):
    """What a script left: for each history the epochs and values, and the files."""

    histories: dict[str, tuple[list[int], dict[str, list[float]]]]
    files: set[str]
    words: list[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with small data sets in a cache."""
    folder = tmp_path / "home"
    folder.mkdir()
    put_data(folder, monkeypatch)
    return folder


@pytest.fixture
def run(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[str], str]], Outcome]:
    """Return a function that runs a script in this process, after its imports were changed."""

    def run_it(name: str, changed: Callable[[str], str]) -> Outcome:
        folder = tmp_path / changed.__name__
        folder.mkdir()
        monkeypatch.chdir(folder)
        script = folder / "script.py"
        script.write_text(changed((SCRIPTS / f"{name}.py").read_text(encoding="utf-8")), encoding="utf-8")
        _warned.clear()
        oncue.backend.clear_session()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                left = runpy.run_path(str(script), run_name="__main__")
        finally:
            script.unlink()
            oncue.mixed_precision.set_global_policy("float32")
        old = [one for one in caught if "is from an older Keras" in str(one.message)]
        assert {one.filename for one in old} <= {str(script)}, "a warning points at the script's line"
        histories = {
            key: (list(value.epoch), {one: list(map(float, values)) for one, values in value.history.items()})
            for key, value in left.items()
            if type(value).__name__ == "History"
        }
        files = {
            re.sub(r"events\.out\.tfevents.*", "events", path.relative_to(folder).as_posix())
            for path in folder.rglob("*")
            if path.is_file()
        }
        return Outcome(histories, files, [str(one.message).split("`")[1] for one in old])

    return run_it


def test_there_are_scripts_of_every_generation() -> None:
    assert len(NAMES) >= 60
    for generation in GENERATIONS:
        assert sum(name.startswith(generation) for name in NAMES) >= 15


@pytest.mark.parametrize("name", NAMES)
def test_a_script_runs(name: str, run: Callable[..., Outcome]) -> None:
    source = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
    assert "callbacks" in source
    outcome = run(name, with_oncue)
    if name != "tf_keras/adversaries":
        assert outcome.histories and all(epochs for epochs, _ in outcome.histories.values())
    for _, values in outcome.histories.values():
        assert all(np.isfinite(curve).all() for curve in values.values())
    assert len(outcome.words) == len(set(outcome.words)), "each word is told once"
    if name.startswith("keras_3"):
        assert outcome.words == []
    if name.startswith("keras_1"):
        assert outcome.words


@pytest.mark.parametrize(
    "name", [name if name in WITHOUT_CHANCE else pytest.param(name, marks=pytest.mark.slow) for name in BY_KERAS]
)
def test_it_comes_to_what_keras_comes_to(name: str, run: Callable[..., Outcome]) -> None:
    ours, theirs = run(name, with_oncue), run(name, with_keras)
    assert set(ours.histories) == set(theirs.histories)
    # Our backup stays in the folder until it is finished with.
    assert {file for file in ours.files if not file.startswith("backup/")} == {
        file for file in theirs.files if not file.startswith("backup/")
    }
    for key, (epochs, values) in theirs.histories.items():
        if name == "keras_3/backup_and_restore":
            # Keras's history begins where the run goes on; oncue's has all epochs.
            assert ours.histories[key][0][-len(epochs) :] == epochs
            continue
        assert set(ours.histories[key][1]) == set(values)
        if name != "tf_keras/early_stop_at_min":
            assert ours.histories[key][0] == epochs
        if name in WITHOUT_CHANCE:
            for one, curve in values.items():
                np.testing.assert_allclose(ours.histories[key][1][one], curve, rtol=2e-3, atol=1e-6, err_msg=one)


@pytest.mark.parametrize("name", NAMES)
def test_check_finds_what_runs(name: str) -> None:
    found = names_of(SCRIPTS / f"{name}.py")
    assert [one.name for one in found if one.kind == MISSING] == []
    old = [one.name for one in found if one.kind == OLD]
    if name.startswith("keras_1"):
        assert old
    if name.startswith("keras_3"):
        assert old == []


def test_check_sums_a_folder_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(SCRIPTS)]) == 0
    assert f"Of {len(NAMES)} scripts, {len(NAMES)} use only names that run." in capsys.readouterr().out


ALL = """
import os, runpy, sys
import torch, oncue

# What every script would import first, once.
for folder in sys.argv[1:]:
    child = os.fork()
    if not child:
        os.chdir(folder)
        runpy.run_path("script.py", run_name="__main__")
        sys.exit()
    if os.waitpid(child, 0)[1]:
        print(f"{folder} failed", file=sys.stderr)
        sys.exit(1)
"""


@pytest.mark.slow
def test_scripts_run_as_processes(tmp_path: Path, home: Path) -> None:
    folders = []
    for name in NAMES:
        source = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
        if ".load_data(" not in source:
            folders.append(tmp_path / name)
            folders[-1].mkdir(parents=True)
            (folders[-1] / "script.py").write_text(with_oncue(source), encoding="utf-8")
    assert len(folders) >= 50
    command = [sys.executable, "-c", ALL, *map(str, folders)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
