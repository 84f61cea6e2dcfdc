"""BackupAndRestore: when it saves, what it refuses, and which ends delete the backup."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics

import oncue
from helpers import PowerCut, normal
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CallbackList,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    TerminateOnNaN,
)
from oncue.checkpoints.store import Store
from oncue.checkpoints.training_state import TrainingState

X = normal(12, 3)
Y = X.sum(axis=1, keepdims=True)


def model(optimizer: Any = "adam", units: int = 2, **compile_arguments: Any) -> Any:
    made = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(units), oncue.layers.Dense(1)])
    made.compile(optimizer, loss="mse", **compile_arguments)
    return made


def fit(callbacks: Any, made: Any = None, **options: Any) -> Any:
    options = {"epochs": 4, "batch_size": 4, "verbose": 0, **options}
    return (model() if made is None else made).fit(X, Y, callbacks=callbacks, **options)


def stop_at(epoch: int, error: BaseException | None = None) -> Callback:
    def begin(now: int, logs: Any) -> None:
        if now == epoch:
            raise ConnectionError("power cut") if error is None else error

    return LambdaCallback(on_epoch_begin=begin)


def interrupt(folder: Path, epoch: int = 2, **options: Any) -> None:
    with pytest.raises(ConnectionError):
        fit([BackupAndRestore(folder, **options), stop_at(epoch)])


def test_the_arguments_are_those_of_keras(tmp_path: Path) -> None:
    made = BackupAndRestore(tmp_path, "epoch", True, False)
    assert (made.backup_dir, made.save_freq, made.double_checkpoint, made.delete_checkpoint) == (
        str(tmp_path), "epoch", True, False,
    )  # fmt: skip


@pytest.mark.parametrize("value", [1.5, 0, -3, "batch", None, False])
def test_a_period_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=f"`save_freq`.*{value!r}"):
        BackupAndRestore("backup", save_freq=value)


def test_two_periods_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one period.*save_freq=3.*every='2 epochs'"):
        BackupAndRestore("backup", save_freq=3, every="2 epochs")


@pytest.mark.parametrize("folder", ["", None, 3])
def test_a_folder_that_is_none_is_refused(folder: Any) -> None:
    with pytest.raises(ValueError, match="`backup_dir`"):
        BackupAndRestore(folder)


def test_an_unwritable_folder_is_reported_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = model()
    before = made.get_weights()
    with pytest.raises(OSError, match="training doesn't begin"):
        fit([BackupAndRestore(tmp_path / "file")], made)
    assert all((a == b).all() for a, b in zip(before, made.get_weights(), strict=True))


def test_a_finished_run_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    seen = []
    fit([BackupAndRestore(folder), LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(folder.exists()))])
    assert seen == [True] * 4 and not folder.exists()


def test_a_stop_by_a_callback_is_a_finish(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    history = fit([BackupAndRestore(folder), EarlyStopping("loss", patience=0, min_delta=1e9)], epochs=9)
    assert len(history.epoch) < 9 and not folder.exists()


@pytest.mark.parametrize("error", [ConnectionError(), KeyboardInterrupt()])
def test_an_error_keeps_the_backup(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        fit([BackupAndRestore(tmp_path), stop_at(2, error)])
    begun: list[int] = []
    history = fit([BackupAndRestore(tmp_path), LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))])
    assert begun == [2, 3] and history.epoch == [0, 1, 2, 3]
    assert "resumed from a backup" in str(history.journal)


class InterruptsIn(Callback):
    """Another Ctrl-C, while the run is being ended."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        setattr(self, hook, self._interrupt)

    def _interrupt(self, *arguments: Any) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("hook", ["on_exception", "close"])
@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_second_interrupt_keeps_no_later_run_out(tmp_path: Path, hook: str, last: bool, asynchronous: bool) -> None:
    def savers() -> list[Callback]:
        path = tmp_path / "{epoch}.weights.h5"
        saver = ModelCheckpoint(path, save_weights_only=True, keep=1, asynchronous=asynchronous)
        return [BackupAndRestore(tmp_path / "backup"), saver]

    ours, others = savers(), [InterruptsIn(hook)]
    with pytest.raises(KeyboardInterrupt) as caught:
        fit([stop_at(2, KeyboardInterrupt()), *(ours + others if last else others + ours)])
    assert any("interrupted again" in note for note in caught.value.__notes__)
    # `ours` and the error, with all that it leads to, are still there, as they are in a notebook.
    begun: list[int] = []
    fit([*savers(), LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))])
    assert begun == [2, 3]
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".lock")]


def test_a_second_interrupt_keeps_others_out_until_the_state_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, commit = threading.Event(), Store.commit

    def slowly(store: Store, write: Callable[[Path], object], *keep: Any) -> None:
        assert gate.wait(60)
        commit(store, write, *keep)

    def cut(backup: BackupAndRestore) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "commit", slowly)
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        patch.setattr(BackupAndRestore, "_wait", cut)
        fit([BackupAndRestore(tmp_path), stop_at(1, KeyboardInterrupt())])
    with pytest.raises(RuntimeError, match="Another run that is still going on"):
        fit([BackupAndRestore(tmp_path)])
    gate.set()
    begun: list[int] = []
    fit([BackupAndRestore(tmp_path), LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))])
    assert begun == [1, 2, 3]


@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_a_stop_by_nan_keeps_the_last_good_state(tmp_path: Path, save_freq: Any) -> None:
    class Spoil(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                self.model.set_weights([np.full_like(weight, np.nan) for weight in self.model.get_weights()])

    fit([BackupAndRestore(tmp_path, save_freq=save_freq), TerminateOnNaN(), Spoil()])
    made = model()
    history = fit([BackupAndRestore(tmp_path, save_freq=save_freq), TerminateOnNaN()], made)
    assert history.epoch == [0, 1, 2, 3] and np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(weight).all() for weight in made.get_weights())


def test_a_loss_that_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        with np.errstate(all="ignore"):
            fit([BackupAndRestore(tmp_path), stop_at(3)], model(oncue.optimizers.SGD(1e38)))
    assert not list(tmp_path.glob("state-*"))


def test_a_loss_that_nobody_has_read_is_looked_at_beside_training(tmp_path: Path) -> None:
    class Spoil(Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if (self._run.progress.epoch, batch) == (1, 2):
                self.model.set_weights([weight * np.nan for weight in self.model.get_weights()])
            if (self._run.progress.epoch, batch) == (2, 1):
                raise ConnectionError("power cut")

    backup = BackupAndRestore(tmp_path, save_freq=1)
    made = model()
    with pytest.raises(ConnectionError):
        fit([Spoil(), backup], made, batch_size=2)
    entries = [(one.epoch, one.what) for one in made.history.journal]
    assert {what for _, what in entries} == {"no_backup"} and len(entries) >= 2
    state = TrainingState.read(newest(tmp_path))
    assert (state.epoch, state.batch) == (1, 2)
    assert all(bool(weight.isfinite().all()) for weight in state.parts["weights"].values())


def test_a_finished_run_that_kept_its_backup_returns_at_once(tmp_path: Path) -> None:
    one, other = model(), model()
    first = fit([BackupAndRestore(tmp_path, delete_checkpoint=False, save_freq=7)], one)
    begun: list[int] = []
    again = [
        BackupAndRestore(tmp_path, delete_checkpoint=False, save_freq=7),
        LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch)),
    ]
    second = fit(again, other)
    assert second.history == first.history and begun == []
    assert all((a == b).all() for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
    assert fit(again, other, epochs=6).epoch == [0, 1, 2, 3, 4, 5] and begun == [4, 5]


def test_a_stopped_run_that_kept_its_backup_stays_stopped(tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        stop = EarlyStopping("loss", patience=0, min_delta=1e9, restore_best_weights=True)
        return [BackupAndRestore(tmp_path, delete_checkpoint=False), stop]

    one, other = model(), model()
    first, second = fit(callbacks(), one, epochs=9), fit(callbacks(), other, epochs=9)
    assert second.history == first.history
    assert all((a == b).all() for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
    assert "EarlyStopping" in second.explain().splitlines()[1]


def test_the_average_is_in_a_model_that_has_nothing_left_to_do(tmp_path: Path) -> None:
    def trained() -> Any:
        made = model(oncue.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.5))
        fit([BackupAndRestore(tmp_path, delete_checkpoint=False)], made)
        return made.get_weights()

    one, other = trained(), trained()
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_the_same_object_serves_several_runs(tmp_path: Path) -> None:
    backup = BackupAndRestore(tmp_path / "backup")
    assert fit([backup]).epoch == fit([backup]).epoch == [0, 1, 2, 3]


def newest(folder: Path) -> Path:
    return max(folder.glob("state-*"), key=lambda path: int(path.stem.removeprefix("state-")))


def test_a_damaged_backup_falls_back_to_the_one_before(tmp_path: Path) -> None:
    interrupt(tmp_path, epoch=3)
    path = newest(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    begun: list[int] = []
    with pytest.warns(UserWarning, match="is damaged"):
        fit([BackupAndRestore(tmp_path), LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch))])
    assert begun == [2, 3]


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("weights", {"made": lambda: model(units=5)}),
        ("optimizer", {"made": lambda: model("sgd")}),
        ("optimizer", {"made": lambda: model(oncue.optimizers.Adam(use_ema=True))}),
        ("batch_size", {"batch_size": 5}),
        ("batches", {"steps_per_epoch": 2}),
        ("callbacks", {"more": lambda: [EarlyStopping("loss")]}),
    ],
)
def test_a_changed_setup_is_refused_before_anything_is_touched(
    tmp_path: Path, field: str, change: dict[str, Any]
) -> None:
    log = tmp_path / "log.csv"
    folder = tmp_path / "backup"
    with pytest.raises(ConnectionError):
        fit([BackupAndRestore(folder), CSVLogger(log), stop_at(2)])
    rows = log.read_bytes()
    change = dict(change)
    made = change.pop("made", model)()
    more = change.pop("more", list)()
    before = made.get_weights()
    with pytest.raises(ValueError, match=f"`{field}` has changed: in the backup it is .*delete the folder"):
        fit([BackupAndRestore(folder), CSVLogger(log), *more], made, **change)
    assert log.read_bytes() == rows
    assert all((a == b).all() for a, b in zip(before, made.get_weights(), strict=True))


def test_twins_keep_their_own_states(tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        return [BackupAndRestore(tmp_path), EarlyStopping("loss", patience=9), EarlyStopping("loss", "inf", patience=8)]

    def twins() -> list[Any]:
        return [EarlyStopping("loss", patience=9), EarlyStopping("loss", patience=8, min_delta=1e9)]

    with pytest.raises(ConnectionError):
        fit([BackupAndRestore(tmp_path), *twins(), stop_at(3)])
    one, other = twins()
    waits: list[tuple[int, int]] = []
    note = LambdaCallback(on_epoch_begin=lambda epoch, logs: waits.append((one.wait, other.wait)))
    fit([BackupAndRestore(tmp_path), one, other, note])
    assert waits[0] == (0, 2)


def test_it_saves_after_all_others_in_any_position(tmp_path: Path) -> None:
    backup = BackupAndRestore(tmp_path / "backup")
    schedule = CallbackList([backup, CSVLogger(tmp_path / "log.csv"), EarlyStopping("loss")]).schedule()
    row = next(row for row in schedule.splitlines() if row.startswith("on_epoch_end"))
    assert row.split(maxsplit=1)[1].startswith("EarlyStopping, CSVLogger, BackupAndRestore (last)")


@pytest.mark.parametrize("options", [{}, {"every": "2 epochs"}, {"save_freq": 4}, {"every": "5 steps"}])
def test_periods(tmp_path: Path, options: dict[str, Any]) -> None:
    interrupt(tmp_path, epoch=3, **options)
    state = TrainingState.read(newest(tmp_path))
    # Nine batches of three epochs were done.
    where = {"{}": (3, 0), "every": (2, 0), "save_freq": (2, 2), "steps": (1, 2)}
    key = "steps" if options.get("every") == "5 steps" else next(iter(options), "{}")
    assert (state.epoch, state.batch) == where[key]


def test_data_that_cannot_be_resumed_within_an_epoch_is_refused(tmp_path: Path) -> None:
    def train(**options: Any) -> Any:
        pairs = torch.utils.data.TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
        loader = torch.utils.data.DataLoader(pairs, batch_size=4, num_workers=1, in_order=False)
        return model().fit(loader, epochs=2, verbose=0, callbacks=[BackupAndRestore(tmp_path, **options)])

    for options in ({"save_freq": 2}, {"every": "1 minute"}):
        with pytest.raises(ValueError, match=r"in_order=False.*resume='epoch'.*save_freq='epoch'"):
            train(**options)
    assert train(save_freq=2, resume="epoch").epoch == train().epoch == [0, 1]


@pytest.mark.parametrize("name", ["resume", "on_mismatch"])
def test_an_unknown_value_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` of BackupAndRestore must be .* got 'nothing'"):
        BackupAndRestore("backup", **{name: "nothing"})


def test_a_changed_setup_may_start_from_scratch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupt(tmp_path)
    options: dict[str, Any] = {"delete_checkpoint": False, "on_mismatch": "restart"}
    with pytest.raises(ConnectionError):
        fit([BackupAndRestore(tmp_path, **options), stop_at(0)], model("sgd"))
    # What was there stays until there is something else.
    assert fit([BackupAndRestore(tmp_path, delete_checkpoint=False)]).epoch == [0, 1, 2, 3]
    assert fit([BackupAndRestore(tmp_path, **options)], model("sgd"), epochs=1).epoch == [0]
    assert "the setup has changed (`optimizer`), so training starts from scratch" in capsys.readouterr().out
    assert len(list(tmp_path.glob("state-*"))) == 1
    assert fit([BackupAndRestore(tmp_path)], model("sgd")).epoch == [0, 1, 2, 3]


def test_matching_parts_of_a_changed_setup_are_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def layered(*names: str) -> Any:
        dense = [oncue.layers.Dense(2, name=name) for name in names]
        made = oncue.Sequential([oncue.layers.Input((3,)), *dense, oncue.layers.Dense(1, name="last")])
        made.compile("adam", loss="mse")
        return made

    one, other = layered("small"), layered("small", "more")
    with pytest.raises(ConnectionError):
        fit([BackupAndRestore(tmp_path, save_freq=1), EarlyStopping("loss", patience=50), stop_at(2)], one)
    begun: list[Any] = []
    watch = EarlyStopping("loss", patience=50)

    def look(epoch: int, logs: Any) -> None:
        begun.append((epoch, watch.best, [weight.copy() for weight in other.get_weights()]))

    fresh = [weight.copy() for weight in other.get_weights()]
    callbacks = [watch, TerminateOnNaN(), CSVLogger(tmp_path / "log.csv"), LambdaCallback(on_epoch_begin=look)]
    history = fit([BackupAndRestore(tmp_path, on_mismatch="adopt"), *callbacks], other, batch_size=6)
    said = capsys.readouterr().out
    assert "(`weights`, `batches`, `batch_size`, `callbacks`)" in said
    assert "2 of 6 weights; the optimizer's state; the states of CSVLogger; the place in the data" in said
    assert history.epoch == [0, 1, 2, 3] and [epoch for epoch, _, _ in begun] == [2, 3]
    _, best, weights = begun[0]
    trained = one.get_weights()
    assert best == min(history.history["loss"][:2])
    for now, before in zip(weights, [*trained[:2], *fresh[2:4], *trained[2:]], strict=True):
        assert (now == before).all()


def test_another_optimizer_takes_the_weights_over_within_an_epoch(tmp_path: Path) -> None:
    one = model()
    with pytest.raises(ConnectionError):
        fit([BackupAndRestore(tmp_path, save_freq=1), PowerCut(1, 2)], one)
    seen: list[tuple[int, int]] = []
    history = fit([BackupAndRestore(tmp_path, on_mismatch="adopt"), places(seen)], model("sgd"))
    assert seen == [(epoch, batch) for epoch in (1, 2, 3) for batch in range(3)] and history.epoch == [0, 1, 2, 3]
    assert "the epoch's first 2 batches are done again" in str(history.journal)


def places(seen: list[tuple[int, int]]) -> Callback:
    class Places(Callback):
        now = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.now = epoch

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append((self.now, batch))

    return Places()


def test_a_metric_that_cannot_be_written_down_is_refused_within_epochs_only(tmp_path: Path) -> None:
    def made() -> Any:
        return model(metrics=[torchmetrics.MeanAbsoluteError()])

    with pytest.raises(ValueError, match="the state of the metric TorchMetric can't be saved"):
        fit([BackupAndRestore(tmp_path, save_freq=2)], made())
    with pytest.raises(ConnectionError):
        fit([BackupAndRestore(tmp_path), stop_at(1)], made())
    assert fit([BackupAndRestore(tmp_path)], made()).epoch == [0, 1, 2, 3]


def test_a_tensor_that_no_file_can_hold_is_an_error_before_training(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 1)
    module.register_buffer("links", torch.eye(2).to_sparse())
    made = oncue.Model(module)
    made.compile("sgd", loss="mse")
    begun: list[int] = []
    look = LambdaCallback(on_train_begin=lambda logs: begun.append(1))
    with pytest.raises(TypeError, match=r"`weights`\['module.links'\] is of type Tensor of torch.sparse_coo"):
        made.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[look, BackupAndRestore(tmp_path / "b")])
    assert not begun


def test_a_loop_without_a_state_is_refused(tmp_path: Path) -> None:
    callbacks = CallbackList([BackupAndRestore(tmp_path)], model=model())
    with pytest.raises(ValueError, match="works in `fit` of oncue's models"):
        callbacks.on_train_begin()


def test_a_custom_callback_whose_state_cannot_be_saved_is_reported(tmp_path: Path) -> None:
    class Own(Callback):
        state_fields = ("thing",)
        thing = object()

    with pytest.raises(TypeError, match=r"\['Own'\]\['thing'\] is of type object"):
        fit([BackupAndRestore(tmp_path), Own()])
    assert not list(tmp_path.glob("state-*"))


# Which states stay ------------------------------------------------------------------------------------------------------


def kept(folder: Path) -> list[int]:
    found = list(folder.glob("state-epoch-*.safetensors"))
    states = [TrainingState.read(path) for path in found]
    assert [f"state-epoch-{state.epoch}.safetensors" for state in states] == [path.name for path in found]
    assert not any(state.batch for state in states)
    return sorted(state.epoch for state in states)


@pytest.mark.parametrize(
    ("keep", "epochs"),
    [
        ("all", [1, 2, 3, 4, 5]),
        (2, [4, 5]),
        ("last 1", [5]),
        ("every 2", [2, 4]),
        (["every 2", 1], [2, 4, 5]),
        (None, []),
    ],
    ids=str,
)
@pytest.mark.parametrize("every", [None, "2 steps", "4 epochs"])
def test_kept_states_stay_when_the_run_has_ended(keep: Any, epochs: list[int], every: Any, tmp_path: Path) -> None:
    fit([BackupAndRestore(tmp_path / "b", every=every, keep=keep)], epochs=5)
    assert kept(tmp_path / "b") == epochs
    assert len(list(tmp_path.glob("b/*"))) == len(epochs) and (tmp_path / "b").exists() == bool(epochs)


def test_a_run_goes_on_with_the_states_that_it_kept(tmp_path: Path) -> None:
    interrupt(tmp_path, 3, keep="every 2")
    assert kept(tmp_path) == [2]
    fit([BackupAndRestore(tmp_path, keep="every 2")])
    assert kept(tmp_path) == [2, 4]


@pytest.mark.parametrize("keep", ["every 2", None])
def test_a_run_from_scratch_replaces_the_states_of_the_one_before(keep: Any, tmp_path: Path) -> None:
    fit([BackupAndRestore(tmp_path, keep="all")])
    interrupt(tmp_path, 0, keep=keep)
    # It has saved nothing yet.
    assert kept(tmp_path) == [1, 2, 3, 4]
    interrupt(tmp_path, 1, keep=keep)
    assert kept(tmp_path) == []
    fit([BackupAndRestore(tmp_path, keep=keep)])
    assert kept(tmp_path) == ([2, 4] if keep else [])


def test_states_are_kept_where_a_file_has_one_name_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> None:
        raise OSError(1, "no second name")

    monkeypatch.setattr(os, "link", refuse)
    fit([BackupAndRestore(tmp_path, keep="all")])
    assert kept(tmp_path) == [1, 2, 3, 4] and len(list(tmp_path.iterdir())) == 4


def test_a_kept_state_that_cannot_be_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def refuse(path: Path, *given: Any, **named: Any) -> None:
        if path.name == "state-epoch-1.safetensors":
            raise PermissionError(13, "not allowed")
        unlink(path, *given, **named)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.warns(UserWarning, match=r"state-epoch-1.safetensors' could not be deleted"):
        fit([BackupAndRestore(tmp_path, keep=1)], epochs=2)
    monkeypatch.undo()
    assert kept(tmp_path) == [1, 2]


@pytest.mark.parametrize("keep", ["best 3", ["every 2", "best"], "some", 0, 1.5, True])
def test_what_is_no_rule_for_states_is_refused(keep: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`keep` of BackupAndRestore|needs a whole number"):
        BackupAndRestore(tmp_path, keep=keep)


def test_a_folder_of_a_run_keeps_states_that_are_saved(tmp_path: Path) -> None:
    fit([oncue.callbacks.RunFolder(tmp_path / "run", resume=True, keep="every 2")])
    assert kept(tmp_path / "run" / "backup") == [2, 4]
    with pytest.raises(ValueError, match="`keep` of RunFolder is for the states that `resume=True` saves"):
        oncue.callbacks.RunFolder(tmp_path / "run", keep="all")
