"""History: the logs of every epoch, and the run's account of itself, on real runs."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import ScriptedLosses
from oncue.callbacks import (
    Callback,
    CallbackList,
    EarlyStopping,
    History,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    SwapEMAWeights,
    TerminateOnNaN,
)

X = np.linspace(-1, 1, 32, dtype="float32").reshape(16, 2)
Y = X.sum(axis=1, keepdims=True)


def model(optimizer: Any = None) -> Any:
    made = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    made.compile(optimizer=oncue.optimizers.SGD(0.1) if optimizer is None else optimizer, loss="mse")
    return made


def lines(history: Any) -> list[str]:
    """Return the account without its first and its cost line, whose times differ from run to run."""
    account = history.explain().splitlines()
    assert re.fullmatch(r"\d+ epochs? in [\d.]+ m?s(; the last one logged .*)?\.", account[0])
    assert re.fullmatch(r"Callbacks took [\d.]+ m?s, [\d.]+% of the run(: .*)?\.", account[-1])
    return account[1:-1]


def test_stopped_early_with_the_best_weights_back(tmp_path: Path) -> None:
    best = str(tmp_path / "best.weights.h5")
    made = model(oncue.optimizers.SGD(0.5))
    history = made.fit(
        X,
        Y,
        epochs=20,
        verbose=0,
        callbacks=[
            ScriptedLosses(0.5, 0.25, 0.75, 0.3125, 0.5),
            EarlyStopping(patience=3, mode="min", restore_best_weights=True),
            ReduceLROnPlateau(mode="min", patience=2, factor=0.5, min_delta=0),
            ModelCheckpoint(best, save_best_only=True, save_weights_only=True),
        ],
    )
    assert lines(history) == [
        "It was stopped by EarlyStopping after epoch 5: val_loss 0.5 is no improvement on 0.25, 3 epochs without "
        "(patience 3).",
        "The model holds the weights of epoch 2, where val_loss was 0.25; EarlyStopping put them back.",
        f"The best file is {best}, saved after epoch 2: val_loss 0.25 is better than 0.5.",
        "The learning rate changed:",
        "  epoch 4, ReduceLROnPlateau: 0.5 to 0.25: val_loss 0.3125 has not fallen below 0.25 for 2 epochs",
    ]
    kinds = [(entry.kind, entry.callback, entry.epoch) for entry in history.journal]
    assert kinds == [
        ("best", "EarlyStopping", 0),
        ("best", "ModelCheckpoint", 0),
        ("best", "EarlyStopping", 1),
        ("best", "ModelCheckpoint", 1),
        ("learning_rate", "ReduceLROnPlateau", 3),
        ("stop", "EarlyStopping", 4),
        ("restore", "EarlyStopping", 4),
    ]
    assert made.history is history


def test_stopped_by_a_value_that_is_not_finite(tmp_path: Path) -> None:
    y = Y.copy()
    y[10] = np.nan
    callbacks = [TerminateOnNaN(), ModelCheckpoint(tmp_path / "no.keras")]
    history = model().fit(X, y, batch_size=4, epochs=9, shuffle=False, verbose=0, callbacks=callbacks)
    assert lines(history) == [
        "It was stopped by TerminateOnNaN in epoch 1, batch 3: loss was nan.",
        "The model holds the weights of epoch 1, the last one, in which a value was not finite: they are probably of no "
        "use.",
        "Noted by callbacks:",
        "  epoch 1: ModelCheckpoint: saved nothing: a value is not finite",
    ]


def test_the_natural_end_and_no_callbacks_at_all() -> None:
    history = model().fit(X, Y, epochs=3, verbose=0)
    assert lines(history) == [
        "It ended because all its epochs were done.",
        "The model holds the weights of epoch 3, the last one.",
        "Nothing was decided by a callback.",
    ]
    assert history.journal == [] and repr(history.journal) == "<empty journal>"
    assert list(history.costs) == ["History"]


def test_a_later_first_epoch_is_counted_on() -> None:
    history = model().fit(X, Y, initial_epoch=4, epochs=6, verbose=0)
    assert history.explain().startswith("2 epochs in ")
    assert lines(history)[:2] == [
        "It ended because all its epochs were done.",
        "The model holds the weights of epoch 6, the last one.",
    ]


class Breaks(Callback):
    def __init__(self, error: BaseException, epoch: int = 2) -> None:
        super().__init__()
        self.error, self.wanted, self.epoch = error, epoch, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self.epoch, batch) == (self.wanted, 1):
            self.note("about to break")
            raise self.error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (KeyboardInterrupt(), "It was interrupted by Ctrl-C in epoch 3."),
        (ValueError("no more"), "It ended with an error in epoch 3: ValueError: no more"),
        (MemoryError(), "It ended with an error in epoch 3: MemoryError"),
    ],
)
def test_interrupted_and_failed(error: BaseException, why: str) -> None:
    made = model()
    with pytest.raises(type(error)):
        made.fit(X, Y, batch_size=4, epochs=5, verbose=0, callbacks=[Breaks(error)])
    said = lines(made.history)
    assert said[:4] == [
        why,
        "The model holds what it had learnt when epoch 3 broke off; epoch 2 was the last to be finished.",
        "Noted by callbacks:",
        "  epoch 3, batch 2: Breaks: about to break",
    ]
    # Where memory ran out, the account says what had it.
    assert [line[:28] for line in said[4:]] == (["  epoch 3: fit: memory of cp"] if type(error) is MemoryError else [])
    assert made.history.epoch == [0, 1]


def test_interrupted_with_the_best_weights_back() -> None:
    made = model()
    stop = EarlyStopping(monitor="loss", patience=9, restore_best_weights=True)
    with pytest.raises(KeyboardInterrupt):
        made.fit(X, Y, batch_size=4, epochs=5, verbose=0, callbacks=[stop, Breaks(KeyboardInterrupt())])
    account = lines(made.history)
    assert account[0] == "It was interrupted by Ctrl-C in epoch 3."
    assert (
        account[1]
        == f"The model holds the weights of epoch 2, where loss was {stop.best:g}; EarlyStopping put them back."
    )


def test_asked_to_stop_without_a_reason() -> None:
    class Quiet(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = epoch == 1

    history = model().fit(X, Y, epochs=5, verbose=0, callbacks=[Quiet()])
    assert lines(history)[0] == (
        "It was stopped after epoch 2 of 5: a callback set `stop_training` and noted no reason."
    )


def test_data_that_ran_dry() -> None:
    batches = iter([(X, Y)] * 4)
    with pytest.warns(UserWarning, match="ran out of data after 0 of 2 steps"):
        history = model().fit(batches, epochs=5, steps_per_epoch=2, verbose=0)
    assert lines(history)[0] == "It ended after epoch 2 of 5, because the data had nothing left."


def test_three_hundred_changes_stay_short() -> None:
    schedule = LearningRateScheduler(lambda epoch, rate: 0.1 * 0.99**epoch)
    history = model().fit(X, Y, epochs=300, verbose=0, callbacks=[schedule])
    account = lines(history)
    assert len(account) < 20 and all(len(line) < 100 for line in account)
    assert account[2] == "The learning rate changed 299 times, from 0.1 to 0.004954:"
    assert account[3] == "  epoch 2, LearningRateScheduler: 0.1 to 0.099: by the schedule"
    assert account[-1].startswith("  epoch 300, LearningRateScheduler: 0.0050036")
    assert len(history.journal) == 299


def test_two_writers_of_the_rate_are_in_the_journal() -> None:
    callbacks = [LearningRateScheduler(lambda epoch, rate: 0.1), ReduceLROnPlateau(monitor="loss")]
    with pytest.warns(UserWarning, match="both set the learning rate"):
        history = model().fit(X, Y, verbose=0, callbacks=callbacks)
    assert "  before training: CallbackList: LearningRateScheduler and ReduceLROnPlateau both set" in history.explain()


def test_the_moving_average_is_what_the_model_holds() -> None:
    optimizer = oncue.optimizers.SGD(0.1, use_ema=True)
    history = model(optimizer).fit(X, Y, epochs=2, verbose=0, validation_data=(X, Y), callbacks=[SwapEMAWeights()])
    assert lines(history)[1] == "The model holds the moving average of the weights, as of epoch 2 (`use_ema`)."


def test_notes_of_a_users_own() -> None:
    class Mine(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.note("looked at the data", samples=16)

        def on_test_begin(self, logs: Any = None) -> None:
            self.note("validates")

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                self.note("the loss is good enough", kind="stop")
                self.model.stop_training = True

    history = model().fit(X, Y, batch_size=4, epochs=5, verbose=0, validation_data=(X, Y), callbacks=[Mine()])
    assert lines(history) == [
        "It was stopped by Mine after epoch 2: the loss is good enough.",
        "The model holds the weights of epoch 2, the last one.",
        "Noted by callbacks:",
        "  before training: Mine: looked at the data",
        "  epoch 1: Mine: validates",
        "  epoch 2: Mine: validates",
    ]
    assert history.journal[0].data == {"samples": 16}


def test_a_run_under_way_says_so() -> None:
    account: list[str] = []

    class Asks(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            account.extend(self.model.history.explain().splitlines()[1:2])

    model().fit(X, Y, epochs=2, verbose=0, callbacks=[Asks()])
    assert account == ["It is still running."] * 2


def test_a_second_run_starts_again_with_the_same_object() -> None:
    history = History()
    made = model()
    made.fit(X, Y, epochs=4, verbose=0, callbacks=[history, EarlyStopping(monitor="loss", baseline=-1.0)])
    first = history.journal
    made.fit(X, Y, epochs=1, verbose=0, callbacks=[history])
    assert history.epoch == [0] and list(map(len, history.history.values())) == [1]
    assert history.journal == [] and history.journal is not first
    assert history.explain().startswith("1 epoch in ")


def test_a_list_of_callbacks_used_twice_keeps_a_journal_of_the_last_run() -> None:
    made = model()
    callbacks = CallbackList([ReduceLROnPlateau(monitor="loss", patience=1, min_delta=1e9), History()], model=made)
    for _ in range(2):
        made.optimizer.learning_rate = 0.1
        history = made.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
        assert [entry.text.partition(":")[0] for entry in history.journal] == ["learning rate 0.1 to 0.01"]


def test_print_says_something() -> None:
    history = model().fit(X, Y, epochs=2, verbose=0)
    assert repr(history) == "<History of 2 epochs: loss>"
    assert repr(History()) == "<History of 0 epochs: nothing yet>"


def test_by_hand_without_a_list() -> None:
    history = History()
    history.on_train_begin()
    history.on_epoch_end(0, {"loss": 0.5})
    history.on_train_end()
    history.close()
    assert history.explain().splitlines()[1:] == [
        "It ended because all its epochs were done.",
        "The model holds the weights of epoch 1, the last one.",
        "Nothing was decided by a callback.",
    ]


def test_the_schedule_says_who_reads_the_logs_of_every_batch(tmp_path: Path) -> None:
    callbacks = CallbackList(
        [
            TerminateOnNaN(),
            TerminateOnNaN(every=50),
            oncue.callbacks.TensorBoard(tmp_path, update_freq="batch"),
            oncue.callbacks.TensorBoard(tmp_path / "b", update_freq=7),
        ]
    )
    rows = dict(line.split(maxsplit=1) for line in callbacks.schedule().splitlines())
    assert rows["on_train_batch_end"].startswith("TerminateOnNaN (reads the logs), TerminateOnNaN, TensorBoard")
    assert rows["on_train_batch_end"].count("(reads the logs)") == 2
    assert "reads the logs" not in rows["on_epoch_end"]


@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))], ids=["copy", "pickle"]
)
def test_a_copy_gives_the_same_account(again: Any) -> None:
    class Notes(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.note("noted")

    model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    history = model.fit(np.ones((8, 2)), np.ones((8, 1)), epochs=2, verbose=0, callbacks=[Notes()])
    twin = again(history)
    assert twin.history == history.history and twin.epoch == [0, 1]
    assert [entry.text for entry in twin.journal] == ["noted", "noted"]
    assert twin.explain() == history.explain()
    other = again(model)
    assert np.array_equal(other.predict(np.ones((1, 2)), verbose=0), model.predict(np.ones((1, 2)), verbose=0))


def test_old_names_find_the_curves_without_being_keys(tmp_path: Path) -> None:
    made = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(2, activation="softmax")])
    made.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    classes = np.arange(16) % 2

    def run(epochs: int) -> Any:
        backup = oncue.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)
        more = [ReduceLROnPlateau(monitor="loss"), backup]
        return made.fit(X, classes, validation_data=(X, classes), epochs=epochs, verbose=0, callbacks=more)

    # Also when it was read from a backup.
    for history in (run(1), run(2)):
        curves = history.history
        keys = ["accuracy", "learning_rate", "loss", "val_accuracy", "val_loss"]
        for found in (
            curves,
            copy.copy(curves),
            copy.deepcopy(curves),
            curves.copy(),
            pickle.loads(pickle.dumps(curves)),
        ):
            assert sorted(found) == sorted(found.keys()) == keys
            assert found["acc"] is found["accuracy"] and found.get("val_acc") == found["val_accuracy"]
            assert found["lr"] == found["learning_rate"] == found.get("lr")
            assert "acc" not in found and found.get("nothing") is None and found.get("nothing", 3) == 3
            assert found == dict(curves) and isinstance(found, dict)
        assert sorted(json.loads(json.dumps(curves))) == sorted({**curves}) == sorted(dict(**curves)) == keys
        with pytest.raises(KeyError, match="nothing"):
            curves["nothing"]
    assert len(curves["acc"]) == 2


def test_a_table_of_the_curves_has_their_names() -> None:
    pandas = pytest.importorskip("pandas")
    made = model()
    curves = made.fit(X, Y, epochs=2, verbose=0, callbacks=[ReduceLROnPlateau(monitor="loss")]).history
    table = pandas.DataFrame(curves)
    assert sorted(table.columns) == ["learning_rate", "loss"] and len(table) == 2


def test_a_copy_of_a_running_history_is_its_own() -> None:
    copies: list[Any] = []

    class Copies(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.note(f"noted {epoch}")
            copies.extend([copy.copy(self.model.history), copy.deepcopy(self.model.history)])

    model().fit(X, Y, epochs=2, verbose=0, callbacks=[Copies()])
    assert [len(twin.journal) for twin in copies] == [1, 1, 2, 2]
