"""`oncue fork`: a new run goes on from a state that another has kept, with settings of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import PowerCut, RemoteService, damage, normal, to_numpy
from oncue import hosts
from oncue.callbacks import (
    BackupAndRestore,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
    RunFolder,
    TensorBoard,
    Tracker,
)
from oncue.checkpoints.state_file import blocks_of, read_state, write_state
from oncue.cli import main
from oncue.report import find_run

X = normal(32, 3)
Y = X.sum(axis=1, keepdims=True)


def build(rate: float = 0.1, dropout: float = 0.1) -> Any:
    oncue.utils.set_random_seed(1)
    layers = [oncue.layers.Input((3,)), oncue.layers.Dropout(dropout), oncue.layers.Dense(1)]
    model = oncue.Sequential(layers)
    model.compile(oncue.optimizers.SGD(rate, momentum=0.5), "mse")
    return model


def train(folder: Path, *more: Any, epochs: int = 4, batch_size: int = 8, keep: Any = "every 2", **options: Any) -> Any:
    decide = [EarlyStopping("loss", patience=9), ReduceLROnPlateau("loss", patience=0, min_delta=10.0, factor=0.5)]
    run = RunFolder(folder, best="loss", resume=True, keep=keep)
    given = {"epochs": epochs, "batch_size": batch_size, "verbose": 0}
    return build(**options).fit(X, Y, **given, callbacks=[*decide, *more, run])


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that has ended."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    train(folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fork(*arguments: Any, status: int = 0) -> None:
    assert main(["fork", *map(str, arguments)]) == status


def weights(history: Any) -> list[Any]:
    return [to_numpy(weight) for weight in history.model.get_weights()]


def test_with_the_same_settings_it_is_the_same_run(one: Path, tmp_path: Path) -> None:
    before = content(one)
    fork(one, "--epoch", 2, tmp_path / "two")
    again = train(tmp_path / "two")
    assert content(one) == before
    whole = train(tmp_path / "whole")
    assert again.history == whole.history and again.epoch == [0, 1, 2, 3]
    for mine, other in zip(weights(again), weights(whole), strict=True):
        np.testing.assert_array_equal(mine, other)
    logs = [(folder / "log.csv").read_text() for folder in (one, tmp_path / "two")]
    assert logs[0] == logs[1]


def test_the_journal_says_where_it_comes_from(one: Path, tmp_path: Path) -> None:
    new = tmp_path / "two"
    fork(one, "--epoch", 2, new)
    record = find_run(new).record
    assert (record.epochs, record.ending.how, record.damaged) == ([0, 1], "forked", 0)
    text = f"forked from {one} after epoch 2"
    assert f"It was forked, and hasn't gone on yet: {text}." in record.explain()
    history = train(new, rate=0.3)
    record = find_run(new).record
    assert (record.epochs, record.ending.how, record.damaged) == ([0, 1, 2, 3], "finished", 0)
    for entries in (record.entries, history.journal):
        (entry,) = [entry for entry in entries if entry.kind == "fork"]
        assert (entry.text, entry.epoch, entry.data["run"], entry.data["epochs"]) == (text, 1, str(one), 2)
        assert [entry.epoch for entry in entries if entry.kind == "resume"] == []


def test_what_the_script_has_changed_counts_and_what_it_has_not_goes_on(one: Path, tmp_path: Path) -> None:
    for name in ("rate", "batch", "none"):
        fork(one, "--epoch", 2, tmp_path / name)
    # The callback had halved the rate twice by then.
    assert train(tmp_path / "none").history["learning_rate"] == [0.1, 0.1, 0.05, 0.025]
    other = train(tmp_path / "rate", rate=0.4, dropout=0.3)
    assert other.history["learning_rate"] == [0.1, 0.1, 0.4, 0.2]
    said = [entry.text for entry in other.journal if entry.callback == "BackupAndRestore"]
    assert "`optimizer.learning_rate` was 0.1, is 0.4" in said[0] and "`dropout.rate` was 0.1, is 0.3" in said[0]
    # Of more and smaller batches.
    smaller = train(tmp_path / "batch", epochs=6, batch_size=4)
    assert smaller.epoch == [0, 1, 2, 3, 4, 5] and smaller.model.optimizer.iterations == 2 * 4 + 4 * 8


def test_what_a_callback_had_set_yields_to_a_script_that_sets_it(tmp_path: Path) -> None:
    def change(epoch: int, logs: Any) -> None:
        if epoch == 1:
            model.layers[0].rate = 0.7
            model.layers[1].trainable = False

    def fit(folder: str, dropout: float, *more: Any) -> Any:
        nonlocal model
        model = build(dropout=dropout)
        backup = BackupAndRestore(tmp_path / folder, keep="all")
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[*more, backup])
        return model.layers[0].rate, model.layers[1].trainable

    model = build()
    with pytest.warns(UserWarning, match="no trainable weights"):
        fit("one", 0.1, LambdaCallback(on_epoch_end=change))
        for name in ("same", "other"):
            fork(tmp_path / "one", "--epoch", 3, tmp_path / name)
        assert fit("same", 0.1) == (0.7, False)
        assert fit("other", 0.2) == (0.2, False)


def test_another_setup_takes_over_what_fits(one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fork(one, "--epoch", 2, tmp_path / "two")
    model = build()
    model.compile("adam", "mse")
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[RunFolder(tmp_path / "two", resume=True)])
    said = capsys.readouterr().out
    assert "Not taken over: the optimizer's state; the states of" in said
    assert history.epoch == [0, 1, 2]


def test_a_run_that_was_stopped_can_go_on(tmp_path: Path) -> None:
    def fit(folder: Path, patience: int) -> Any:
        stop = EarlyStopping("loss", patience=patience, min_delta=10.0)
        callbacks = [stop, BackupAndRestore(folder, keep="last 2")]
        return build().fit(X, Y, epochs=5, verbose=0, callbacks=callbacks)

    assert fit(tmp_path / "one", 2).epoch == [0, 1, 2]
    fork(tmp_path / "one", "--epoch", 3, tmp_path / "two")
    assert fit(tmp_path / "two", 9).epoch == [0, 1, 2, 3, 4]


def test_files_and_names_of_the_other_run_stay_its_own(tmp_path: Path) -> None:
    started = []

    class Service(RemoteService):
        def start(self, identity: Any, config: Any) -> str:
            started.append(identity)
            return super().start(identity, config)

    def fit(folder: Path, epochs: int) -> Any:
        callbacks = [
            Tracker(Service()),
            CSVLogger(tmp_path / "all.csv", append=True),
            TensorBoard(tmp_path / "logs", write_graph=False),
            ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True, keep=2),
            BackupAndRestore(folder / "states", keep="all"),
        ]
        return build().fit(X, Y, epochs=epochs, verbose=0, callbacks=callbacks)

    fit(tmp_path / "one", 3)
    before = content(tmp_path)
    rows = (tmp_path / "all.csv").read_text()
    (tmp_path / "two").mkdir()
    fork(tmp_path / "one" / "states", "--epoch", 1, tmp_path / "two" / "states")
    fit(tmp_path / "two", 2)
    assert (tmp_path / "all.csv").read_text().startswith(rows)
    after = content(tmp_path)
    assert {name: after[name] for name in before if name != "all.csv"} == {
        name: before[name] for name in before if name != "all.csv"
    }
    assert [name for name in after if name not in before and name.startswith("logs")]
    assert started == [None, None]


def test_a_state_of_a_run_that_goes_on(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        train(tmp_path / "one", PowerCut(3), keep=None)
    before = content(tmp_path / "one")
    # The newest of the states that it resumes from.
    fork(tmp_path / "one", "--epoch", 3, tmp_path / "two")
    assert content(tmp_path / "one") == before
    assert train(tmp_path / "two").epoch == [0, 1, 2, 3]
    assert train(tmp_path / "one").epoch == [0, 1, 2, 3]


def test_in_a_loop_of_the_users_own(tmp_path: Path) -> None:
    def fit(folder: str, epochs: int, *more: Any) -> Any:
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        callbacks = [*more, RunFolder(tmp_path / folder, resume=True, keep="all")]
        with hosts.loop(net, optimizer, callbacks, epochs=epochs) as run:
            for _ in run.epochs():
                for x, y in run.batches([(torch.from_numpy(X), torch.from_numpy(Y))]):
                    loss = torch.nn.functional.mse_loss(net(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    run.step(loss=loss)
        return run.history

    whole = fit("one", 4)
    fork(tmp_path / "one", "--epoch", 2, tmp_path / "two")
    again = fit("two", 4)
    assert again.history == whole.history
    assert [entry.text for entry in again.journal if entry.kind == "fork"] == [
        f"forked from {tmp_path / 'one'} after epoch 2"
    ]


# What is refused --------------------------------------------------------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    capsys.readouterr()
    fork(*arguments, status=2)
    return capsys.readouterr().err


def test_what_it_cannot_do(one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new"
    said = refused(capsys, one, "--epoch", 3, new)
    assert "no state after epoch 3. There are states after epochs: 2, 4." in said and "keep='all'" in said
    assert "no folder" in refused(capsys, tmp_path / "missing", "--epoch", 2, new)
    assert "inside of" in refused(capsys, one, "--epoch", 2, one / "new")
    assert "to make 'c' in" in refused(capsys, one, "--epoch", 2, tmp_path / "b" / "c")
    (tmp_path / "taken").mkdir()
    assert "already" in refused(capsys, one, "--epoch", 2, tmp_path / "taken")
    assert "has no state" in refused(capsys, tmp_path / "taken", "--epoch", 2, new)
    with pytest.raises(SystemExit):
        main(["fork", str(one), "--epoch", "0", str(new)])
    assert os.listdir(tmp_path) == ["taken"]
    fork(one, "--epoch", 2, new, "--json")
    assert json.loads(capsys.readouterr().out)["epoch"] == 2


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    plain, tensors = read_state(path)
    tensors = {key: tensor.clone() for key, tensor in tensors.items()}
    change(plain)
    write_state(path, [json.dumps(plain).encode()], blocks_of(tensors))


def journal_of(plain: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plain["parts"]["callbacks"]["JournalLogger"]["written"]
    return found


HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "a journal that is a number": lambda plain: plain["parts"].update(journal=3),
    "entries that are a number": lambda plain: plain["parts"]["journal"].update(entries=3),
    "the state of another epoch": lambda plain: plain.update(epoch=9),
    "the state of a batch": lambda plain: plain.update(batch=1),
    "an unknown mark": lambda plain: plain["parts"].update(journal={"$call": "os.system"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_run_leaves_nothing(name: str, one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(one, tmp_path)
    changed(folder / "backup" / "state-epoch-2.safetensors", HOSTILE[name])
    refused(capsys, folder, "--epoch", 2, tmp_path / "new")
    assert os.listdir(tmp_path) == ["one"]


def copied(run: Path, place: Path) -> Path:
    for name, text in content(run).items():
        path = place / "one" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return place / "one"


def test_a_damaged_state_and_links(one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied(one, tmp_path)
    path = folder / "backup" / "state-epoch-2.safetensors"
    damage(path)
    assert "is damaged" in refused(capsys, folder, "--epoch", 2, tmp_path / "new")
    path.unlink()
    path.symlink_to(one / "backup" / "state-epoch-2.safetensors")
    assert "a link" in refused(capsys, folder, "--epoch", 2, tmp_path / "new")
    (folder / "backup").rename(tmp_path / "elsewhere")
    (folder / "backup").symlink_to(tmp_path / "elsewhere")
    assert "leads out" in refused(capsys, folder, "--epoch", 4, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "written",
    [
        {"size": -1},
        {"size": 1 << 60},
        {"size": "all"},
        {"crc32": 1},
        {"tail": 3},
        {"tail": "\u2028"},
    ],
    ids=str,
)
def test_a_journal_that_the_state_does_not_know_is_begun_anew(
    written: dict[str, Any], one: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    folder = copied(one, tmp_path)
    changed(folder / "backup" / "state-epoch-2.safetensors", lambda plain: journal_of(plain).update(written))
    fork(folder, "--epoch", 2, tmp_path / "new")
    assert not (tmp_path / "new" / "journal.jsonl").exists()
    assert train(tmp_path / "new").epoch == [0, 1, 2, 3]
    record = find_run(tmp_path / "new").record
    assert record.epochs == [2, 3] and [entry.kind for entry in record.entries].count("fork") == 1
    assert not recwarn.list


def test_all_or_nothing(one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from oncue.cli import fork as module

    before = content(one)
    calls = ["rename", "sync_folder", "sync_file"]
    for name in calls:
        with monkeypatch.context() as patch:

            def fail(*given: Any, name: str = name) -> None:
                raise OSError(28, f"no space for {name}")

            patch.setattr(module.os if name == "rename" else module, name, fail)
            fork(one, "--epoch", 2, tmp_path / "new", status=2)
        assert os.listdir(tmp_path) == []
    # What a killed one left goes with the next.
    left = module._temporary_beside(tmp_path / "new")
    gone = left.with_name(left.name.replace(f"-{os.getpid()}-", "-999999999-"))
    (gone / "backup").mkdir(parents=True)
    fork(one, "--epoch", 2, tmp_path / "new")
    assert os.listdir(tmp_path) == ["new"] and content(one) == before
