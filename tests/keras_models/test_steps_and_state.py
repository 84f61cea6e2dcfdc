"""Steps of the model's own, mixed precision, state beside weights, and hooks that change the model while it is trained."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from keras_models.side_by_side import LABELS, X, Y, both, fit, half_step, same, same_models, twins

import oncue


def plain(keras: Any) -> dict[str, Any]:
    return {"optimizer": keras.optimizers.Adam(0.01), "loss": "mse", "metrics": ["mae"]}


def layers_of(keras: Any) -> list[Any]:
    return [keras.layers.Dense(4, activation="tanh"), keras.layers.Dropout(0.3, seed=2), keras.layers.Dense(1)]


def own_train_step(keras: Any) -> Any:
    class Own(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            return half_step(self, data)

    return Own(layers_of(keras))


def own_logs_in_dicts(keras: Any) -> Any:
    class Own(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            found = super().train_step(data)["loss"]
            # Of one name twice, the one in the dict of the later name counts.
            return {"z": {"b": found, "loss": 2 * found}, "loss": found, "a": {"c": 3 * found, "loss": 4 * found}}

    return Own(layers_of(keras))


def own_compute_loss(keras: Any) -> Any:
    class Own(keras.Sequential):
        def compute_loss(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None, training: bool = True) -> Any:
            return super().compute_loss(x, y, y_pred, sample_weight) + keras.ops.mean(keras.ops.square(y_pred))

        def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            found = super().compute_metrics(x, y, y_pred, sample_weight)
            return {**found, "largest": keras.ops.max(y_pred)}

    return Own(layers_of(keras))


def own_metrics(keras: Any) -> Any:
    class Own(keras.Sequential):
        def __init__(self, layers: Any) -> None:
            super().__init__(layers)
            self.seen = keras.metrics.Mean(name="seen")

        def train_step(self, data: Any) -> Any:
            logs = super().train_step(data)
            self.seen.update_state(len(data[0]))
            return {**logs, "seen": self.seen.result()}

        @property
        def metrics(self) -> Any:
            return [*super().metrics, self.seen]

    return Own(layers_of(keras))


def own_prediction(keras: Any) -> Any:
    class Own(keras.Sequential):
        def predict_step(self, data: Any) -> Any:
            return super().predict_step(data) * 2

    return Own(layers_of(keras))


def metric_in_a_layer(keras: Any) -> Any:
    class Watching(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.size = keras.metrics.Mean(name="size")

        def call(self, inputs: Any) -> Any:
            self.size.update_state(keras.ops.mean(keras.ops.abs(inputs), axis=-1))
            return inputs

    return keras.Sequential([keras.Input((6,)), Watching(), *layers_of(keras)])


@pytest.mark.parametrize(
    "make",
    [own_train_step, own_logs_in_dicts, own_compute_loss, own_metrics, own_prediction, metric_in_a_layer],
    ids=lambda make: make.__name__,
)
def test_steps_and_metrics_of_the_models_own(keras: ModuleType, make: Callable[[Any], Any]) -> None:
    models = twins(keras, make, plain)
    # Keras sorts what is in a dict of a dict by the outer name.
    same(*both(models, lambda model: dict(sorted(fit(model, validation_data=(X, Y)).items()))))
    same_models(models)
    same(*both(models, lambda model: model.evaluate(X, Y, verbose=0)))
    same(*both(models, lambda model: model.predict(X, verbose=0)))


@pytest.fixture
def policy(keras: ModuleType) -> Iterator[Callable[[str], None]]:
    before = keras.mixed_precision.dtype_policy()
    yield keras.mixed_precision.set_global_policy
    keras.mixed_precision.set_global_policy(before)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_policies(keras: ModuleType, policy: Callable[[str], None], name: str) -> None:
    policy(name)
    models = twins(keras, lambda keras: keras.Sequential([keras.Input((6,)), *layers_of(keras)]), plain)
    found = both(models, lambda model: fit(model, validation_data=(X, Y)))
    for value in found[0]:
        np.testing.assert_allclose(found[1][value], found[0][value], rtol=1e-2 if "16" in name else 1e-4)
    if name == "mixed_float16":
        theirs, ours = (model.optimizer for model in models)
        assert type(ours) is type(theirs) is keras.optimizers.LossScaleOptimizer
        assert int(ours.inner_optimizer.iterations) == int(theirs.inner_optimizer.iterations) > 10


def test_hooks_change_the_keras_model(keras: ModuleType) -> None:
    class Change(keras.callbacks.Callback):
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.layers[0].trainable = epoch != 1
            if epoch == 2:
                # Past the model that the callback was given.
                self.inner.optimizer.learning_rate = 0.05
            if epoch == 4:
                self.inner.stop_training = True

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["updates"] = int(self.inner.optimizer.iterations)

    models = twins(keras, lambda keras: keras.Sequential([keras.Input((6,)), *layers_of(keras)]), plain)
    histories = both(
        models, lambda model: fit(model, epochs=9, callbacks=[Change(getattr(model, "keras_model", model))])
    )
    assert len(histories[1]["loss"]) == 5
    same(*histories)
    same_models(models)


def test_a_hook_compiles_the_keras_model_again(keras: ModuleType) -> None:
    inner = keras.Sequential([keras.Input((6,)), *layers_of(keras)])
    inner.compile("sgd", "mse")

    def compile_again(epoch: int, logs: Any) -> None:
        if epoch == 1:
            inner.compile(keras.optimizers.Adam(0.0), "mae", metrics=["mse"])

    weights: list[Any] = []
    callbacks = [
        oncue.callbacks.LambdaCallback(on_epoch_begin=compile_again),
        oncue.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: weights.append(inner.get_weights()[0])),
    ]
    history = fit(oncue.Model(inner), callbacks=callbacks)
    assert np.array_equal(weights[0], weights[2]) and int(inner.optimizer.iterations) == 10
    assert history["loss"][2] < history["loss"][0] and len(history["mse"]) == 2


def test_weights_that_join_are_trained(keras: ModuleType) -> None:
    def make(keras: Any) -> Any:
        model = keras.Sequential([keras.Input((6,)), *layers_of(keras)])
        model.layers[0].trainable = False
        return model

    for first in ("keras", "oncue"):
        (_, inner) = twins(keras, make, plain)
        fit(inner if first == "keras" else oncue.Model(inner), epochs=1)
        inner.layers[0].trainable = True
        before, model = inner.get_weights()[0], oncue.Model(inner)
        with pytest.warns(UserWarning, match=r"was not built for.*Compile the Keras model again"):
            fit(model, epochs=1)
        assert not np.array_equal(before, inner.get_weights()[0]) and int(model.optimizer.iterations) == 10


@pytest.mark.parametrize("home", ["keras", "oncue"])
def test_callbacks_decide_alike(keras: ModuleType, home: str) -> None:
    def run(model: Any) -> Any:
        kinds = (keras if home == "keras" else oncue).callbacks
        callbacks = [
            kinds.EarlyStopping("val_loss", patience=2, min_delta=0.3, restore_best_weights=True),
            kinds.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=0.3, min_lr=1e-4),
        ]
        history = fit(model, epochs=12, validation_data=(X, Y), callbacks=callbacks)
        return history, callbacks[0].stopped_epoch, callbacks[0].best_epoch

    models = twins(keras, lambda keras: keras.Sequential([keras.Input((6,)), *layers_of(keras)]), plain)
    found = both(models, run)
    same(*found)
    assert 2 < found[1][1] < 11
    same_models(models)


def test_nothing_is_left_of_a_model_that_is_dropped(keras: ModuleType) -> None:
    (_, inner) = twins(keras, lambda keras: keras.Sequential(layers_of(keras)), plain)
    model = oncue.Model(inner)
    fit(model, epochs=1)
    dropped = weakref.ref(model)
    del model
    inner.history = None
    gc.collect()
    assert dropped() is None
    assert inner.predict(X, verbose=0).shape == (40, 1)


def test_steps_per_execution_and_classes(keras: ModuleType) -> None:
    """What Keras refuses on torch, hooks of every second batch, works here."""
    (_, inner) = twins(keras, lambda keras: keras.Sequential([keras.layers.Dense(3)]), None)
    inner.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), steps_per_execution=2)
    seen: list[int] = []
    listen = oncue.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    fit(oncue.Model(inner), X, LABELS, epochs=1, callbacks=[listen])
    assert seen == [1, 3, 4]
