"""ModelCheckpoint: which files there are, what is said before the first step, and what survives a restart."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import oncue as keras
from helpers import environment
from oncue.callbacks import Callback, CallbackList, EarlyStopping, ModelCheckpoint, TerminateOnNaN
from oncue.checkpoints import KeepBest, KeepEvery, KeepLast

NAN = math.nan


class Standin:
    """The contract's seven members, and nothing else; a file holds the number of epochs trained so far."""

    stop_training = False
    optimizer: Any = None
    trained = 0

    def get_weights(self) -> int:
        return self.trained

    def set_weights(self, weights: int) -> None:
        self.trained = weights

    def save_weights(self, filepath: str) -> None:
        self.save(filepath)

    def load_weights(self, filepath: str) -> None:
        self.trained = int(Path(filepath).read_text())

    def save(self, filepath: str) -> None:
        Path(filepath).write_text(str(self.trained))


def train(
    callbacks: Any,
    epochs: Sequence[dict[str, Any]],
    model: Any = None,
    batches: Sequence[dict[str, Any]] = (),
    names: Sequence[str] | None = None,
    first: int = 0,
) -> CallbackList:
    """Run the hooks of a training with scripted logs; `names` are announced before it, if given."""
    model = model or Standin()
    run = CallbackList(callbacks, model=model, verbose=0, epochs=len(epochs), steps=len(batches) or None)
    with run.run():
        if names is not None:
            run.expect(names, any(name.startswith("val_") for name in names))
        run.on_train_begin()
        for epoch, logs in enumerate(epochs, first):
            run.on_epoch_begin(epoch)
            model.trained = epoch + 1
            for batch, values in enumerate(batches):
                run.on_train_batch_end(batch, dict(values))
            run.on_epoch_end(epoch, dict(logs))
            if model.stop_training:
                break
        run.on_train_end()
    return run


def series(*values: float | None, name: str = "val_loss") -> list[dict[str, Any]]:
    return [{"loss": 1.0} if value is None else {"loss": 1.0, name: value} for value in values]


def held(folder: Path) -> dict[str, int]:
    """Return from each saved file to the epoch that it holds."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".json")
    return {path.relative_to(folder).as_posix(): int(path.read_text()) for path in found}


# What is saved ----------------------------------------------------------------------------------------------------


def test_plain_arguments_leave_nothing_but_the_files(tmp_path: Path) -> None:
    train(ModelCheckpoint(tmp_path / "m_{epoch:02d}.keras"), series(3, 1, 2))
    train(ModelCheckpoint(tmp_path / "best.keras", save_best_only=True), series(3, 1, 2))
    assert sorted(os.listdir(tmp_path)) == ["best.keras", "m_01.keras", "m_02.keras", "m_03.keras"]
    assert held(tmp_path)["best.keras"] == 2


def test_an_epoch_without_validation_replaces_nothing_and_warns_of_nothing(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "best.keras", save_best_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(saver, series(None, 3, None, 2, None, 2, None), names=["loss", "val_loss"])
    assert held(tmp_path) == {"best.keras": 4}
    assert saver.best == 2


@pytest.mark.parametrize("value", [NAN, -math.inf, math.inf])
def test_what_is_not_finite_is_never_best(tmp_path: Path, value: float) -> None:
    saver = ModelCheckpoint(tmp_path / "best.keras", save_best_only=True)
    train(saver, series(value, 3, value, 2, value))
    assert held(tmp_path) == {"best.keras": 4}
    assert saver.best == 2


def test_equal_is_not_better(tmp_path: Path) -> None:
    train(ModelCheckpoint(tmp_path / "best.keras", save_best_only=True), series(2, 2, 2))
    assert held(tmp_path) == {"best.keras": 1}


@pytest.mark.parametrize("best_only", [True, False])
def test_nothing_is_saved_when_training_ended_in_nan(tmp_path: Path, best_only: bool) -> None:
    saver = ModelCheckpoint(tmp_path / "m.keras", save_best_only=best_only, monitor="val_loss")
    epochs = [{"loss": 1.0, "val_loss": 1.0}, {"loss": NAN, "val_loss": 0.5}]
    train([saver, TerminateOnNaN()], epochs)
    assert held(tmp_path) == {"m.keras": 1}
    assert saver.best == (1.0 if best_only else None)


def test_the_best_of_a_second_fit_must_beat_the_first(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "{val_loss:.1f}.keras", save_best_only=True)
    train(saver, series(3, 2))
    train(saver, series(2.5, 1.5))
    assert sorted(held(tmp_path)) == ["1.5.keras", "2.0.keras", "3.0.keras"]


@pytest.mark.parametrize(
    ("threshold", "best"), [(2.5, {"best.keras": 3}), (1, {}), (math.inf, {"best.keras": 3}), (-math.inf, {})]
)
def test_a_value_to_beat(tmp_path: Path, threshold: float, best: dict[str, int]) -> None:
    saver = ModelCheckpoint(tmp_path / "best.keras", save_best_only=True, initial_value_threshold=threshold)
    train(saver, series(4, 3, 2))
    assert held(tmp_path) == best


def test_best_by_the_running_mean_of_batches(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "e{epoch}b{batch}.keras", monitor="loss", save_best_only=True, save_freq=1)
    train(saver, series(1, 1), batches=[{"loss": 3.0}, {"loss": 2.0}, {"loss": 2.5}])
    assert held(tmp_path) == {"e1b1.keras": 1, "e1b2.keras": 1}
    assert saver.best == 2.0


@pytest.mark.parametrize(
    ("options", "files"),
    [
        ({"every": "2 epochs"}, ["e2.keras", "e4.keras"]),
        ({"every": "3 steps"}, ["e2.keras", "e3.keras", "e5.keras"]),
        ({"save_freq": 3}, ["e2.keras", "e3.keras", "e5.keras"]),
        ({"save_freq": np.int64(3)}, ["e2.keras", "e3.keras", "e5.keras"]),
        ({"every": "1 day"}, []),
    ],
)
def test_periods(tmp_path: Path, options: dict[str, Any], files: list[str]) -> None:
    train(ModelCheckpoint(tmp_path / "e{epoch}.keras", **options), series(*range(5)), batches=[{"loss": 1.0}] * 2)
    assert sorted(held(tmp_path)) == files


def test_the_period_of_keras_2(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        saver = ModelCheckpoint(tmp_path / "e{epoch}.keras", period=2)
    train(saver, series(*range(5)))
    assert sorted(held(tmp_path)) == ["e2.keras", "e4.keras"]


def test_a_period_of_epochs_ignores_batches(tmp_path: Path) -> None:
    assert not CallbackList(ModelCheckpoint(tmp_path / "m.keras")).listens("on_train_batch_end")
    assert CallbackList(ModelCheckpoint(tmp_path / "m.keras", save_freq=9)).listens("on_train_batch_end")


def test_an_old_name_in_the_file_name(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "{val_acc:.2f}.hdf5", monitor="val_acc", mode="max", save_best_only=True)
    train(saver, series(0.5, 0.75, name="val_accuracy"), names=["loss", "val_accuracy"])
    assert held(tmp_path) == {"0.50.hdf5": 1, "0.75.hdf5": 2}


def test_an_epoch_without_validation_keeps_its_file(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "{epoch}-{val_loss:.1f}.keras")
    train(saver, series(None, 2, None), names=["loss", "val_loss"])
    assert sorted(held(tmp_path)) == ["1-nan.keras", "2-2.0.keras", "3-nan.keras"]


def test_a_file_name_never_leads_elsewhere(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "in" / "{city}.keras")
    train(saver, [{"loss": 1.0, "city": "../../out"}])
    assert sorted(held(tmp_path)) == ["in/______out.keras"]


def test_a_path_that_is_changed_later_is_used(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "a.keras")
    saver.filepath = str(tmp_path / "b.keras")
    train(saver, series(1))
    assert sorted(held(tmp_path)) == ["b.keras"]
    with pytest.raises(ValueError, match=r"\.keras"):
        saver.filepath = "b.txt"


def test_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "m.keras")
    train(ModelCheckpoint(path, verbose=1), series(1))
    train(ModelCheckpoint(path, verbose=1, save_best_only=True), series(0.5, 0.25, 0.3))
    assert capsys.readouterr().out.splitlines() == [
        "",
        f"Epoch 1: saving model to {path}",
        "",
        f"Epoch 1: finished saving model to {path}",
        "",
        f"Epoch 1: val_loss improved from None to 0.50000, saving model to {path}",
        "",
        f"Epoch 1: finished saving model to {path}",
        "",
        f"Epoch 2: val_loss improved from 0.50000 to 0.25000, saving model to {path}",
        "",
        f"Epoch 2: finished saving model to {path}",
        "",
        "Epoch 3: val_loss did not improve from 0.25000",
    ]


def test_the_journal_says_what_was_saved(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "m.keras", save_best_only=True)
    entries = train(saver, series(0.5, 0.75, 0.25)).journal.of("best")
    assert [(entry.epoch, (entry.data or {})["score"]) for entry in entries] == [(0, 0.5), (2, 0.25)]
    assert entries[1].text.endswith("val_loss 0.25 is better than 0.5")
    assert (entries[1].data or {})["path"] == str(tmp_path / "m.keras")


def test_a_failed_save_is_no_best(tmp_path: Path) -> None:
    class Full(Standin):
        def save(self, filepath: str) -> None:
            if self.trained == 2:
                raise OSError(28, "No space left on device")
            super().save(filepath)

    saver = ModelCheckpoint(tmp_path / "m.keras", save_best_only=True, resume_best=True)
    with pytest.raises(OSError, match="No space left"):
        train(saver, series(3, 2), Full())
    assert saver.best == 3
    again = ModelCheckpoint(tmp_path / "m.keras", save_best_only=True, resume_best=True)
    train(again, [])
    assert again.best == 3


def test_a_value_that_an_earlier_callback_logs_decides_what_is_best(tmp_path: Path) -> None:
    class Scripted(Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            assert logs is not None
            logs["score"] = epoch

    saver = ModelCheckpoint(tmp_path / "best.keras", monitor="score", mode="max", save_best_only=True)
    train([Scripted(), saver], series(1, 1, 1))
    assert held(tmp_path) == {"best.keras": 3}


# Before the first step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"filepath": "m.ckpt"}, ValueError, r"must end in \.keras .*got 'm\.ckpt'"),
        ({"filepath": "m.keras", "save_weights_only": True}, ValueError, r"\.weights\.h5.*save_weights_only=False"),
        ({"filepath": "m.safetensors"}, ValueError, "save_weights_only=True"),
        ({"filepath": b"m.keras"}, TypeError, "must be a string or a path"),
        ({"filepath": None}, TypeError, "must be a string or a path"),
        ({"filepath": "{epoch.real}.keras"}, ValueError, "only a name and a format"),
        ({"save_freq": "batch"}, ValueError, "`save_freq` of ModelCheckpoint must be 'epoch'"),
        ({"save_freq": 0}, ValueError, "1 or more"),
        ({"save_freq": 2.5}, ValueError, "whole number of batches"),
        ({"period": 0}, ValueError, "`period` of ModelCheckpoint"),
        ({"every": "2 epochs", "save_freq": 5}, ValueError, "takes one period"),
        ({"every": "2 epochs", "period": 5}, ValueError, "takes one period"),
        ({"every": 5}, ValueError, "'5 epochs' or '5 steps'"),
        ({"initial_value_threshold": NAN}, ValueError, "initial_value_threshold"),
        ({"initial_value_threshold": "0.5"}, ValueError, "initial_value_threshold"),
        ({"save_best_only": True, "save_freq": 5}, ValueError, "monitor='loss'"),
        ({"save_best_only": True, "every": "10 minutes"}, ValueError, "monitor='loss'"),
        ({"keep": 3}, ValueError, "needs a file name that differs"),
        ({"keep": "worst 3", "filepath": "{epoch}.keras"}, ValueError, "`keep` of ModelCheckpoint"),
        ({"resume_best": True}, ValueError, "save_best_only=True"),
        ({"monitor": ["loss"]}, ValueError, "`monitor` of ModelCheckpoint"),
    ],
)
def test_arguments_that_cant_be_right(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ModelCheckpoint(**{"filepath": "m.keras", **options})


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.hdf5", "m.weights.h5"])
def test_endings_of_models(name: str) -> None:
    assert ModelCheckpoint(name).filepath == name


@pytest.mark.parametrize("name", ["m.weights.h5", "m.h5", "m.hdf5", "m.safetensors"])
def test_endings_of_weights(name: str) -> None:
    assert ModelCheckpoint(name, save_weights_only=True).filepath == name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"filepath": "{val_acuracy:.2f}.keras"}, r"Did you mean \{val_accuracy\}"),
        ({"filepath": "{batch}.keras"}, "Known: epoch, loss, accuracy"),
        ({"filepath": "{val_loss}.keras", "save_freq": 5}, "saves every 5 steps"),
        ({"filepath": "m.keras", "save_best_only": True, "monitor": "val_los"}, "Did you mean `val_loss`"),
    ],
)
def test_names_that_this_run_cant_log(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    options["filepath"] = tmp_path / options["filepath"]
    names = ["loss", "accuracy", "val_loss", "val_accuracy"]
    with pytest.raises(ValueError, match=words):
        train(ModelCheckpoint(**options), series(1), names=names)
    assert held(tmp_path) == {}


def test_a_name_of_validation_without_validation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no validation data"):
        train(ModelCheckpoint(tmp_path / "{val_loss}.keras"), series(1), names=["loss"])


def test_a_name_that_is_never_logged_is_a_key_error_as_in_keras(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"has \{nope\}"):
        train(ModelCheckpoint(tmp_path / "{nope}.keras"), series(1))


def test_a_period_of_batches_invents_no_validation(tmp_path: Path) -> None:
    class Own(Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            pass

    saver = ModelCheckpoint(tmp_path / "{val_loss}.keras", every="1 step")
    with pytest.raises(KeyError, match="val_loss"):
        train([saver, Own()], series(1), batches=[{"loss": 1.0}], names=["loss", "val_loss"])


def test_the_folder_is_made_and_tried(tmp_path: Path) -> None:
    train(ModelCheckpoint(tmp_path / "a" / "b" / "run{epoch}" / "m.keras"), [])
    assert (tmp_path / "a" / "b").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cant_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**kwargs: Any) -> tuple[int, str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    seen: list[str] = []
    model = Standin()
    model.save = seen.append  # type: ignore[method-assign]  # must not be called
    with pytest.raises(PermissionError, match=r"can't write where its `filepath` points .*m\.keras"):
        train(ModelCheckpoint(tmp_path / "m.keras"), series(1), model)
    assert model.trained == 0 and not seen


@pytest.mark.parametrize(
    ("name", "weights_only", "numbers"),
    [("m.keras", False, 3 * 15), ("m.weights.h5", True, 3 * 15), ("m.safetensors", True, 15), ("m.h5", True, 15)],
)
def test_a_disk_without_room_for_a_file(
    name: str, weights_only: bool, numbers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    model.compile("adam", "mse")
    saver = ModelCheckpoint(tmp_path / name, save_weights_only=weights_only)
    # What the optimizer counts with takes some bytes more.
    free = shutil.disk_usage(tmp_path)._replace(free=4 * numbers - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(OSError, match=r"needs about 0\.0 MB.* so training doesn't begin.*m\.") as caught:
        model.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0, callbacks=[saver])
    assert caught.value.errno == errno.ENOSPC
    assert model.optimizer.iterations == 0 and not list(tmp_path.iterdir())
    roomy = free._replace(free=4 * numbers + 64)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: roomy)
    model.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0, callbacks=[saver])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(OSError, match=r"a/m\.keras"):
        train(ModelCheckpoint(tmp_path / "a" / "m.keras"), series(1))


@pytest.mark.parametrize("name", ["m.keras", "m_{epoch}.keras"])
def test_a_folder_in_the_place_of_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.keras").mkdir()
    (tmp_path / "m_1.keras").mkdir()
    with pytest.raises(IsADirectoryError, match=r"this one is a folder.*m(_1)?\.keras"):
        train(ModelCheckpoint(tmp_path / name), series(1))


# keep -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "options", "epochs"),
    [
        (2, {}, [5, 6]),
        ("last 1", {}, [6]),
        ("best 2", {}, [3, 5]),
        (KeepEvery(3), {}, [3, 6]),
        ([KeepLast(1), KeepBest(1)], {}, [3, 6]),
        (2, {"save_best_only": True}, [2, 3]),
        ("best 2", {"mode": "max"}, [1, 6]),
    ],
)
def test_what_is_kept(tmp_path: Path, keep: Any, options: dict[str, Any], epochs: list[int]) -> None:
    saver = ModelCheckpoint(tmp_path / "m_{epoch}.keras", keep=keep, **options)
    train(saver, series(5, 4, 1, 3, 2, 6))
    assert held(tmp_path) == {f"m_{epoch}.keras": epoch for epoch in epochs}
    data = json.loads((tmp_path / "m_epoch.keras.oncue.json").read_text())
    assert [record["epoch"] for record in data["files"]] == epochs


def test_files_of_others_and_of_earlier_runs_stay(tmp_path: Path) -> None:
    (tmp_path / "m_0.keras").write_text("0")
    train(ModelCheckpoint(tmp_path / "m_{epoch}.keras", keep=1), series(1, 1, 1))
    assert sorted(held(tmp_path)) == ["m_0.keras", "m_3.keras"]
    train(ModelCheckpoint(tmp_path / "m_{epoch}.keras", keep=1), series(1, 1))
    assert sorted(held(tmp_path)) == ["m_0.keras", "m_2.keras", "m_3.keras"]


def test_the_old_file_goes_only_when_the_new_one_is_there(tmp_path: Path) -> None:
    class Fails(Standin):
        def save(self, filepath: str) -> None:
            if self.trained == 3:
                raise OSError(28, "No space left on device")
            super().save(filepath)

    with pytest.raises(OSError, match="No space left"):
        train(ModelCheckpoint(tmp_path / "m_{epoch}.keras", keep=1), series(1, 1, 1), Fails())
    assert held(tmp_path) == {"m_2.keras": 2}


def test_a_resumed_run_continues_its_files(tmp_path: Path) -> None:
    path = tmp_path / "m_{epoch}.keras"
    first = ModelCheckpoint(path, keep="best 2", every="1 epoch")
    train(first, series(3, 1))
    second = ModelCheckpoint(path, keep="best 2", every="1 epoch")
    run = CallbackList(second, model=Standin())
    with run.run():
        run.on_train_begin()
        second.load_state_dict(first.state_dict())
        for epoch, value in ((2, 2.0), (3, 5.0)):
            run.on_epoch_begin(epoch)
            run.model.trained = epoch + 1
            run.on_epoch_end(epoch, {"val_loss": value})
    assert held(tmp_path) == {"m_2.keras": 2, "m_3.keras": 3}


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([None, NAN, 1.0, 2.0, 3.0, 4.0]), max_size=8),
    st.integers(0, 8),
    st.sampled_from([{"save_best_only": True}, {"every": "2 epochs"}, {"every": "3 steps"}, {"keep": 2}]),
)
def test_interrupted_anywhere_the_files_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None], cut: int, options: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    batches = [{"loss": 1.0}] * 2
    names = ["loss", "val_loss"]
    logs = series(*values)
    train(ModelCheckpoint(folder / "a" / "{epoch}.keras", **options), logs, batches=batches, names=names)
    first = ModelCheckpoint(folder / "b" / "{epoch}.keras", **options)
    train(first, logs[:cut], batches=batches, names=names)
    second = ModelCheckpoint(folder / "b" / "{epoch}.keras", **options)

    class Resume(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            second.load_state_dict(json.loads(json.dumps(first.state_dict())))

    train([second, Resume()], logs[cut:], batches=batches, names=names, first=len(logs[:cut]))
    assert held(folder / "a") == held(folder / "b")
    assert (
        second.best == min((v for v in values if v is not None and v == v), default=None)
        or "save_best_only" not in options
    )


HOLDER = """
import sys, time
from oncue.callbacks import ModelCheckpoint
saver = ModelCheckpoint(sys.argv[1], keep=1)
saver.set_model(object())
saver.on_train_begin()
print("begun", flush=True)
time.sleep(600)
"""


def test_two_runs_that_would_record_the_same_files(tmp_path: Path) -> None:
    path = tmp_path / "m_{epoch}.keras"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "begun\n"
        with pytest.raises(RuntimeError, match=r"Another run .*m_epoch\.keras\.oncue\.json"):
            train(ModelCheckpoint(path, keep=1), series(1))
        # Other files are not locked, and neither are files without a manifest.
        train(ModelCheckpoint(tmp_path / "n_{epoch}.keras", keep=1), series(1))
        train(ModelCheckpoint(path), series(1))
        other.kill()
    train(ModelCheckpoint(path, keep=1), series(1, 1))
    assert sorted(os.listdir(tmp_path)) == [
        "m_2.keras", "m_epoch.keras.oncue.json", "n_1.keras", "n_epoch.keras.oncue.json",
    ]  # fmt: skip


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    train(ModelCheckpoint(tmp_path / "m_{epoch}.keras", keep=1), series(1, 1))
    assert sorted(os.listdir(tmp_path)) == ["m_2.keras", "m_epoch.keras.oncue.json"]


def test_a_run_that_ended_without_saying_so_keeps_none_out(tmp_path: Path) -> None:
    saver = ModelCheckpoint(tmp_path / "m_{epoch}.keras", keep=1)
    saver.set_model(Standin())
    saver.on_train_begin()
    train(ModelCheckpoint(tmp_path / "m_{epoch}.keras", keep=1), series(1, 1))
    assert sorted(os.listdir(tmp_path)) == ["m_2.keras", "m_epoch.keras.oncue.json"]


@pytest.mark.parametrize("form", ["d", "s", "x", "03d"])
@pytest.mark.parametrize("others", [(), (keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None),)])
def test_a_format_that_is_none_for_floats_is_refused_before_the_first_step(
    form: str, others: Any, tmp_path: Path
) -> None:
    saver = ModelCheckpoint(tmp_path / f"{{epoch:02d}}-{{loss:{form}}}.keras")
    made = scripted_model()
    with pytest.raises(ValueError, match=rf"\{{loss:{form}\}}, and the values of loss are floats.*loss:\.4f"):
        made.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[saver, *others])
    assert os.listdir(tmp_path) == [] and int(made.optimizer.iterations) == 0


# resume_best ------------------------------------------------------------------------------------------------------


def restart(path: Path, *values: float | None, **options: Any) -> ModelCheckpoint:
    saver = ModelCheckpoint(path, save_best_only=True, **{"resume_best": True, **options})
    train(saver, series(*values), names=["loss", "val_loss"])
    return saver


def test_a_worse_second_run_leaves_the_best_file(tmp_path: Path) -> None:
    path = tmp_path / "best.keras"
    restart(path, 3, 1, 2)
    before = path.read_bytes()
    assert restart(path, 2, 1, 1.5).best == 1
    assert path.read_bytes() == before
    assert restart(path, 2, 2, 0.5).best == 0.5
    assert held(tmp_path) == {"best.keras": 3}


def test_without_it_the_file_is_replaced_as_in_keras(tmp_path: Path) -> None:
    path = tmp_path / "best.keras"
    restart(path, 1)
    restart(path, None, 2, resume_best=False)
    assert held(tmp_path) == {"best.keras": 2}


def test_the_better_of_threshold_and_record_counts(tmp_path: Path) -> None:
    path = tmp_path / "best.keras"
    restart(path, 1)
    assert restart(path, initial_value_threshold=0.5).best == 0.5
    assert restart(path, initial_value_threshold=2.0).best == 1


def test_a_changed_or_lost_best_is_not_gone_by(tmp_path: Path) -> None:
    path = tmp_path / "best.keras"
    restart(path, 1)
    path.write_text("9")
    for _ in range(2):
        with (
            pytest.warns(UserWarning, match="its content has changed"),
            pytest.raises(ValueError, match="doesn't know the val_loss of .*best.keras.*initial_value_threshold"),
        ):
            restart(path, 2)
    assert path.read_text() == "9"
    path.unlink()
    assert restart(path).best is None


def real(monitor: str = "score", name: str = "score", value: float = 1.0, **options: Any) -> ModelCheckpoint:
    """Train a real model for an epoch in which a value is scripted."""
    weights_only = not str(options["filepath"]).endswith((".keras", "model.h5"))
    saver = ModelCheckpoint(monitor=monitor, save_best_only=True, save_weights_only=weights_only, **options)
    add = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update({name: value}))
    scripted_model().fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[add, saver])
    return saver


def scripted_model() -> Any:
    made = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    made.compile("sgd", "mse")
    return made


FORMATS = ["m.keras", "m_{epoch}.keras", "model.h5", "m.weights.h5", "weights.h5", "m.safetensors"]


@pytest.mark.parametrize(
    ("name", "asynchronous"), [*((name, False) for name in FORMATS), ("m.keras", True), ("m.safetensors", True)]
)
def test_a_file_of_a_run_without_resume_best_says_its_score(name: str, asynchronous: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    options: dict[str, Any] = {"filepath": path, "mode": "max", "asynchronous": asynchronous}
    real(value=0.5, **options)
    saved = [file.read_bytes() for file in tmp_path.iterdir()]
    assert real(value=0.25, resume_best=True, **options).best == 0.5
    assert [file.read_bytes() for file in tmp_path.iterdir() if file.suffix != ".json"] == saved, "the better one stays"
    assert real(value=0.75, resume_best=True, **options).best == 0.75
    with pytest.raises(ValueError, match="best by `score` with mode='max', .* to go on by `score` with mode='min'"):
        real(value=0.25, resume_best=True, filepath=path, mode="min")
    with pytest.raises(ValueError, match="to go on by `loss` with mode='min'"):
        real("loss", resume_best=True, filepath=path)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_says_no_score_is_not_replaced_in_silence(name: str, tmp_path: Path) -> None:
    path = tmp_path / name.format(epoch=1)
    made = scripted_model()
    made.save(path) if path.name.endswith((".keras", "model.h5")) else made.save_weights(path)
    before = path.read_bytes()
    options: dict[str, Any] = {"filepath": tmp_path / name, "mode": "max", "resume_best": True}
    with pytest.raises(ValueError, match=r"doesn't know the score of .*initial_value_threshold.*resume_best=False"):
        real(value=0.25, **options)
    assert real(value=0.25, initial_value_threshold=0.5, **options).best == 0.5
    assert path.read_bytes() == before
    assert real(value=0.75, initial_value_threshold=0.5, **options).best == 0.75
    assert real(value=0.5, **options).best == 0.75, "from now on it says its score"


def test_the_best_of_several_files(tmp_path: Path) -> None:
    path = tmp_path / "{epoch}-{val_loss:.1f}.keras"
    restart(path, 3, 2, keep=2)
    assert restart(path, 2.5, 1.0, keep=2).best == 1.0
    assert sorted(held(tmp_path)) == ["2-1.0.keras", "2-2.0.keras"]


def test_another_monitor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.keras"
    restart(path, 1)
    with pytest.raises(ValueError, match="no score of `loss`, but of `val_loss`"):
        restart(path, 1, monitor="loss")
    assert held(tmp_path) == {"best.keras": 1}


def test_a_kill_between_file_and_record_loses_no_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.keras"
    restart(path, 3)
    with monkeypatch.context() as patch:
        patch.setattr("oncue.checkpoints.manifest.Manifest.record", _killed)
        with pytest.raises(KeyboardInterrupt):
            restart(path, None, 1)
    assert restart(path, 2).best == 1
    assert held(tmp_path) == {"best.keras": 2}


def _killed(manifest: Any) -> None:
    raise KeyboardInterrupt


# With a model -----------------------------------------------------------------------------------------------------


def fit(callbacks: Any, epochs: int = 3, **options: Any) -> Any:
    model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    model.fit(x, y, validation_data=(x, y), batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks, **options)
    return model


def test_best_file_and_restored_weights_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "best.weights.h5"
    saver = ModelCheckpoint(path, save_best_only=True, save_weights_only=True)
    model = fit([saver, EarlyStopping(patience=2, restore_best_weights=True)])
    wanted = model.get_weights()
    model.set_weights([weight * 0 for weight in wanted])
    model.load_weights(path)
    for got, weight in zip(model.get_weights(), wanted, strict=True):
        np.testing.assert_array_equal(got, weight)


def test_validation_every_second_epoch(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(ModelCheckpoint(tmp_path / "m_{epoch}.keras", save_best_only=True), epochs=4, validation_freq=2)
    assert sorted(os.listdir(tmp_path)) == ["m_2.keras", "m_4.keras"]


def test_a_model_file_opens(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    model = fit(ModelCheckpoint(path))
    x = np.ones((1, 2), "float32")
    again = keras.models.load_model(path)
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0))
