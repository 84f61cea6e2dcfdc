"""The command `oncue`: every command on good, damaged and hostile input."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import oncue
from helpers import damage, normal
from oncue.callbacks import BackupAndRestore, EarlyStopping, LambdaCallback, ModelCheckpoint, RunFolder
from oncue.cli import main
from oncue.core.version import __version__

X = normal(16, 3)
Y = X[:, :1]


def dense(units: int = 4) -> Any:
    made = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(units, name="first"), oncue.layers.Dense(1)])
    made.compile("adam", "mse")
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all that runs leave."""
    folder = tmp_path_factory.mktemp("runs")
    fit = {"epochs": 4, "validation_split": 0.25, "verbose": 0}
    stop = EarlyStopping("loss", patience=1, min_delta=10.0, restore_best_weights=True)
    dense().fit(X, Y, **fit, callbacks=[RunFolder(folder / "one", config={"units": 4}, best="val_loss"), stop])
    model = dense(6)
    model.fit(X, Y, **fit, callbacks=[RunFolder(folder / "two", config={"units": 6})])
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "model.weights.h5")
    model.save_weights(folder / "model.safetensors")
    files = str(folder / "kept" / "{epoch}.weights.h5")
    dense().fit(X, Y, **fit, callbacks=[ModelCheckpoint(files, save_weights_only=True, keep=2)])

    def interrupt(epoch: int, logs: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dense().fit(
            X, Y, **fit, callbacks=[BackupAndRestore(folder / "backup"), LambdaCallback(on_epoch_begin=interrupt)]
        )
    return folder


class Said:
    """What a command printed."""

    def __init__(self, captured: Any) -> None:
        self.out, self.err = captured.out, captured.err

    @property
    def json(self) -> Any:
        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is no JSON")

        return json.loads(self.out, parse_constant=refuse)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: Any, status: int = 0) -> Said:
        capsys.readouterr()
        assert main([str(one) for one in arguments]) == status, capsys.readouterr()
        return Said(capsys.readouterr())

    return call


# Good input -----------------------------------------------------------------------------------------------------------


def test_explain(place: Path, run: Any) -> None:
    said = run("explain", place / "one").out
    assert "It was stopped by EarlyStopping after epoch 2: loss" in said and "The best file is" in said
    assert said == run("explain", place / "one" / "journal.jsonl").out
    found = run("explain", place / "one", "--json").json
    assert found["ending"]["how"] == "asked" and found["epochs"] == 2
    assert {"stop", "restore", "best"} == {one["kind"] for one in found["decisions"]}


def test_explain_a_log_alone(place: Path, run: Any, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes((place / "two" / "log.csv").read_bytes())
    for path in (tmp_path, tmp_path / "log.csv"):
        said = run("explain", path).out
        assert said.startswith("4 epochs; the last one logged loss") and "there is no journal" in said


def test_tail(place: Path, run: Any) -> None:
    lines = run("tail", place / "two", "-n", 3).out.splitlines()
    assert ["epoch 3:" in lines[0], "epoch 4:" in lines[1]] == [True, True] and len(lines) == 3
    assert lines[2].endswith("It ended because all its epochs were done.")
    found = [json.loads(line) for line in run("tail", place / "one", "--json").out.splitlines()]
    assert [one["line"] for one in found].count("epoch") == 2 and found[-1]["how"] == "asked"


def test_tail_follows_a_run_to_its_end(tmp_path: Path) -> None:
    script = f"""
import time, numpy as np, oncue
model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
model.compile("sgd", loss="mse")
slow = oncue.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: time.sleep(0.2))
run = oncue.callbacks.RunFolder({str(tmp_path / "run")!r})
model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=5, verbose=0, callbacks=[run, slow])
"""
    training = subprocess.Popen([sys.executable, "-c", script])
    try:
        while not (tmp_path / "run" / "journal.jsonl").exists():
            assert training.poll() is None
        command = [sys.executable, "-m", "oncue", "tail", "-f", "--every", "0.1", str(tmp_path / "run")]
        found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    finally:
        training.wait(timeout=60)
    assert found.returncode == 0, found.stderr
    lines = [line.split("  ", 1)[1] for line in found.stdout.splitlines()]
    assert [line.split(":")[0] for line in lines[:-1]] == [f"epoch {number}" for number in range(1, 6)]


def test_plot(place: Path, run: Any, tmp_path: Path) -> None:
    for name in ("one", "one/journal.jsonl", "one/log.csv"):
        picture = tmp_path / "curves.png"
        run("plot", place / name, "-o", picture)
        assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "what", "layers"),
    [
        ("model.keras", "a model, in the archive of Keras 3", 3),
        ("model.h5", "a model, in the HDF5 file of Keras 1 and 2", 3),
        ("model.weights.h5", "weights, in the HDF5 file of Keras 3", 0),
        ("model.safetensors", "weights, in a safetensors file", 0),
        ("backup", "the state of a run, of BackupAndRestore", 0),
    ],
)
def test_inspect(name: str, what: str, layers: int, place: Path, run: Any) -> None:
    found = run("inspect", place / name, "--json").json
    assert found["contents"] == what and len(found["layers"]) == layers and found["checksum"] == "right"
    assert found["parameters"] == (21 if name == "backup" else 31) and len(found["SHA-256"]) == 64
    if name != "model.safetensors":
        assert found["optimizer step"] == (2 if name == "backup" else 4)
    if name == "backup":
        assert found["epoch that comes next"] == 3 and found["optimizer"] == "Adam"
    assert what in run("inspect", place / name).out


def test_inspect_runs_and_manifests(place: Path, run: Any) -> None:
    assert "best.keras" in run("inspect", place / "one").out
    manifest = next((place / "kept").glob("*.oncue.json"))
    assert "3.weights.h5" in run("inspect", manifest).out
    assert [one["epoch"] for one in run("inspect", manifest, "--json").json["files"]] == [3, 4]


def test_verify(place: Path, run: Any) -> None:
    names = ["model.keras", "model.h5", "model.weights.h5", "model.safetensors", "backup", "kept", "one"]
    found = run("verify", *(place / name for name in names), "--json").json["files"]
    assert {one["state"] for one in found} == {"sound", "unchecked"}
    # Each file once, though the manifest lists some.
    assert len({one["file"] for one in found}) == len(found) == 4 + 2 + 2 + 2
    assert run("verify", place / "kept" / "{epoch}.weights.h5").out.count("sound") == 2


def test_a_file_of_another_program_carries_no_checksum(run: Any, tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, str(tmp_path / "a.safetensors"))
    assert "unchecked" in run("verify", tmp_path / "a.safetensors").out
    assert run("inspect", tmp_path / "a.safetensors", "--json").json["checksum"] == "it carries none"


def test_diff_of_files(place: Path, run: Any, tmp_path: Path) -> None:
    assert run("diff", place / "model.keras", place / "model.keras").out == "They don't differ.\n"
    other = dense(6)
    other.load_weights(place / "model.safetensors")
    other.layers[-1].set_weights([weight + 1 for weight in other.layers[-1].get_weights()])
    other.save_weights(tmp_path / "b.safetensors")
    found = run("diff", place / "model.safetensors", tmp_path / "b.safetensors", "--json", status=1).json["differences"]
    assert len(found) == 2 and "6 of 6 numbers differ, by 1 at most" in str(found)
    dense(5).save(tmp_path / "c.keras")
    said = run("diff", place / "model.keras", tmp_path / "c.keras", status=1).out
    assert "units" in said and "float32 (3, 5)" in said


def test_diff_of_runs(place: Path, run: Any) -> None:
    found = run("diff", place / "one", place / "two", "--json", status=1).json["differences"]
    assert {"config.config.units", "epochs", "last loss"} <= {one["what"] for one in found}


def test_compare(place: Path, run: Any, tmp_path: Path) -> None:
    said = run("compare", place / "one", place / "two").out
    assert "best val_loss" in said and "config.config.units" in said
    found = run("compare", place / "one", place / "two", "-m", "loss", "-o", tmp_path / "c.html", "--json").json
    assert found["differed"]["config.config.units"] == {"one": 4, "two": 6}
    assert {one["name"]: one["epochs"] for one in found["runs"]} == {"one": 2, "two": 4}
    assert "<h2>What differed</h2>" in (tmp_path / "c.html").read_text()
    assert "they have loss, val_loss" in run("compare", place / "one", "-m", "mae", status=2).err


def test_report(place: Path, run: Any, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    found = run("report", place / "one", "-o", page, "--json").json
    assert found["bytes"] == page.stat().st_size < 2_000_000
    text = page.read_text()
    assert "It was stopped by EarlyStopping" in text and "Content-Security-Policy" in text
    # Nothing is fetched, and nothing but its own scripts is run.
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "src=" not in own and "<link" not in own and "@import" not in own and "http" not in own.split("</head>")[1]


def test_the_report_says_which_files_are_sound(place: Path, run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(place / "one", folder)
    shutil.copytree(place / "backup", folder / "backup")
    for state in ("sound", "DAMAGED"):
        run("report", folder, "-o", tmp_path / "report.html")
        rows = re.findall("<tr><td>.*?</tr>", (tmp_path / "report.html").read_text())
        for name, expected in (("best.keras", state), ("backup/state-", "sound")):
            assert any(row.startswith(f"<tr><td>{name}") and f"<td>{expected}" in row for row in rows), rows
        damage(folder / "best.keras")


def test_version_help_and_completion(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in ((["--version"], f"oncue {__version__}, Python 3."), (["--help"], "exit status")):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0 and words in capsys.readouterr().out
    for shell in ("bash", "zsh", "tcsh"):
        assert "explain" in run("completion", shell).out
    result = subprocess.run([sys.executable, "-m", "oncue", "--version"], capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("oncue ")


def test_the_script_for_bash_completes(run: Any, tmp_path: Path) -> None:
    (tmp_path / "completion").write_text(run("completion", "bash").out)
    script = f"""
source {tmp_path / "completion"}
COMP_WORDS=(oncue ver); COMP_CWORD=1; COMP_LINE="oncue ver"; COMP_POINT=9
_shtab_oncue oncue ver oncue
echo "${{COMPREPLY[@]}}"
"""
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "verify", result.stderr


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["explain"], ["completion", "fish"], ["compare"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and "usage: oncue" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough(place: Path) -> None:
    command = f"{sys.executable} -m oncue explain {place / 'one'} --json | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("{\n", "")


# Damaged and missing input --------------------------------------------------------------------------------------------

COMMANDS = ["explain", "tail", "plot", "report", "compare", "inspect", "verify"]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_missing(command: str, run: Any, tmp_path: Path) -> None:
    said = run(command, tmp_path / "missing.keras", status=2)
    assert len(said.err.splitlines()) == 1 and said.err.startswith(f"oncue {command}: There is no")
    assert run(command, tmp_path / "missing.keras", "--json", status=2).json["error"].startswith("There is no")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_folder(command: str, run: Any, tmp_path: Path) -> None:
    assert len(run(command, tmp_path, status=2).err.splitlines()) == 1


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.weights.h5", "model.safetensors"])
def test_a_damaged_file(name: str, place: Path, run: Any, tmp_path: Path) -> None:
    copy = tmp_path / name
    copy.write_bytes((place / name).read_bytes())
    damage(copy)
    assert run("verify", copy, status=1).out.startswith("DAMAGED")
    assert len(run("inspect", copy, status=2).err.splitlines()) == 1
    assert len(run("diff", copy, place / name, status=2).err.splitlines()) == 1
    copy.write_bytes((place / name).read_bytes()[:100])
    assert run("verify", copy, status=1).out.startswith("DAMAGED")
    copy.write_bytes(b"")
    assert "it is empty" in run("inspect", copy, status=2).err or name == "model.safetensors"


def test_a_damaged_backup(place: Path, run: Any, tmp_path: Path) -> None:
    for path in (place / "backup").glob("state-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
        damage(tmp_path / path.name)
    assert run("verify", tmp_path, status=1).out.count("DAMAGED") == 2
    assert "is damaged" in run("inspect", tmp_path, status=2).err


def test_several_logs_in_a_folder(place: Path, run: Any, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_bytes((place / "one" / "log.csv").read_bytes())
    assert "several runs" in run("explain", tmp_path, status=2).err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize("command", ["explain", "inspect", "plot"])
def test_a_pipe_is_not_waited_for(command: str, run: Any, tmp_path: Path) -> None:
    for name in ("model.keras", "journal.jsonl", "log.csv"):
        os.mkfifo(tmp_path / name)
        run(command, tmp_path / name, status=2)


# Hostile input --------------------------------------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2J\u202e<script>alert(1)</script>&{{[link=x]"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return the folder of a run whose every text tries something."""
    lines = [
        {"line": "begin", "format": 1, "time": 0.0, "epochs": 3},
        {"line": "epoch", "epoch": 0, "time": 1.0, "seconds": 1.0, "logs": {"loss": 0.5, EVIL: 1.0, "t[0].x": 2.0}},
        {"line": "epoch", "epoch": 1, "time": 2.0, "seconds": 2.0, "logs": {"loss": "nan", EVIL: EVIL}},
        {
            "line": "decision",
            "time": 2.0,
            "epoch": 1,
            "callback": EVIL,
            "kind": EVIL,
            "text": EVIL,
            "data": {"a": EVIL},
        },
        {
            "line": "decision",
            "time": 2.0,
            "epoch": 1,
            "callback": "A",
            "kind": "save",
            "text": EVIL,
            "data": {"path": EVIL},
        },
        {"line": "end", "how": "failed", "error": EVIL, "epoch": 1, "costs": {EVIL: {EVIL: 1.0}}, "steps": EVIL},
    ]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.json").write_text(json.dumps({"config": {EVIL: EVIL}, "</script>": 1}))
    (tmp_path / "environment.json").write_text(json.dumps({EVIL: EVIL}))
    (tmp_path / "summary.txt").write_text(EVIL)
    (tmp_path / "<img src=x>.txt").write_text("")
    return tmp_path


@pytest.mark.parametrize("command", ["explain", "tail", "inspect", "compare"])
def test_nothing_reaches_the_terminal(command: str, run: Any, hostile: Path) -> None:
    said = run(command, hostile)
    for text in (said.out, said.err):
        assert not any(not (sign.isprintable() or sign == "\n") for sign in text), command
    json.dumps(run(command, hostile, "--json").out)


@pytest.mark.parametrize("name", ["summary.txt", "config.json", "journal.jsonl", "log.csv"])
@pytest.mark.parametrize("command", ["explain", "report", "inspect"])
def test_links_out_of_the_folder_are_not_followed(
    name: str, command: str, place: Path, run: Any, tmp_path: Path
) -> None:
    folder, secret = tmp_path / "run", tmp_path / "secret"
    shutil.copytree(place / "one", folder)
    secret.write_text("epoch,password\n0,hunter2\n")
    for unwanted in {name, "journal.jsonl"} if name == "log.csv" else {name}:
        (folder / unwanted).unlink()
    (folder / name).symlink_to(secret)
    arguments = ["-o", tmp_path / "report.html"] if command == "report" else []
    said = run(command, folder, *arguments, status=2)
    assert f"{name}' is a link that leads out of the run's folder" in said.err and "hunter2" not in said.err
    # One to a file of the folder is a name like another.
    (folder / name).unlink()
    (folder / "kept").write_bytes((place / "one" / name).read_bytes())
    (folder / name).symlink_to("kept")
    run(command, folder, *arguments)


def test_nothing_becomes_code_in_the_page(run: Any, hostile: Path, tmp_path: Path) -> None:
    for command in ("report", "compare"):
        page = tmp_path / "page.html"
        run(command, hostile, "-o", page)
        text = page.read_text()
        assert text.count("</script>") == 3
        own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
        assert "<script>" not in own and "<img" not in own and "alert(1)" in own


def test_hostile_models_are_refused_in_one_line(run: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr(f"../{EVIL}", "x")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["a"] = h5py.ExternalLink("/etc/passwd", "x")
    (tmp_path / "c.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    (tmp_path / "d.keras").write_bytes(b"\x80\x04\x95pickle")
    (tmp_path / "e.oncue.json").write_text("[" * 100_000)
    for path in sorted(tmp_path.iterdir()):
        said = run("inspect", path, status=2).err
        assert len(said.splitlines()) == 1 and "\x1b" not in said, path


def test_names_of_layers_cannot_colour_the_screen(run: Any, tmp_path: Path) -> None:
    config = {"class_name": "Sequential", "config": {"layers": [{"class_name": EVIL, "config": {"name": EVIL}}] * 100}}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file["model_weights/a"] = np.ones(3, "float32")
    said = run("inspect", tmp_path / "a.h5").out
    assert "\x1b" not in said and "and 40 more layers" in said
