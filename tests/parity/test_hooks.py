"""The same hooks, with the same indices and the same logs, as under real Keras."""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import oncue

LOGS_ONLY = ("on_train_begin", "on_train_end", "on_test_begin", "on_test_end", "on_predict_begin", "on_predict_end")
INDEXED = (
    "on_epoch_begin",
    "on_epoch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
    "on_predict_batch_begin",
    "on_predict_batch_end",
)

RNG = np.random.default_rng(7)
X = RNG.normal(size=(22, 4)).astype("float32")
Y = (X[:, :1] - X[:, 1:2] > 0).astype("float32")
X_VAL, Y_VAL = X[:9] + 0.5, Y[:9]


def recorder(k: Any) -> Any:
    """Return a callback of `k` that writes down every call it gets."""

    class Recorder(k.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[tuple[str, Any, list[str]]] = []
            self.values: list[float] = []
            self.all_params: list[dict[str, Any]] = []

        def set_params(self, params: dict[str, Any]) -> None:
            super().set_params(params)
            self.all_params.append(dict(params))

        def record(self, hook: str, index: Any, logs: Any) -> None:
            logs = logs or {}
            self.calls.append((hook, index, list(logs)))
            self.values += [float(value) for name, value in logs.items() if name != "outputs"]

    for name in LOGS_ONLY:
        setattr(Recorder, name, lambda self, logs=None, name=name: self.record(name, None, logs))
    for name in INDEXED:
        setattr(Recorder, name, lambda self, index, logs=None, name=name: self.record(name, index, logs))
    return Recorder()


def model_of(k: Any, weights: list[np.ndarray] | None = None, **compile_options: Any) -> Any:
    model = k.Sequential(
        [
            k.layers.Input((4,)),
            k.layers.Dense(5, activation="tanh"),
            k.layers.Dense(1, activation="sigmoid"),
        ]
    )
    options = {"loss": "binary_crossentropy", "metrics": ["accuracy", "mae"], **compile_options}
    model.compile(optimizer=k.optimizers.SGD(0.3), **options)
    if weights is not None:
        model.set_weights(weights)
    return model


def pair(keras: ModuleType, **compile_options: Any) -> tuple[Any, Any]:
    """Return the model under real Keras and the same one under oncue."""
    reference = model_of(keras, **compile_options)
    return reference, model_of(oncue, reference.get_weights(), **compile_options)


def run_both(keras: ModuleType, act: Any, **compile_options: Any) -> tuple[Any, Any]:
    """Run `act(model, recorder)` under both and compare everything that was recorded."""
    recorders = []
    for k, model in zip((keras, oncue), pair(keras, **compile_options), strict=True):
        listener = recorder(k)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            act(model, listener)
        recorders.append(listener)
    theirs, ours = recorders
    assert ours.calls == theirs.calls
    np.testing.assert_allclose(ours.values, theirs.values, rtol=2e-4, atol=1e-6)
    assert ours.all_params == theirs.all_params
    return theirs, ours


def endless(batch_size: int = 5) -> Any:
    while True:
        for start in range(0, 20, batch_size):
            yield X[start : start + batch_size], Y[start : start + batch_size]


def once(batches: int = 3) -> Any:
    for index in range(batches):
        yield X[index * 5 : index * 5 + 5], Y[index * 5 : index * 5 + 5]


FITS: dict[str, dict[str, Any]] = {
    "plain": {"epochs": 2},
    "validation": {"epochs": 2, "validation_data": (X_VAL, Y_VAL)},
    "validation as a list": {"epochs": 1, "validation_data": [X_VAL, Y_VAL]},
    "weighted validation": {"epochs": 1, "validation_data": (X_VAL, Y_VAL, np.linspace(0.1, 2.0, 9))},
    "every second epoch validated": {"epochs": 3, "validation_data": (X_VAL, Y_VAL), "validation_freq": 2},
    "listed epochs validated": {"epochs": 4, "validation_data": (X_VAL, Y_VAL), "validation_freq": [1, 4]},
    "validation steps": {"epochs": 1, "validation_data": (X_VAL, Y_VAL), "validation_steps": 1},
    "validation batch size": {"epochs": 1, "validation_data": (X_VAL, Y_VAL), "validation_batch_size": 2},
    "validation split": {"epochs": 2, "validation_split": 0.25},
    "initial epoch": {"epochs": 4, "initial_epoch": 2},
    "initial epoch at the end": {"epochs": 2, "initial_epoch": 2},
    "no epochs": {"epochs": 0},
    "batch bigger than the data": {"epochs": 2, "batch_size": 100},
    "batch of one": {"epochs": 1, "batch_size": 1},
    "sample weights": {"epochs": 2, "sample_weight": np.linspace(0.0, 2.0, 22)},
    "class weights": {"epochs": 2, "class_weight": {0: 0.5, 1: 3.0}},
}


@pytest.mark.parametrize("case", FITS)
def test_fit_on_arrays(keras: ModuleType, case: str) -> None:
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **FITS[case]}
    run_both(keras, lambda model, listener: model.fit(X, Y, callbacks=[listener], **arguments))


def test_weighted_metrics(keras: ModuleType) -> None:
    weight = np.linspace(0.0, 2.0, 22)
    run_both(
        keras,
        lambda model, listener: model.fit(
            X, Y, batch_size=8, shuffle=False, verbose=0, sample_weight=weight, callbacks=[listener]
        ),
        weighted_metrics=["accuracy", "mse"],
    )


def test_only_a_loss(keras: ModuleType) -> None:
    run_both(keras, lambda m, r: m.fit(X, Y, epochs=1, shuffle=False, verbose=0, callbacks=r), metrics=None)


def test_an_endless_generator_with_steps(keras: ModuleType) -> None:
    run_both(
        keras,
        lambda model, listener: model.fit(
            endless(),
            epochs=2,
            steps_per_epoch=3,
            verbose=0,
            callbacks=[listener],
            validation_data=(X_VAL, Y_VAL),
        ),
    )


def test_a_generator_of_unknown_length(keras: ModuleType) -> None:
    _, ours = run_both(keras, lambda model, r: model.fit(once(), epochs=1, verbose=0, callbacks=[r]))
    assert ours.all_params[0]["steps"] is None


def test_a_data_set_of_known_length(keras: ModuleType) -> None:
    import torch

    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=6
    )
    _, ours = run_both(keras, lambda model, r: model.fit(loader, epochs=2, verbose=0, callbacks=[r]))
    assert ours.all_params[0]["steps"] == 4


@pytest.mark.parametrize("options", [{}, {"steps": 2}, {"batch_size": 100}, {"sample_weight": np.linspace(0, 2, 22)}])
def test_evaluate(keras: ModuleType, options: dict[str, Any]) -> None:
    results = []

    def act(model: Any, listener: Any) -> None:
        arguments = {"batch_size": 8, "verbose": 0, "callbacks": [listener], **options}
        results.append(model.evaluate(X, Y, **arguments))
        results.append(list(model.evaluate(X, Y, return_dict=True, **arguments).items()))

    run_both(keras, act)
    np.testing.assert_allclose(results[2], results[0], rtol=2e-4)
    assert [name for name, _ in results[3]] == [name for name, _ in results[1]]


def test_evaluate_of_a_generator(keras: ModuleType) -> None:
    run_both(keras, lambda model, r: model.evaluate(once(), verbose=0, callbacks=[r]))


@pytest.mark.parametrize("options", [{}, {"steps": 2}, {"batch_size": 100}])
def test_predict(keras: ModuleType, options: dict[str, Any]) -> None:
    results = []
    arguments = {"batch_size": 8, "verbose": 0, **options}
    run_both(keras, lambda model, r: results.append(model.predict(X, callbacks=[r], **arguments)))
    assert results[1].dtype == results[0].dtype
    np.testing.assert_allclose(results[1], results[0], rtol=2e-4)


def test_predict_gives_the_batch_its_outputs(keras: ModuleType) -> None:
    shapes: list[Any] = []
    for k, model in zip((keras, oncue), pair(keras), strict=True):
        listener = k.callbacks.LambdaCallback(
            on_predict_batch_end=lambda batch, logs: shapes.append((batch, tuple(logs["outputs"].shape)))
        )
        model.predict(X, batch_size=16, verbose=0, callbacks=[listener])
    assert shapes[:2] == shapes[2:] == [(0, (16, 1)), (1, (6, 1))]


def test_stop_training_after_a_batch(keras: ModuleType) -> None:
    def act(model: Any, listener: Any) -> None:
        k = keras if type(model).__module__.startswith("keras") else oncue

        class Stop(k.callbacks.Callback):  # type: ignore[misc, name-defined]  # a base chosen at run time
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if batch == 1:
                    self.model.stop_training = True

        model.fit(
            X,
            Y,
            batch_size=5,
            epochs=3,
            shuffle=False,
            verbose=0,
            validation_data=(X_VAL, Y_VAL),
            callbacks=[Stop(), listener],
        )
        model.fit(X, Y, batch_size=11, epochs=2, shuffle=False, verbose=0, callbacks=[listener])

    run_both(keras, act)


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_epoch_end", "on_test_begin"])
def test_stop_training_elsewhere(keras: ModuleType, hook: str) -> None:
    def act(model: Any, listener: Any) -> None:
        k = keras if type(model).__module__.startswith("keras") else oncue

        def stop(*_: Any) -> None:
            model.stop_training = True

        stopper = k.callbacks.Callback()
        two = hook.startswith("on_epoch")
        setattr(stopper, hook, (lambda epoch, logs=None: stop()) if two else (lambda logs=None: stop()))
        model.fit(
            X,
            Y,
            batch_size=11,
            epochs=3,
            shuffle=False,
            verbose=0,
            validation_data=(X_VAL, Y_VAL),
            callbacks=[stopper, listener],
        )

    run_both(keras, act)


def test_stop_evaluating_and_predicting(keras: ModuleType) -> None:
    def act(model: Any, listener: Any) -> None:
        k = keras if type(model).__module__.startswith("keras") else oncue

        def stop_test(batch: int, logs: Any) -> None:
            model.stop_evaluating = True

        def stop_predict(batch: int, logs: Any) -> None:
            model.stop_predicting = batch == 1

        both = k.callbacks.LambdaCallback(on_test_batch_end=stop_test, on_predict_batch_end=stop_predict)
        model.evaluate(X, Y, batch_size=5, verbose=0, callbacks=[both, listener])
        assert model.predict(X, batch_size=5, verbose=0, callbacks=[both, listener]).shape == (10, 1)

    run_both(keras, act)


def test_history_keeps_the_order_of_keys(keras: ModuleType) -> None:
    histories = [
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0, validation_data=(X_VAL, Y_VAL))
        for model in pair(keras)
    ]
    theirs, ours = histories
    assert list(ours.history) == list(theirs.history)
    assert ours.epoch == theirs.epoch
    for name, values in theirs.history.items():
        np.testing.assert_allclose(ours.history[name], values, rtol=2e-4)


def test_old_batch_hooks_are_heard_in_training_only(keras: ModuleType) -> None:
    heard: list[list[tuple[str, int]]] = []
    for k, model in zip((keras, oncue), pair(keras), strict=True):
        said: list[tuple[str, int]] = []

        class Old(k.callbacks.Callback):  # type: ignore[misc, name-defined]  # a base chosen at run time
            calls = said

            def on_batch_begin(self, batch: int, logs: Any = None) -> None:
                self.calls.append(("begin", batch))

            def on_batch_end(self, batch: int, logs: Any = None) -> None:
                self.calls.append(("end", batch))

        model.fit(X, Y, batch_size=11, verbose=0, shuffle=False, validation_data=(X_VAL, Y_VAL), callbacks=[Old()])
        model.evaluate(X, Y, verbose=0, callbacks=[Old()])
        model.predict(X, verbose=0, callbacks=[Old()])
        heard.append(said)
    assert heard[1] == heard[0] == [("begin", 0), ("end", 0), ("begin", 1), ("end", 1)]


def test_both_names_of_a_batch_hook(keras: ModuleType) -> None:
    """A class with `on_train_batch_end` and `on_batch_end` hears each batch once, by the new name."""
    heard: list[list[str]] = []
    for k, model in zip((keras, oncue), pair(keras), strict=True):
        said: list[str] = []

        class Both(k.callbacks.Callback):  # type: ignore[misc, name-defined]  # a base chosen at run time
            calls = said

            def on_batch_end(self, batch: int, logs: Any = None) -> None:
                self.calls.append("old")

            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                self.calls.append("new")

        model.fit(X, Y, batch_size=11, verbose=0, callbacks=[Both()])
        heard.append(said)
    assert heard[1] == heard[0] == ["new", "new"]
