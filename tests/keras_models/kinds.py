"""Keras models of many kinds, for tests of files and of resumed runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras_models.side_by_side import half_step

Make = Callable[[Any], Any]


def sequential(keras: Any) -> Any:
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, activation="tanh", kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3, seed=3),
            keras.layers.Dense(1),
        ]
    )


def functional(keras: Any) -> Any:
    x = keras.Input((6,))
    y = keras.layers.Dense(4, activation="relu")(x)
    y = keras.layers.Concatenate()([keras.ops.abs(y), keras.layers.Dropout(0.2)(x)])
    return keras.Model(x, keras.layers.Dense(1, bias_constraint="non_neg")(y))


def subclassed(keras: Any) -> Any:
    """Return a model of a class of its own, with a list of layers and a layer that saves and keeps more than weights."""

    @keras.saving.register_keras_serializable("kinds")
    class Counts(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, dtype="int32")

        def call(self, inputs: Any, training: bool = False) -> Any:
            if training:
                self.seen.assign_add(1)
            return inputs

        def save_own_variables(self, store: Any) -> None:
            super().save_own_variables(store)
            store["twice"] = 2 * np.array(self.seen.value.detach().cpu())

        def load_own_variables(self, store: Any) -> None:
            assert int(store["twice"]) == 2 * int(store["0"])
            self.seen.assign(store["0"])

        def save_assets(self, folder: str) -> None:
            with open(f"{folder}/words.txt", "w") as file:
                file.write("one two")

        def load_assets(self, folder: str) -> None:
            with open(f"{folder}/words.txt") as file:
                self.words = file.read()

    @keras.saving.register_keras_serializable("kinds")
    class Own(keras.Model):
        def __init__(self, units: int = 4, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = units
            self.parts = [keras.layers.Dense(units, activation="tanh"), keras.layers.Dropout(0.3, seed=1), Counts()]
            self.last = keras.layers.Dense(1)

        def call(self, inputs: Any, training: bool = False) -> Any:
            for part in self.parts[:2]:
                inputs = part(inputs, training=training)
            return self.last(self.parts[2](inputs, training=training))

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "units": self.units}

    return Own()


def own_step(keras: Any) -> Any:
    @keras.saving.register_keras_serializable("kinds")
    class Stepping(keras.Sequential):
        def train_step(self, data: Any) -> Any:
            return half_step(self, data)

    return Stepping(
        [
            keras.Input((6,)),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.Dropout(0.3, seed=2),
            keras.layers.Dense(1),
        ]
    )


def recurrent(keras: Any) -> Any:
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Reshape((3, 2)),
            keras.layers.LSTM(3, return_sequences=True),
            keras.layers.GRU(3, dropout=0.2, seed=4),
            keras.layers.Dense(1),
        ]
    )


KINDS: list[Make] = [sequential, functional, subclassed, own_step, recurrent]


def adam(keras: Any) -> Any:
    return keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.02, 5, 0.9))


def averaged(keras: Any) -> Any:
    return keras.optimizers.SGD(0.01, momentum=0.9, use_ema=True, ema_momentum=0.9, clipnorm=1.0)


def lion(keras: Any) -> Any:
    """Return an optimizer that oncue hasn't, so that Keras's own is used."""
    return keras.optimizers.Lion(0.01)


def scaled(keras: Any) -> Any:
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), dynamic_growth_steps=3)


OPTIMIZERS: list[Make] = [adam, averaged, lion, scaled]


def compiled(keras: Any, make: Make, optimizer: Make = adam, **options: Any) -> Any:
    """Return a model of a kind, with first values of its own seed, compiled."""
    keras.utils.set_random_seed(5)
    model = make(keras)
    metrics = ["mae", keras.metrics.RootMeanSquaredError(), keras.metrics.R2Score()]
    model.compile(optimizer(keras), "mean_squared_error", metrics=metrics, **options)
    return model
