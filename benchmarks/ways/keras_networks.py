"""The networks of the workloads made of Keras's layers: the same code for Keras and for oncue."""

from __future__ import annotations

from typing import Any

WIDTH, HEADS, BLOCKS = 384, 6, 6


def mlp(keras: Any) -> Any:
    """Return 784, 128, dropout, 64, dropout, 10."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((784,)),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(10),
        ]
    )


def cnn(keras: Any) -> Any:
    """Return two convolutions of 16 and 32 filters of 3 by 3, each with pooling by 2, and a layer of 10."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def lstm(keras: Any) -> Any:
    """Return an LSTM of 64 units over the steps, and a layer of 10 on its last output."""
    layers = keras.layers
    return keras.Sequential([layers.Input((64, 32)), layers.LSTM(64), layers.Dense(10)])


def transformer(keras: Any) -> Any:
    """Return six blocks with the norm first, the mean over the tokens, and a layer of 10."""
    layers = keras.layers
    if not hasattr(layers, "MultiHeadAttention"):
        raise NotImplementedError("no layer MultiHeadAttention")
    inputs = x = layers.Input((64, WIDTH))
    for _ in range(BLOCKS):
        normed = layers.LayerNormalization(epsilon=1e-5)(x)
        attended = layers.MultiHeadAttention(HEADS, WIDTH // HEADS)(normed, normed)
        x = layers.Add()([x, layers.Dropout(0.1)(attended)])
        wide = layers.Dense(4 * WIDTH, activation="gelu")(layers.LayerNormalization(epsilon=1e-5)(x))
        x = layers.Add()([x, layers.Dropout(0.1)(layers.Dense(WIDTH)(wide))])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def linear(keras: Any) -> Any:
    """Return one layer from 8 numbers to 1."""
    return keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(1)])


def wide_deep(keras: Any) -> Any:
    """Return a functional model of a linear part and one of three layers, joined."""
    layers = keras.layers
    inputs = keras.Input((64,))
    deep = inputs
    for width in (128, 64, 32):
        deep = layers.Dense(width, activation="relu")(deep)
    return keras.Model(inputs, layers.Dense(10)(layers.Concatenate()([layers.Dense(16)(inputs), deep])))


def bn_cnn(keras: Any) -> Any:
    """Return three convolutions of 16 to 64 filters, each with batch normalization, and a layer of 10."""
    layers = keras.layers
    parts = [keras.Input((28, 28, 1))]
    for filters in (16, 32, 64):
        parts += [layers.Conv2D(filters, 3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU()]
        parts += [layers.MaxPooling2D(2)]
    return keras.Sequential([*parts, layers.GlobalAveragePooling2D(), layers.Dense(10)])


def mobilenet(keras: Any) -> Any:
    """Return MobileNetV2 for small images, with a layer of 10."""
    return keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=10, classifier_activation=None
    )


def attention(keras: Any) -> Any:
    """Return one block with attention of four heads, the mean over the tokens, and a layer of 10."""
    layers = keras.layers
    inputs = keras.Input((32, 64))
    attended = layers.MultiHeadAttention(4, 16)(inputs, inputs)
    x = layers.LayerNormalization()(layers.Add()([inputs, layers.Dropout(0.1)(attended)]))
    wide = layers.Dense(64)(layers.Dense(128, activation="relu")(x))
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dropout(0.1)(wide)]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


NETWORKS = {
    "mlp": mlp,
    "cnn": cnn,
    "lstm": lstm,
    "transformer": transformer,
    "linear": linear,
    "wide_deep": wide_deep,
    "bn_cnn": bn_cnn,
    "mobilenet": mobilenet,
    "attention": attention,
}
