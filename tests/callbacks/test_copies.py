"""Every built-in callback, and lists and models with them, can be copied and pickled before, in and after a run."""

from __future__ import annotations

import copy
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import HopefulTrial, RemoteService, samples
from oncue import callbacks as built_in
from oncue.callbacks import Callback, CallbackList

WAYS = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}


def rate(epoch: int) -> float:
    return 0.01


def nothing(*given: Any, **named: Any) -> None:
    pass


MADE: dict[str, Callable[[Path], Any]] = {
    "BackupAndRestore": lambda folder: built_in.BackupAndRestore(folder / "backup"),
    "BaseLogger": lambda folder: built_in.BaseLogger(),
    "BatchSizeFinder": lambda folder: built_in.BatchSizeFinder(max_size=8, go_on=True),
    "Callback": lambda folder: Callback(),
    "Control": lambda folder: built_in.Control(folder / "control"),
    "CSVLogger": lambda folder: built_in.CSVLogger(folder / "log.csv"),
    "DeviceStats": lambda folder: built_in.DeviceStats(),
    "CutMix": lambda folder: built_in.CutMix(),
    "EarlyStopping": lambda folder: built_in.EarlyStopping("loss", restore_best_weights=True),
    "Freeze": lambda folder: built_in.Freeze("dense*", from_epoch=9),
    "GradientNorms": lambda folder: built_in.GradientNorms(),
    "History": lambda folder: built_in.History(),
    "JournalLogger": lambda folder: built_in.JournalLogger(folder / "journal.jsonl"),
    "LambdaCallback": lambda folder: built_in.LambdaCallback(on_epoch_end=nothing),
    "LearningRateFinder": lambda folder: built_in.LearningRateFinder(),
    "LearningRateScheduler": lambda folder: built_in.LearningRateScheduler(rate),
    "MixUp": lambda folder: built_in.MixUp(),
    "ModelCheckpoint": lambda folder: built_in.ModelCheckpoint(
        folder / "{epoch}.weights.h5", save_weights_only=True, keep=1, asynchronous=True
    ),
    "OptunaPruning": lambda folder: built_in.OptunaPruning(HopefulTrial(), "loss"),
    "PredictionWriter": lambda folder: built_in.PredictionWriter(folder / "{epoch}.csv"),
    "Preemption": lambda folder: built_in.Preemption(),
    "Profile": lambda folder: built_in.Profile((1, 2), folder / "profile"),
    "ProgbarLogger": lambda folder: built_in.ProgbarLogger(),
    "RayTuneReport": lambda folder: built_in.RayTuneReport(report=nothing),
    "ReduceLROnPlateau": lambda folder: built_in.ReduceLROnPlateau("loss"),
    "RemoteMonitor": lambda folder: built_in.RemoteMonitor(),
    "RunFolder": lambda folder: built_in.RunFolder(folder / "run", resume=True),
    "StopAtThreshold": lambda folder: built_in.StopAtThreshold("loss", -1.0),
    "SwapEMAWeights": lambda folder: built_in.SwapEMAWeights(),
    "TensorBoard": lambda folder: built_in.TensorBoard(folder / "logs"),
    "TerminateOnNaN": lambda folder: built_in.TerminateOnNaN(action="rollback"),
    "Throughput": lambda folder: built_in.Throughput(),
    "TimeLimit": lambda folder: built_in.TimeLimit(100),
    "Tracker": lambda folder: built_in.Tracker(RemoteService()),
    "WeightAverage": lambda folder: built_in.WeightAverage(0.5),
}


def pictures() -> Any:
    return samples(2).reshape(8, 1, 2, 1)


def fit(*callbacks: Any, epochs: int = 2) -> Any:
    model = oncue.Sequential([oncue.layers.Input((1, 2, 1)), oncue.layers.Flatten(), oncue.layers.Dense(1)])
    model.compile(oncue.optimizers.SGD(0.01, use_ema=True), "mse")
    given: Any = callbacks[0] if isinstance(callbacks[0], CallbackList) else list(callbacks)
    # So many batches as a test of learning rates needs.
    x, y = np.tile(pictures(), (2, 1, 1, 1)), np.tile(samples(1), (2, 1))
    model.fit(x, y, batch_size=1, epochs=epochs, verbose=0, callbacks=given, validation_data=(x[:2], y[:2]))
    return model


class InTheMiddle(Callback):
    """Copies something at the end of the first epoch."""

    def __init__(self, take: Callable[[Any], Any]) -> None:
        super().__init__()
        self.take, self.found = take, None

    def __reduce__(self) -> Any:
        # It is in the list that is copied, and its function can't be pickled.
        return Callback, ()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 0:
            self.found = self.take(self)


def test_the_table_has_every_callback() -> None:
    kinds = {name: getattr(built_in, name) for name in built_in.__all__}
    found = {name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Callback)}
    assert found - {"CallbackList"} == set(MADE)


@pytest.mark.filterwarnings("ignore:Could not reach", "ignore:LearningRateFinder suggests nothing")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MADE)
def test_a_copy_works_in_another_run(name: str, way: str, tmp_path: Path) -> None:
    take = WAYS[way]
    handler = signal.getsignal(signal.SIGTERM)
    one = MADE[name](tmp_path)
    before = take(one)
    if name != "RemoteMonitor":
        middle = InTheMiddle(lambda self: (take(one), take(self.model.history._run)))
        model = fit(one, middle)
        assert model.history.epoch == [0, 1]
        during, listed = middle.found or ()
        after, whole = take(one), take(model)
        for twin in (before, during, after) if way == "copy" else (during,):
            assert type(twin) is type(one) and twin is not one and twin._run is None
            assert fit(twin, epochs=1).history.epoch == [0]
        assert len(whole.history.epoch) == 2 and whole.predict(pictures(), verbose=0).shape == (8, 1)
        assert fit(listed, epochs=1).history.epoch == [0] and model.history is not listed.callbacks[-1]
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_a_list_takes_nothing_away(way: str, tmp_path: Path) -> None:
    names = ["EarlyStopping", "CSVLogger", "ModelCheckpoint", "BackupAndRestore", "History"]

    class Notes(Callback):
        def __reduce__(self) -> Any:
            return Callback, ()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            copies.append(WAYS[way](self.model.history._run))
            self.note(f"noted {epoch}")

    copies: list[Any] = []
    model = fit(*[MADE[name](tmp_path) for name in names], Notes())
    assert [entry.text for entry in model.history.journal if entry.callback == "Notes"] == ["noted 0", "noted 1"]
    # What was noted later isn't in the copy, and what the copy does isn't noted here.
    assert len(copies[0].journal) < len(copies[1].journal) < len(model.history.journal)
    count = len(model.history.journal)
    fit(copies[0])
    assert len(model.history.journal) == count and copies[0].seconds > 0
