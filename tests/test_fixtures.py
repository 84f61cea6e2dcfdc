"""What earlier versions wrote: runs continue from it and end as they would have, files open, no form changes silently."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shutil
import sys
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

import oncue as keras
from helpers import cpu_only
from oncue.checkpoints import Checkpoints
from oncue.checkpoints.format_2 import upgraded_journal
from oncue.checkpoints.training_state import TrainingState
from oncue.core.account import Ending, explain
from oncue.core.journal import Journal
from oncue.core.run_record import RunRecord

pytestmark = cpu_only("the files hold what a CPU computed; an accelerator has random numbers and rounding of its own")
FOLDER = Path(__file__).parent / "fixtures"
VERSIONS = sorted(path.name for path in FOLDER.iterdir() if (path / "ended.json").exists())
NEWEST = VERSIONS[-1:]


def _runs() -> Any:
    spec = importlib.util.spec_from_file_location("fixture_runs", FOLDER / "runs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # A worker process of a DataLoader and dataclasses look modules up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


runs = _runs()


@pytest.fixture(scope="module", params=VERSIONS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The folder of a version's files, and how its runs ended."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.unpack_archive(FOLDER / request.param / "files.tar.xz", folder, filter="data")
    return folder, json.loads((FOLDER / request.param / "ended.json").read_text())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def same(found: Any, wanted: Any, where: str = "") -> None:
    """Compare to the rounding of other machines."""
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), where
        for name in wanted:
            same(found[name], wanted[name], f"{where}/{name}")
    elif (expected := as_tensor(wanted)) is not None:
        # Sums are rounded at the size of what is added, so small elements differ by more than their own size allows.
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=max(1e-6, 1e-5 * largest), err_msg=where)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for number, pair in enumerate(zip(found, wanted, strict=True)):
            same(*pair, f"{where}/{number}")
    elif isinstance(wanted, float) and isinstance(found, float):
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6), where
    else:
        assert found == wanted, where


def as_tensor(value: Any) -> NDArray[np.float64] | None:
    """Return nested lists of floats of one shape as an array, and None for anything else."""
    if not isinstance(value, list):
        return None
    try:
        array = np.array(value)
    except ValueError:
        return None
    return array if array.dtype == np.float64 else None


def as_numbers(rows: list[dict[str, str]]) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in row.items()} for row in rows]


@cpu_only("the runs were made on the CPU, whose random generators they continue with")
@pytest.mark.parametrize("name", runs.RUNS)
def test_an_interrupted_run_continues(name: str, written: tuple[Path, Any], here: Path) -> None:
    folder, ended = written[0] / name, dict(written[1][name])
    shutil.copytree(folder, here, dirs_exist_ok=True)
    found = runs.train(name)
    # What was decided before the interruption is worded as it was then, what came after as it is today.
    before = len([entry for entry in ended["journal"] if entry["epoch"] < runs.RUNS[name].cut[0]])
    assert found["journal"][:before] == ended["journal"][:before]
    for entry in [*found["journal"], *ended["journal"]]:
        del entry["text"]
    for one in (found, ended):
        one["rows"] = as_numbers(one.get("rows", []))
        if name == "module":
            # The gradient of a bias before a BatchNorm is rounding alone, of which Adam makes full steps; the mean follows.
            del one["weights"][4], one["weights"][1]
    same(found, ended)
    assert not Path("backup").exists()


def account_of(state: TrainingState) -> list[str]:
    journal = Journal()
    journal.load_state_dict(state.parts["journal"])
    return explain([0, 1, 2], {}, journal, {}, Ending("finished", epoch=2), 1.0).splitlines()


def test_a_run_of_any_version_is_told_the_same(written: tuple[Path, Any]) -> None:
    newest = {name: sorted((written[0] / name / "backup").glob("*.safetensors"))[-1] for name in runs.RUNS}
    lines = account_of(TrainingState.read(newest["callbacks"]))
    assert "The last file is 4.weights.h5, saved after epoch 4." in lines
    start = lines.index("The learning rate changed:")
    assert lines[start + 1] == (
        "  epoch 2, ReduceLROnPlateau: 0.4 to 0.2: loss 1.87371 has not fallen below 1.6338 by more than 0.1 for 1 epoch"
    )
    lines = account_of(TrainingState.read(newest["schedule"]))
    start = lines.index("The learning rate changed 2 times, from 0.001 to 0.025:")
    assert lines[start + 1 : start + 3] == [
        "  epoch 1, LearningRateScheduler: 0.001 to 0.05: by the schedule",
        "  epoch 2, LearningRateScheduler: 0.05 to 0.025: by the schedule",
    ]


# Entries as format 2 had them: what a run decided before an interruption, and what it decides after it.
BEFORE = [
    (0, "ModelCheckpoint", "saved 1.keras: val_loss 0.5 is the first", "best", {"path": "1.keras", "score": 0.5}),
    (0, "ReduceLROnPlateau", "learning rate 0.4 to 0.2: it rose", "learning_rate", {"before": 0.4, "after": 0.2}),
    (1, "EarlyStopping", "put back the weights of epoch 1, where loss was 0.5", "restore", {"epoch": 0, "value": 0.5}),
    (1, "EarlyStopping", "stopped: it rose", "stop", None),
    (1, "Mine", "saw it", "note", None),
]
AFTER = {"path": "2.keras", "score": 0.25, "before": 0.5, "monitor": "val_loss"}


@pytest.mark.parametrize("as_text", [False, True])
def test_entries_of_format_2_are_told_in_their_words(
    as_text: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oncue.checkpoints import training_state

    names = ("epoch", "callback", "text", "kind", "data")
    old = [{"time": 0.0, "batch": None, **dict(zip(names, values, strict=True))} for values in BEFORE]
    kept = {"dropped": 0, "entries": [json.dumps(entry) if as_text else entry for entry in old]}
    with monkeypatch.context() as patched:
        patched.setattr(training_state, "FORMAT", 2)
        TrainingState({}, parts={"journal": kept}).write(tmp_path / "state")
    journal = Journal()
    journal.load_state_dict(TrainingState.read(tmp_path / "state").parts["journal"])
    assert [entry.text for entry in journal] == [values[2] for values in BEFORE]
    told = explain([0, 1], {}, journal, {}, Ending("asked", epoch=1), 1.0).splitlines()
    assert told[1:] == [
        "It was stopped by EarlyStopping after epoch 2: it rose.",
        "The model holds the weights of epoch 1, where loss was 0.5; EarlyStopping put them back.",
        "The best file is 1.keras, saved after epoch 1: val_loss 0.5 is the first.",
        "The learning rate changed:",
        "  epoch 1, ReduceLROnPlateau: 0.4 to 0.2: it rose",
        "Noted by callbacks:",
        "  epoch 2: Mine: saw it",
    ]
    journal.write("ModelCheckpoint", what="best_file", epoch=1, kind="best", data=AFTER)
    # A state of today keeps them.
    again = Journal()
    again.load_state_dict(journal.state_dict())
    told = explain([0, 1], {}, again, {}, Ending("asked", epoch=1), 1.0).splitlines()
    assert [line for line in told if "best file" in line] == [
        "The best file is 2.keras, saved after epoch 2: val_loss 0.25 is better than 0.5."
    ]


def test_the_names_of_several_optimizers_and_of_a_long_value_are_read_from_words_of_format_2() -> None:
    entry: dict[str, Any] = {"time": 0.0, "epoch": 0, "batch": None, "callback": "Any"}
    rate = {"kind": "learning_rate", "text": "slow learning rate 0.4 to 0.2: it rose", "data": None}
    best = {"kind": "best", "text": "saved a: my loss 0.5 is the first", "data": {"path": "a", "score": 0.5}}
    stop = {
        "kind": "stop",
        "text": "stopped: loss is nan after batch 1",
        "data": {"not_finite": "loss", "value": "nan"},
    }
    own = {"kind": "restore", "text": "put back what I had", "data": {"epoch": 0}}
    found = upgraded_journal({"dropped": 0, "entries": [{**entry, **one} for one in (rate, best, stop, own)]})[
        "entries"
    ]
    assert (found[0]["data"]["optimizer"], found[0]["data"]["cited"]) == ("slow", rate["text"])
    assert (found[1]["data"]["monitor"], found[1]["data"]["cited"]) == ("my loss", "my loss 0.5 is the first")
    assert found[2]["data"]["cited"] == "loss was nan"
    assert found[3] == {**entry, **own}


def test_another_version_of_a_backup_is_refused_by_name(
    written: tuple[Path, Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oncue.checkpoints import training_state

    shutil.copytree(written[0] / "epoch", here, dirs_exist_ok=True)
    monkeypatch.setattr(training_state, "_READABLE", (training_state.FORMAT + 1,))
    kept = {path: path.read_bytes() for path in Path("backup").iterdir()}
    with pytest.raises(ValueError, match=r"its format is \d+, and this oncue reads \d+"):
        runs.train("epoch")
    assert {path: path.read_bytes() for path in kept} == kept


def unpacked(name: str, folder: Path) -> Path:
    shutil.unpack_archive(FOLDER / name / "files.tar.xz", folder, filter="data")
    return folder


def train_on(folder: Path) -> Any:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    backup = keras.callbacks.BackupAndRestore(folder)
    return model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=4, verbose=0, callbacks=[backup])


def test_a_backup_of_format_1_is_refused_by_name(tmp_path: Path) -> None:
    folder = unpacked("format_1", tmp_path) / "backup"
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="state-1' can't be continued from: it is a folder, as states of format 1 are"):
        train_on(folder)
    assert {path: path.read_bytes() for path in kept} == kept


def test_folders_of_the_users_own_beside_states_are_no_states(tmp_path: Path) -> None:
    (tmp_path / "state-1").mkdir()
    assert train_on(tmp_path).epoch == [0, 1, 2, 3]


def test_an_older_state_beside_one_of_a_later_version_is_not_gone_on_from(
    written: tuple[Path, Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from oncue.checkpoints import training_state

    shutil.copytree(written[0] / "epoch", here, dirs_exist_ok=True)
    newest = max(Path("backup").glob("state-*"), key=lambda path: int(path.stem[6:]))
    with monkeypatch.context() as later:
        later.setattr(training_state, "FORMAT", training_state.FORMAT + 1)
        state = TrainingState.read(newest)
        state.write(Path("backup", f"state-{int(newest.stem[6:]) + 1}.safetensors"))
    kept = {path: path.read_bytes() for path in Path("backup").iterdir()}
    assert len(kept) == 2
    with pytest.raises(ValueError, match=r"its format is 4, and this oncue reads 2 and 3. Use the oncue that wrote it"):
        runs.train("epoch")
    assert {path: path.read_bytes() for path in kept} == kept


RUN_FOLDERS = sorted(path.name for path in FOLDER.iterdir() if (path / "told.json").exists())


@pytest.mark.parametrize("version", RUN_FOLDERS)
def test_the_folder_of_a_run_is_told_the_same(
    version: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from oncue.cli import main as oncue

    unpacked(version, here)
    told = json.loads((FOLDER / version / "told.json").read_text())
    assert oncue(["explain", "--json", "run"]) == 0
    found = json.loads(capsys.readouterr().out)
    # Sentences may be worded otherwise; nothing else that was there is missing.
    assert found.pop("account")[1] == told.pop("account")[1] == "It ended because all its epochs were done."
    assert {name: found[name] for name in told} == told
    for command in (["tail", "run"], ["inspect", "--json", "run/journal.jsonl"], ["report", "run", "-o", "run.html"]):
        assert oncue(command) == 0, command
    capsys.readouterr()
    assert keras.models.load_model("run/best.keras").name == "sequential_1"


# A file of each form, and how it is read.
LATER = {
    "manifest": ("epoch.weights.h5.oncue.json", "format", lambda path: Checkpoints(path)),
    "journal": ("journal.jsonl", "format", RunRecord.read),
}


@pytest.mark.parametrize("form", LATER)
def test_a_later_form_is_refused_by_its_number(form: str, written: tuple[Path, Any], tmp_path: Path) -> None:
    name, field, read = LATER[form]
    found = [*(written[0] / "callbacks").rglob(name), *(unpacked(RUN_FOLDERS[-1], tmp_path / "run")).rglob(name)][0]
    text = found.read_text()
    later = re.sub(rf'("{field}": ?)1', r"\g<1>2", text, count=1)
    assert later != text
    (tmp_path / name).write_text(later)
    with pytest.raises(ValueError, match="its format is 2, and this oncue reads 1"):
        read(tmp_path / name)
    (tmp_path / name).write_text(text)
    read(tmp_path / name)


def test_weights_of_a_later_form_are_refused_by_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oncue.saving import safetensors_file

    model = runs.trained()
    with monkeypatch.context() as later:
        later.setattr(safetensors_file, "FORMAT_VERSION", "2")
        model.save_weights(tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="its format is '2', and this oncue reads '1'"):
        model.load_weights(tmp_path / "w.safetensors")


def test_the_docs_say_the_numbers_of_forms_and_all_have_files_here() -> None:
    from oncue.checkpoints import manifest, training_state
    from oncue.core import run_record
    from oncue.saving import safetensors_file

    page = (FOLDER.parents[1] / "docs" / "versions.md").read_text()
    rows = [line.split("|")[1:4] for line in page.partition("| Form |")[2].splitlines()[2:6]]
    said = {
        name.strip().partition(",")[0]: [int(one) for one in re.findall(r"\d+", f"{now} {read}")]
        for name, now, read in rows
    }
    readable = list(training_state._READABLE)
    assert said == {
        "a backup": [training_state.FORMAT, *readable],
        "what `ModelCheckpoint` saved": [manifest.FORMAT, manifest.FORMAT],
        "a run": [run_record.FORMAT, run_record.FORMAT],
        "weights": [int(safetensors_file.FORMAT_VERSION)] * 2,
    }
    assert VERSIONS == [f"format_{number}" for number in readable]
    assert RUN_FOLDERS == [f"run_{number + 1}" for number in range(run_record.FORMAT)]


@pytest.mark.parametrize("file", runs.FILES)
def test_a_file_opens(file: str, written: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written[0] / "files")
    ended = written[1]["files"]
    model = runs.load(file)
    same(runs.predictions(model), ended["predictions"], file)
    assert model.evaluate(*runs.data(), verbose=0) == pytest.approx(ended["metrics"], rel=1e-5)
    if file in ("model.keras", "model.h5", "model.weights.h5"):
        assert int(model.optimizer.iterations) == 12


@pytest.mark.parametrize("name", runs.OPTIMIZERS)
def test_an_optimizer_continues_with_its_state(
    name: str, written: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(written[0] / "files")
    model = runs.with_optimizer(name, 1)
    model.load_weights(f"{name}.weights.h5")
    runs.further_steps(model, 3)
    same([weight.tolist() for weight in model.get_weights()], written[1][name], name)


def test_a_folder_of_checkpoints_is_read(written: tuple[Path, Any]) -> None:
    folder = written[0] / "callbacks"
    found = Checkpoints(folder / "epoch.weights.h5.oncue.json")
    assert {Path(name).name for name in found.verify()} == {"3.weights.h5", "4.weights.h5"}
    assert all(found.verify().values())
    assert Path(found.best()).name == "3.weights.h5" and Path(found.last()).name == "4.weights.h5"
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)])
    model.load_weights(found.best())


def test_logs_are_read(written: tuple[Path, Any]) -> None:
    folder, ended = written[0] / "callbacks", written[1]["callbacks"]
    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == ended["rows"][: len(rows)] and len(rows) == 4
    for name, points in runs.curves(folder / "logs").items():
        assert points == ended["curves"][name][: len(points)] and points


# Forms -------------------------------------------------------------------------------------------------------------


def form(path: Path) -> Any:
    """Return the names, types and shapes in a file: all but the values."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            found = {name: json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")}
            found["metadata.json"] = form_of_json(found["metadata.json"])
            with archive.open("model.weights.h5") as file:
                return {**found, "weights": form_of_hdf5(h5py.File(file))}
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return form_of_hdf5(file)
    if path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            tensors = {
                name: (file.get_slice(name).get_dtype(), file.get_slice(name).get_shape()) for name in file.keys()
            }
            found = {"metadata": sorted(file.metadata()), **tensors}
            if tensors.pop("state.json", None):
                found["state.json"] = form_of_json(json.loads(file.get_tensor("state.json").tobytes()))
            return found
    return form_of_json(json.loads(path.read_text()))


def form_of_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: form_of_json(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [form_of_json(one) for one in value]
    if isinstance(value, str) and value.startswith("{"):
        return form_of_json(json.loads(value))
    return type(value).__name__


def form_of_hdf5(file: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        found[name] = (sorted(item.attrs), (str(item.dtype), item.shape) if isinstance(item, h5py.Dataset) else None)

    visit("/", file)
    file.visititems(visit)
    return found


def of_same_form(one: Path, other: Path) -> None:
    assert form(one) == form(other), one.name


@pytest.mark.parametrize("written", NEWEST, indirect=True)
@pytest.mark.parametrize("file", runs.FILES)
def test_files_are_still_written_in_that_form(file: str, written: tuple[Path, Any], here: Path) -> None:
    runs.save(runs.trained(), file)
    of_same_form(Path(file), written[0] / "files" / file)


@cpu_only("the runs were made on the CPU, whose random generators they continue with")
@pytest.mark.parametrize("written", NEWEST, indirect=True)
@pytest.mark.parametrize("name", runs.RUNS)
def test_backups_are_still_written_in_that_form(name: str, written: tuple[Path, Any], here: Path) -> None:
    """A form that changes gets a new version, a fixture of its own, and one function that reads the one before.

    A state may have more than those of the fixture: what came later is optional when it is read.
    """
    with pytest.raises(ConnectionError):
        runs.train(name, interrupted=True)
        raise ConnectionError  # a run that TerminateOnNaN stopped
    for path in sorted((written[0] / name).rglob("*.safetensors")) + sorted((written[0] / name).glob("*.json")):
        now, before = form(here / path.relative_to(written[0] / name)), form(path)
        if path.suffix == ".safetensors" and "state.json" in before:
            assert has_all(now.pop("state.json"), before.pop("state.json")), path.name
            assert now.pop("metadata") == before.pop("metadata")
            # Tensors are numbered.
            assert not Counter(map(str, before.values())) - Counter(map(str, now.values())), path.name
        else:
            assert now == before, path.name


def has_all(now: Any, before: Any) -> bool:
    if isinstance(before, dict):
        return isinstance(now, dict) and all(name in now and has_all(now[name], before[name]) for name in before)
    if isinstance(before, list):
        return isinstance(now, list) and len(now) == len(before) and all(map(has_all, now, before))
    return bool(now == before)
