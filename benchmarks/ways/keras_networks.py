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


NETWORKS = {"mlp": mlp, "cnn": cnn, "lstm": lstm, "transformer": transformer, "linear": linear}
