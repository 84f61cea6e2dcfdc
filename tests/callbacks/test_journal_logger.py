"""JournalLogger and RunFolder: what is in the files at any moment, and after interruptions."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import ScriptedLosses, environment
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CallbackList,
    EarlyStopping,
    History,
    JournalLogger,
    LambdaCallback,
    ReduceLROnPlateau,
    RunFolder,
    TerminateOnNaN,
)
from oncue.core.run_record import RunRecord
from oncue.report import find_run

X = np.linspace(-1, 1, 32, dtype="float32").reshape(16, 2)
Y = X.sum(axis=1, keepdims=True)


def model() -> Any:
    made = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    made.compile(oncue.optimizers.SGD(0.1), loss="mse")
    return made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def timeless(account: str) -> list[str]:
    """Return an account without what a clock has measured."""
    return [re.sub(r"[\d.]+ m?s\b|[\d.]+%", "T", line) for line in account.splitlines() if "Callbacks took" not in line]


def test_the_file_tells_what_the_history_tells(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    callbacks = [
        ScriptedLosses(0.5, 0.25, 0.75, 0.3125, 0.5),
        ReduceLROnPlateau(mode="min", patience=2, factor=0.5, min_delta=0),
        EarlyStopping(patience=3, mode="min", restore_best_weights=True),
        JournalLogger(path),
    ]
    history = model().fit(X, Y, epochs=20, verbose=0, callbacks=callbacks)
    record = RunRecord.read(path)
    assert record.history == dict(history.history) and record.epochs == list(history.epoch)
    assert timeless(record.explain()) == timeless(history.explain())
    assert [str(entry) for entry in record.entries] == [str(entry) for entry in history.journal]
    assert list(record.costs) and set(record.costs) == set(history.costs)
    assert [line["line"] for line in lines(path)][0::8] == ["begin", "decision"]


def test_each_line_is_there_when_its_epoch_has_ended(tmp_path: Path) -> None:
    path, seen = tmp_path / "journal.jsonl", []

    def look(epoch: int, logs: Any) -> None:
        seen.append([line.get("epoch") for line in lines(path) if line["line"] == "epoch"])

    model().fit(X, Y, epochs=3, verbose=0, callbacks=[JournalLogger(path), LambdaCallback(on_epoch_begin=look)])
    assert seen == [[], [0], [0, 1]]


def test_values_that_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"

    class Odd(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["odd"] = np.float32("inf")
            logs["confusion"] = np.ones((2, 2))
            self.note("odd", value=float("nan"), what=object(), deep=[np.int64(3)])

    model().fit(X, Y, verbose=0, callbacks=[Odd(), JournalLogger(path)])

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    for line in path.read_bytes().splitlines():
        json.loads(line, parse_constant=refuse)
    record = RunRecord.read(path)
    assert record.history["odd"] == [float("inf")]
    data = record.entries[0].data
    assert data is not None and data["value"] == "nan" and data["deep"] == [3]


@pytest.mark.parametrize(
    ("error", "how", "words"),
    [
        (KeyboardInterrupt(), "interrupted", "It was interrupted by Ctrl-C in epoch 3"),
        (ValueError("no"), "failed", "It ended with an error in epoch 3: ValueError: no"),
    ],
)
def test_how_it_ended(tmp_path: Path, error: BaseException, how: str, words: str) -> None:
    path = tmp_path / "journal.jsonl"

    def end(epoch: int, logs: Any) -> None:
        if epoch == 2:
            raise error

    with pytest.raises(type(error)):
        model().fit(X, Y, epochs=5, verbose=0, callbacks=[JournalLogger(path), LambdaCallback(on_epoch_begin=end)])
    record = RunRecord.read(path)
    assert record.ending.how == how and record.explain().splitlines()[1].startswith(words)


def test_a_run_that_never_began_leaves_the_file_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    model().fit(X, Y, epochs=2, verbose=0, callbacks=[JournalLogger(path)])
    before = path.read_bytes()

    class Refuses(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        model().fit(X, Y, verbose=0, callbacks=[JournalLogger(path), Refuses()])
    assert path.read_bytes() == before
    model().fit(X, Y, verbose=0, callbacks=[JournalLogger(path)])
    assert RunRecord.read(path).epochs == [0]


def train(folder: Path, stop: tuple[int, int] | None = None, epochs: int = 6, **kwargs: Any) -> History:
    """Train with backups, until Ctrl-C comes in a batch of an epoch."""

    class Stops(Callback):
        epoch = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if (self.epoch, batch) == stop:
                raise KeyboardInterrupt

    oncue.utils.set_random_seed(0)
    made = model()
    callbacks = [
        ReduceLROnPlateau(monitor="loss", patience=1, factor=0.5, min_delta=10.0),
        JournalLogger(folder / "journal.jsonl"),
        BackupAndRestore(folder / "backup", **kwargs),
        Stops(),
    ]
    found: History = made.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks)
    return found


def told(path: Path) -> list[tuple[Any, ...]]:
    """Return what a file tells, without times and without what says that the run was resumed."""
    return [
        (line["line"], line.get("epoch"), line.get("text"), tuple(line.get("logs", {}).items()))
        for line in lines(path)
        if line["line"] in ("decision", "epoch") and line.get("kind") != "resume"
    ]


@pytest.mark.parametrize(
    ("stop", "kwargs"),
    [((3, 2), {}), ((0, 1), {"save_freq": 1}), ((3, 2), {"save_freq": 2}), ((2, 3), {"save_freq": 3})],
)
def test_a_resumed_run_leaves_the_file_of_one_that_was_not_interrupted(
    tmp_path: Path, stop: tuple[int, int], kwargs: Any
) -> None:
    train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", stop, **kwargs)
    assert RunRecord.read(tmp_path / "parts" / "journal.jsonl").ending.how == "interrupted"
    history = train(tmp_path / "parts", **kwargs)
    assert told(tmp_path / "parts" / "journal.jsonl") == told(tmp_path / "whole" / "journal.jsonl")
    record = RunRecord.read(tmp_path / "parts" / "journal.jsonl")
    assert (record.parts, record.ending.how, record.damaged) == (2, "finished", 0)
    assert [str(entry) for entry in record.entries] == [str(entry) for entry in history.journal]
    assert record.seconds == pytest.approx(history.seconds, rel=0.2)


def test_a_file_that_lost_its_end_with_the_power_is_made_whole(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    path = tmp_path / "parts" / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", (3, 2))
    # Nothing had been flushed to the disk yet.
    path.write_bytes(b"")
    train(tmp_path / "parts")
    assert told(path) == told(tmp_path / "whole" / "journal.jsonl")


def test_a_file_that_another_has_changed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.callbacks.journal_logger._FLUSHED_EVERY", -1.0)
    path = tmp_path / "journal.jsonl"
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, (3, 2))
    path.write_bytes(path.read_bytes().replace(b"0", b"1"))
    with pytest.warns(UserWarning, match="isn't what the run that is resumed had written"):
        train(tmp_path)
    record = RunRecord.read(path)
    assert record.epochs == [3, 4, 5] and record.entries[0].epoch == 1 and record.damaged == 0


def test_what_was_flushed_is_kept_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.callbacks.journal_logger._FLUSHED_EVERY", -1.0)
    train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", (3, 2))
    train(tmp_path / "parts")
    assert told(tmp_path / "parts" / "journal.jsonl") == told(tmp_path / "whole" / "journal.jsonl")


def test_going_back_in_the_same_run(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    spoilt = []

    class Spoils(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2 and not spoilt:
                spoilt.append(epoch)
                self.model.set_weights([weight * np.nan for weight in self.model.get_weights()])

    callbacks = [TerminateOnNaN(action="rollback"), JournalLogger(path), Spoils()]
    history = model().fit(X, Y, epochs=4, verbose=0, callbacks=callbacks)
    record = RunRecord.read(path)
    assert record.epochs == [0, 1, 2, 3] and record.parts == 1
    assert [str(entry) for entry in record.entries] == [str(entry) for entry in history.journal] != []


def test_a_killed_run_is_called_killed(tmp_path: Path) -> None:
    script = f"""
import os, signal
import numpy as np, oncue
model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
model.compile("sgd", loss="mse")
def kill(epoch, logs):
    if epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
run = oncue.callbacks.RunFolder({str(tmp_path / "run")!r})
ends = oncue.callbacks.LambdaCallback(on_epoch_begin=kill)
model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=5, verbose=0, callbacks=[run, ends])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert result.returncode == -signal.SIGKILL, result.stderr
    record = RunRecord.read(tmp_path / "run" / "journal.jsonl")
    assert record.epochs == [0, 1] and record.ending.how == "killed"
    assert "It was killed in epoch 3." in record.explain()


def test_it_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    path, seen = tmp_path / "journal.jsonl", []

    def look(epoch: int, logs: Any) -> None:
        seen.append(RunRecord.read(path).ending.how)

    model().fit(X, Y, epochs=2, verbose=0, callbacks=[JournalLogger(path), LambdaCallback(on_epoch_begin=look)])
    assert seen == ["running", "running"]


def test_a_path_that_cannot_be_written_is_said_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="JournalLogger can't write to its `filename`"):
        model().fit(X, Y, verbose=0, callbacks=[JournalLogger(tmp_path / "file" / "journal.jsonl")])


WRITES = """
import sys
import numpy as np, oncue
model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
model.compile("sgd", loss="mse")
def said(epoch, logs):
    print("writes", flush=True)
    sys.stdin.read()
wait = oncue.callbacks.LambdaCallback(on_epoch_begin=said)
kind = getattr(oncue.callbacks, sys.argv[1])
model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[kind(sys.argv[2]), wait])
"""


@pytest.mark.parametrize(("kind", "argument"), [(JournalLogger, "filename"), (RunFolder, "folder")])
def test_two_runs_write_one_after_the_other(kind: Any, argument: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    command = [sys.executable, "-c", WRITES, kind.__name__, str(place)]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment()}
    with subprocess.Popen(command, **pipes) as other:
        assert other.stdout is not None and other.stdout.readline() == "writes\n"
        files = [place] if kind is JournalLogger else sorted(place.iterdir())
        before = [path.read_bytes() for path in files]
        words = rf"Another run that is still going on writes to `{place}.*give {kind.__name__} another `{argument}`"
        with pytest.raises(RuntimeError, match=words):
            model().fit(X, Y, verbose=0, callbacks=[kind(place)])
        assert [path.read_bytes() for path in files] == before
        other.kill()
    model().fit(X, Y, verbose=0, callbacks=[kind(place)])
    assert not list(tmp_path.rglob(".*"))
    assert find_run(place).record.ending.how == "finished"


def test_damaged_lines_are_counted_and_the_rest_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    model().fit(X, Y, epochs=3, verbose=0, callbacks=[JournalLogger(path)])
    parts = path.read_bytes().splitlines(keepends=True)
    parts[2] = b'{"line": "epoch", "epoch": [], "logs": 3}\n'
    path.write_bytes(b"".join(parts) + b'{"line":"epo')
    record = RunRecord.read(path)
    assert record.epochs == [0, 2] and record.damaged == 1
    assert "1 lines of" in record.explain()


@pytest.mark.parametrize(
    "content",
    [
        b"\x00\xff" * 100,
        b"[" * 100_000 + b"\n",
        b"{}\n",
        b'{"line":"begin","format":99}\n',
        b"x" * (1 << 21) + b"\n",
        b'{"line":"epoch","epoch":1e999,"logs":{}}\n',
    ],
)
def test_what_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no journal of a run|its format is 99, and this oncue reads 1"):
        RunRecord.read(path)


def test_hostile_decisions_are_told_without_harm(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    hostile = [
        {"line": "begin", "format": 1, "epochs": "many", "time": 1e400, "machine": [], "process": -1},
        {"line": "decision", "time": 0, "text": "\x1b[2J", "kind": "best", "data": {"path": ["x"], "epoch": "a"}},
        {"line": "decision", "time": 0, "text": "a", "kind": "learning_rate", "data": {"before": {}, "after": []}},
        {"line": "decision", "time": 0, "text": "a", "kind": "restore", "epoch": 10**30, "data": {"epoch": None}},
        {"line": "epoch", "epoch": 0, "logs": {"loss": {"a": 1}, "\x1b]0;": "nan"}, "seconds": "long"},
        {"line": "costs", "costs": {"A": {"h": "x"}, "B": 3}},
        {"line": "end", "how": "finished", "epoch": True, "costs": {}},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in hostile))
    record = RunRecord.read(path)
    assert record.damaged == 0 and "1 epoch" in record.explain()


def test_a_copy_and_a_list_that_is_used_again(tmp_path: Path) -> None:
    import copy

    path = tmp_path / "journal.jsonl"
    callbacks = CallbackList([JournalLogger(path), EarlyStopping(monitor="loss")], add_history=True, epochs=2)
    model().fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
    copy.deepcopy(callbacks)
    model().fit(X, Y, epochs=3, verbose=0, callbacks=callbacks)
    assert callbacks.journal.readers == [] and RunRecord.read(path).epochs == [0, 1, 2]


# RunFolder ------------------------------------------------------------------------------------------------------------


def test_a_folder_holds_the_whole_run(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "today", config={"width": 1, "odd": object()}, best="val_loss")
    history = model().fit(X, Y, epochs=3, validation_split=0.25, verbose=0, callbacks=[run, EarlyStopping(patience=7)])
    names = sorted(path.name for path in run.folder.iterdir())
    wanted = ["best.keras", "config.json", "curves.png", "environment.json", "journal.jsonl", "log.csv", "model.json"]
    assert names == [*wanted, "summary.txt"]
    config = json.loads((run.folder / "config.json").read_text())
    assert config["config"]["width"] == 1 and config["optimizer"]["class"] == "SGD"
    assert {"class": "EarlyStopping", "patience": 7}.items() <= config["callbacks"][-2].items()
    environment = json.loads((run.folder / "environment.json").read_text())
    assert {"oncue", "torch"} <= set(environment["packages"]) and "/" not in environment["script"]
    assert "Total params" in (run.folder / "summary.txt").read_text()
    assert RunRecord.of_csv(run.folder / "log.csv").history["loss"] == history.history["loss"]


def test_what_it_brings_stands_behind_it(tmp_path: Path) -> None:
    run, stop = RunFolder(tmp_path, resume=True), EarlyStopping()
    listed = CallbackList([run, stop])
    names = [type(one).__name__ for one in listed.callbacks]
    assert names == ["RunFolder", "CSVLogger", "JournalLogger", "BackupAndRestore", "EarlyStopping"]
    # A list that is made of another has them once.
    assert len(CallbackList([listed]).callbacks) == 5
    other = CallbackList()
    other.append(run)
    assert len(other.callbacks) == 4


def test_it_resumes_where_it_was_interrupted(tmp_path: Path) -> None:
    def train(stop: int | None) -> History:
        def end(epoch: int, logs: Any) -> None:
            if epoch == stop:
                raise KeyboardInterrupt

        callbacks = [RunFolder(tmp_path / "run", resume=True), LambdaCallback(on_epoch_begin=end)]
        found: History = model().fit(X, Y, epochs=4, verbose=0, callbacks=callbacks)
        return found

    with pytest.raises(KeyboardInterrupt):
        train(2)
    train(None)
    record = RunRecord.read(tmp_path / "run" / "journal.jsonl")
    assert record.epochs == [0, 1, 2, 3] and record.parts == 2
    assert not (tmp_path / "run" / "backup").exists()


def test_a_module_without_a_configuration(tmp_path: Path) -> None:
    import torch

    made = oncue.Model(torch.nn.Sequential(torch.nn.Linear(2, 1)))
    made.compile("sgd", loss="mse")
    made.fit(X, Y, verbose=0, callbacks=[RunFolder(tmp_path)])
    assert "Linear" in (tmp_path / "summary.txt").read_text()


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="`config` of RunFolder must be a dict"):
        RunFolder(tmp_path, config="fast")  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="RunFolder can't write to its folder"):
        model().fit(X, Y, verbose=0, callbacks=[RunFolder(tmp_path / "file")])
    if hasattr(os, "geteuid"):
        assert not (tmp_path / "file").is_dir()


def test_in_loops_of_others(tmp_path: Path) -> None:
    import torch

    from oncue import hosts

    def train(stop: int | None) -> None:
        torch.manual_seed(0)
        net = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        run = RunFolder(tmp_path / "loop", resume=True, config={"width": 1})
        with hosts.loop(net, optimizer, [run], epochs=4) as loop:
            for epoch in loop.epochs():
                if epoch == stop:
                    raise KeyboardInterrupt
                for x, y in loop.batches([(torch.from_numpy(X), torch.from_numpy(Y))] * 2):
                    loss = torch.nn.functional.mse_loss(net(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    loop.step(loss=loss)
                loop.end_epoch()

    with pytest.raises(KeyboardInterrupt):
        train(2)
    assert RunRecord.read(tmp_path / "loop" / "journal.jsonl").ending.how == "interrupted"
    train(None)
    record = RunRecord.read(tmp_path / "loop" / "journal.jsonl")
    assert record.epochs == [0, 1, 2, 3] and (record.parts, record.ending.how) == (2, "finished")
    assert "Linear" in (tmp_path / "loop" / "summary.txt").read_text()


def test_in_the_real_keras(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    from oncue import hosts

    made = keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.1), keras.layers.Dense(1)])
    made.compile("adam", "mse")
    made.fit(X, Y, epochs=3, verbose=0, callbacks=hosts.Keras(RunFolder(tmp_path / "keras", best="loss")))
    record = RunRecord.read(tmp_path / "keras" / "journal.jsonl")
    assert record.epochs == [0, 1, 2] and record.ending.how == "finished"
    assert (tmp_path / "keras" / "best.keras").exists()
    with pytest.raises(ValueError, match=r"callbacks=oncue.hosts.Keras\(RunFolder"):
        made.fit(X, Y, verbose=0, callbacks=[RunFolder(tmp_path / "bare")])
