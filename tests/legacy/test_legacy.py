"""Names of older Keras generations."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest

import oncue
from oncue.callbacks import Callback, LambdaCallback
from oncue.core.logs import Logs
from oncue.legacy.arguments import ARGUMENTS
from oncue.legacy.names import NAMES

X = np.linspace(-1, 1, 28, dtype="float32").reshape(14, 2)
Y = (X[:, :1] > 0).astype("float32")


def model() -> Any:
    made = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1, activation="sigmoid")])
    made.compile(optimizer="sgd", loss="binary_crossentropy", metrics=["accuracy"])
    return made


def test_old_log_names_resolve_but_are_no_keys() -> None:
    seen: list[Any] = []

    def look(epoch: int, logs: Any) -> None:
        seen.append((logs["acc"] == logs["accuracy"], logs.get("val_acc") == logs["val_accuracy"], "acc" in logs))
        seen.append(sorted(logs))

    model().fit(X, Y, verbose=0, validation_data=(X, Y), callbacks=[LambdaCallback(on_epoch_end=look)])
    assert seen == [(True, True, False), ["accuracy", "loss", "val_accuracy", "val_loss"]]


def test_size_and_batch_of_the_batch_logs() -> None:
    seen: list[Any] = []

    class Old(Callback):
        def on_batch_begin(self, batch: int, logs: Any = None) -> None:
            seen.append(("begin", logs["batch"], logs.get("size"), list(logs)))

        def on_batch_end(self, batch: int, logs: Any = None) -> None:
            seen.append(("end", logs.get("batch"), logs["size"], "size" in logs))

    model().fit(X, Y, batch_size=10, verbose=0, callbacks=[Old()])
    assert seen == [
        ("begin", 0, 10, []),
        ("end", 0, 10, False),
        ("begin", 1, 4, []),
        ("end", 1, 4, False),
    ]


def test_size_is_known_later() -> None:
    kept: list[Any] = []
    keep = LambdaCallback(on_train_batch_end=lambda batch, logs: kept.append(logs))
    model().fit(X, Y, batch_size=10, verbose=0, callbacks=[keep])
    assert [logs["size"] for logs in kept] == [10, 4]


def test_the_learning_rate_under_both_names() -> None:
    assert Logs({"learning_rate": 0.5})["lr"] == 0.5
    assert Logs({"lr": 0.5})["learning_rate"] == 0.5
    assert Logs({"mae": 1.0}).get("val_mae") is None


@pytest.mark.parametrize("kind", ["binary", "categorical", "sparse_categorical"])
def test_acc_finds_the_accuracy_that_is_there(kind: str) -> None:
    assert Logs({f"val_{kind}_accuracy": 0.25})["val_acc"] == 0.25


def test_nb_epoch_warns_and_works() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = model().fit(X, Y, nb_epoch=3, verbose=0)
    assert len(history.epoch) == 3
    assert all("epochs" in str(item.message) for item in caught if "nb_epoch" in str(item.message))


def test_lambda_callback_takes_old_names() -> None:
    heard: list[int] = []
    old = LambdaCallback(on_batch_end=lambda batch, logs: heard.append(batch))
    model().fit(X, Y, batch_size=7, verbose=0, callbacks=[old])
    assert heard == [0, 1]


def test_loader_arguments_of_keras_2_are_ignored() -> None:
    history = model().fit(X, Y, verbose=0, workers=2, use_multiprocessing=False, max_queue_size=3)
    assert len(history.epoch) == 1


@pytest.mark.parametrize("owner", [owner for owner in ARGUMENTS if hasattr(oncue.layers, owner)])
def test_the_new_names_of_layers_arguments_exist(owner: str) -> None:
    known = inspect.signature(getattr(oncue.layers, owner)).parameters
    assert {new for new in ARGUMENTS[owner].values() if new is not None} <= set(known)


@pytest.mark.parametrize(
    ("owner", "function"),
    [
        ("Model", oncue.Model.__init__),
        ("Optimizer", oncue.optimizers.SGD),
        ("ReduceLROnPlateau", oncue.callbacks.ReduceLROnPlateau),
        ("fit", oncue.Model.fit),
    ],
)
def test_the_new_names_of_other_arguments_exist(owner: str, function: Any) -> None:
    known = inspect.signature(function).parameters
    assert {new for new in ARGUMENTS[owner].values() if new is not None} <= set(known)


@pytest.mark.parametrize(
    ("kind", "find"),
    [
        ("loss", oncue.losses.get),
        ("metric", oncue.metrics.get),
        ("initializer", oncue.initializers.get),
        ("layer", lambda name: getattr(oncue.layers, name)),
    ],
)
def test_other_names_mean_what_they_stand_for(kind: str, find: Any) -> None:
    for other, name in NAMES[kind].items():
        one, same = find(other), find(name)
        assert one is same or type(one) is type(same), other
