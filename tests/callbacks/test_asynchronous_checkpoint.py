"""ModelCheckpoint(asynchronous=True): the file is that of the moment, and nothing is lost at any ending."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

import oncue as keras
from helpers import normal, same_arrays, tensor
from oncue import layers
from oncue.core import files

X = normal(32, 3)
Y = X.sum(axis=1, keepdims=True)


def model() -> Any:
    keras.utils.set_random_seed(0)
    made = keras.Sequential([layers.Input((3,)), layers.Dense(4), layers.Dense(1)])
    made.compile("adam", "mse")
    return made


class Weights(keras.callbacks.Callback):
    """Keeps the weights of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[Any]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(self.model.get_weights())


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let writing wait, on any thread but the main one, until the event is set."""
    gate, fsync = threading.Event(), files.os.fsync

    def slow(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            assert gate.wait(20)
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", slow)
    return gate


@pytest.mark.parametrize("name", ["m_{epoch}.keras", "m_{epoch}.h5", "m_{epoch}.weights.h5", "m_{epoch}.safetensors"])
def test_every_file_has_the_weights_of_its_epoch(name: str, tmp_path: Path) -> None:
    weights_only = name.endswith((".weights.h5", ".safetensors"))
    saver = keras.callbacks.ModelCheckpoint(tmp_path / name, save_weights_only=weights_only, asynchronous=True)
    weights, trained = Weights(), model()
    trained.fit(X, Y, epochs=4, verbose=0, callbacks=[weights, saver])
    for epoch, expected in enumerate(weights.seen):
        path = tmp_path / name.format(epoch=epoch + 1)
        if weights_only:
            found = model()
            if name.endswith(".h5"):
                with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
                    found.load_weights(path)
            else:
                found.load_weights(path)
        else:
            found = keras.models.load_model(path)
        assert same_arrays(found.get_weights(), expected)
    assert len(list(tmp_path.iterdir())) == 4


def test_training_continues_while_a_file_is_written(tmp_path: Path, slow_disk: threading.Event) -> None:
    class Release(keras.callbacks.Callback):
        went_on = False

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                # The first file is not there yet, and its weights are changed in this epoch.
                Release.went_on = not (tmp_path / "1.safetensors").exists()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if Release.went_on:
                slow_disk.set()

    saver = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.safetensors", save_weights_only=True, asynchronous=True)
    weights, trained = Weights(), model()
    trained.fit(X, Y, epochs=2, batch_size=8, verbose=0, callbacks=[weights, saver, Release()])
    assert Release.went_on
    found = model()
    found.load_weights(tmp_path / "1.safetensors")
    assert same_arrays(found.get_weights(), weights.seen[0]) and not same_arrays(weights.seen[0], weights.seen[1])


def fails(*arguments: Any) -> NoReturn:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("epochs", "begun"), [(3, 2), (1, 1)])
def test_an_error_comes_at_the_next_hook_and_at_the_end(
    epochs: int, begun: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "m_{epoch}.keras", asynchronous=True)
    seen: list[int] = []

    class Wait(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            seen.append(epoch)
            writer = saver._saver._writer
            while writer is not None and writer.busy:
                time.sleep(0.001)

    monkeypatch.setattr("oncue.saving.keras_archive.replacing", fails)
    with pytest.raises(OSError, match="No space left") as caught:
        model().fit(X, Y, epochs=epochs, verbose=0, callbacks=[Wait(), saver])
    assert any("in the background" in note for note in caught.value.__notes__)
    assert len(seen) == begun and not list(tmp_path.iterdir())


def test_an_error_in_training_is_the_one_that_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fails(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr("oncue.saving.keras_archive.replacing", fails)
    gate, run = threading.Event(), keras.callbacks.ModelCheckpoint(tmp_path / "m.keras", asynchronous=True)
    write = run._saver.commit

    def later(*arguments: Any) -> None:
        gate.wait(10)
        write(*arguments)

    monkeypatch.setattr(run._saver, "commit", later)
    threading.Timer(0.2, gate.set).start()
    with pytest.raises(KeyboardInterrupt) as caught:
        model().fit(X, Y, epochs=3, verbose=0, callbacks=[Fails(), run])
    assert any("ModelCheckpoint.close raised OSError" in note for note in caught.value.__notes__)


def test_a_file_under_way_is_finished_when_training_fails(tmp_path: Path, slow_disk: threading.Event) -> None:
    class Fails(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                threading.Timer(0.2, slow_disk.set).start()
                raise RuntimeError("mine")

    saver = keras.callbacks.ModelCheckpoint(tmp_path / "m.keras", asynchronous=True)
    with pytest.raises(RuntimeError, match="mine"):
        model().fit(X, Y, epochs=3, verbose=0, callbacks=[Fails(), saver])
    keras.models.load_model(tmp_path / "m.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]


def test_two_of_them_and_what_is_kept(tmp_path: Path) -> None:
    every = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.weights.h5", save_weights_only=True, keep=2, asynchronous=True
    )
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor="loss", save_best_only=True, resume_best=True, asynchronous=True
    )
    history = model().fit(X, Y, epochs=5, verbose=0, callbacks=[every, best])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "4.weights.h5",
        "5.weights.h5",
        "best.keras",
        "best.keras.oncue.json",
        "epoch.weights.h5.oncue.json",
    ]
    record = json.loads((tmp_path / "best.keras.oncue.json").read_text())["files"][0]
    assert record["score"] == pytest.approx(min(history.history["loss"]))


def test_it_says_when_the_file_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "m.keras", verbose=1, asynchronous=True)
    model().fit(X, Y, epochs=2, verbose=0, callbacks=[saver])
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [line.split(" model")[0] for line in lines] == [
        "Epoch 1: saving", "Epoch 1: finished saving", "Epoch 2: saving", "Epoch 2: finished saving",
    ]  # fmt: skip


def test_a_model_that_saves_in_its_own_way(tmp_path: Path) -> None:
    class Own(keras.Sequential):
        def save(self, *arguments: Any, **words: Any) -> None:
            raise AssertionError("not reached")

    own = Own([layers.Input((3,)), layers.Dense(1)])
    own.compile("sgd", "mse")
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "m.keras", asynchronous=True)
    with pytest.raises(ValueError, match="`Own.save` is a method of your own"):
        own.fit(X, Y, verbose=0, callbacks=[saver])


def test_a_host_that_cannot(tmp_path: Path) -> None:
    class Host:
        stop_training = False
        optimizer = None

    saver = keras.callbacks.ModelCheckpoint(tmp_path / "m.keras", asynchronous=True)
    saver.set_model(Host())
    with pytest.raises(ValueError, match="can't save a Host in the background"):
        saver.on_train_begin()


def test_a_torch_module(tmp_path: Path) -> None:
    module = keras.Model(torch.nn.Linear(3, 1))
    module.compile("sgd", "mse")
    saver = keras.callbacks.ModelCheckpoint(tmp_path / "m.safetensors", save_weights_only=True, asynchronous=True)
    module.fit(X, Y, epochs=2, verbose=0, callbacks=[saver])
    from safetensors.torch import load_file

    assert torch.equal(tensor(load_file(tmp_path / "m.safetensors")["weight"]), module.module.weight)


@pytest.mark.parametrize("first", [True, False])
def test_any_callback_finds_the_last_file_at_the_end_of_the_run(
    first: bool, tmp_path: Path, slow_disk: threading.Event
) -> None:
    class Upload(keras.callbacks.Callback):
        found = b""

        def on_train_end(self, logs: Any = None) -> None:
            self.found = (tmp_path / "last.safetensors").read_bytes()

    saver = keras.callbacks.ModelCheckpoint(tmp_path / "last.safetensors", save_weights_only=True, asynchronous=True)
    upload = Upload()
    slow_disk.set()

    def slow_from_here(epoch: int, logs: Any) -> None:
        if epoch == 1:
            slow_disk.clear()
            threading.Timer(0.1, slow_disk.set).start()

    slow = keras.callbacks.LambdaCallback(on_epoch_end=slow_from_here)
    model().fit(X, Y, epochs=2, verbose=0, callbacks=[slow, *([upload, saver] if first else [saver, upload])])
    assert upload.found == (tmp_path / "last.safetensors").read_bytes()
