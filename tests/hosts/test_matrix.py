"""Every callback in every loop, at every end, beside oncue's own `fit`."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hosts_matrix import HOSTS, Bomb, Outcome, Plan, files_in, in_fit, train

from helpers import HopefulTrial, cpu_only
from oncue.callbacks import (
    BaseLogger,
    Control,
    CSVLogger,
    EarlyStopping,
    Freeze,
    History,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    OptunaPruning,
    Preemption,
    ProgbarLogger,
    RayTuneReport,
    ReduceLROnPlateau,
    RemoteMonitor,
    StopAtThreshold,
    TensorBoard,
    TerminateOnNaN,
    TimeLimit,
    WeightAverage,
)

pytestmark = [
    cpu_only("other libraries' loops, on the CPU"),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]

WEIGHTS = {"save_weights_only": True, "monitor": "val_loss"}
Make = Callable[[Path], Any]
CALLBACKS: dict[str, Make] = {
    "BaseLogger": lambda folder: BaseLogger(),
    "CSVLogger": lambda folder: CSVLogger(folder / "log.csv", append=True),
    "Control": lambda folder: Control(folder / "control"),
    "EarlyStopping": lambda folder: EarlyStopping(patience=9, restore_best_weights=True),
    "EarlyStopping that stops": lambda folder: EarlyStopping(patience=1, min_delta=0.2, restore_best_weights=True),
    "Freeze": lambda folder: Freeze("*0", until_epoch=2),
    "History": lambda folder: History(),
    "LambdaCallback": lambda folder: LambdaCallback(on_epoch_end=lambda epoch, logs: None),
    "LearningRateScheduler": lambda folder: LearningRateScheduler(lambda epoch, rate: rate * 0.8),
    "ModelCheckpoint": lambda folder: ModelCheckpoint(folder / "{epoch}.safetensors", save_best_only=True, **WEIGHTS),
    "ModelCheckpoint that keeps": lambda folder: ModelCheckpoint(folder / "{epoch}.safetensors", keep=2, **WEIGHTS),
    "OptunaPruning": lambda folder: OptunaPruning(HopefulTrial()),
    "Preemption": lambda folder: Preemption(),
    "ProgbarLogger": lambda folder: ProgbarLogger(),
    "RayTuneReport": lambda folder: RayTuneReport(report=lambda numbers: None),
    "ReduceLROnPlateau": lambda folder: ReduceLROnPlateau(patience=0, factor=0.5, min_delta=0.3),
    "StopAtThreshold": lambda folder: StopAtThreshold(threshold=0.03, times=2),
    "TensorBoard": lambda folder: TensorBoard(folder / "logs", write_graph=False),
    "TerminateOnNaN": lambda folder: TerminateOnNaN(),
    "TimeLimit": lambda folder: TimeLimit("1 hour"),
    "WeightAverage": lambda folder: WeightAverage(0.5, every="2 steps"),
}
ENDS = {"normal": {}, "stop": {}, "error": {"cut": 10}, "Ctrl-C": {"cut": 10, "error": KeyboardInterrupt}, "resume": {}}
REFUSED = {
    ("TerminateOnNaN", "transformers"): "needs the values of each batch",
    **dict.fromkeys(
        (("WeightAverage", host) for host in ("ignite", "poutyne", "skorch", "transformers")),
        "needs a loop that tells when validation begins",
    ),
}
# These save no state of callbacks.
NO_RESUME = {"poutyne", "skorch"}


def stopping(epoch: int, callbacks: list[Any]) -> list[Any]:
    def stop(at: int, logs: Any) -> None:
        if at == epoch:
            callbacks[0].model.stop_training = True

    return [*callbacks, LambdaCallback(on_epoch_end=stop)]


def run(drive: Any, name: str, end: str, folder: Path) -> Outcome:
    def callbacks(into: Path) -> list[Any]:
        # Keras's weights have a file of their own form.
        if name.startswith("ModelCheckpoint") and drive is HOSTS.get("keras"):
            options = {"keep": 2} if "keeps" in name else {"save_best_only": True}
            made = [ModelCheckpoint(into / "{epoch}.weights.h5", **options, **WEIGHTS)]
        else:
            made = [CALLBACKS[name](into)]
        return stopping(3, made) if end == "stop" else made

    if end != "resume":
        return train(drive, Plan(callbacks, folder, **ENDS[end]))
    # In the fourth epoch, after the state of the third was saved.
    first = train(drive, Plan(callbacks, folder, cut=10, checkpoints=True))
    if first.error is not None:
        assert first.error == "Bomb"
        return train(drive, Plan(callbacks, folder, checkpoints=True, resume=True))
    return first


@cache
def reference(name: str, end: str, folder: Path) -> tuple[Outcome, list[str]]:
    return run(in_fit, name, end, folder), [one.replace(".weights.h5", ".safetensors") for one in files_in(folder)]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fit")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", CALLBACKS)
@pytest.mark.parametrize("host", HOSTS)
def test_matrix(host: str, name: str, end: str, tmp_path: Path, place: Path) -> None:
    if (name, host) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, host]):
            run(HOSTS[host], name, end, tmp_path)
        return
    if end == "resume" and host in NO_RESUME:
        end = "normal"
    expected, files = reference(name, end, place / f"{name} {end}")
    found = run(HOSTS[host], name, end, tmp_path)
    if (host, end) == ("skorch", "Ctrl-C"):
        # It takes this for a stop.
        assert (found.error, found.ends, found.handlers, found.threads) == (None, ["begin", "end", "close"], True, [])
        assert found.history.epoch == expected.history.epoch
        return
    assert found.history.epoch == expected.history.epoch
    for key, values in expected.history.history.items():
        np.testing.assert_allclose(found.history.history[key], values, rtol=1e-4, atol=1e-7, err_msg=key)
    assert found.decisions == expected.decisions
    for one, other in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert [one.replace(".weights.h5", ".safetensors") for one in files_in(tmp_path)] == files
    if name == "CSVLogger":
        rows = [list(csv.DictReader(open(at / "log.csv"))) for at in (tmp_path, place / f"{name} {end}")]
        assert [row["epoch"] for row in rows[0]] == [row["epoch"] for row in rows[1]]
        assert np.allclose(
            [float(row["val_loss"]) for row in rows[0]], [float(row["val_loss"]) for row in rows[1]], rtol=1e-4
        )
    assert found.ends == expected.ends
    assert found.handlers
    assert not found.threads
    assert (found.error is None) == (expected.error is None)
    assert found.history.explain().splitlines()[1] == expected.history.explain().splitlines()[1]


def test_the_matrix_has_every_callback() -> None:
    from oncue import callbacks

    kinds = {
        kind.__name__
        for kind in vars(callbacks).values()
        if isinstance(kind, type) and issubclass(kind, callbacks.Callback)
    }
    # A server is needed for one; two are refused by other loops, which tests beside this one show; and what has the time in its
    # file is tested in loops with the others of its kind.
    elsewhere = {"Callback", "CallbackList", "RemoteMonitor", "BackupAndRestore", "SwapEMAWeights"}
    elsewhere |= {"JournalLogger", "RunFolder"}
    # Three have what they measure in their logs or the journal, and one needs gradients, which some loops drop.
    elsewhere |= {"Throughput", "Profile", "GradientNorms", "DeviceStats"}
    # One needs a service, one a loop that can go back to a state, and one a loop that makes its steps itself.
    elsewhere |= {"Tracker", "LearningRateFinder", "BatchSizeFinder"}
    # One needs arrays that the loop validates on, and two change batches.
    elsewhere |= {"PredictionWriter", "MixUp", "CutMix"}
    assert kinds - elsewhere == {name.split()[0] for name in CALLBACKS}
    assert Bomb and RemoteMonitor
