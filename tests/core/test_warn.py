"""Every warning points at the line of the user, however deep in oncue its reason was found."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import torch
from late_device import LateDevice
from torch.utils.data import Dataset

import oncue
from helpers import damage, normal
from oncue import hosts, layers
from oncue.callbacks import (
    BackupAndRestore,
    BatchSizeFinder,
    Callback,
    CSVLogger,
    EarlyStopping,
    JournalLogger,
    LambdaCallback,
    LearningRateFinder,
    LearningRateScheduler,
    ModelCheckpoint,
    Profile,
    ReduceLROnPlateau,
    RemoteMonitor,
    TensorBoard,
    TerminateOnNaN,
    Tracker,
    WeightAverage,
)
from oncue.checkpoints import Checkpoints, KeepLast
from oncue.checkpoints.store import Store
from oncue.core.needs import Lacks
from oncue.core.ranks import Ranks
from oncue.core.warn import kept, warn
from oncue.datasets import mnist
from oncue.feeding.arrays import ArrayBatches
from oncue.hosts.run import HostedRun
from oncue.legacy import warning as legacy_warning
from oncue.legacy.modules import MODULES
from oncue.optimizers import SGD, Adamax
from oncue.training.gradient_sum import GradientSum, LateNumbers
from oncue.training.parallel import Parallel

SOURCE = Path(oncue.__file__).parent
X = normal(8, 3)
Y = X[:, :1]


def dense(**options: Any) -> Any:
    made = oncue.Sequential([layers.Input((3,)), layers.Dense(1)])
    made.compile(**{"optimizer": Adamax(), "loss": "mse", **options})
    return made


def backed_up(folder: Path, *others: Callback) -> None:
    """Train for an epoch and fail, so that a backup stays."""

    class Fail(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise ConnectionError

    with pytest.raises(ConnectionError):
        dense().fit(X, Y, epochs=3, verbose=0, callbacks=[*others, BackupAndRestore(folder), Fail()])


def both_files(folder: Path) -> list[Callback]:
    """Return a log that is appended to and a backup."""
    return [CSVLogger(folder / "log.csv", append=True), BackupAndRestore(folder / "backup")]


def interrupted_at_once(folder: Path) -> None:
    """Train for a step and fail, so that there is no backup yet."""

    class Fail(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        dense().fit(X, Y, verbose=0, callbacks=[*both_files(folder), Fail()])


class Keeps(Callback):
    """Holds an object with a state of its own."""

    class Part:
        def __init__(self, state: Any) -> None:
            self.state = state

        def state_dict(self) -> Any:
            return self.state

        def load_state_dict(self, state: Any) -> None:
            self.state = state

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.part = self.Part(state)


CASES: dict[str, Callable[[Path, pytest.MonkeyPatch], Any]] = {}


def case(run: Callable[[Path, pytest.MonkeyPatch], Any]) -> Callable[[Path, pytest.MonkeyPatch], Any]:
    CASES[run.__name__] = run
    return run


@case
def a_checkpoint_of_another_loop_has_other_callbacks(folder: Path, patch: pytest.MonkeyPatch) -> None:
    run = HostedRun([EarlyStopping("loss")], Lacks("this loop", {}))
    run.begin(dense(), owner=run.callbacks, epochs=1)
    state = run.state()
    run.end()
    run = HostedRun([], Lacks("this loop", {}))
    run.begin(dense(), owner=run.callbacks, epochs=1)
    run.restore(state, 0)
    run.end()


@case
def an_average_of_nothing(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(X, Y, verbose=0, callbacks=[WeightAverage(start_from_epoch=3)])


@case
def an_average_that_was_not_measured(folder: Path, patch: pytest.MonkeyPatch) -> None:
    net = torch.nn.Linear(1, 1)
    with hosts.loop(net, None, [WeightAverage()], epochs=1) as run:
        for _ in run.epochs():
            for _ in run.batches([1]):
                pass
            run.end_epoch(val_loss=0.5)


class Unreachable:
    """A service of trackers."""

    def start(self, identity: Any, config: Any) -> str:
        raise ConnectionError("no route to host")

    def log(self, values: Any, step: int) -> None: ...

    def tell(self, decisions: Any, step: int) -> None: ...

    def keep(self, path: str) -> None: ...

    def finish(self, status: str) -> None: ...


@case
def a_tracker_whose_service_is_dead(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(X, Y, verbose=0, callbacks=[Tracker(Unreachable())])


@case
def a_tracker_whose_file_is_not_there(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Reached(Unreachable):
        def start(self, identity: Any, config: Any) -> str:
            return "first"

    dense().fit(X, Y, verbose=0, callbacks=[Tracker(Reached(), artifacts="gone.keras")])


@case
def a_test_of_rates_without_a_suggestion(folder: Path, patch: pytest.MonkeyPatch) -> None:
    x = normal(16, 3)
    dense().fit(x, x[:, :1] * np.nan, batch_size=1, verbose=0, callbacks=[LearningRateFinder()])


@case
def validation_that_is_never_due(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(X, Y, validation_data=(X, Y), validation_freq=2, verbose=0)


@case
def a_test_of_sizes_without_a_suggestion(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def full(batch: Any, rows: int) -> Any:
        raise MemoryError

    model = dense()
    patch.setattr("oncue.training.trial_steps.repeated", full)
    model.fit(X, Y, verbose=0, callbacks=[BatchSizeFinder()])


@case
def a_loop_that_was_not_told_of_a_scheduler(folder: Path, patch: pytest.MonkeyPatch) -> None:
    net = torch.nn.Linear(1, 1)
    sgd = torch.optim.SGD(net.parameters())
    torch.optim.lr_scheduler.ExponentialLR(sgd, 0.5)
    with hosts.loop(net, sgd, [LearningRateScheduler(lambda epoch: 0.1)], epochs=1):
        pass


@case
def a_backup_of_keras_without_the_state_of_callbacks(folder: Path, patch: pytest.MonkeyPatch) -> None:
    import keras

    (folder / "training_metadata.json").write_text('{"epoch": 1, "batch": 0}')
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((2, 1), "float32")
    model.fit(x, x, epochs=2, verbose=0, callbacks=hosts.Keras(keras.callbacks.BackupAndRestore(folder)))


@case
def a_large_array_that_building_changes(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Counts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line, self.counts = torch.nn.Linear(3, 1), np.zeros(2**20)

        def forward(self, x: torch.Tensor) -> Any:
            self.counts[0] += 1
            return self.line(x)

    made = oncue.Model(Counts())
    made.compile("sgd", "mse")
    made.fit(X, Y, verbose=0)


@case
def targets_that_are_repeated(folder: Path, patch: pytest.MonkeyPatch) -> None:
    made = oncue.Sequential([layers.Input((3,)), layers.Dense(2)])
    made.compile("sgd", "mse")
    made.fit(X, Y, validation_data=(X, Y), epochs=2, verbose=0)


@case
def batches_with_fewer_rows_than_processes(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Three(Ranks):
        size = 3

        def gather_texts(self, text: str, what: str) -> list[str]:
            return [text] * 3

    group: Any = Three()
    run = Parallel(dense(), group)
    run.comparison.agree_on_run("fit", run.batches(ArrayBatches(X, Y, batch_size=2, device=oncue.backend.device())))


@case
def gradients_that_change_on_a_device(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Two(Ranks):
        def sum_(self, tensor: Any, what: str = "") -> Any:
            return tensor.mul_(2)

        def read(self, tensor: Any, what: str = "") -> Any:
            return tensor.tolist()

        def wait(self, wait: Callable[[], None], what: str = "") -> None:
            wait()

    class Event:
        def record(self, stream: Any) -> None:
            pass

        def synchronize(self) -> None:
            pass

    group: Any = Two()
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    sums = GradientSum(weights, 0, group, LateNumbers(2, Event))
    for missing in (False, False, True, False):
        for weight in weights:
            weight.grad = torch.ones(1)
        weights[0].grad = None if missing else weights[0].grad
        sums([])


@case
def what_compile_was_told_cant_be_written(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense(loss=torch.nn.MSELoss()).save(folder / "m.keras")


@case
def several_files_under_the_name_of_one(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().save_weights(folder / "w.weights.h5", max_shard_size=1)


@case
def weights_of_another_shape(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().save_weights(folder / "w.weights.h5")
    other = oncue.Sequential([layers.Input((3,)), layers.Dense(2)])
    other.load_weights(folder / "w.weights.h5", skip_mismatch=True)


@case
def an_optimizer_that_isnt_built(folder: Path, patch: pytest.MonkeyPatch) -> None:
    one = dense()
    one.fit(X, Y, verbose=0)
    one.save_weights(folder / "w.weights.h5")
    dense().load_weights(folder / "w.weights.h5")


@case
def an_old_file_with_another_optimizer(folder: Path, patch: pytest.MonkeyPatch) -> None:
    import h5py

    one = dense()
    one.fit(X, Y, verbose=0)
    one.save(folder / "m.h5")
    with h5py.File(folder / "m.h5", "r+") as file:
        names = file["optimizer_weights"].attrs["weight_names"]
        file["optimizer_weights"].attrs["weight_names"] = names[:-1]
    oncue.models.load_model(folder / "m.h5")


@case
def a_profiler_that_is_busy(folder: Path, patch: pytest.MonkeyPatch) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        dense().fit(X, Y, verbose=0, callbacks=[TensorBoard(folder, profile_batch=1)])


@case
def a_profile_that_cant_be_written(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise OSError("no room")

    patch.setattr(torch.profiler.profile, "export_chrome_trace", refuse)
    dense().fit(X, Y, verbose=0, callbacks=[TensorBoard(folder, profile_batch=1)])


@case
def a_snapshot_of_memory_that_cant_be_written(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise OSError("no room")

    patch.setattr("oncue.torch_private.record_memory", lambda on: on)
    patch.setattr("oncue.torch_private.write_memory", refuse)
    weight = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    patch.setattr("oncue.callbacks.profile.tensors_of", lambda model: {"kernel": weight})
    dense().fit(X, Y, verbose=0, callbacks=[Profile(1, folder, memory=True)])


@case
def a_profile_of_batches_that_dont_come(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(X, Y, verbose=0, callbacks=[Profile(100, folder)])


@case
def no_embeddings(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(X, Y, verbose=0, callbacks=[TensorBoard(folder, embeddings_freq=1)])


@case
def an_event_file_that_is_gone(folder: Path, patch: pytest.MonkeyPatch) -> None:
    backed_up(folder / "backup", TensorBoard(folder / "logs"))
    for path in (folder / "logs").glob("**/events*"):
        path.unlink()
    callbacks = [TensorBoard(folder / "logs"), BackupAndRestore(folder / "backup")]
    dense().fit(X, Y, epochs=3, verbose=0, callbacks=callbacks)


@case
def an_event_file_that_lost_its_end(folder: Path, patch: pytest.MonkeyPatch) -> None:
    backed_up(folder / "backup", TensorBoard(folder / "logs"))
    for path in (folder / "logs").glob("**/events*"):
        path.write_bytes(path.read_bytes()[:-1])
    callbacks = [TensorBoard(folder / "logs"), BackupAndRestore(folder / "backup")]
    dense().fit(X, Y, epochs=3, verbose=0, callbacks=callbacks)


@case
def an_event_file_that_is_removed_during_the_run(folder: Path, patch: pytest.MonkeyPatch) -> None:
    remove = LambdaCallback(on_epoch_end=lambda epoch, logs: shutil.rmtree(folder / "logs"))
    dense().fit(X, Y, verbose=0, callbacks=[TensorBoard(folder / "logs"), remove])


@case
def a_log_that_is_no_number(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Word(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["word"] = "high"

    dense().fit(X, Y, verbose=0, callbacks=[Word(), TensorBoard(folder)])


@case
def weights_that_lose_their_fractions(folder: Path, patch: pytest.MonkeyPatch) -> None:
    oncue.metrics.MeanIoU(num_classes=2)([0, 1], [0, 1], sample_weight=[0.5, 0.7])


def two_inputs() -> Any:
    a, b = layers.Input((3,), name="a"), layers.Input((3,), name="b")
    return oncue.Model({"a": a, "b": b}, layers.Add()([a, b]))


@case
def an_input_that_is_left_out(folder: Path, patch: pytest.MonkeyPatch) -> None:
    two_inputs().predict({"a": X, "b": X, "c": X}, verbose=0)


@case
def inputs_in_a_list_for_a_dict(folder: Path, patch: pytest.MonkeyPatch) -> None:
    two_inputs().predict([X, X], verbose=0)


@case
def epochs_that_are_limited(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("KERAS_MAX_EPOCHS", "1")
    dense().fit(X, Y, epochs=2, verbose=0)


@case
def batches_that_are_limited(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("KERAS_MAX_STEPS_PER_EPOCH", "1")
    dense().fit(X, Y, batch_size=4, verbose=0)


@case
def a_generator_that_ends(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(((X, Y) for _ in range(3)), epochs=3, verbose=0)


@case
def fewer_batches_than_steps(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(iter([(X, Y)] * 2), steps_per_epoch=3, verbose=0)


@case
def validation_without_a_seed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def drawn() -> Iterator[Any]:
        own = np.random.default_rng()
        while True:
            yield own.normal(size=(4, 3)).astype("float32"), Y[:4]

    class Fail(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1 and not given:
                raise ConnectionError

    given: list[int] = []
    for _ in range(2):
        with contextlib.suppress(ConnectionError):
            dense().fit(
                X,
                Y,
                epochs=2,
                verbose=0,
                validation_data=drawn(),
                validation_steps=2,
                callbacks=[BackupAndRestore(folder), Fail()],
            )
        given.append(1)


@case
def a_part_that_is_trained_in_inference_mode(folder: Path, patch: pytest.MonkeyPatch) -> None:
    part = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout()).eval()
    model = oncue.Model(torch.nn.Sequential(part, torch.nn.Linear(3, 1)))
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)


@case
def a_data_set_with_a_hidden_memory(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Counts(Dataset[Any]):
        number = 0

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            Counts.number += 1
            return X[index] * Counts.number, Y[index]

    dense().fit(Counts(), verbose=0, callbacks=[BackupAndRestore(folder)])


@case
def a_batch_size_beside_batches(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(iter([(X, Y)]), batch_size=2, verbose=0)


@case
def a_state_that_cant_be_written(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(X, Y, verbose=0, callbacks=[Keeps({"value": object()}), BackupAndRestore(folder)])


@case
def a_state_that_has_no_place(folder: Path, patch: pytest.MonkeyPatch) -> None:
    backed_up(folder, Keeps({"value": 1}))
    dense().fit(X, Y, epochs=3, verbose=0, callbacks=[BackupAndRestore(folder)])


@case
def a_state_that_is_not_taken(folder: Path, patch: pytest.MonkeyPatch) -> None:
    backed_up(folder, Keeps({"value": 1}))
    patch.setattr(Keeps.Part, "load_state_dict", lambda part, state: state["rate"])
    dense().fit(X, Y, epochs=3, verbose=0, callbacks=[Keeps({"value": 1}), BackupAndRestore(folder)])


@case
def a_set_of_objects_with_states(folder: Path, patch: pytest.MonkeyPatch) -> None:
    several = Keeps(None)
    several.part = {Keeps.Part({"value": 1}), Keeps.Part({"value": 2})}
    dense().fit(X, Y, verbose=0, callbacks=[several, BackupAndRestore(folder)])


@case
def a_setting_that_cant_be_set(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Level:
        level = property(lambda layer: layer._level, lambda layer, value: layer.put(value))

    def model(put: Any) -> Any:
        made = dense()
        made.layers[0].__class__ = type("Dense", (Level, layers.Dense), {"_level": 1.0, "put": put})
        return made

    class Fail(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.layers[0].level = 0.5
            if epoch == 1:
                raise ConnectionError

    with pytest.raises(ConnectionError):
        first = model(lambda layer, value: setattr(layer, "_level", value))
        first.fit(X, Y, epochs=2, verbose=0, callbacks=[BackupAndRestore(folder), Fail()])
    model(lambda layer, value: 1 / 0).fit(X, Y, epochs=2, verbose=0, callbacks=[BackupAndRestore(folder)])


@case
def a_setting_that_the_script_has_changed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    backed_up(folder)
    dense(optimizer=Adamax(0.5)).fit(X, Y, epochs=3, verbose=0, callbacks=[BackupAndRestore(folder)])


@case
def a_loss_that_a_hook_had_replaced(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Replaces(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.loss = oncue.losses.MeanAbsoluteError()

    backed_up(folder, Replaces())
    dense().fit(X, Y, epochs=3, verbose=0, callbacks=[BackupAndRestore(folder)])


@case
def weights_that_were_unfrozen_later(folder: Path, patch: pytest.MonkeyPatch) -> None:
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(1), layers.Dense(1)])
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    model.layers[0].trainable = True
    model.fit(X, Y, verbose=0)
    model.save_weights(folder / "w.weights.h5")


@case
def a_damaged_note_of_how_a_run_began(folder: Path, patch: pytest.MonkeyPatch) -> None:
    interrupted_at_once(folder)
    (folder / "backup" / "beginning.json").write_text("{")
    dense().fit(X, Y, verbose=0, callbacks=both_files(folder))


@case
def a_log_that_was_changed_before_the_first_backup(folder: Path, patch: pytest.MonkeyPatch) -> None:
    interrupted_at_once(folder)
    (folder / "log.csv").write_text("epoch,loss\n7,1.0\n3,1.0\n")
    dense().fit(X, Y, verbose=0, callbacks=both_files(folder))


@case
def nothing_to_train(folder: Path, patch: pytest.MonkeyPatch) -> None:
    model = dense()
    model.trainable = False
    model.fit(X, Y, verbose=0)


@case
def a_step_that_cant_be_compiled(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Own(oncue.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.dense(inputs)

        def train_step(self, data: Any) -> dict[str, float]:
            return {"loss": 1.0}

    model = Own()
    model.compile(Adamax(), "mse", jit_compile=True)
    model.fit(X, Y, verbose=0)


@case
def more_regressors_than_samples(folder: Path, patch: pytest.MonkeyPatch) -> None:
    metric = oncue.metrics.R2Score(num_regressors=9)
    metric.update_state(Y, Y + X[:, 1:2])
    metric.result()


@case
def a_damaged_backup(folder: Path, patch: pytest.MonkeyPatch) -> None:
    backed_up(folder)
    damage(max(folder.glob("state-*"), key=lambda path: path.stat().st_mtime_ns))
    dense().fit(X, Y, epochs=3, verbose=0, callbacks=[BackupAndRestore(folder)])


@case
def an_old_backup_that_cant_be_deleted(folder: Path, patch: pytest.MonkeyPatch) -> None:
    unlink = os.unlink

    def refuse(path: Any, **options: Any) -> None:
        if os.path.basename(path).startswith("state-"):
            raise PermissionError(13, "Permission denied", path)
        unlink(path, **options)

    patch.setattr(os, "unlink", refuse)
    dense().fit(X, Y, epochs=4, verbose=0, callbacks=[BackupAndRestore(folder)])


@case
def page_locked_memory_that_cant_be_had(folder: Path, patch: pytest.MonkeyPatch) -> None:
    LateDevice().install(patch).refuses = True
    dense().fit(X, Y, verbose=0, callbacks=[BackupAndRestore(folder)])


@case
def a_log_that_is_removed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    remove = LambdaCallback(on_epoch_end=lambda epoch, logs: os.unlink(folder / "log.csv"))
    dense().fit(X, Y, verbose=0, callbacks=[CSVLogger(folder / "log.csv"), remove])


@case
def a_journal_that_is_removed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    remove = LambdaCallback(on_epoch_end=lambda epoch, logs: os.unlink(folder / "journal.jsonl"))
    dense().fit(X, Y, verbose=0, callbacks=[JournalLogger(folder / "journal.jsonl"), remove])


@case
def a_value_that_is_no_number(folder: Path, patch: pytest.MonkeyPatch) -> None:
    add = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(v="high"))
    dense().fit(X, Y, verbose=0, callbacks=[add, EarlyStopping("v", mode="min")])


@case
def a_last_backup_that_cant_be_written(folder: Path, patch: pytest.MonkeyPatch) -> None:
    commit, commits = Store.commit, []

    def fill(store: Store, write: Any, *more: Any) -> None:
        commits.append(write)
        if len(commits) == 2:
            raise OSError(28, "No space left on device")
        commit(store, write, *more)

    patch.setattr(Store, "commit", fill)
    dense().fit(X, Y, epochs=2, verbose=0, callbacks=[BackupAndRestore(folder)])


@case
def a_kept_state_that_cant_be_deleted(folder: Path, patch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def refuse(path: Path, *given: Any, **named: Any) -> None:
        if path.name == "state-epoch-1.safetensors":
            raise PermissionError(13, "not allowed")
        unlink(path, *given, **named)

    patch.setattr(Path, "unlink", refuse)
    store = Store(folder)
    for epochs in (1, 2):
        store.commit(lambda path: path.write_text("state"), [KeepLast()], epochs)


@case
def an_old_file_that_cant_be_deleted(folder: Path, patch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name == "1.weights.h5":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    saver = ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True, keep=1)
    patch.setattr(Path, "unlink", refuse)
    dense().fit(X, Y, epochs=2, verbose=0, callbacks=[saver])


@case
def a_best_file_that_was_changed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def saver() -> Callback:
        return ModelCheckpoint(folder / "best.keras", monitor="loss", save_best_only=True, resume_best=True)

    dense().fit(X, Y, verbose=0, callbacks=[saver()])
    damage(folder / "best.keras")
    with pytest.raises(ValueError, match="doesn't know the loss of"):
        dense().fit(X, Y, verbose=0, callbacks=[saver()])


@case
def a_damaged_checkpoint(folder: Path, patch: pytest.MonkeyPatch) -> None:
    saver = ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True, keep=2)
    dense().fit(X, Y, epochs=2, verbose=0, callbacks=[saver])
    damage(folder / "2.weights.h5")
    Checkpoints(folder / "{epoch}.weights.h5").last()


@case
def another_mnist(folder: Path, patch: pytest.MonkeyPatch) -> None:
    pictures, labels = np.zeros((1, 28, 28), np.uint8), np.zeros(1, np.uint8)
    patch.setenv("KERAS_HOME", str(folder))
    (folder / "datasets").mkdir()
    np.savez(folder / "datasets/mnist.npz", x_train=pictures, y_train=labels, x_test=pictures, y_test=labels)
    mnist.load_data()


@case
def an_unknown_mode(folder: Path, patch: pytest.MonkeyPatch) -> None:
    EarlyStopping(mode="upwards")


@case
def a_monitor_that_wont_be_logged(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(X, Y, verbose=0, callbacks=[EarlyStopping("val_loss")])


@case
def a_nan_that_wont_be_logged(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(X, Y, verbose=0, callbacks=[TerminateOnNaN(monitor="gradients")])


@case
def a_monitor_that_isnt_logged_in_another_loop(folder: Path, patch: pytest.MonkeyPatch) -> None:
    stopper = EarlyStopping("val_loss")
    stopper.on_train_begin()
    stopper.on_epoch_end(0, {"loss": 1.0})


@case
def two_set_the_learning_rate(folder: Path, patch: pytest.MonkeyPatch) -> None:
    both = [LearningRateScheduler(lambda epoch: 0.1), ReduceLROnPlateau("loss")]
    dense().fit(X, Y, verbose=0, callbacks=both)


@case
def a_torn_log(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "log.csv").write_text("epoch,lo")
    dense().fit(X, Y, verbose=0, callbacks=[CSVLogger(folder / "log.csv", append=True)])


@case
def unreachable_server(folder: Path, patch: pytest.MonkeyPatch) -> None:
    dense().fit(X, Y, verbose=0, callbacks=[RemoteMonitor("http://127.0.0.1:9")])


@case
def a_weight_without_gradient(folder: Path, patch: pytest.MonkeyPatch) -> None:
    used, unused = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer = SGD(0.1)
    optimizer.build([used, unused])
    used.sum().backward()
    optimizer.step()


def of_keras(*parts: Any) -> Any:
    """Return a compiled model of the real Keras with one Dense layer, before which others stand."""
    keras = pytest.importorskip("keras")
    made = keras.Sequential([keras.Input((3,)), *parts, keras.layers.Dense(1)])
    made.compile("adam", "mse")
    return made


@case
def weights_that_join_a_keras_model(folder: Path, patch: pytest.MonkeyPatch) -> None:
    keras = pytest.importorskip("keras")
    inner = of_keras(keras.layers.Dense(2, trainable=False))
    oncue.Model(inner).fit(X, Y, verbose=0)
    inner.layers[0].trainable = True
    oncue.Model(inner).fit(X, Y, verbose=0)


@case
def a_keras_model_that_oncue_compiled_is_saved(folder: Path, patch: pytest.MonkeyPatch) -> None:
    model = oncue.Model(of_keras())
    model.compile("sgd", "mse")
    model.save(folder / "m.keras")


@case
def a_class_of_keras_that_cant_be_made_again_is_saved(folder: Path, patch: pytest.MonkeyPatch) -> None:
    keras = pytest.importorskip("keras")

    class Scale(keras.layers.Layer):  # type: ignore[name-defined,misc]  # real Keras has no types
        def __init__(self) -> None:
            super().__init__()

        def call(self, inputs: Any) -> Any:
            return inputs

    oncue.Model(of_keras(Scale())).save(folder / "m.keras")


@case
def a_lambda_in_a_keras_model_is_saved(folder: Path, patch: pytest.MonkeyPatch) -> None:
    keras = pytest.importorskip("keras")
    oncue.Model(of_keras(keras.layers.Lambda(lambda x: x))).save(folder / "m.keras")


@case
def an_old_file_of_another_keras_optimizer(folder: Path, patch: pytest.MonkeyPatch) -> None:
    model = oncue.Model(of_keras())
    model.fit(X, Y, verbose=0)
    model.save(folder / "m.h5")
    with h5py.File(folder / "m.h5", "r+") as file:
        config = json.loads(file.attrs["training_config"])
        config["optimizer_config"] = {"class_name": "SGD", "config": {"learning_rate": 0.1}}
        file.attrs["training_config"] = json.dumps(config)
    oncue.with_keras.load_model(folder / "m.h5")


@case
def a_journal_that_another_has_changed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("oncue.callbacks.journal_logger._FLUSHED_EVERY", -1.0)
    backed_up(folder / "backup", JournalLogger(folder / "journal.jsonl"))
    (folder / "journal.jsonl").write_text("something else\n")
    callbacks = [JournalLogger(folder / "journal.jsonl"), BackupAndRestore(folder / "backup")]
    dense().fit(X, Y, epochs=3, verbose=0, callbacks=callbacks)


@case
def a_softmax_over_one_unit(folder: Path, patch: pytest.MonkeyPatch) -> None:
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(1, activation="softmax")])
    model.compile("sgd", "binary_crossentropy")
    model.fit(X, Y > 0, verbose=0)


@case
def old_words_of_models(folder: Path, patch: pytest.MonkeyPatch) -> None:
    end = layers.Input((3,))
    model = oncue.Model(input=end, output=layers.Dense(1)(end))
    model.compile("sgd", "mse")
    model.fit_generator(iter([(X, Y)]), nb_epoch=1, verbose=0)
    model.evaluate_generator(iter([(X, Y)]), verbose=0)
    model.predict_generator(iter([X]), verbose=0)


@case
def old_words_of_optimizers(folder: Path, patch: pytest.MonkeyPatch) -> None:
    optimizer = SGD(lr=0.1, decay=0.5)
    optimizer.lr  # noqa: B018  # it is a property, and so is the next
    legacy_warning._warned.clear()
    optimizer.lr = 0.2


@case
def old_words_of_layers(folder: Path, patch: pytest.MonkeyPatch) -> None:
    layers.Dense(output_dim=1)
    layers.Convolution2D(nb_filter=4, nb_row=3, nb_col=3)


@case
def old_words_of_callbacks(folder: Path, patch: pytest.MonkeyPatch) -> None:
    ReduceLROnPlateau(epsilon=0.1)
    ModelCheckpoint(folder / "m.keras", period=2)
    TensorBoard(folder, batch_size=32)


@case
def more_old_words(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Asks(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            assert self.params is not None and self.params["samples"] == len(X)
            assert self.validation_data is not None

    model = oncue.Sequential([layers.Input((3,)), layers.Dense(1, name="conv2d")])
    model.compile(oncue.optimizers.sgd(0.1), "mse")
    model.fit(X, Y, validation_data=(X, Y), verbose=0, callbacks=[Asks()])
    model.fit_generator(iter([(X, Y)]), samples_per_epoch=len(X), verbose=0)
    model.predict_proba(X)
    model.predict_classes(X)
    model.reset_states()
    assert model.get_layer("convolution2d_1").output_shape == (None, 1)
    assert EarlyStopping("loss").monitor_op(1, 2)
    assert model.optimizer._decayed_lr() == 0.1
    assert model.optimizer.weights


@case
def old_modules(folder: Path, patch: pytest.MonkeyPatch) -> None:
    for old in MODULES:
        patch.delitem(sys.modules, old, raising=False)
        patch.delitem(sys.modules, old.replace("oncue", "oncue.keras"), raising=False)
        parent, _, name = old.rpartition(".")
        if parent in ("oncue", "oncue.utils"):
            if name in vars(sys.modules[parent]):
                patch.delattr(sys.modules[parent], name)
            getattr(sys.modules[parent], name)
    legacy_warning._warned.clear()
    for old in MODULES:
        __import__(old)
    from oncue.layers.normalization import BatchNormalization

    assert BatchNormalization is layers.BatchNormalization


# Where a warning is given, and why no case above can have it there.
WITHOUT_A_CASE = {
    "The compiled step runs without CUDA graphs": "needs a GPU that refuses to record a graph",
    "the Trainer evaluates another data set": "needs transformers; tests/hosts/test_transformers.py has it",
}


class Given(NamedTuple):
    file: str
    line: int
    places: list[tuple[str, int]]


def calls_of(frame: FrameType | None) -> Iterator[tuple[str, int]]:
    """Yield the file and line where `warn` was called and, where that was in `warn_once`, who called it."""
    while frame is not None:
        yield frame.f_code.co_filename, frame.f_lineno
        if frame.f_code.co_name != "warn_once":
            return
        frame = frame.f_back


FOUND: dict[str, list[Given]] = {}


def given(name: str, folder: Path) -> list[Given]:
    """Return every warning of oncue's that a case gives; it is run once."""
    if name in FOUND:
        return FOUND[name]
    found = []

    def note(message: str, category: type[Warning], filename: str, lineno: int, **options: Any) -> None:
        found.append(Given(filename, lineno, list(calls_of(sys._getframe(2)))))

    legacy_warning._warned.clear()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(warnings, "warn_explicit", note)
        CASES[name](folder, patch)
    FOUND[name] = found
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_warning_points_at_the_line_of_the_user(name: str, tmp_path: Path) -> None:
    found = given(name, tmp_path)
    first = CASES[name].__code__.co_firstlineno
    last = max(line for _, _, line in CASES[name].__code__.co_lines() if line is not None)
    assert found
    for one in found:
        assert one.file == __file__ and first < one.line <= last, one


def test_every_place_that_warns_has_a_case(tmp_path: Path) -> None:
    reached = set()
    for name in CASES:
        (tmp_path / name).mkdir()
        reached.update(place for one in given(name, tmp_path / name) for place in one.places)
    missing = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("warn", "warn_once"):
                said = ast.get_source_segment(text, node) or ""
                lines = {(str(path), line) for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
                if not lines & reached and not any(known in said for known in WITHOUT_A_CASE):
                    missing.append(f"{path}:{node.lineno}: {said}")
    assert missing == []


def test_only_one_place_warns() -> None:
    for path in SOURCE.rglob("*.py"):
        if path != SOURCE / "core/warn.py":
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            assert not [node for node in calls if ast.unparse(node.func).startswith("warnings.warn")], path


def in_oncue(text: str) -> dict[str, Any]:
    """Run code as if it stood in a file of oncue's; return its names."""
    names: dict[str, Any] = {"warn": warn, "torch": torch, "contextmanager": contextlib.contextmanager}
    exec(compile(text, str(SOURCE / "models/somewhere.py"), "exec"), names)
    return names


def line_of(run: Callable[[], Any]) -> tuple[str, int]:
    """Return the file where a function's warning points, and how many lines below its first one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    (one,) = caught
    return one.filename, one.lineno - run.__code__.co_firstlineno


def test_through_a_call_of_torch() -> None:
    layer = in_oncue("class Layer(torch.nn.Module):\n    def forward(self, x):\n        warn('found')")["Layer"]()

    def run() -> None:
        torch.nn.Sequential(layer)(X)

    assert line_of(run) == (__file__, 1)


def test_through_a_with_block() -> None:
    block = in_oncue("@contextmanager\ndef block():\n    warn('found')\n    yield")["block"]

    def run() -> None:
        with block():
            pass

    assert line_of(run) == (__file__, 1)


def test_on_another_thread_it_is_kept_for_the_line_that_waits() -> None:
    said: list[tuple[str, type[Warning]]] = []

    def write() -> None:
        with kept(said):
            warn("found")
        threads.append(threading.current_thread())

    threads: list[threading.Thread] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert threads == [thread] and said == [("found", UserWarning)]
    assert line_of(lambda: warn(*said[0]))[0] == __file__


def test_a_line_warns_once_and_another_line_again() -> None:
    say = in_oncue("def say():\n    warn('found')")["say"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            say()
        say()
    assert len(caught) == 2


@pytest.mark.parametrize("names", [{}, {"__name__": None}])
def test_code_without_a_module_is_warned(names: dict[str, Any]) -> None:
    names["say"] = in_oncue("def say():\n    warn('found')")["say"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec("\nsay()", names)
    assert [(one.filename, one.lineno) for one in caught] == [("<string>", 2)]
