"""What users do with a model between two runs counts in the next one, as it does with eager steps."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import normal, tensor
from oncue import layers
from oncue.callbacks import LambdaCallback

X = normal(20, 6)
Y = X[:, :2] * X[:, 2:4]
WEIGHTS = np.linspace(0.0, 1.0, 20)


def network() -> Any:
    parts = [layers.Dense(5, "tanh"), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(2)]
    return keras.Sequential([layers.Input((6,)), *parts])


def fit(model: Any, x: Any = X, **options: Any) -> Any:
    return model.fit(x, Y, **{"batch_size": 4, "shuffle": False, "verbose": 0, **options}).history["loss"]


def another_loss(model: Any) -> None:
    model.compile(model.optimizer, "mae", metrics=["mse"], jit_compile=model.jit_compile)


def an_own_loop(model: Any) -> None:
    for parameter in model.parameters():
        parameter.grad = None
    (model(tensor(X), training=True) - tensor(Y)).square().mean().backward()
    parameters = list(model.trainable_variables)
    model.optimizer.apply_gradients([(one.grad, one) for one in parameters])


def in_a_thread(model: Any) -> None:
    other = threading.Thread(target=fit, args=(model,))
    other.start()
    other.join()


def interrupted(model: Any) -> None:
    def stop(batch: int, logs: Any) -> None:
        if batch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[LambdaCallback(on_train_batch_end=stop)])


def with_runs_inside(model: Any) -> None:
    def inside(batch: int, logs: Any) -> None:
        model.evaluate(X, Y, batch_size=4, verbose=0)
        model.predict(X, batch_size=4, verbose=0)
        model(tensor(X), training=True)

    fit(model, callbacks=[LambdaCallback(on_train_batch_end=inside)])


BETWEEN: dict[str, Callable[[Any], Any]] = {
    "another batch size": lambda model: fit(model, batch_size=7, epochs=2),
    "weights of samples": lambda model: fit(model, sample_weight=WEIGHTS),
    "inputs of another type": lambda model: fit(model, X.astype("float64")),
    "whole numbers": lambda model: fit(model, (X * 9).astype("int32")),
    "another loss": another_loss,
    "another optimizer": lambda model: setattr(model, "optimizer", keras.optimizers.Adam(0.01)),
    "another activation": lambda model: setattr(model.layers[0], "activation", keras.activations.relu),
    "another momentum": lambda model: setattr(model.layers[1], "momentum", 0.1),
    "another rate of dropout": lambda model: setattr(model.layers[2], "rate", 0.0),
    "a regularizer": lambda model: setattr(model.layers[0], "kernel_regularizer", keras.regularizers.L2(0.1)),
    "a frozen layer": lambda model: setattr(model.layers[0], "trainable", False),
    "other weights": lambda model: model.set_weights([weight * 0.5 for weight in model.get_weights()]),
    "random numbers": lambda model: torch.rand(3),
    "single batches": lambda model: [model.train_on_batch(X[:4], Y[:4]), model.test_on_batch(X[:4], Y[:4])],
    "a loop of one's own": an_own_loop,
    "a copy that trains": lambda model: fit(copy.deepcopy(model)),
    "another thread": in_a_thread,
    "an interrupted run": interrupted,
    "runs inside a run": with_runs_inside,
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", BETWEEN)
def test_what_is_done_between_two_runs(name: str) -> None:
    left = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        model = network()
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse", jit_compile=jit)
        losses = fit(model)
        BETWEEN[name](model)
        losses += fit(model)
        left.append(
            [*losses, *np.concatenate([weight.ravel() for weight in model.get_weights()]), float(torch.rand(()))]
        )
    assert model.step_account.startswith("The steps ran as one compiled graph;")
    assert np.isfinite(left[0]).all()
    np.testing.assert_allclose(*left, rtol=1e-5, atol=1e-5)
