"""Each kind of Keras model gets the same History, weights and optimizer state from oncue's loop as from Keras's own."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from keras_models.side_by_side import LABELS, X, Y, both, fit, is_current, same, same_models, twins

import oncue
from helpers import normal


def sequential(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu", kernel_regularizer="l2", bias_constraint="non_neg"),
            layers.BatchNormalization(),
            layers.Dropout(0.5, seed=3),
            layers.Dense(1, activity_regularizer="l1"),
        ]
    )


def unbuilt(keras: Any) -> Any:
    return keras.Sequential([keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])


def functional(keras: Any) -> Any:
    layers, inputs = keras.layers, keras.Input((6,))
    hidden = layers.Dense(8, activation="relu")(inputs)
    return keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([inputs, hidden])))


def subclassed(keras: Any) -> Any:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [
                keras.layers.Dense(4, activation="relu"),
                keras.layers.Dropout(0.4, seed=1),
                keras.layers.Dense(1),
            ]

        def call(self, inputs: Any, training: bool = False) -> Any:
            hidden = self.parts[0](inputs)
            self.add_loss(keras.ops.mean(hidden) * 0.1)
            return self.parts[2](self.parts[1](hidden, training=training))

    return Own()


def own_layer(keras: Any) -> Any:
    class Shift(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")
            self.shift = self.add_weight(shape=(shape[-1],), initializer="zeros", name="shift")

        def call(self, inputs: Any, training: bool = False) -> Any:
            if training:
                self.seen.assign_add(1.0)
            return inputs + self.shift

    return keras.Sequential([keras.Input((6,)), Shift(), keras.layers.Dense(1)])


def images(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.SeparableConv2D(4, 3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )


def masked(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Embedding(7, 4, mask_zero=True),
            layers.LSTM(4, return_sequences=True),
            layers.Dense(3),
        ]
    )


def attention(keras: Any) -> Any:
    layers, inputs = keras.layers, keras.Input((5, 4))
    hidden = layers.LayerNormalization()(inputs + layers.MultiHeadAttention(2, 2)(inputs, inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(hidden)))


def plain(keras: Any) -> dict[str, Any]:
    return {"optimizer": keras.optimizers.Adam(0.01), "loss": "mse", "metrics": ["mae"]}


def classes(keras: Any) -> dict[str, Any]:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"optimizer": keras.optimizers.SGD(0.05, momentum=0.9), "loss": loss, "metrics": ["accuracy"]}


TOKENS = (np.arange(200).reshape(40, 5) * 7 % 11 % 7).astype("int64")
KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], dict[str, Any]], Any, Any]] = {
    "sequential": (sequential, plain, X, Y),
    "unbuilt": (unbuilt, plain, X, Y),
    "functional": (functional, plain, X, Y),
    "subclassed": (subclassed, plain, X, Y),
    "own layer": (own_layer, plain, X, Y),
    "images": (images, classes, normal(40, 8, 8, 1, seed=2), LABELS),
    "masked": (masked, classes, TOKENS, TOKENS % 3),
    "attention": (attention, classes, normal(40, 5, 4, seed=2), LABELS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_model(keras: ModuleType, kind: str) -> None:
    make, compiled, x, y = KINDS[kind]
    if kind == "masked" and not is_current(keras):
        # An older Keras forgets masks in metrics.
        models = twins(keras, make, lambda keras: {**classes(keras), "metrics": None})
    else:
        models = twins(keras, make, compiled)
    same(*both(models, lambda model: fit(model, x, y, validation_data=(x[:20], y[:20]))))
    same_models(models)
    # And what comes after it, by Keras's own methods.
    same(*[model.predict(x, verbose=0) for model in models])
    same(*both(models, lambda model: model.evaluate(x, y, verbose=0)))
    same(*both(models, lambda model: model.predict(x, verbose=0)))


def several(keras: Any) -> Any:
    layers = keras.layers
    wide, deep = keras.Input((6,), name="wide"), keras.Input((6,), name="deep")
    hidden = layers.Dense(4, activation="relu")(deep)
    value = layers.Dense(1, name="value")(layers.Concatenate()([wide, hidden]))
    return keras.Model([wide, deep], [value, layers.Dense(3, name="kind")(hidden)])


def of_several(keras: Any) -> dict[str, Any]:
    return {
        "optimizer": "adam",
        "loss": {"value": "mae", "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        "loss_weights": {"value": 0.5, "kind": 2.0},
        "metrics": {"kind": ["acc", keras.metrics.SparseTopKCategoricalAccuracy(2)]},
        "weighted_metrics": {"value": "mse"},
    }


def test_several_outputs(keras: ModuleType) -> None:
    models = twins(keras, several, of_several)
    same(*both(models, lambda model: fit(model, [X, X[::-1]], [Y, LABELS], validation_split=0.25)))
    same_models(models)
    same(*both(models, lambda model: model.evaluate([X, X], [Y, LABELS], verbose=0)))
    same(*both(models, lambda model: model.evaluate([X, X], [Y, LABELS], verbose=0, return_dict=True)))
    same(*both(models, lambda model: model.predict({"wide": X, "deep": X}, verbose=0)))


def test_weights_of_samples_and_classes(keras: ModuleType) -> None:
    def compiled(keras: Any) -> dict[str, Any]:
        return {**classes(keras), "weighted_metrics": ["accuracy", "sparse_categorical_crossentropy"]}

    def three(keras: Any) -> Any:
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])

    for options in ({"sample_weight": np.linspace(0.0, 2.0, 40)}, {"class_weight": {0: 1.0, 1: 0.5, 2: 3.0}}):
        models = twins(keras, three, compiled)
        same(*both(models, lambda model, options=options: fit(model, X, LABELS, **options)))
        same_models(models)


def test_generators_and_steps(keras: ModuleType) -> None:
    class Halves(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, place: int) -> Any:
            return X[place * 8 : place * 8 + 8], Y[place * 8 : place * 8 + 8]

    models = twins(keras, functional, plain)
    same(*both(models, lambda model: model.fit(Halves(), epochs=2, shuffle=False, verbose=0).history))
    same_models(models)


def test_batch_by_batch(keras: ModuleType) -> None:
    models = twins(keras, sequential, plain)

    def run(model: Any) -> Any:
        losses = [model.train_on_batch(X[place : place + 8], Y[place : place + 8]) for place in (0, 8, 16)]
        return losses, model.test_on_batch(X, Y, return_dict=True), model.predict_on_batch(X)

    theirs, ours = both(models, run)
    # An older Keras gives the means of all batches so far.
    same(theirs if is_current(keras) else theirs[2:], ours if is_current(keras) else ours[2:])
    same_models(models)


def test_data_sets_are_told_of_the_end_of_each_pass(keras: ModuleType) -> None:
    class Data(keras.utils.PyDataset):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            return X, Y

        def on_epoch_end(self) -> None:
            calls.append(self.name)

    found = []
    for model in twins(keras, lambda keras: keras.Sequential([keras.layers.Dense(1)]), plain):
        calls: list[str] = []
        trained = oncue.Model(model) if found else model
        trained.fit(Data("training"), validation_data=Data("validation"), epochs=1, verbose=0)
        found.append(calls)
    assert found[1] == ["training", "validation"]
    # Once more for each in Keras, which is what the documentation says of it.
    assert found[0] == ["training", "training", "validation", "validation"]


def test_a_mask_counts_once_in_weighted_metrics(keras: ModuleType) -> None:
    def make(keras: Any) -> Any:
        layers = keras.layers
        return keras.Sequential([keras.Input((5,)), layers.Embedding(8, 2, mask_zero=True), layers.Dense(1)])

    def weighted(keras: Any) -> dict[str, Any]:
        return {"optimizer": keras.optimizers.SGD(0.0), "loss": "mse", "weighted_metrics": ["mae"]}

    tokens = np.maximum(0, np.arange(40).reshape(8, 5) * 3 % 8 - np.arange(5))
    targets, weights = normal(8, 5, 1, seed=3), np.abs(normal(8, 5, seed=4))
    for model in twins(keras, make, weighted)[1:]:
        found = oncue.Model(model).fit(
            tokens, targets, sample_weight=weights.copy(), batch_size=4, shuffle=False, epochs=2, verbose=0
        )
        apart = np.abs(model.predict(tokens, verbose=0) - targets)[..., 0]
        counted = weights * (tokens != 0)
        np.testing.assert_allclose(found.history["mae"], [(apart * counted).sum() / counted.sum()] * 2, rtol=1e-5)
