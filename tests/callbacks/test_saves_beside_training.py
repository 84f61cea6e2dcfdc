"""Saves on a device that copies beside its work: nothing on the disk is of a later moment, and training needn't wait."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from late_device import LateDevice

import oncue as keras
from helpers import ScriptedLosses, cpu_only, normal, same_arrays
from oncue import layers
from oncue.callbacks import BackupAndRestore, Callback, EarlyStopping, LambdaCallback, ModelCheckpoint
from oncue.core import files

pytestmark = cpu_only("a device of the test's own takes the place of the CPU")

X = normal(32, 3)
Y = X.sum(axis=1, keepdims=True)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> LateDevice:
    return LateDevice().install(monkeypatch)


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let the other thread wait with what it writes until the event is set."""
    gate, fsync = threading.Event(), files.os.fsync

    def slow(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            assert gate.wait(20)
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", slow)
    yield gate
    gate.set()


def model() -> Any:
    keras.utils.set_random_seed(0)
    norm = layers.BatchNormalization()
    made = keras.Sequential([layers.Input((3,)), layers.Dense(4), norm, layers.Dropout(0.2), layers.Dense(1)])
    made.compile(keras.optimizers.Adam(0.05, use_ema=True), "mse", metrics=["mae"])
    return made


def cut_at(epoch: int, batch: int) -> Callback:
    class Cut(Callback):
        def on_train_batch_end(self, at: int, logs: Any = None) -> None:
            if (self._run.progress.epoch, at) == (epoch, batch):
                raise KeyboardInterrupt

    return Cut()


@pytest.mark.parametrize("save_freq", [1, 3, "epoch"])
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(
    save_freq: Any, tmp_path: Path, device: LateDevice
) -> None:
    def train(made: Any, callbacks: Any) -> Any:
        return made.fit(X, Y, epochs=4, batch_size=8, verbose=0, callbacks=callbacks)

    whole, resumed = model(), model()
    expected = train(whole, None)
    with pytest.raises(KeyboardInterrupt):
        train(model(), [cut_at(2, 2), BackupAndRestore(tmp_path / "backup", save_freq=save_freq)])
    found = train(resumed, [BackupAndRestore(tmp_path / "backup", save_freq=save_freq)])
    assert found.history == expected.history
    assert same_arrays(whole.get_weights(), resumed.get_weights())
    assert "writer waits" in device.order


@pytest.mark.parametrize("name", ["m_{epoch}.keras", "m_{epoch}.h5", "m_{epoch}.weights.h5", "m_{epoch}.safetensors"])
def test_a_file_has_the_weights_of_its_moment(name: str, tmp_path: Path, device: LateDevice) -> None:
    seen: list[Any] = []
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(trained.get_weights()))
    weights_only, trained = name.endswith((".weights.h5", ".safetensors")), model()
    saver = ModelCheckpoint(tmp_path / name, save_weights_only=weights_only, asynchronous=True)
    trained.fit(X, Y, epochs=3, batch_size=8, verbose=0, callbacks=[keep, saver])
    for epoch, expected in enumerate(seen):
        path, found = tmp_path / name.format(epoch=epoch + 1), model()
        if not weights_only:
            found = keras.models.load_model(path)
        elif path.suffix == ".h5":
            with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
                found.load_weights(path)
        else:
            found.load_weights(path)
        assert same_arrays(found.get_weights(), expected)
    assert "host waits" not in device.order and "writer waits" in device.order


def test_one_block_serves_the_run_and_is_there_before_its_first_save(tmp_path: Path, device: LateDevice) -> None:
    savers = [
        BackupAndRestore(tmp_path / "backup", save_freq=1),
        ModelCheckpoint(tmp_path / "m_{batch}.keras", save_freq=2, asynchronous=True),
    ]
    model().fit(X, Y, epochs=2, batch_size=8, verbose=0, callbacks=savers)
    assert [on_main for _, on_main in device.allocated] == [False, False]


# Only the update waits -------------------------------------------------------------------------------------------------


class Marks(layers.Layer):
    """Marks each forward pass in what the device was asked, and may change weights in those of training, or of validation."""

    def __init__(self, order: list[str], shrinks: bool | None = None) -> None:
        super().__init__()
        self.order, self.shrinks = order, shrinks

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, inputs: Any, training: bool = False) -> Any:
        self.order.append("forward")
        if training is self.shrinks:
            self.scale.value.data.mul_(0.9)
        return inputs * self.scale.value


def marked(order: list[str], shrinks: bool | None = None, **options: Any) -> Any:
    keras.utils.set_random_seed(0)
    parts = [layers.Dense(4), layers.BatchNormalization(), Marks(order, shrinks), layers.Dense(1)]
    made = keras.Sequential([layers.Input((3,)), *parts])
    made.compile(keras.optimizers.Adam(0.05, use_ema=True), "mse", metrics=["mae"], **options)
    return made


def files_of(folder: Path, made: Any, swaps: bool, asynchronous: bool) -> dict[str, list[Any]]:
    """Train with a file after every second batch, and one of each epoch; return what is in each.

    Args:
        folder: Where they are.
        made: What is trained.
        swaps: Whether averages take the place of the weights from epoch to epoch.
        asynchronous: Whether they are written in the background.
    """
    made_for = {"asynchronous": asynchronous, "save_weights_only": True}
    often = ModelCheckpoint(folder / "{epoch}-{batch}.safetensors", save_freq=2, **made_for)
    whole = ModelCheckpoint(folder / "{epoch}.safetensors", **made_for)
    swap = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if swaps else []
    options = {"batch_size": 8, "epochs": 4, "verbose": 0, "validation_data": (X, Y)}
    made.fit(X, Y, callbacks=[*swap, often, whole], **options)
    found = {}
    for path in sorted(folder.iterdir()):
        made.load_weights(path)
        found[path.name] = made.get_weights()
    return found


@pytest.mark.parametrize("shrinks", [None, True, False], ids=["never", "in training", "in validation"])
def test_files_are_of_their_moment_wherever_training_waits(
    shrinks: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    expected = files_of(tmp_path / "a", marked([], shrinks), shrinks is None, asynchronous=False)
    device = LateDevice().install(monkeypatch)
    device.lazy = True
    found = files_of(tmp_path / "b", marked(device.order, shrinks), shrinks is None, asynchronous=True)
    assert found.keys() == expected.keys() and len(found) == 12
    for name, weights in expected.items():
        assert same_arrays(found[name], weights), name
    assert "host waits" not in device.order
    assert put_off(device.order) is (shrinks is not True)


def put_off(order: list[str]) -> bool:
    """Return whether a forward pass has begun between copies and the work's wait for them."""
    told = "".join({"forward": "f", "copy": "c", "work waits": "w"}.get(one, "") for one in order)
    return "cfw" in told


def test_nothing_is_put_off_where_others_may_change_weights(tmp_path: Path, device: LateDevice) -> None:
    def train(*callbacks: Any, **options: Any) -> bool:
        device.order.clear()
        options = {"x": X, "y": Y, "batch_size": 8, **options}
        kept = {"save_weights_only": True, "save_freq": 1, "asynchronous": True}
        saver = ModelCheckpoint(tmp_path / "{batch}.safetensors", "loss", **kept)
        marked(device.order).fit(verbose=0, callbacks=[*callbacks, saver], **options)
        return put_off(device.order)

    assert train()
    assert not train(LambdaCallback(on_epoch_begin=lambda epoch, logs: None))
    assert not train(x=((X[:8], Y[:8]) for _ in range(4)), y=None, batch_size=None)
    # What the device hasn't told yet isn't waited for.
    device.behind = True
    assert not train()


def test_the_best_weights_are_copied_beside_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def best(order: list[str]) -> list[Any]:
        stop = EarlyStopping("val_loss", patience=9, restore_best_weights=True)
        made = marked(order)
        # The rate grows, so that the loss does, too, in the end.
        made.optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(0.02, 4, 3.0)
        history = made.fit(X, Y, batch_size=8, epochs=8, verbose=0, validation_data=(X, Y), callbacks=[stop])
        assert 1 < int(np.argmin(history.history["val_loss"])) < 7
        return made.get_weights()

    expected = best([])
    device = LateDevice().install(monkeypatch)
    device.lazy = True
    assert same_arrays(best(device.order), expected)
    assert put_off(device.order)


def notes(history: Any) -> list[str]:
    return [entry.what for entry in history.journal if entry.kind == "note"]


def test_a_backup_that_comes_too_soon_is_left_out_where_that_was_chosen(
    tmp_path: Path, slow_disk: threading.Event
) -> None:
    opens = LambdaCallback(on_epoch_begin=lambda epoch, logs: slow_disk.set() if epoch == 1 else None)
    backup = BackupAndRestore(tmp_path / "b", save_freq=1, when_busy="skip", delete_checkpoint=False)
    trained = model()
    history = trained.fit(X, Y, epochs=2, batch_size=8, verbose=0, callbacks=[opens, backup])
    assert notes(history)[:3] == ["backup_skipped"] * 3
    # The last one is waited for, whatever was under way.
    again = model().fit(X, Y, epochs=2, batch_size=8, verbose=0, callbacks=[BackupAndRestore(tmp_path / "b", 1)])
    assert again.history == history.history
    assert "saved no backup: the one before is still being written" in str(history.journal)


def test_a_backup_that_comes_too_soon_is_waited_for_otherwise(tmp_path: Path, slow_disk: threading.Event) -> None:
    threading.Timer(0.2, slow_disk.set).start()
    history = model().fit(X, Y, epochs=2, batch_size=8, verbose=0, callbacks=[BackupAndRestore(tmp_path / "b", 1)])
    assert notes(history) == []


def test_a_file_that_comes_too_soon_is_left_out_where_that_was_chosen(
    tmp_path: Path, slow_disk: threading.Event
) -> None:
    opens = LambdaCallback(on_epoch_begin=lambda epoch, logs: slow_disk.set() if epoch == 3 else None)
    saver = ModelCheckpoint(tmp_path / "{epoch}.keras", asynchronous=True, when_busy="skip", verbose=1)
    history = model().fit(X, Y, epochs=4, batch_size=8, verbose=0, callbacks=[opens, saver])
    assert notes(history) == ["file_skipped", "file_skipped"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.keras", "4.keras"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"when_busy": "skip"}, "asynchronous=False. Add `asynchronous=True`"),
        ({"when_busy": "drop", "asynchronous": True}, "must be 'wait' or 'skip'; got 'drop'"),
        ({"when_busy": "skip", "asynchronous": True, "save_best_only": True}, "could miss the best"),
        ({"when_busy": "skip", "asynchronous": True, "keep": "best 2"}, "could miss the best"),
        ({"page_locked": -1}, "`page_locked` of ModelCheckpoint must be"),
    ],
)
def test_choices_that_make_no_sense_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelCheckpoint("m_{epoch}.keras", **options)


def test_a_limit_and_a_refusal_leave_ordinary_memory(tmp_path: Path, device: LateDevice) -> None:
    made = model()
    made.fit(X, Y, verbose=0, callbacks=[BackupAndRestore(tmp_path / "a", page_locked=0)])
    assert not device.allocated
    device.refuses = True
    with pytest.warns(UserWarning, match="page-locked memory can't be had") as caught:
        made.fit(X, Y, epochs=3, verbose=0, callbacks=[BackupAndRestore(tmp_path / "b")])
    assert len(caught) == 1 and np.isfinite(made.get_weights()[0]).all()


def stopping(losses: list[float], made: Any, **options: Any) -> tuple[EarlyStopping, list[Any]]:
    """Train with EarlyStopping on given losses, and return it and the weights of each epoch."""
    seen: list[Any] = []
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(made.get_weights()))
    stop = EarlyStopping(patience=9, restore_best_weights=True)
    callbacks = [ScriptedLosses(*losses), keep, stop, *options.pop("callbacks", [])]
    made.fit(X, Y, epochs=len(losses), batch_size=8, verbose=0, callbacks=callbacks, **options)
    return stop, seen


@pytest.mark.parametrize("room", [0, 10**9])
def test_the_best_weights_are_kept_without_a_wait(room: int, device: LateDevice) -> None:
    device.room, made = room, model()
    stop, seen = stopping([3.0, 1.0, 2.0, 4.0], made)
    assert same_arrays(made.get_weights(), seen[1]) and same_arrays(stop.best_weights, seen[1])
    assert not same_arrays(seen[1], seen[3])
    if room:
        assert device.order == [] and device.allocated == []
    else:
        # It waits when they are put back.
        assert device.order == ["copy", "work waits", "host waits", "copy", "work waits", "host waits"]
        assert len(device.allocated) == 1


def test_arrays_are_what_is_left_of_the_best_weights(device: LateDevice) -> None:
    device.room = 10**9
    stop, _ = stopping([1.0, 2.0], model())
    assert stop._best_kept is None and all(isinstance(one, np.ndarray) for one in stop.best_weights)
    assert same_arrays(copy.deepcopy(stop).best_weights, stop.best_weights)


@pytest.mark.parametrize("room", [0, 10**9])
def test_the_best_weights_survive_an_interruption(room: int, tmp_path: Path, device: LateDevice) -> None:
    device.room, losses = room, [3.0, 1.0, 2.0, 4.0]
    with pytest.raises(KeyboardInterrupt):
        stopping(losses, model(), callbacks=[cut_at(3, 1), BackupAndRestore(tmp_path / "b")])
    whole, resumed = model(), model()
    _, seen = stopping(losses, whole)
    stopping(losses, resumed, callbacks=[BackupAndRestore(tmp_path / "b")])
    assert same_arrays(whole.get_weights(), resumed.get_weights()) and same_arrays(whole.get_weights(), seen[1])
