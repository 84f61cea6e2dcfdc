"""Models as users bring them: beside Keras's own `fit`, eagerly and in a traced step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from keras_models.side_by_side import ATOL, RTOL, is_current

import oncue
from helpers import cpu_only, normal

keras = pytest.importorskip("keras")
if keras.backend.backend() != "torch":
    pytest.skip("real Keras runs on another backend", allow_module_level=True)
layers, ops = keras.layers, keras.ops

X = normal(12, 6, seed=1)
Y = normal(12, 1, seed=2)
LABELS = np.arange(12) % 3
WORDS = np.where(np.arange(6) < 3 + LABELS[:, None], 1 + (np.arange(72).reshape(12, 6) * 7) % 10, 0)
STEPS = normal(12, 4, 3, seed=3)
IMAGES = normal(12, 8, 8, 3, seed=4)


class Words(layers.Layer):
    """Embeds words and their places, and knows which are padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = layers.Embedding(11, 8, mask_zero=True), layers.Embedding(6, 8)

    def call(self, x: Any) -> Any:
        return self.words(x) + self.places(ops.arange(ops.shape(x)[-1]))

    def compute_mask(self, x: Any, mask: Any = None) -> Any:
        return self.words.compute_mask(x)


class Block(layers.Layer):
    """A block of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 4)
        self.network = keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(8)])
        self.first, self.second = layers.LayerNormalization(), layers.LayerNormalization()
        self.drop = layers.Dropout(0.2, seed=1)
        self.supports_masking = True

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.first(x + self.drop(self.attention(x, x), training=training))
        return self.second(x + self.network(x))


def transformer() -> Any:
    words = keras.Input((6,), dtype="int64")
    pooled = layers.GlobalAveragePooling1D()(Block()(Words()(words)))
    return keras.Model(words, layers.Dense(3, activation="softmax")(pooled))


def siamese() -> Any:
    one, other = keras.Input((6,)), keras.Input((6,))
    shared = keras.Sequential([layers.Dense(8, activation="relu"), layers.BatchNormalization(), layers.Dense(4)])
    apart = layers.Lambda(lambda two: ops.sum(ops.abs(two[0] - two[1]), axis=1, keepdims=True))
    return keras.Model([one, other], layers.Dense(1, activation="sigmoid")(apart([shared(one), shared(other)])))


class Sampling(layers.Layer):
    """Draws around means."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, inputs: Any) -> Any:
        mean, spread = inputs
        return mean + ops.exp(0.5 * spread) * keras.random.normal(ops.shape(mean), seed=self.seeds)


class Autoencoder(keras.Model):  # type: ignore[misc, name-defined]
    """A variational one, which adds its divergence to the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread, self.sampling = layers.Dense(2), layers.Dense(2), Sampling()
        self.decoder = keras.Sequential([layers.Dense(8, activation="relu"), layers.Dense(6)])

    def call(self, x: Any) -> Any:
        mean, spread = self.mean(x), self.spread(x)
        self.add_loss(-0.5 * ops.mean(1 + spread - ops.square(mean) - ops.exp(spread)))
        return self.decoder(self.sampling((mean, spread)))


class Adversaries(keras.Model):  # type: ignore[misc, name-defined]
    """Two networks with an optimizer each, trained by a step of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = keras.Sequential([keras.Input((2,)), layers.Dense(6)])
        self.judge = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.LeakyReLU(), layers.Dense(1)])
        self.seeds, self.seen = keras.random.SeedGenerator(3), keras.metrics.Mean(name="judged")
        self.built = True

    def compile(self, optimizers: Any, loss: Any) -> None:
        super().compile()
        self.optimizers, self.loss_of = optimizers, loss

    @property
    def metrics(self) -> Any:
        return [self.seen]

    def train_step(self, data: Any) -> Any:
        x = data[0] if isinstance(data, tuple) else data
        zeros = ops.zeros((len(x), 1))
        for part, optimizer in zip((self.judge, self.maker), self.optimizers, strict=True):
            made = self.maker(keras.random.normal((len(x), 2), seed=self.seeds))
            self.zero_grad()
            loss = self.loss_of(zeros, self.judge(made))
            if part is self.judge:
                loss = self.loss_of(zeros, self.judge(x)) + self.loss_of(zeros + 1.0, self.judge(made))
                self.seen.update_state(loss)
            loss.backward()
            with torch.no_grad():
                optimizer.apply([weight.value.grad for weight in part.trainable_weights], part.trainable_weights)
        return {"judged": self.seen.result()}


class Cell(layers.Layer):
    """A recurrent cell of the user's own."""

    state_size = 5

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], 5), name="kernel")
        self.again = self.add_weight(shape=(5, 5), initializer="orthogonal", name="again")

    def call(self, x: Any, states: Any) -> Any:
        found = ops.tanh(ops.matmul(x, self.kernel) + ops.matmul(states[0], self.again))
        return found, [found]


def own_cell() -> Any:
    recurrent = [layers.RNN(Cell(), return_sequences=True), layers.Bidirectional(layers.GRU(3))]
    return keras.Sequential([keras.Input((4, 3)), layers.Masking(), *recurrent, layers.Dense(1)])


def moving_images() -> Any:
    found = [layers.Reshape((2, 8, 4, 3)), layers.ConvLSTM2D(2, 3, padding="same"), layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((8, 8, 3)), *found, layers.Dense(1)])


def prepared() -> Any:
    number, kind = keras.Input((6,)), keras.Input((1,), dtype="int64")
    size = layers.Normalization(mean=0.5, variance=2.0)(number)
    bins = layers.Discretization(bin_boundaries=[-0.5, 0.5], output_mode="multi_hot")(number)
    merged = layers.Concatenate()([size, bins, layers.CategoryEncoding(3, "one_hot")(kind)])
    return keras.Model([number, kind], layers.Dense(1)(layers.Dense(8, activation="gelu")(merged)))


def translator() -> Any:
    source, target = keras.Input((4, 3)), keras.Input((4, 3))
    _, *state = layers.LSTM(5, return_state=True)(source)
    found = layers.LSTM(5, return_sequences=True)(target, initial_state=state)
    merged = layers.Concatenate()([found, layers.Attention()([found, found])])
    return keras.Model([source, target], layers.TimeDistributed(layers.Dense(3))(merged))


def outlines() -> Any:
    image = keras.Input((8, 8, 3))
    wide = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    deep = layers.GroupNormalization(2)(layers.SeparableConv2D(4, 3, padding="same")(layers.MaxPooling2D()(wide)))
    again = layers.Concatenate()([layers.Conv2DTranspose(4, 2, strides=2)(deep), layers.UpSampling2D()(deep), wide])
    return keras.Model(image, layers.Conv2D(3, 1)(again))


def of_two_outputs() -> Any:
    x = keras.Input((6,))
    hidden = layers.AlphaDropout(0.1, seed=4)(layers.Dense(8, activation="selu", kernel_regularizer="l2")(x))
    return keras.Model(x, {"size": layers.Dense(1, name="size")(hidden), "kind": layers.Dense(3, name="kind")(hidden)})


def by_kind(name: str = "adam") -> Any:
    return {"optimizer": name, "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}


def by_size() -> Any:
    return {"optimizer": keras.optimizers.SGD(0.05, momentum=0.9), "loss": "mse", "metrics": ["mae"]}


def of_both() -> Any:
    return {
        "optimizer": "nadam",
        "loss": {"size": "mae", "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        "loss_weights": {"size": 0.5, "kind": 2.0},
        "metrics": {"kind": ["accuracy"], "size": ["mse"]},
    }


def of_adversaries() -> Any:
    pair = [keras.optimizers.Adam(0.01), keras.optimizers.Lion(0.01)]
    return {"optimizers": pair, "loss": keras.losses.BinaryCrossentropy(from_logits=True)}


BROUGHT: dict[str, tuple[Callable[[], Any], Callable[[], Any], Any, Any]] = {
    "a transformer with masks": (transformer, by_kind, WORDS, LABELS),
    "shared layers": (siamese, lambda: {**by_size(), "loss": "binary_crossentropy"}, [X, X[::-1]], 0.0 + (LABELS > 0)),
    "a variational autoencoder": (Autoencoder, by_size, X, X),
    "two networks and optimizers": (Adversaries, of_adversaries, X, None),
    "a cell of its own": (own_cell, by_size, STEPS * (np.arange(4) < 3)[:, None], Y),
    "a recurrent convolution": (moving_images, by_size, IMAGES, Y),
    "preprocessing": (prepared, by_size, [X, LABELS[:, None]], Y),
    "sequences to sequences": (translator, by_size, [STEPS, STEPS[::-1]], STEPS),
    "images to images": (outlines, by_size, IMAGES, IMAGES),
    "two outputs": (of_two_outputs, of_both, X, {"size": Y, "kind": LABELS}),
}
EAGER_STEPS = ("two networks and optimizers",)


def trained(name: str, how: str) -> tuple[dict[str, Any], list[Any]]:
    make, compiled, x, y = BROUGHT[name]
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    model = make()
    model.compile(**compiled())
    loop = model
    if how != "Keras":
        loop = oncue.Model(model)
        loop.jit_compile = how == "traced"
    keras.utils.set_random_seed(4)
    validation = {} if y is None else {"validation_data": (x, y)}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="`jit_compile`")
        history = loop.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, **validation).history
    if how == "traced":
        assert loop.step_account.startswith("The steps ran as one compiled graph;"), loop.step_account
    return history, [keras.ops.convert_to_numpy(variable.value) for variable in model.variables]


@pytest.mark.skipif(not is_current(keras), reason="an older Keras has faults of its own in layers of these")
@pytest.mark.parametrize("name", BROUGHT)
@cpu_only("draws from seeds are a part of a graph there")
def test_a_model_trains_as_in_keras(name: str, quick: None) -> None:
    expected = trained(name, "Keras")
    for how in ("eager", "traced")[: 1 if name in EAGER_STEPS else 2]:
        history, variables = trained(name, how)
        assert list(history) == list(expected[0])
        for measure, values in expected[0].items():
            np.testing.assert_allclose(history[measure], values, RTOL, ATOL, err_msg=f"{measure}, {how}")
        for one, other in zip(variables, expected[1], strict=True):
            np.testing.assert_allclose(one, other, RTOL, ATOL, err_msg=how)
