"""The plan of a model: completed for a run, shared by no copy, and held no longer than it is needed."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor
from oncue import layers
from oncue.callbacks import Callback

X = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
Y = X[:, :1] * 2


def network() -> Any:
    oncue.utils.set_random_seed(0)
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


class Custom(oncue.Sequential):
    """Has a step of its own around the one that all models have."""

    def train_step(self, data: Any) -> dict[str, Any]:
        return {**super().train_step(data), "mine": 1.0}


def custom() -> Any:
    oncue.utils.set_random_seed(0)
    model = Custom([layers.Input((3,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model(tensor(torch.ones(1, 3))),
        lambda model: model.predict(X, verbose=0),
        lambda model: model.predict_on_batch(X),
    ],
    ids=["call", "predict", "predict_on_batch"],
)
def test_a_model_that_nobody_needs_is_freed_at_once(use: Callable[[Any], Any]) -> None:
    model = network()
    gone = weakref.ref(model)
    gc.disable()
    try:
        use(model)
        del model
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("make", "copied"),
    [
        (network, copy.deepcopy),
        (network, lambda model: pickle.loads(pickle.dumps(model))),
        (custom, copy.deepcopy),
    ],
    ids=["copy", "pickle", "copy of one with a step of its own"],
)
def test_a_copy_of_a_trained_model_is_trained_alike_and_apart(make: Callable[[], Any], copied: Any) -> None:
    model = make()
    model.fit(X, Y, verbose=0)
    other = copied(model)
    first, second = (one.fit(X, Y, shuffle=False, verbose=0).history for one in (other, model))
    assert first == second


def test_a_copy_takes_single_steps() -> None:
    model = custom()
    model.fit(X, Y, verbose=0)
    other = copy.deepcopy(model)
    data = tensor(X), tensor(Y)
    before = model.get_weights()
    assert set(other.train_step(data)) == {"loss", "mae", "mine"}
    assert not np.array_equal(other.get_weights()[0], before[0])
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


@pytest.mark.parametrize("make", [network, custom])
def test_an_optimizer_that_is_assigned_trains_from_the_next_run_on(make: Callable[[], Any]) -> None:
    model = make()
    model.fit(X, Y, verbose=0)
    model.optimizer = oncue.optimizers.SGD(0.0)
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
    assert model.optimizer.iterations == 1


def test_data_and_callbacks_may_use_the_model_while_it_is_trained() -> None:
    model = network()

    class Uses(Callback):
        def set_model(self, used: Any) -> None:
            super().set_model(used)
            used.predict(X, verbose=0)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            model.evaluate(X, Y, verbose=0)
            model.train_on_batch(X, Y)

    def batches() -> Iterator[Any]:
        for start in range(0, 32, 8):
            model.predict(X, verbose=0)
            yield X[start : start + 8], Y[start : start + 8]

    history = model.fit(batches(), validation_data=(X, Y), verbose=0, callbacks=[Uses()]).history
    assert set(history) == {"loss", "mae", "val_loss", "val_mae"}
    assert model.optimizer.iterations == 8


def test_a_method_of_the_class_is_used_from_the_next_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(oncue.Sequential):
        pass

    model = Mine([layers.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    monkeypatch.setattr(Mine, "train_step", lambda self, data: {"mine": 2.0}, raising=False)
    assert model.fit(X, Y, verbose=0).history == {"mine": [2.0]}


def test_a_prediction_that_ends_during_fit_leaves_it_its_plan() -> None:
    model = network()
    in_fit, predicted, failures = threading.Event(), threading.Event(), list[Exception]()

    class Wait(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            in_fit.set()
            predicted.wait(60)

    def fit() -> None:
        try:
            model.fit(X, Y, verbose=0, callbacks=Wait(), validation_data=(X, Y))
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=fit)

    class Begin(Callback):
        def on_predict_begin(self, logs: Any = None) -> None:
            thread.start()
            in_fit.wait(60)

    model.predict(X, verbose=0, callbacks=Begin())
    predicted.set()
    thread.join()
    assert not failures
    assert len(model.history.history["val_loss"]) == 1
