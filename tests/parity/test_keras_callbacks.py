"""Keras's own callbacks do their work on oncue's models, as they do on Keras's."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import oncue

RNG = np.random.default_rng(2)
X = RNG.normal(size=(30, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True).astype("float32")


def pair(keras: ModuleType) -> list[Any]:
    models = []
    for k in (keras, oncue):
        model = k.Sequential([k.layers.Input((3,)), k.layers.Dense(4, activation="tanh"), k.layers.Dense(1)])
        model.compile(optimizer=k.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
        models.append(model)
    models[1].set_weights(models[0].get_weights())
    return models


def fit(model: Any, callbacks: Any, **options: Any) -> Any:
    arguments = {"epochs": 4, "batch_size": 10, "shuffle": False, "verbose": 0, "validation_data": (X, Y), **options}
    return model.fit(X, Y, callbacks=callbacks, **arguments)


def same(histories: list[Any]) -> None:
    theirs, ours = (history.history for history in histories)
    assert list(ours) == list(theirs)
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-4)


def test_early_stopping(keras: ModuleType) -> None:
    models, histories = pair(keras), []
    for model in models:
        stop = keras.callbacks.EarlyStopping("val_loss", min_delta=10.0, patience=1, restore_best_weights=True)
        histories.append(fit(model, [stop], epochs=9))
    assert histories[1].epoch == histories[0].epoch == [0, 1]
    same(histories)
    for theirs, ours in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-6)


def test_reduce_lr_on_plateau(keras: ModuleType) -> None:
    histories = [
        fit(model, [keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=10.0)])
        for model in pair(keras)
    ]
    same(histories)
    assert histories[1].history["learning_rate"][-1] < 0.1


def test_learning_rate_scheduler(keras: ModuleType) -> None:
    histories = [
        fit(model, [keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)]) for model in pair(keras)
    ]
    same(histories)
    np.testing.assert_allclose(histories[1].history["learning_rate"], [0.05, 0.025, 0.0125, 0.00625], rtol=1e-6)


def test_lambda_callback_and_terminate_on_nan(keras: ModuleType) -> None:
    heard: list[list[Any]] = []
    for model in pair(keras):
        calls: list[Any] = []
        listen = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, calls=calls: calls.append((batch, sorted(logs))),
            on_epoch_end=lambda epoch, logs, calls=calls: calls.append((epoch, sorted(logs))),
        )
        fit(model, [listen, keras.callbacks.TerminateOnNaN()], epochs=2)
        heard.append(calls)
    assert heard[1] == heard[0]


def test_terminate_on_nan_ends_the_run(keras: ModuleType) -> None:
    model = pair(keras)[1]
    model.set_weights([np.full(weight.shape, np.nan) for weight in model.get_weights()])
    history = fit(model, [keras.callbacks.TerminateOnNaN()])
    assert len(history.epoch) <= 1


def test_csv_logger(keras: ModuleType, tmp_path: Path) -> None:
    rows = []
    for name, model in zip(("keras", "oncue"), pair(keras), strict=True):
        path = tmp_path / name
        fit(model, [keras.callbacks.CSVLogger(str(path))], epochs=2)
        with path.open() as file:
            rows.append(list(csv.DictReader(file)))
    assert [list(row) for row in rows[1]] == [list(row) for row in rows[0]]
    for theirs, ours in zip(rows[0], rows[1], strict=True):
        for name in theirs:
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=2e-4)


def test_model_checkpoint_of_weights(keras: ModuleType, tmp_path: Path) -> None:
    models = pair(keras)
    if not hasattr(models[1], "save_weights"):
        pytest.skip("models can't be saved yet")
    path = str(tmp_path / "best.weights.h5")
    save = keras.callbacks.ModelCheckpoint(path, monitor="val_loss", save_best_only=True, save_weights_only=True)
    fit(models[1], [save])
    best = [weight.copy() for weight in models[1].get_weights()]
    models[0].load_weights(path)
    for theirs, ours in zip(models[0].get_weights(), best, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_progbar_logger_and_history_of_keras(keras: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    history = keras.callbacks.History()
    bar = keras.callbacks.ProgbarLogger()
    returned = fit(pair(keras)[1], [bar, history], epochs=2, verbose=0)
    assert history.history["loss"] == returned.history["loss"]
    assert capsys.readouterr().out == "" or "Epoch" not in capsys.readouterr().out


def test_a_subclass_of_kerass_callback(keras: ModuleType) -> None:
    heard: list[Any] = []

    class Mine(keras.callbacks.Callback):  # type: ignore[misc, name-defined]  # a base chosen at run time
        def on_train_begin(self, logs: Any = None) -> None:
            heard.append((self.params["epochs"], self.params["steps"], self.model is model))

        def on_batch_end(self, batch: int, logs: Any = None) -> None:
            heard.append(batch)

    model = pair(keras)[1]
    fit(model, [Mine()], epochs=1, validation_data=None)
    assert heard == [(1, 3, True), 0, 1, 2]


def test_both_kinds_together(keras: ModuleType) -> None:
    heard: list[str] = []
    fit(
        pair(keras)[1],
        [
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: heard.append("keras")),
            oncue.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: heard.append("oncue")),
        ],
        epochs=1,
    )
    assert heard == ["keras", "oncue"]


def test_a_callback_list_of_keras(keras: ModuleType) -> None:
    heard: list[int] = []
    listen = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: heard.append(epoch))
    fit(pair(keras)[1], keras.callbacks.CallbackList([listen]), epochs=2)
    assert heard == [0, 1]


def test_oncues_callbacks_on_a_keras_model(keras: ModuleType) -> None:
    model = pair(keras)[0]
    history = oncue.callbacks.History()
    rates = oncue.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    fit(model, [rates, history], epochs=2)
    assert history.epoch == [0, 1]
    np.testing.assert_allclose(history.history["learning_rate"], [0.05, 0.025], rtol=1e-6)
