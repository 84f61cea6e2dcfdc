"""The order of oncue's own callbacks doesn't matter to what a run leaves behind; a user's keep their places."""

from __future__ import annotations

import hashlib
import itertools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import HopefulTrial, RemoteService
from oncue.callbacks import (
    BaseLogger,
    BatchSizeFinder,
    Callback,
    Control,
    CSVLogger,
    CutMix,
    DeviceStats,
    EarlyStopping,
    Freeze,
    GradientNorms,
    History,
    JournalLogger,
    LambdaCallback,
    LearningRateFinder,
    LearningRateScheduler,
    MixUp,
    ModelCheckpoint,
    OptunaPruning,
    PredictionWriter,
    Preemption,
    ProgbarLogger,
    RayTuneReport,
    ReduceLROnPlateau,
    RunFolder,
    StopAtThreshold,
    SwapEMAWeights,
    TensorBoard,
    TerminateOnNaN,
    Throughput,
    TimeLimit,
    Tracker,
    WeightAverage,
)

rng = np.random.default_rng(7)
X = rng.normal(size=(12, 3)).astype("float32")
Y = X @ np.array([[1.0], [-2.0], [0.5]], dtype="float32")
BAD = Y.copy()
BAD[10] = np.inf
START = [rng.normal(size=(3, 1)).astype("float32"), np.zeros(1, "float32")]

Parts = dict[str, Callable[[Path], Callback]]

BUILT_INS: Parts = {
    "early": lambda folder: EarlyStopping(patience=1, restore_best_weights=True),
    "plateau": lambda folder: ReduceLROnPlateau(factor=0.5, patience=1, min_delta=1e-3),
    "csv": lambda folder: CSVLogger(folder / "log.csv"),
    "nan": lambda folder: TerminateOnNaN(),
    "schedule": lambda folder: LearningRateScheduler(lambda epoch, rate: rate * 0.99),
    "saver": lambda folder: ModelCheckpoint(folder / "{epoch}-{val_loss:.4f}.weights.h5", save_weights_only=True),
}


def fresh(optimizer: Callable[[], Any], *shape: int) -> Any:
    """Return a model that starts where all others do, under the same names: they get into files."""
    oncue.backend.clear_session(free_memory=False)
    flat = [oncue.layers.Flatten()] if shape else []
    model = oncue.Sequential([oncue.layers.Input(shape or (3,)), *flat, oncue.layers.Dense(1)])
    model.set_weights(START)
    model.compile(optimizer=optimizer(), loss="mse")
    return model


def result(callbacks: list[Callback], folder: Path, y: Any, rate: float = 0.6) -> dict[str, Any]:
    """Train on a fixed start; return all that the run leaves behind."""
    model = fresh(lambda: oncue.optimizers.SGD(rate))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        history = model.fit(
            X, y, batch_size=6, epochs=6, shuffle=False, verbose=0, validation_data=(X, Y), callbacks=callbacks
        )
    return {
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())},
        "history": {name: np.array(values).tobytes() for name, values in history.history.items()},
        "order of names": list(history.history),
        "epochs": history.epoch,
        "weights": [weight.tobytes() for weight in model.get_weights()],
        "rate": float(model.optimizer.learning_rate),
        "stopped": model.stop_training,
    }


@pytest.mark.parametrize("y", [Y, BAD], ids=["stops early", "not finite"])
@pytest.mark.parametrize(
    "names",
    [("early", "plateau", "csv", "nan", "schedule"), ("early", "plateau", "csv", "nan", "saver")],
    ids=["schedule", "saver"],
)
def test_every_order_gives_the_same(names: tuple[str, ...], y: Any, tmp_path: Path) -> None:
    results = []
    for number, order in enumerate(itertools.permutations(names)):
        folder = tmp_path / str(number)
        folder.mkdir()
        results.append((order, result([BUILT_INS[name](folder) for name in order], folder, y)))
    _, first = results[0]
    assert len(results) == 120
    if y is Y:
        assert 1 < len(first["epochs"]) < 6 and first["stopped"], "the run is one in which something is decided"
    different = [(order, key) for order, other in results for key in first if other[key] != first[key]]
    assert not different


def test_the_order_of_two_that_set_the_same_thing_does_matter(tmp_path: Path) -> None:
    rates = []
    for order in itertools.permutations([0.5, 0.25]):
        schedules: list[Callback] = [LearningRateScheduler(lambda epoch, rate, new=new: new) for new in order]
        rates.append(result(schedules, tmp_path, Y)["rate"])
    assert rates == [0.25, 0.5], "`result` sees it when something depends on the order"


class Seen(Callback):
    """A user's callback: keeps what a function finds at the end of every epoch."""

    def __init__(self, look: Callable[[dict[str, Any]], Any]) -> None:
        super().__init__()
        self.look = look
        self.found: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.found.append(self.look(logs))


def train(callbacks: Any, epochs: int = 3, **options: Any) -> Any:
    options = {"validation_data": (X, Y), "batch_size": 6, "verbose": 0, **options}
    return fresh(lambda: oncue.optimizers.SGD(0.1)).fit(X, Y, epochs=epochs, callbacks=callbacks, **options)


@pytest.mark.parametrize(
    "options", [{}, {"asynchronous": True}, {"save_freq": 2}, {"save_freq": 2, "asynchronous": True}]
)
def test_what_follows_a_saver_finds_the_file_of_this_hook(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "last.weights.h5"
    saver = ModelCheckpoint(path, monitor="loss", save_weights_only=True, **options)

    def same(_: Any) -> bool:
        other = fresh(lambda: oncue.optimizers.SGD(0.1))
        other.load_weights(path)
        pairs = zip(other.get_weights(), saver.model.get_weights(), strict=True)
        return all(np.array_equal(one, two) for one, two in pairs)

    seen = Seen(same)
    if "save_freq" in options:
        by_batch = LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.found.append(same(logs)) if batch else None
        )
        train([saver, by_batch])
    else:
        train([saver, seen])
    assert seen.found == [True] * 3


def test_what_follows_a_logger_finds_its_row(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    seen = Seen(lambda logs: len(path.read_text().splitlines()))
    train([[CSVLogger(path)], seen, EarlyStopping()])
    assert seen.found == [2, 3, 4], "a header, and a row for each epoch so far"


def test_what_precedes_a_logger_fills_its_row_and_what_follows_does_not(tmp_path: Path) -> None:
    before = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(before=1.0))
    after = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(after=1.0))
    history = train([before, CSVLogger(tmp_path / "log.csv"), after])
    assert {"before", "after"} <= set(history.history)
    header = (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert "before" in header and "after" not in header


def test_a_user_s_value_reaches_a_decider_that_follows_and_a_decider_s_rate_a_user_s() -> None:
    add = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(f1=1.0))
    rates = Seen(lambda logs: logs.get("learning_rate"))
    early = EarlyStopping("f1", mode="max", patience=1)
    history = train([History(), add, early, ReduceLROnPlateau(monitor="val_loss"), rates], epochs=5)
    assert early.stopped_epoch == 1 and rates.found == [0.1, 0.1] and len(history.epoch) == 2


MADE: Parts = {
    "U": lambda folder: Seen(lambda logs: None),
    "S": lambda folder: CSVLogger(folder / "log.csv"),
    "D": lambda folder: EarlyStopping("loss"),
    "B": lambda folder: oncue.callbacks.BackupAndRestore(folder / "backup"),
    "E": lambda folder: TimeLimit("1 hour"),
}


@pytest.mark.parametrize(
    ("listed", "called"),
    [
        ("SD", "DS"), ("USD", "UDS"), ("SUD", "SUD"), ("SDU", "DSU"), ("SDUSD", "DSUDS"), ("SSDDU", "DDSSU"),
        ("DSU", "DSU"), ("BUSD", "UDSB"), ("EBSUD", "SUDBE"), ("UUSDB", "UUDSB"), ("SBU", "SUB"),
    ],
)  # fmt: skip
def test_a_user_s_callback_is_never_passed_but_by_what_saves_or_ends_the_run(
    listed: str, called: str, tmp_path: Path
) -> None:
    letters = {"Seen": "U", "CSVLogger": "S", "EarlyStopping": "D", "BackupAndRestore": "B", "TimeLimit": "E"}
    callbacks = oncue.callbacks.CallbackList([MADE[letter](tmp_path) for letter in listed])
    row = next(row for row in callbacks.schedule().splitlines() if row.startswith("on_epoch_end"))
    names = row.replace(" (last)", "").split(maxsplit=1)[1].split(", ")
    assert "".join(letters[name] for name in names) == called


def test_a_callback_is_in_the_way_only_in_the_hooks_that_it_has(tmp_path: Path) -> None:
    batches = LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    callbacks = oncue.callbacks.CallbackList([CSVLogger(tmp_path / "log.csv"), batches, ReduceLROnPlateau()])
    assert "on_epoch_end        ReduceLROnPlateau, CSVLogger" in callbacks.schedule()


def test_a_saver_of_the_user_s_may_make_way_and_a_decider_of_the_user_s_does_not_move(tmp_path: Path) -> None:
    class Mine(EarlyStopping):
        pass

    class Saver(Seen):
        makes_way = True

    listed = [Saver(lambda logs: None), CSVLogger(tmp_path / "log.csv"), EarlyStopping("loss"), Mine("loss")]
    schedule = oncue.callbacks.CallbackList(listed).schedule()
    assert "on_epoch_end       EarlyStopping, Saver, CSVLogger, Mine" in schedule


def test_the_progress_bar_and_the_history_come_after_all_but_the_backup(tmp_path: Path) -> None:
    backup, seen = oncue.callbacks.BackupAndRestore(tmp_path / "backup"), Seen(lambda logs: None)
    callbacks = oncue.callbacks.CallbackList([backup, EarlyStopping(), seen], add_history=True, add_progbar=True)
    assert "EarlyStopping, Seen, History, ProgbarLogger, BackupAndRestore (last)" in callbacks.schedule()


AGAIN: dict[str, tuple[Callable[[Path], Callback], tuple[str, ...]]] = {
    "BaseLogger": (lambda folder: BaseLogger(), ()),
    "BatchSizeFinder": (
        lambda folder: BatchSizeFinder(go_on=True, clock=lambda: 0.0),
        ("suggestion", "sizes", "tested"),
    ),
    "Control": (lambda folder: Control(folder / "control"), ("done",)),
    "CutMix": (lambda folder: CutMix(seed=1, until_epoch=3), ("drawn_seed", "batches")),
    "MixUp": (lambda folder: MixUp(seed=1, until_epoch=3), ("drawn_seed", "batches")),
    "CSVLogger": (lambda folder: CSVLogger(folder / "log.csv"), ("keys",)),
    "DeviceStats": (lambda folder: DeviceStats(probe=lambda: {"fan": 1.0}), ()),
    "EarlyStopping": (
        lambda folder: EarlyStopping(patience=2, restore_best_weights=True),
        ("best", "best_epoch", "wait", "stopped_epoch"),
    ),
    "Freeze": (lambda folder: Freeze("dense*", from_epoch=9), ("frozen",)),
    "GradientNorms": (lambda folder: GradientNorms(every=1), ()),
    "History": (lambda folder: History(), ("history", "epoch", "logged_in")),
    "JournalLogger": (lambda folder: JournalLogger(folder / "journal.jsonl"), ()),
    "LambdaCallback": (lambda folder: LambdaCallback(on_epoch_end=lambda epoch, logs: None), ()),
    "LearningRateFinder": (lambda folder: LearningRateFinder(1e-4, 1.0, steps=10), ("suggestion", "rates", "losses")),
    "LearningRateScheduler": (lambda folder: LearningRateScheduler(lambda epoch, rate: rate * 0.9), ()),
    "ModelCheckpoint": (lambda folder: ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True), ()),
    "OptunaPruning": (lambda folder: OptunaPruning(HopefulTrial()), ("told", "pruned")),
    "PredictionWriter": (lambda folder: PredictionWriter(folder / "{epoch}.csv"), ()),
    "Preemption": (lambda folder: Preemption(), ()),
    "ProgbarLogger": (lambda folder: ProgbarLogger(), ()),
    "RayTuneReport": (lambda folder: RayTuneReport(report=lambda numbers: None), ()),
    "ReduceLROnPlateau": (
        lambda folder: ReduceLROnPlateau(factor=0.5, patience=1, cooldown=1),
        ("best", "wait", "cooldown_counter"),
    ),
    "RunFolder": (lambda folder: RunFolder(folder), ()),
    "StopAtThreshold": (lambda folder: StopAtThreshold("loss", 0.2), ("reached", "stopped_epoch")),
    "SwapEMAWeights": (lambda folder: SwapEMAWeights(), ()),
    "TensorBoard": (lambda folder: TensorBoard(folder), ("global_step",)),
    "TerminateOnNaN": (lambda folder: TerminateOnNaN(), ()),
    "Throughput": (lambda folder: Throughput(clock=lambda: 0.0), ("seconds_left",)),
    "TimeLimit": (lambda folder: TimeLimit("1 hour"), ()),
    "Tracker": (lambda folder: Tracker(RemoteService()), ("identity", "step")),
    "WeightAverage": (lambda folder: WeightAverage(0.5), ("count",)),
}


def test_every_built_in_with_a_run_is_used_again_below() -> None:
    # One needs a server, one resumes an interrupted run by design, and one has measured times in its journal.
    others = {"RemoteMonitor", "BackupAndRestore", "Profile"}
    public = (getattr(oncue.callbacks, name) for name in oncue.callbacks.__all__)
    kinds = {kind.__name__ for kind in public if issubclass(kind, Callback)}
    assert kinds - {"Callback", "CallbackList"} - others == set(AGAIN)


@pytest.mark.filterwarnings("ignore:LearningRateFinder suggests nothing")
@pytest.mark.parametrize("name", AGAIN)
def test_a_second_fit_with_the_same_object_is_as_one_with_a_fresh_object(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1e9)
    make, fields = AGAIN[name]
    outcomes = []
    for runs in (1, 2):
        folder = tmp_path / str(runs)
        folder.mkdir()
        callback = make(folder)
        # The first of two runs stops otherwise, on a value that is not finite, with values of its own.
        outcomes.append([_again(callback, y, folder, fields) for y in [BAD, Y][-runs:]][-1])
    assert outcomes[0] == outcomes[1]


def _timeless(path: Path, folder: Path) -> bytes:
    """Return what is in a file, without what a clock has measured and where it is."""
    if path.suffix == ".png":
        return b""
    content = re.sub(rb'"(seconds|costs|began)": ?(\{.*?\}\}|[^,}]+)', b"", path.read_bytes())
    return content.replace(str(folder).encode(), b"")


def _again(callback: Callback, y: Any, folder: Path, fields: tuple[str, ...]) -> dict[str, Any]:
    shape = (3, 1, 1) if isinstance(callback, CutMix) else ()
    model = fresh(lambda: oncue.optimizers.SGD(0.6, use_ema=isinstance(callback, SwapEMAWeights)), *shape)
    x = X.reshape(-1, *(shape or (3,)))
    history = model.fit(
        x, y, batch_size=1, epochs=5, shuffle=False, verbose=0, validation_data=(x, Y), callbacks=[callback]
    )
    files = [path for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name]
    return {
        "files": {path.name: _timeless(path, folder) for path in files},
        "history": {name: np.array(values).tobytes() for name, values in history.history.items()},
        "weights": [weight.tobytes() for weight in model.get_weights()],
        "rate": float(model.optimizer.learning_rate),
        "journal": [(entry.kind, entry.epoch, entry.text.replace(str(folder), "")) for entry in history.journal],
        **{name: getattr(callback, name) for name in fields},
    }
