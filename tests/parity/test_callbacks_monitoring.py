"""The callbacks that watch a value, side by side with Keras's on scripted values."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import oncue

SERIES = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.25, 0.5, 1.0, 1.25, 2.0, 3.0]), min_size=1, max_size=10)
QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
X = np.ones((4, 2), dtype="float32")
Y = np.zeros((4, 1), dtype="float32")


class Optimizer:
    """Keeps its rate in 32 bits, as Keras's optimizers do."""

    def __init__(self, rate: float) -> None:
        self.learning_rate = rate

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, float(np.float32(value)))


class Host:
    """The least that a callback needs of a model: its weights are the number of the epoch."""

    def __init__(self, rate: float) -> None:
        self.stop_training = False
        self.optimizer = Optimizer(rate)
        self.weights = [np.array(-1)]

    def get_weights(self) -> list[np.ndarray]:
        return [weight.copy() for weight in self.weights]

    def set_weights(self, weights: list[np.ndarray]) -> None:
        self.weights = weights


def played(callback: Any, series: list[float], attributes: tuple[str, ...]) -> list[Any]:
    host = Host(1.0)
    callback.set_model(host)
    callback.set_params({"epochs": len(series), "verbose": 0, "steps": 1})
    callback.on_train_begin()
    trace: list[Any] = []
    for epoch, value in enumerate(series):
        callback.on_epoch_begin(epoch)
        host.weights = [np.array(epoch)]
        logs = {"loss": 0.0, "val_loss": value}
        callback.on_epoch_end(epoch, logs)
        state = [None if item is None else float(item) for item in (getattr(callback, name) for name in attributes)]
        rates = [host.optimizer.learning_rate, logs.get("learning_rate", 0.0)]
        trace.append([*state, *(round(rate, 9) for rate in rates), host.stop_training])
        if host.stop_training:
            break
    callback.on_train_end()
    return [*trace, int(host.weights[0])]


@QUICK
@given(
    series=SERIES,
    arguments=st.fixed_dictionaries(
        {
            "patience": st.integers(0, 4),
            "min_delta": st.sampled_from([0, 0.25, 0.5, -0.5, 1]),
            "mode": st.sampled_from(["min", "max", "auto"]),
            "baseline": st.sampled_from([None, 0.0, 0.5, 1.0]),
            "start_from_epoch": st.integers(0, 4),
            "restore_best_weights": st.booleans(),
        }
    ),
)
def test_early_stopping(keras: ModuleType, series: list[float], arguments: dict[str, Any]) -> None:
    attributes = ("wait", "stopped_epoch", "best", "best_epoch")
    ours, theirs = (k.callbacks.EarlyStopping(**arguments) for k in (oncue, keras))
    assert played(ours, series, attributes) == played(theirs, series, attributes)


@QUICK
@given(
    series=SERIES,
    arguments=st.fixed_dictionaries(
        {
            "patience": st.integers(0, 4),
            "min_delta": st.sampled_from([0, 1e-4, 0.25, 0.5, -0.5]),
            "mode": st.sampled_from(["min", "max", "auto"]),
            "cooldown": st.integers(0, 3),
            "factor": st.sampled_from([0.1, 0.3, 0.5]),
            "min_lr": st.sampled_from([0, 0.1, 0.25, 0.3]),
        }
    ),
)
def test_reduce_lr_on_plateau(keras: ModuleType, series: list[float], arguments: dict[str, Any]) -> None:
    attributes = ("wait", "best", "cooldown_counter")
    ours, theirs = (k.callbacks.ReduceLROnPlateau(**arguments) for k in (oncue, keras))
    assert played(ours, series, attributes) == played(theirs, series, attributes)


def keras_model(keras: ModuleType, optimizer: Any = None) -> Any:
    made = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
    made.compile(optimizer or keras.optimizers.SGD(0.5), loss="mse", metrics=["mae"])
    return made


def test_arguments_and_attributes(keras: ModuleType) -> None:
    names = {
        "EarlyStopping": ["monitor", "min_delta", "patience", "verbose", "mode", "baseline", "restore_best_weights"],
        "ReduceLROnPlateau": ["monitor", "factor", "patience", "verbose", "mode", "min_delta", "cooldown", "min_lr"],
    }
    given_values = {
        "EarlyStopping": ("loss", 0.5, 3, 1, "max", 0.25, True, 2),
        "ReduceLROnPlateau": ("loss", 0.5, 3, 1, "max", 0.25, 2, 0.125),
    }
    for name, attributes in names.items():
        for values in ((), given_values[name]):
            ours, theirs = (getattr(k.callbacks, name)(*values) for k in (oncue, keras))
            for attribute in [*attributes, "wait", "best"]:
                assert getattr(ours, attribute) == getattr(theirs, attribute), (name, attribute)


def test_in_the_loop_of_keras_itself(keras: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def trained(k: ModuleType) -> Any:
        class Script(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                logs["val_mae"] = [3.0, 2.0, 2.0, 2.5, 2.5, 2.5, 2.5, 2.5][epoch]

        keras.utils.set_random_seed(0)
        made = keras_model(keras)
        stop = k.callbacks.EarlyStopping(monitor="val_mae", patience=4, verbose=1, restore_best_weights=True)
        history = made.fit(
            X, Y, epochs=8, verbose=0, validation_data=(X, Y), callbacks=[
                Script(),
                k.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5 if epoch == 1 else rate, verbose=1),
                k.callbacks.ReduceLROnPlateau(monitor="val_mae", factor=0.5, patience=2, verbose=1),
                k.callbacks.TerminateOnNaN(),
                stop,
            ],
        )  # fmt: skip
        text = capsys.readouterr().out
        return history.epoch, list(history.history), stop.stopped_epoch, text, made.get_weights(), history.history

    ours, theirs = trained(oncue), trained(keras)
    assert ours[:4] == theirs[:4]
    for one, other in zip(ours[4], theirs[4], strict=True):
        np.testing.assert_allclose(one, other)
    # Keras's scheduler, which ends before the plateau callback, logs the rate of the epoch too.
    assert ours[5]["learning_rate"] == pytest.approx(theirs[5]["learning_rate"])


def test_terminate_on_nan_in_the_loop_of_keras_itself(keras: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    y = np.array([[0.0], [0.0], [np.nan], [0.0]], dtype="float32")
    found = []
    for k in (oncue, keras):
        made = keras_model(keras)
        history = made.fit(
            X, y, batch_size=1, epochs=3, verbose=0, shuffle=False, callbacks=[k.callbacks.TerminateOnNaN()]
        )
        found.append((history.epoch, capsys.readouterr().out))
        with pytest.raises(RuntimeError, match=r"NaN or Inf loss encountered at batch 2\. Loss value: nan\."):
            callbacks = [k.callbacks.TerminateOnNaN(raise_error=True)]
            keras_model(keras).fit(X, y, batch_size=1, verbose=0, shuffle=False, callbacks=callbacks)
    assert found[0] == found[1]
    assert "Batch 2: Invalid loss, terminating training" in found[0][1]


@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_swap_ema_weights(keras: ModuleType, swap_on_epoch: bool) -> None:
    x = np.random.default_rng(0).normal(size=(24, 2)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    start = [np.full((2, 1), 0.2), np.zeros(1)]
    found = []
    for k in (oncue, keras):
        made = keras_model(k, k.optimizers.SGD(0.2, use_ema=True, ema_momentum=0.8))
        made.set_weights(start)
        history = made.fit(
            x, y, batch_size=8, epochs=3, verbose=0, shuffle=False, validation_data=(x, y),
            callbacks=[k.callbacks.SwapEMAWeights(swap_on_epoch)],
        )  # fmt: skip
        found.append((history.history, made.get_weights()))
    (ours, our_weights), (theirs, their_weights) = found
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5)
    for one, other in zip(our_weights, their_weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_the_swap_says_which_loop_lacks_it(keras: ModuleType) -> None:
    made = keras_model(keras, keras.optimizers.SGD(0.2, use_ema=True))
    with pytest.raises(ValueError, match=r"keras\.callbacks\.SwapEMAWeights"):
        made.fit(X, Y, verbose=0, callbacks=[oncue.callbacks.SwapEMAWeights()])
