"""Numbers of NumPy and torch, and whole numbers that are floats, count as Python's do wherever an argument is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import normal
from oncue import (
    callbacks as C,
    constraints,
    initializers,
    layers as L,
    losses,
    metrics,
    regularizers,
)
from oncue.core.numbers import number_of, whole_of
from oncue.optimizers import schedules

X = normal(8, 3)
Y = X.sum(axis=1, keepdims=True)
FRACTIONS = [np.float32(0.5), np.float64(0.5), np.float16(0.5), np.array(0.5), torch.tensor(0.5), Fraction(1, 2)]
COUNTS = [np.int64(2), np.uint8(2), np.array(2), torch.tensor(2), 20 / 10, np.ceil(1.5), np.float32(2), Fraction(2)]
REFUSED = [True, np.True_, torch.tensor(True), "2", b"2", None, [2], np.array([2]), torch.ones(2), 2 + 0j, object()]


def compiled(**arguments: Any) -> Any:
    model = keras.Sequential([keras.Input((3,)), L.Dense(1)])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **arguments})
    return model


@pytest.mark.parametrize("value", [*FRACTIONS, Decimal("0.5")], ids=repr)
def test_fractions(value: Any) -> None:
    found = number_of(value)
    assert found == 0.5 and type(found) is float and whole_of(value) is None


@pytest.mark.parametrize("value", COUNTS, ids=repr)
def test_counts(value: Any) -> None:
    found = whole_of(value)
    assert found == 2 and type(found) is int


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_is_no_number(value: Any) -> None:
    assert number_of(value) is None and whole_of(value) is None


FRACTION_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "EarlyStopping min_delta": lambda n: C.EarlyStopping("loss", min_delta=n),
    "EarlyStopping baseline": lambda n: C.EarlyStopping("loss", baseline=n),
    "ReduceLROnPlateau factor": lambda n: C.ReduceLROnPlateau("loss", factor=n, min_delta=n, min_lr=n),
    "ModelCheckpoint threshold": lambda n: C.ModelCheckpoint("a.keras", initial_value_threshold=n),
    "TerminateOnNaN factor": lambda n: C.TerminateOnNaN(action="rollback", factor=n),
    "TimeLimit": lambda n: C.TimeLimit(n),
    "validation_split": lambda n: compiled().fit(X, Y, validation_split=n, verbose=0),
    "class_weight": lambda n: compiled().fit(X, np.ones(8, "int64"), class_weight={1: n}, verbose=0),
    "loss_weights": lambda n: compiled(loss_weights=n).fit(X, Y, verbose=0),
    "loss_weights in a list": lambda n: compiled(loss_weights=[n]).fit(X, Y, verbose=0),
}


@pytest.mark.parametrize("argument", FRACTION_ARGUMENTS)
def test_fractions_as_arguments(argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in FRACTIONS:
        FRACTION_ARGUMENTS[argument](value)
    for value in ("0.5", np.array([0.5, 0.5]), torch.tensor(True)):
        with pytest.raises((ValueError, TypeError), match=r"got|passed"):
            FRACTION_ARGUMENTS[argument](value)


COUNT_ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "EarlyStopping patience": lambda n: C.EarlyStopping("loss", patience=n, start_from_epoch=n),
    "ReduceLROnPlateau patience": lambda n: C.ReduceLROnPlateau("loss", patience=n, cooldown=n),
    "BackupAndRestore save_freq": lambda n: C.BackupAndRestore("backup", save_freq=n),
    "ModelCheckpoint save_freq": lambda n: C.ModelCheckpoint("a.keras", save_freq=n),
    "ModelCheckpoint keep": lambda n: C.ModelCheckpoint("a{epoch}.keras", keep=n),
    "TerminateOnNaN limit": lambda n: C.TerminateOnNaN(limit=n, every=n),
    "TensorBoard": lambda n: C.TensorBoard("logs", histogram_freq=n, update_freq=n, embeddings_freq=n),
    "TensorBoard profile_batch": lambda n: C.TensorBoard("logs", profile_batch=(n, n)),
    "epochs": lambda n: compiled().fit(X, Y, epochs=n, verbose=0),
    "initial_epoch": lambda n: compiled().fit(X, Y, initial_epoch=n, epochs=3, verbose=0),
    "batch_size": lambda n: compiled().fit(X, Y, batch_size=n, verbose=0),
    "steps_per_epoch": lambda n: compiled().fit(X, Y, steps_per_epoch=n, verbose=0),
    "validation_freq": lambda n: compiled().fit(X, Y, validation_data=(X, Y), validation_freq=n, epochs=2, verbose=0),
    "verbose": lambda n: compiled().evaluate(X, Y, verbose=n),
    "steps of evaluate": lambda n: compiled().evaluate(X, Y, steps=n, verbose=0),
    "batch_size of predict": lambda n: compiled().predict(X, batch_size=n, verbose=0),
    "steps_per_execution": lambda n: compiled(steps_per_execution=n).fit(X, Y, batch_size=4, verbose=0),
    "class_weight's keys": lambda n: compiled().fit(X, np.ones(8, "int64"), class_weight={n: 3.0}, verbose=0),
    "a seed": lambda n: (
        keras.utils.set_random_seed(n),
        keras.random.SeedGenerator(n),
        initializers.RandomNormal(seed=n),
    ),
    "the size of an input": lambda n: keras.Input((n,), batch_size=n),
    "the size of a weight": lambda n: L.Layer().add_weight(shape=(n,)),
    "the sizes of old names": lambda n: keras.Sequential([L.Dense(1, input_dim=n)]),
    "the length of an old name": lambda n: keras.Sequential([L.Embedding(3, 2, input_length=n)]),
    "gradient_accumulation_steps": lambda n: compiled(gradient_accumulation_steps=n).fit(X, Y, batch_size=4, verbose=0),
}


@pytest.mark.parametrize("argument", COUNT_ARGUMENTS)
def test_counts_as_arguments(argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (np.int64(2), torch.tensor(2), 20 / 10, np.ceil(1.5)):
        COUNT_ARGUMENTS[argument](value)
    for value in (2.5, np.float32(2.5), torch.tensor(True), "2"):
        with pytest.raises(ValueError, match="got"):
            COUNT_ARGUMENTS[argument](value)


N = Callable[[float], Any]
CONFIGURED: dict[str, Callable[[N, N], Any]] = {
    "BatchNormalization": lambda f, i: L.BatchNormalization(axis=i(-1), momentum=f(0.9), epsilon=f(0.01)),
    "LayerNormalization": lambda f, i: L.LayerNormalization(axis=i(-1), epsilon=f(0.01)),
    "Normalization": lambda f, i: L.Normalization(axis=i(-1)),
    "Masking": lambda f, i: L.Masking(f(0.0)),
    "Rescaling": lambda f, i: L.Rescaling(f(2.0), f(1.0)),
    "Dropout": lambda f, i: L.Dropout(f(0.1), seed=i(3)),
    "GaussianNoise": lambda f, i: L.GaussianNoise(f(0.1), seed=i(3)),
    "Conv1D": lambda f, i: L.Conv1D(i(3), i(2), strides=i(1), dilation_rate=i(1)),
    "ZeroPadding2D": lambda f, i: L.ZeroPadding2D(i(1)),
    "Permute": lambda f, i: L.Permute((i(2), i(1))),
    "Softmax": lambda f, i: L.Softmax(axis=i(-1)),
    "PReLU": lambda f, i: L.PReLU(shared_axes=i(1)),
    "ELU": lambda f, i: L.ELU(f(1.0)),
    "ReLU": lambda f, i: L.ReLU(f(6.0), f(0.1), f(0.0)),
    "Concatenate": lambda f, i: L.Concatenate(axis=i(1)),
    "LSTM": lambda f, i: L.LSTM(i(3), dropout=f(0.1)),
    "Input": lambda f, i: L.InputLayer((i(2), None), batch_size=i(3)),
    "SeedGenerator": lambda f, i: keras.random.SeedGenerator(i(3)),
    "RandomNormal": lambda f, i: initializers.RandomNormal(f(0.0), f(0.1), seed=i(3)),
    "RandomUniform": lambda f, i: initializers.RandomUniform(f(0.0), f(0.1), seed=i(3)),
    "VarianceScaling": lambda f, i: initializers.VarianceScaling(f(0.5), seed=i(3)),
    "Orthogonal": lambda f, i: initializers.Orthogonal(f(0.5)),
    "Constant": lambda f, i: initializers.Constant(f(0.5)),
    "L1L2": lambda f, i: regularizers.L1L2(f(0.5), f(0.1)),
    "MaxNorm": lambda f, i: constraints.MaxNorm(f(2.0), axis=i(0)),
    "MinMaxNorm": lambda f, i: constraints.MinMaxNorm(f(0.5), f(1.0), f(1.0), axis=[i(0)]),
    "CosineDecay": lambda f, i: schedules.CosineDecay(f(0.1), i(9), f(0.1), warmup_target=f(0.2), warmup_steps=i(3)),
    "CosineDecayRestarts": lambda f, i: schedules.CosineDecayRestarts(f(0.1), i(9), f(2.0), f(1.0), f(0.0)),
    "ExponentialDecay": lambda f, i: schedules.ExponentialDecay(f(0.1), i(9), f(0.9)),
    "InverseTimeDecay": lambda f, i: schedules.InverseTimeDecay(f(0.1), i(9), f(0.9)),
    "PolynomialDecay": lambda f, i: schedules.PolynomialDecay(f(0.1), i(9), f(0.01), f(1.0)),
    "PiecewiseConstantDecay": lambda f, i: schedules.PiecewiseConstantDecay([i(2)], [f(0.1), f(0.2)]),
    "Huber": lambda f, i: losses.Huber(f(1.0)),
    "BinaryFocalCrossentropy": lambda f, i: losses.BinaryFocalCrossentropy(alpha=f(0.2), gamma=f(2.0), axis=i(-1)),
    "SparseCategoricalCrossentropy": lambda f, i: losses.SparseCategoricalCrossentropy(ignore_class=i(0), axis=i(-1)),
    "Tversky": lambda f, i: losses.Tversky(f(0.5), f(0.5)),
    "BinaryAccuracy": lambda f, i: metrics.BinaryAccuracy(threshold=f(0.5)),
    "TopKCategoricalAccuracy": lambda f, i: metrics.TopKCategoricalAccuracy(k=i(2)),
    "Precision": lambda f, i: metrics.Precision(thresholds=[f(0.5)], class_id=i(0)),
    "Recall": lambda f, i: metrics.Recall(thresholds=f(0.5), top_k=i(1)),
    "AUC": lambda f, i: metrics.AUC(num_thresholds=i(9)),
    "MeanIoU": lambda f, i: metrics.MeanIoU(num_classes=i(2), ignore_class=i(0)),
    "BinaryIoU": lambda f, i: metrics.BinaryIoU(threshold=f(0.5)),
    "PrecisionAtRecall": lambda f, i: metrics.PrecisionAtRecall(f(0.5), num_thresholds=i(9)),
    "F1Score": lambda f, i: metrics.F1Score(threshold=f(0.5)),
}


@pytest.mark.parametrize("name", CONFIGURED)
def test_configurations_hold_plain_numbers(name: str) -> None:
    expected = CONFIGURED[name](lambda n: n, lambda n: int(n)).get_config()
    named = {"name": expected["name"]} if "name" in expected else {}
    for fraction, count in ((np.float64, np.int64), (lambda n: torch.tensor(n, dtype=torch.float64), torch.tensor)):
        config = {**CONFIGURED[name](fraction, count).get_config(), **named}
        assert json.loads(json.dumps(config)) == json.loads(json.dumps(expected))
