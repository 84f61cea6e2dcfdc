"""Validation after a period of steps or of time, amid epochs too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import oncue
from helpers import Clock, Ends, graphs_compiled_by, same_arrays, uncompiled
from oncue import layers
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from oncue.core.every import Every
from oncue.core.protocols import save_run

X = np.random.default_rng(3).normal(size=(24, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True) + 1
HELD = {"validation_data": (X[:7] + 1, Y[:7])}


class Hears(Callback):
    """Keeps the hooks of an epoch and of validation, with what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []
        self.logs: list[dict[str, float]] = []
        self.modes: list[bool] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.heard.append(f"batch {batch}")
        self.modes.append(self.model.training)

    def on_test_end(self, logs: Any = None) -> None:
        self.modes.append(self.model.training)

    def on_validation_end(self, batch: int, logs: Any = None) -> None:
        self.heard.append(f"validated {batch}")
        self.logs.append(dict(logs))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.heard.append(f"epoch {epoch}" + (" validated" if "val_loss" in logs else ""))
        self.logs.append(dict(logs))


def network(**options: Any) -> Any:
    oncue.utils.set_random_seed(1)
    model = oncue.Sequential(
        [layers.Input((4,)), layers.Dense(6, activation="tanh"), layers.Dropout(0.3), layers.Dense(1)]
    )
    model.compile(oncue.optimizers.Adam(0.05), loss="mse", metrics=["mae"], **options)
    return model


def fit(model: Any, *callbacks: Any, **options: Any) -> Any:
    options = {"batch_size": 6, "epochs": 2, "verbose": 0, **HELD, **options}
    return model.fit(X, Y, callbacks=list(callbacks), **options)


def test_it_comes_after_so_many_steps_counted_over_the_ends_of_epochs() -> None:
    hears = Hears()
    fit(network(), hears, validation_freq="3 steps", epochs=3)
    expected = "batch 0, batch 1, batch 2, validated 2, batch 3, epoch 0 validated, "
    expected += "batch 0, batch 1, validated 1, batch 2, batch 3, epoch 1 validated, "
    expected += "batch 0, validated 0, batch 1, batch 2, batch 3, epoch 2 validated"
    assert ", ".join(hears.heard) == expected
    assert hears.modes.count(False) == 4


def test_after_the_last_batch_it_is_that_of_the_epoch() -> None:
    whole, hears = Hears(), Hears()
    by_epoch = fit(network(), whole).history
    assert fit(network(), hears, validation_freq="4 steps").history == by_epoch
    assert hears.heard == whole.heard
    longer = fit(network(), validation_freq="8 steps")
    assert longer.logged_in["val_loss"] == [1]
    assert not longer.validations


@pytest.mark.filterwarnings("ignore:.*was never due in 2 epochs")
@pytest.mark.parametrize("jit", [False, True])
def test_training_is_the_same_as_without_it(jit: bool) -> None:
    with graphs_compiled_by(uncompiled):
        without = fit(plain := network(jit_compile=jit), validation_freq="9 steps")
        history = fit(amid := network(jit_compile=jit), validation_freq="1 step")
    assert same_arrays(plain.get_weights(), amid.get_weights())
    assert history.history["loss"] == without.history["loss"]
    assert history.history["mae"] == without.history["mae"]
    assert [(one["epoch"], one["batch"]) for one in history.validations] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
        (1, 2),
    ]


def test_the_values_are_those_of_evaluate_at_that_moment() -> None:
    found: list[tuple[float, float]] = []

    class Measures(Callback):
        def on_validation_end(self, batch: int, logs: Any = None) -> None:
            again = self.model.evaluate(*HELD["validation_data"], batch_size=6, verbose=0, return_dict=True)
            found.append((logs["val_mae"], again["mae"]))
            assert logs["loss"] > 0

    fit(network(), Measures(), validation_freq="3 steps")
    assert len(found) == 2
    assert all(one == other for one, other in found)


def test_the_epoch_has_the_values_of_its_last_validation() -> None:
    hears = Hears()
    history = fit(network(), hears, validation_freq="3 steps", epochs=1)
    assert hears.logs[-1]["val_loss"] == hears.logs[0]["val_loss"] == history.history["val_loss"][0]
    assert history.validations[0]["val_loss"] == hears.logs[0]["val_loss"]


def test_a_period_of_time() -> None:
    clock, hears = Clock(), Hears()

    def work(batch: int, logs: Any) -> None:
        clock.now += 20

    period = Every("1 minute", clock=clock)
    fit(network(), hears, LambdaCallback(on_train_batch_begin=work), validation_freq=period, epochs=1)
    # What is counted is time up to the ends of batches.
    assert hears.heard == ["batch 0", "batch 1", "batch 2", "validated 2", "batch 3", "epoch 0 validated"]


def test_a_period_of_epochs_is_a_number_of_epochs() -> None:
    assert fit(network(), validation_freq="2 epochs").logged_in["val_loss"] == [1]


@pytest.mark.parametrize("period", ["2", "soon", "5 weeks", "0 steps", 2.5])
def test_what_is_no_period(period: Any) -> None:
    with pytest.raises(ValueError, match=r"`validation_freq`"):
        fit(network(), validation_freq=period)


class Scripted(Callback):
    """Replaces what validation measures."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = list(values)

    def on_validation_end(self, batch: int, logs: Any = None) -> None:
        logs["val_loss"] = self.values.pop(0)


def test_early_stopping_counts_validations() -> None:
    stop, ends = EarlyStopping(patience=2, restore_best_weights=True, verbose=1), Ends()
    kept: list[Any] = []
    keep = LambdaCallback(on_validation_end=lambda batch, logs: kept.append(model.get_weights()))
    model = network()
    history = fit(
        model, Scripted(3.0, 1.0, 2.0, 2.0), keep, stop, ends, validation_freq="1 step", epochs=5, batch_size=2
    )
    assert (stop.stopped_epoch, stop.stopped_batch, stop.best, stop.best_batch) == (0, 3, 1.0, 1)
    assert len(kept) == 4
    assert same_arrays(model.get_weights(), kept[1])
    assert (history.epoch, ends.heard) == ([0], ["end", "close"])
    assert "epoch 1, where val_loss was 1 after batch 2" in history.explain()


def test_what_watches_training_decides_by_epochs() -> None:
    stop = EarlyStopping("loss", patience=0, min_delta=9.0)
    assert fit(network(), stop, validation_freq="1 step", epochs=9).epoch == [0, 1]


def test_a_plateau_is_one_of_validations() -> None:
    model = network()
    reduce = ReduceLROnPlateau(patience=1, factor=0.5)
    history = fit(model, Scripted(0.1, 0.1, 0.2), reduce, validation_freq="1 step", epochs=1)
    # After the last batch it is the epoch's end that decides.
    assert [(one.epoch, one.batch) for one in history.journal.of("learning_rate")] == [(0, 1), (0, 2), (0, None)]
    assert model.optimizer.learning_rate == pytest.approx(0.00625)


def test_the_best_is_saved_when_it_was_measured(tmp_path: Path) -> None:
    kept: list[Any] = []
    keep = LambdaCallback(on_validation_end=lambda batch, logs: kept.append(model.get_weights()))
    model, path = network(), tmp_path / "best.weights.h5"
    save = ModelCheckpoint(path, save_best_only=True, save_weights_only=True)
    history = fit(model, Scripted(3.0, 1.0, 2.0), keep, save, validation_freq="1 step", epochs=1)
    assert save.best == 1.0
    other = network()
    other.build((None, 4))
    other.optimizer.build(other.trainable_variables)
    other.load_weights(path)
    assert same_arrays(other.get_weights(), kept[1])
    assert [(one.epoch, one.batch) for one in history.journal.of("best")] == [(0, 0), (0, 1)]


def test_names_with_the_batch_after_which_a_file_was_saved(tmp_path: Path) -> None:
    better = iter(range(99, 0, -1))

    def improve(_: int, logs: Any) -> None:
        logs["val_loss"] = float(next(better))

    improves = LambdaCallback(on_validation_end=improve, on_epoch_end=improve)
    save = ModelCheckpoint(tmp_path / "{epoch}-{batch:02d}.weights.h5", save_best_only=True, save_weights_only=True)
    fit(network(), improves, save, validation_freq="2 steps", epochs=2)
    names = ["1-02", "1-04", "2-02", "2-04"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.weights.h5" for name in names]
    with pytest.raises(
        ValueError, match=r"has \{batch\}, which there is no value for. Known: epoch, loss, mae, val_loss"
    ):
        fit(network(), save, validation_freq=1)
    save = ModelCheckpoint(tmp_path / "{epoch}-{batch}.weights.h5", save_weights_only=True)
    with pytest.raises(ValueError, match=r"has \{batch\}, which there is no value for. Known: epoch, loss"):
        fit(network(), save, validation_freq="2 steps")


def test_callbacks_of_keras_s_kind_have_the_last_values_of_each_epoch() -> None:
    seen: list[float] = []
    history = fit(
        network(),
        LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs["val_loss"])),
        validation_freq="3 steps",
    )
    assert seen == history.history["val_loss"]


def test_a_generator_whose_length_is_not_known() -> None:
    def batches() -> Any:
        for at in range(0, 24, 6):
            yield X[at : at + 6], Y[at : at + 6]

    hears = Hears()
    network().fit(batches(), epochs=1, verbose=0, callbacks=[hears], validation_freq="2 steps", **HELD)
    assert hears.heard[-2:] == ["validated 3", "epoch 0 validated"]


def test_a_hook_of_validation_may_change_the_model() -> None:
    def freeze(batch: int, logs: Any) -> None:
        model.layers[0].trainable = False
        kept.append(model.layers[0].get_weights())

    kept: list[Any] = []
    model = network()
    fit(model, LambdaCallback(on_validation_end=freeze), validation_freq="3 steps", epochs=1)
    assert same_arrays(kept[0], model.layers[0].get_weights())


# Resuming --------------------------------------------------------------------------------------------------------------


class Cut(Callback):
    """Ends a run before a batch of training, or in a batch of a validation, where the state is saved."""

    def __init__(self, epoch: int, batch: int | None = None, validation: int | None = None) -> None:
        super().__init__()
        self.at = (epoch, batch)
        self._validation = validation
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.at == (self._epoch, batch):
            raise ConnectionError("power cut")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._validation is not None and self._epoch == self.at[0]:
            self._validation -= 1
            if self._validation < 0:
                assert save_run(self._run, None)
                raise ConnectionError("power cut")


def loader() -> Any:
    pairs = TensorDataset(torch.as_tensor(X), torch.as_tensor(Y))
    return DataLoader(pairs, batch_size=6, shuffle=True)


def whole_run(folder: Path, data: Any, *callbacks: Any, save_freq: Any = 1) -> Any:
    model = network()
    decide = [
        ReduceLROnPlateau(patience=0, factor=0.7, min_delta=1.0),
        EarlyStopping(patience=9, restore_best_weights=True),
    ]
    saved = [ModelCheckpoint(folder / "best-{epoch}-{batch}.weights.h5", save_best_only=True, save_weights_only=True)]
    backup = BackupAndRestore(folder / "state", save_freq=save_freq)
    x, y, held = (X, Y, HELD["validation_data"]) if data == "arrays" else (loader(), None, loader())
    size = {"batch_size": 6} if data == "arrays" else {}
    history = model.fit(
        x,
        y,
        epochs=3,
        verbose=0,
        validation_data=held,
        validation_freq="3 steps",
        **size,
        callbacks=[*decide, *saved, backup, *callbacks],
    )
    decisions = [(one.kind, one.epoch, one.batch, one.callback) for one in history.journal if one.kind != "resume"]
    names = sorted(path.name for path in folder.glob("best*"))
    return history.history, list(history.validations), decisions, names, [one.tobytes() for one in model.get_weights()]


CUTS = [
    (0, 3),
    (1, 0),
    (1, 1),
    (1, 2),
    (2, 1),
    (2, 3),
    (0, None, 0),
    (0, None, 1),
    (1, None, 1),
    (2, None, 1),
    (2, None, 3),
]


@pytest.mark.parametrize("data", ["arrays", "loader"])
def test_a_resumed_run_validates_when_it_would_have(tmp_path: Path, data: str) -> None:
    whole = whole_run(tmp_path / "whole", data)
    assert len(whole[1]) == 3
    assert {"learning_rate", "best", "restore"} <= {one[0] for one in whole[2]}
    for cut in CUTS:
        folder = tmp_path / str(cut)
        with pytest.raises(ConnectionError):
            whole_run(folder, data, Cut(*cut))
        assert whole_run(folder, data) == whole, cut


def test_a_state_that_was_saved_after_the_batch_is_one_before_the_validation(tmp_path: Path) -> None:
    whole = whole_run(tmp_path / "whole", "arrays", save_freq=3)
    with pytest.raises(ConnectionError):
        whole_run(tmp_path / "cut", "arrays", Cut(0, 3), save_freq=3)
    again = Hears()
    assert whole_run(tmp_path / "cut", "arrays", again, save_freq=3) == whole
    assert again.heard[:2] == ["validated 2", "batch 3"]


@pytest.mark.parametrize(
    ("frequency", "words"),
    [
        ("99 steps", "'99 steps' was never due in 2 epochs of [0-9]+ batches"),
        ("1 hour", "'3600 seconds' was never due in 2 epochs of"),
        (3, "3 was never due in 2 epochs:"),
        ([0, 5], "{0, 5} was never due in 2 epochs:"),
    ],
)
def test_a_run_without_any(frequency: Any, words: str) -> None:
    with pytest.warns(UserWarning, match=f"`validation_freq`={words}.*Give a smaller one"):
        history = fit(network(), validation_freq=frequency, epochs=2)
    assert "val_loss" not in history.history
    # A part of a run that is given to `fit` bit by bit.
    fit(network(), validation_freq=frequency, initial_epoch=1, epochs=2)
