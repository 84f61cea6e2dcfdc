"""Runs whose processes don't fit together: each function returns what the error says, which all processes get.

One after the other, in the same processes: they meet again after each.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import oncue as keras
from oncue import layers

MAIN = os.environ.get("RANK") == "0"
X = np.random.default_rng(0).normal(size=(24, 4)).astype("float32")
Y = X.sum(1, keepdims=True)


def made(units: int = 3) -> keras.Sequential:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((4,)), layers.Dense(units), layers.Dropout(0.1), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def said_by(run: Callable[[], Any]) -> str:
    """Return the class and the text of the error of a run."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            run()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "; ".join(f"{one.category.__name__}: {one.message}" for one in caught)


def fitted(model: Any, x: Any = X, **options: Any) -> str:
    return said_by(lambda: model.fit(x, Y, **{"batch_size": 6, "epochs": 3, "verbose": 0, **options}))


def only_main(**hooks: Callable[..., None]) -> list[Any]:
    """Return a callback that does something on the main process only."""
    return [keras.callbacks.LambdaCallback(**(hooks if MAIN else {name: lambda *_: None for name in hooks}))]


def nothing_wrong(folder: Path) -> str:
    return fitted(made())


def another_dataset(folder: Path) -> str:
    return fitted(made(), X if MAIN else X + 1)


def another_length(folder: Path) -> str:
    return said_by(lambda: made().fit(*([X, Y] if MAIN else [X[:20], Y[:20]]), verbose=0))


def another_batch_size(folder: Path) -> str:
    return fitted(made(), batch_size=6 if MAIN else 8)


def another_model(folder: Path) -> str:
    return fitted(made(3 if MAIN else 4))


def another_rate(folder: Path) -> str:
    model = made()
    model.optimizer.learning_rate = 0.1 if MAIN else 0.2
    return fitted(model)


def another_callback(folder: Path) -> str:
    return fitted(made(), callbacks=[keras.callbacks.EarlyStopping("loss")] if MAIN else [])


def another_method(folder: Path) -> str:
    model = made()
    return said_by(lambda: model.fit(X, Y, verbose=0) if MAIN else model.evaluate(X, Y, verbose=0))


def own_evaluation(folder: Path) -> str:
    model = made()
    return fitted(model, callbacks=only_main(on_train_batch_end=lambda *_: model.evaluate(X, Y, verbose=0)))


def drift_of_weights(folder: Path) -> str:
    model = made()

    def drift(epoch: int, logs: Any) -> None:
        if epoch == 1:
            with torch.no_grad():
                model.layers[0].bias.add_(1e-6)

    return fitted(model, callbacks=only_main(on_epoch_end=drift))


def drift_of_rate(folder: Path) -> str:
    model = made()

    def drift(epoch: int, logs: Any) -> None:
        model.optimizer.learning_rate = 0.5

    return fitted(model, callbacks=only_main(on_epoch_end=drift))


def wrapped(folder: Path) -> str:
    keras.distribution.list_devices()
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 1))
    model = keras.Model(torch.nn.parallel.DistributedDataParallel(module))
    model.compile("sgd", "mse")
    return fitted(model)


def penalty_of_whole_weights(folder: Path) -> str:
    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(1, kernel_regularizer="orthogonal_regularizer")]
    )
    model.compile("sgd", "mse")
    return with_shards(lambda: fitted(model))


def weights_of_several_types(folder: Path) -> str:
    layer = torch.nn.Linear(4, 1)
    layer.bias = torch.nn.Parameter(layer.bias.detach().bfloat16())
    model = keras.Model(torch.nn.Sequential(layer))
    model.compile("sgd", "mse")
    return with_shards(lambda: fitted(model))


def with_shards(run: Callable[[], str]) -> str:
    keras.distribution.set_distribution(keras.distribution.DataParallel(shard_weights=True))
    try:
        return run()
    finally:
        keras.distribution.set_distribution(keras.distribution.DataParallel())


def tiny_batches(folder: Path) -> str:
    return fitted(made(), batch_size=1, epochs=1)


def warnings_of_callbacks(folder: Path) -> str:
    """One comes before the run, and one in it."""
    batches = iter([(X[:6], Y[:6])])
    return said_by(
        lambda: made().fit(
            batches, steps_per_epoch=2, callbacks=keras.callbacks.EarlyStopping("loss", mode="odd"), verbose=0
        )
    )


RUNS = [
    another_dataset,
    another_length,
    another_batch_size,
    another_model,
    another_rate,
    another_callback,
    another_method,
    own_evaluation,
    drift_of_weights,
    drift_of_rate,
    wrapped,
    penalty_of_whole_weights,
    weights_of_several_types,
    tiny_batches,
    warnings_of_callbacks,
    nothing_wrong,
]
