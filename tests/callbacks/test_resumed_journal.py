"""What a run's journal says is the same whether or not the run was interrupted, but for the entry about that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import Clock, HopefulTrial, PowerCut, RemoteService
from oncue import callbacks as built_in, layers
from oncue.callbacks import BackupAndRestore, Callback

X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True)


class SetsRate(Callback):
    """Sets the rate in the second epoch, which a schedule overwrites in the third."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.model.optimizer.learning_rate = 0.5


class Diverges(Callback):
    """Makes the loss not finite in the third epoch."""

    epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == (2, 0):
            next(self.model.parameters()).data.fill_(float("nan"))


class OldLogs(Callback):
    """Gives a BaseLogger logs as the first Keras had them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = built_in.BaseLogger()

    later_fields = ("inner_state",)

    @property
    def inner_state(self) -> Any:
        return self.inner.state_dict()

    @inner_state.setter
    def inner_state(self, state: Any) -> None:
        self.inner.load_state_dict(state)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.inner.on_epoch_begin(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.inner.on_batch_end(batch, {"loss": float(batch), "size": 8})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        found: dict[str, Any] = {}
        self.inner.on_epoch_end(epoch, found)
        self.note(f"the mean was {found}")


CASES: dict[str, Callable[[], list[Any]]] = {
    "BackupAndRestore": lambda: [],
    "BaseLogger": lambda: [OldLogs()],
    "BatchSizeFinder": lambda: [built_in.BatchSizeFinder(go_on=True, clock=lambda: 0.0)],
    "CSVLogger": lambda: [built_in.CSVLogger("log.csv", append=True)],
    "Control": lambda: [built_in.Control("control")],
    "DeviceStats": lambda: [built_in.DeviceStats("2 steps")],
    "CutMix": lambda: [built_in.CutMix(until_epoch=2)],
    "EarlyStopping": lambda: [
        built_in.EarlyStopping("loss", min_delta=10, patience=3, restore_best_weights=True, baseline=1.0)
    ],
    "Freeze": lambda: [built_in.Freeze("only", until_epoch=2)],
    "GradientNorms": lambda: [built_in.GradientNorms(every=2)],
    "History": lambda: [built_in.History()],
    "JournalLogger": lambda: [built_in.JournalLogger("journal.jsonl")],
    "LambdaCallback": lambda: [built_in.LambdaCallback(on_epoch_end=lambda epoch, logs: None)],
    "LearningRateScheduler": lambda: [built_in.LearningRateScheduler(lambda epoch, rate: rate * 0.5), SetsRate()],
    "MixUp": lambda: [built_in.MixUp(until_epoch=2)],
    "ModelCheckpoint": lambda: [
        built_in.ModelCheckpoint("best.weights.h5", "loss", save_best_only=True, save_weights_only=True),
        built_in.ModelCheckpoint(
            "{epoch}-{batch}.weights.h5", "loss", save_weights_only=True, save_freq=4, keep="best 2"
        ),
    ],
    "OptunaPruning": lambda: [built_in.OptunaPruning(HopefulTrial())],
    "PredictionWriter": lambda: [built_in.PredictionWriter("{epoch}.npz")],
    "Preemption": lambda: [built_in.Preemption()],
    # It says that the run was too short, and measures nothing.
    "Profile": lambda: [built_in.Profile((30, 40))],
    "ProgbarLogger": lambda: [built_in.ProgbarLogger()],
    "RayTuneReport": lambda: [built_in.RayTuneReport(report=lambda numbers: None)],
    "ReduceLROnPlateau": lambda: [
        built_in.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10, cooldown=1),
        built_in.ReduceLROnPlateau("val_loss", factor=0.5, patience=2, min_delta=10),
    ],
    "RemoteMonitor": lambda: [built_in.RemoteMonitor("http://127.0.0.1:1")],
    "RunFolder": lambda: [built_in.RunFolder("run", best="val_loss")],
    "StopAtThreshold": lambda: [built_in.StopAtThreshold("loss", 1e9, times=3)],
    "SwapEMAWeights": lambda: [built_in.SwapEMAWeights(swap_on_epoch=True)],
    "TensorBoard": lambda: [built_in.TensorBoard("tb", update_freq=2, write_steps_per_second=True)],
    "TerminateOnNaN": lambda: [built_in.TerminateOnNaN(every=4), Diverges()],
    "Throughput": lambda: [built_in.Throughput()],
    "TimeLimit": lambda: [built_in.TimeLimit("1 day")],
    "Tracker": lambda: [built_in.Tracker(RemoteService())],
    "WeightAverage": lambda: [built_in.WeightAverage(0.5)],
}


def test_all_are_here() -> None:
    # One needs an epoch of ten batches, and is resumed in tests of its own.
    bases = {"Callback", "CallbackList", "MonitorCallback", "LearningRateFinder"}
    classes = {name for name in built_in.__all__ if isinstance(getattr(built_in, name), type)}
    assert {name for name in classes if issubclass(getattr(built_in, name), Callback)} - bases == set(CASES)


class DivergesOnce(Diverges):
    """Makes the loss not finite in the first epoch, at the first try."""

    done = False

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 2 and not self.done:
            self.done = True
            next(self.model.parameters()).data.fill_(float("nan"))


def test_a_run_that_is_taken_up_in_its_first_epoch_goes_back_to_where_it_was_taken_up(tmp_path: Path) -> None:
    def fit(*further: Any) -> Any:
        oncue.utils.set_random_seed(0)
        model = oncue.Sequential([layers.Input((4,)), layers.Dense(1)])
        model.compile("sgd", loss="mse")
        return model.fit(X, Y, epochs=2, batch_size=6, verbose=0, callbacks=list(further)).history["loss"]

    whole = fit()
    with pytest.raises(ConnectionError):
        fit(BackupAndRestore(tmp_path / "backup", save_freq=1), PowerCut(0, 1))
    back = built_in.TerminateOnNaN(action="rollback", factor=1.0)
    assert fit(BackupAndRestore(tmp_path / "backup", save_freq=1), back, DivergesOnce()) == whole


def test_the_speed_of_an_epoch_that_is_taken_up_counts_the_steps_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("oncue.callbacks.tensorboard.time", SimpleNamespace(perf_counter=clock))
    board = built_in.TensorBoard(tmp_path, write_steps_per_second=True, write_graph=False)
    written: list[Any] = []
    monkeypatch.setattr(board, "_write", lambda run, step, numbers: written.append(numbers))
    board.on_train_begin()
    board.on_epoch_begin(0)
    for batch in range(3):
        board.on_train_batch_end(batch, {})
    state = board.state_dict()
    board.on_train_begin()
    # The loop restores a state from the middle of an epoch when the epoch has begun.
    board.on_epoch_begin(0)
    board.load_state_dict(state)
    clock.now += 2.0
    board.on_train_batch_end(3, {})
    board.on_epoch_end(0, {})
    board.close()
    assert [numbers["epoch_steps_per_second"] for numbers in written if numbers] == [0.5]


def train(name: str, *cut: Any) -> list[Any]:
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential([layers.Input((2, 2, 1)), layers.Flatten(), layers.Dense(1, name="only")])
    model.compile(oncue.optimizers.SGD(0.01, use_ema=name == "SwapEMAWeights"), loss="mse")
    stack = [BackupAndRestore("backup", save_freq=1), *CASES[name](), *cut]
    x = X.reshape(-1, 2, 2, 1)
    history = model.fit(x, Y, validation_data=(x, Y), epochs=3, batch_size=8, verbose=0, callbacks=stack)
    return [
        (entry.epoch, entry.batch, entry.callback, entry.text, entry.kind, entry.data)
        for entry in history.journal
        if entry.kind != "resume"
    ]


@pytest.mark.filterwarnings(
    "ignore:Could not reach RemoteMonitor",
    "ignore:The model has no trainable weights",
    "ignore:Profile will see nothing",
)
@pytest.mark.parametrize("name", CASES)
def test_the_journal_of_a_resumed_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole").mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    whole = train(name)
    for cut in (PowerCut(2), PowerCut(1, 2)):
        folder = tmp_path / str(cut.at)
        folder.mkdir()
        monkeypatch.chdir(folder)
        with pytest.raises(ConnectionError):
            train(name, cut)
        assert train(name) == whole
