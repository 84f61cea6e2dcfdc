"""Mistakes that are often made: each is answered before the first step, with what to type instead."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import normal
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    ModelCheckpoint,
    ReduceLROnPlateau,
    RunFolder,
    TensorBoard,
    TerminateOnNaN,
)

X = normal(32, 3)
Y = X[:, :1]


def model(**compiled: Any) -> Any:
    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
    made.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return made


def fit(*callbacks: Any, **options: Any) -> Any:
    return model().fit(X, Y, verbose=0, callbacks=list(callbacks), **options)


class Reads(Callback):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.name]


ANSWERED: dict[str, tuple[Callable[[], Any], str]] = {
    "patiance": (
        lambda: EarlyStopping(patiance=3),
        "EarlyStopping has no argument `patiance`. Did you mean `patience`",
    ),
    "save_best": (lambda: ModelCheckpoint("a.keras", save_best=True), "Did you mean `save_best_only`"),
    "seperator": (lambda: CSVLogger("a.csv", seperator=";"), "Did you mean `separator`"),
    "facter": (lambda: ReduceLROnPlateau(facter=0.5), "Did you mean 'factor'"),
    "logdir": (lambda: TensorBoard(logdir="logs"), "Did you mean `log_dir`"),
    "conf": (lambda: RunFolder("run", conf={}), "Did you mean `config`"),
    "something else": (lambda: TerminateOnNaN(xyz=1), r"TerminateOnNaN has no argument `xyz`. It takes: "),
    "backup": (lambda: BackupAndRestore("b", savefreq=3), "Did you mean `save_freq`"),
    "from_logit": (lambda: keras.losses.BinaryCrossentropy(from_logit=True), "Did you mean `from_logits`"),
    "threshhold": (lambda: keras.metrics.BinaryAccuracy(threshhold=0.5), "Did you mean `threshold`"),
    "std": (lambda: keras.initializers.RandomNormal(std=0.1), "Did you mean `stddev`"),
    "activaton": (lambda: keras.layers.Dense(1, activaton="relu"), "Did you mean `activation`"),
    "learningrate": (lambda: keras.optimizers.Adam(learningrate=0.1), "Did you mean 'learning_rate'"),
    "decay_step": (
        lambda: keras.optimizers.schedules.ExponentialDecay(0.1, decay_step=10, decay_rate=0.9),
        "ExponentialDecay has no argument `decay_step`. Did you mean `decay_steps`",
    ),
    "first_decay_step": (
        lambda: keras.optimizers.schedules.CosineDecayRestarts(0.1, first_decay_step=10),
        "Did you mean `first_decay_steps`",
    ),
    "boundary": (
        lambda: keras.optimizers.schedules.PiecewiseConstantDecay(boundary=[1], values=[1, 2]),
        "Did you mean `boundaries`",
    ),
    "worker": (lambda: keras.utils.PyDataset(worker=2), "Did you mean `workers`"),
    "weight_freq": (lambda: RunFolder("run", weight_freq=1), "Did you mean `weights_freq`"),
    "metric=": (lambda: model(metric=["mae"]), "Did you mean `metrics`"),
    "epoch=": (lambda: fit(epoch=3), "Did you mean `epochs`"),
    "loss": (
        lambda: model(loss="binary_crossentropi"),
        r"Did you mean 'binary_crossentropy'\? The nearest of \d+: \w+, ",
    ),
    "optimizer": (lambda: model(optimizer="adm"), "Did you mean 'adam'"),
    "metric": (lambda: model(metrics=["acuracy"]).fit(X, Y), r"'accuracy'\? The nearest of \d+: (\w+, ){4}\w+\."),
    "activation": (lambda: keras.layers.Dense(1, activation="rellu"), "Did you mean 'relu'"),
    "no validation": (
        lambda: fit(Reads("val_loss")),
        "There is no 'val_loss' among the logged values: loss. Validation",
    ),
    "misspelt log": (lambda: fit(Reads("los")), "Did you mean 'loss'"),
    "no log at all": (lambda: fit(Reads("f1")), r"There is no 'f1' among the logged values: loss\.\n"),
    "a class": (lambda: fit(EarlyStopping), "is the class EarlyStopping, not an instance"),
    "monitor": (lambda: fit(EarlyStopping("los")), "Did you mean `loss`"),
    "hook": (lambda: fit(type("A", (Callback,), {"on_bach_end": lambda *a: None})()), "Did you mean `on_batch_end`"),
    "batch_size": (lambda: fit(batchsize=3), "Did you mean `batch_size`"),
    "positional": (lambda: EarlyStopping("loss", 0, 3, 4, "min", None, False, 0, 1, 2), "positional arguments"),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_an_error_says_what_was_meant(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mistake, words = ANSWERED[name]
    with pytest.raises((TypeError, ValueError, KeyError), match=words):
        mistake()


def test_a_type_error_inside_is_passed_on() -> None:
    class Mine(EarlyStopping):
        def __init__(self, patience: int) -> None:
            super().__init__(patience=patience)

    with pytest.raises(TypeError, match="unexpected keyword argument 'patiance'"):
        Mine(patiance=1)  # type: ignore[call-arg]
    assert Mine(patience=3).patience == 3


@pytest.mark.parametrize(("mode", "meant"), [("maximum", "max"), ("Min", "min"), ("minimize", "min")])
def test_a_mode_that_is_not_known(mode: str, meant: str) -> None:
    with pytest.warns(UserWarning, match=f"falls back to auto mode. Did you mean '{meant}'"):
        EarlyStopping(mode=mode)


# Losses and outputs ---------------------------------------------------------------------------------------------------

ONE_HOT, LABELS = np.eye(32, 3, dtype="float32"), np.arange(32) % 3
TWO = (X[:, :1] > 0).astype("float32")


def trained(units: int, activation: Any, loss: Any, y: Any) -> list[str]:
    """Return what is said while a model with such an end is trained."""
    made = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(units, activation=activation)])
    made.compile("sgd", loss=loss)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made.fit(X, y, epochs=2, batch_size=16, verbose=0)
    return [str(one.message) for one in caught if issubclass(one.category, UserWarning)]


@pytest.mark.parametrize(
    ("units", "activation", "loss", "y", "words"),
    [
        (1, "softmax", "binary_crossentropy", TWO, "a softmax over one unit"),
        (1, "softmax", "mse", TWO, "a softmax over one unit"),
        (3, "softmax", keras.losses.CategoricalCrossentropy(from_logits=True), ONE_HOT, "have been through one"),
        (3, "softmax", keras.losses.SparseCategoricalCrossentropy(from_logits=True), LABELS, "have been through one"),
        (3, "softmax", torch.nn.CrossEntropyLoss(), LABELS, "have been through one"),
        (1, "sigmoid", keras.losses.BinaryCrossentropy(from_logits=True), TWO, "and the model ends in one"),
        (1, "sigmoid", torch.nn.BCEWithLogitsLoss(), TWO, "and the model ends in one"),
        (3, None, "categorical_crossentropy", ONE_HOT, "expects probabilities.*activation='softmax'"),
        (3, None, "sparse_categorical_crossentropy", LABELS, "expects probabilities.*activation='softmax'"),
        (1, None, "binary_crossentropy", TWO, "expects probabilities.*activation='sigmoid'"),
    ],
)
def test_a_loss_and_an_end_that_do_not_go_together(units: int, activation: Any, loss: Any, y: Any, words: str) -> None:
    (said,) = trained(units, activation, loss, y)
    assert re.search(words, said)


@pytest.mark.parametrize(
    ("units", "activation", "loss", "y"),
    [
        (1, "sigmoid", "binary_crossentropy", TWO),
        (3, "sigmoid", "binary_crossentropy", ONE_HOT),
        (3, "softmax", "categorical_crossentropy", ONE_HOT),
        (3, "softmax", "sparse_categorical_crossentropy", LABELS),
        (3, "softplus", "categorical_crossentropy", ONE_HOT),
        (3, None, keras.losses.CategoricalCrossentropy(from_logits=True), ONE_HOT),
        (3, None, torch.nn.CrossEntropyLoss(), LABELS),
        (1, None, torch.nn.BCEWithLogitsLoss(), TWO),
        (1, None, "mse", TWO),
        (3, "softmax", "mse", ONE_HOT),
    ],
)
def test_a_loss_and_an_end_that_go_together(units: int, activation: Any, loss: Any, y: Any) -> None:
    assert trained(units, activation, loss, y) == []


def test_a_module_of_torch_is_looked_at_too() -> None:
    made = keras.Model(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Softmax(-1)))
    made.compile("sgd", loss=torch.nn.CrossEntropyLoss())
    with pytest.warns(UserWarning, match="have been through one"):
        made.fit(X, LABELS, verbose=0)
