"""Every layer, and a choice of torch's modules, trains in a traced step as it does eagerly, or is refused by its name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import oncue as keras
from helpers import cpu_only, normal
from oncue import layers
from oncue.keras_names import own_names

X = normal(20, 12)
Y = np.concatenate([X[:, :1] * X[:, 1:2], X[:, 2:3]], 1)
IDS = np.abs(X[:, :6] * 3).astype("int64") % 7
Parts = Callable[[], list[Any]]

SEQUENCE = (6, 2)
IMAGE = (2, 3, 2)

LAYERS: dict[str, tuple[tuple[int, ...], Parts]] = {
    "Activation": ((12,), lambda: [layers.Activation("gelu")]),
    "AveragePooling1D": (SEQUENCE, lambda: [layers.AveragePooling1D(2)]),
    "AveragePooling2D": (IMAGE, lambda: [layers.AveragePooling2D((1, 3))]),
    "BatchNormalization": ((12,), lambda: [layers.BatchNormalization(momentum=0.5)]),
    "BatchNormalization, frozen": ((12,), lambda: [layers.BatchNormalization(trainable=False)]),
    "Bidirectional": (SEQUENCE, lambda: [layers.Bidirectional(layers.LSTM(3, return_sequences=True))]),
    "Conv1D": (SEQUENCE, lambda: [layers.Conv1D(3, 2, padding="same", dilation_rate=2)]),
    "Conv1D, causal": (SEQUENCE, lambda: [layers.Conv1D(3, 2, padding="causal")]),
    "Conv2D": (IMAGE, lambda: [layers.Conv2D(3, 2, strides=(1, 2), padding="same", activation="relu")]),
    "Dense": ((12,), lambda: [layers.Dense(5, "tanh", kernel_regularizer="l2", bias_regularizer="l1")]),
    "Dense, constrained": (
        (12,),
        lambda: [layers.Dense(5, kernel_constraint="unit_norm", bias_constraint="non_neg", activity_regularizer="l2")],
    ),
    "Dropout": ((12,), lambda: [layers.Dropout(0.4)]),
    "Dropout, by a shape": (SEQUENCE, lambda: [layers.Dropout(0.4, noise_shape=(None, 1, None))]),
    "ELU": ((12,), lambda: [layers.ELU(0.5)]),
    "Flatten": (SEQUENCE, lambda: [layers.Flatten()]),
    "GaussianNoise": ((12,), lambda: [layers.GaussianNoise(0.5)]),
    "GlobalAveragePooling1D": (SEQUENCE, lambda: [layers.GlobalAveragePooling1D()]),
    "GlobalAveragePooling2D": (IMAGE, lambda: [layers.GlobalAveragePooling2D(keepdims=True)]),
    "GlobalMaxPooling1D": (SEQUENCE, lambda: [layers.GlobalMaxPooling1D()]),
    "GlobalMaxPooling2D": (IMAGE, lambda: [layers.GlobalMaxPooling2D()]),
    "GRU, with recurrent dropout": (SEQUENCE, lambda: [layers.GRU(3, recurrent_dropout=0.3, reset_after=False)]),
    "LSTM": (SEQUENCE, lambda: [layers.LSTM(3)]),
    "LSTM, backwards with dropout": (SEQUENCE, lambda: [layers.LSTM(3, go_backwards=True, dropout=0.3)]),
    "LSTM, with recurrent dropout": (SEQUENCE, lambda: [layers.LSTM(3, recurrent_dropout=0.3)]),
    "LSTM, stateful": (SEQUENCE, lambda: [layers.LSTM(3, stateful=True)]),
    "LayerNormalization": (SEQUENCE, lambda: [layers.LayerNormalization(axis=(1, 2))]),
    "LeakyReLU": ((12,), lambda: [layers.LeakyReLU(0.1)]),
    "MaxPooling1D": (SEQUENCE, lambda: [layers.MaxPooling1D(3, strides=2, padding="same")]),
    "MaxPooling2D": (IMAGE, lambda: [layers.MaxPooling2D((2, 1))]),
    "Normalization": ((12,), lambda: [layers.Normalization(mean=0.5, variance=2.0)]),
    "PReLU": (SEQUENCE, lambda: [layers.PReLU(shared_axes=[1])]),
    "Permute": (SEQUENCE, lambda: [layers.Permute((2, 1))]),
    "RNN": (SEQUENCE, lambda: [layers.RNN(layers.GRUCell(3, "sigmoid", dropout=0.2), return_sequences=True)]),
    "RNN, of a LSTMCell": (SEQUENCE, lambda: [layers.RNN(layers.LSTMCell(3, recurrent_dropout=0.2))]),
    "ReLU": ((12,), lambda: [layers.ReLU(max_value=1.0, negative_slope=0.1, threshold=0.2)]),
    "RepeatVector": ((12,), lambda: [layers.RepeatVector(2)]),
    "Rescaling": ((12,), lambda: [layers.Rescaling(0.5, offset=1.0)]),
    "Reshape": ((12,), lambda: [layers.Reshape((3, -1))]),
    "Softmax": (SEQUENCE, lambda: [layers.Softmax(axis=1)]),
    "TimeDistributed": (SEQUENCE, lambda: [layers.TimeDistributed(layers.Dense(3))]),
    "ZeroPadding1D": (SEQUENCE, lambda: [layers.ZeroPadding1D(2)]),
    "ZeroPadding2D": (IMAGE, lambda: [layers.ZeroPadding2D((1, 2))]),
}
MASKED: dict[str, Callable[[], Any]] = {
    "Bidirectional": lambda: layers.Bidirectional(layers.GRU(3)),
    "GRU": lambda: layers.GRU(3, return_sequences=True),
    "LSTM": lambda: layers.LSTM(3, return_sequences=True),
    "RNN": lambda: layers.RNN(layers.SimpleRNNCell(3)),
    "SimpleRNN": lambda: layers.SimpleRNN(3, activation="sigmoid"),
    "TimeDistributed": lambda: layers.TimeDistributed(layers.Dense(3)),
}
MERGES = ["Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"]
UNROLLED = ["GRU", "SimpleRNN"]
# Those with tests of their own, and those that compute nothing.
OTHERS = ["Embedding", "Input", "InputLayer", "Layer", "Masking"]
CELLS = ["GRUCell", "LSTMCell", "SimpleRNNCell"]


def sequential(shape: tuple[int, ...], parts: list[Any]) -> Any:
    first = [layers.Input((12,)), layers.Dense(12), layers.Reshape(shape)]
    return keras.Sequential([*first, *parts, layers.Flatten(), layers.Dense(2)])


def test_every_layer_is_here() -> None:
    tested = {name.partition(",")[0] for name in LAYERS} | {*MERGES, *UNROLLED, *OTHERS, *CELLS}
    ours = own_names("oncue.layers", layers.__all__)
    classes = {getattr(layers, name).__name__ for name in ours if name[0].isupper()} - {"InputSpec"}
    assert classes == tested


@pytest.mark.parametrize("name", LAYERS)
@cpu_only("there an LSTM would be unrolled")
def test_a_layer(name: str, side_by_side: Any) -> None:
    side_by_side(lambda: sequential(*_made(LAYERS[name])), X, Y)


def _made(entry: tuple[tuple[int, ...], Parts]) -> tuple[tuple[int, ...], list[Any]]:
    return entry[0], entry[1]()


def test_states_that_a_callback_resets(side_by_side: Any) -> None:
    def resetting() -> Any:
        callback = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: callback.model.layers[-3].reset_state()
        )
        return [callback]

    stateful = [layers.GRU(3, "sigmoid", stateful=True)]
    model = side_by_side(
        lambda: sequential(SEQUENCE, copy.deepcopy(stateful)), X, Y, fit={"epochs": 3, "callbacks": resetting}
    )
    assert model._plan.graphs.steps["train"].graphs == 1
    assert model._plan.graphs.steps["train"].eager_batches == 0


@pytest.mark.parametrize("name", MASKED)
def test_a_layer_with_masked_steps(name: str, side_by_side: Any) -> None:
    def make() -> Any:
        first = [layers.Input((6, 2)), layers.Masking(), layers.Dense(2)]
        return keras.Sequential([*first, MASKED[name](), layers.Flatten(), layers.Dense(2)])

    lengths = np.arange(20) % 6
    assert lengths.min() == 0
    side_by_side(make, X.reshape(20, 6, 2) * (np.arange(6) < lengths[:, None])[:, :, None], Y)


@pytest.mark.parametrize("name", MERGES)
def test_a_layer_of_two_inputs(name: str, side_by_side: Any) -> None:
    def make() -> Any:
        inputs = [layers.Input((6,), name=part) for part in "ab"]
        merged = getattr(layers, name)()([layers.Dense(3)(one) for one in inputs])
        return keras.Model(dict(zip("ab", inputs, strict=True)), layers.Dense(2)(merged))

    side_by_side(make, {"a": X[:, :6], "b": X[:, 6:]}, Y)


def test_an_embedding_with_a_mask(side_by_side: Any) -> None:
    def make() -> Any:
        return keras.Sequential(
            [
                layers.Input((6,), dtype="int64"),
                layers.Embedding(7, 3, mask_zero=True, embeddings_regularizer="l2"),
                layers.LSTM(3),
                layers.Dense(2),
            ]
        )

    side_by_side(make, IDS, Y)


@pytest.mark.parametrize("name", UNROLLED)
def test_what_would_be_unrolled_is_refused(name: str, refused: Any) -> None:
    function = {"GRU": "gru", "SimpleRNN": "rnn_tanh"}[name]
    refused(
        lambda: sequential(SEQUENCE, [getattr(layers, name)(3)]),
        X,
        Y,
        rf"`torch.{function}` would be unrolled over all steps of its sequences",
    )


class OwnSeeds(layers.Layer):
    """Draws from seeds of its own, in both ways that there are."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        return keras.random.dropout(x, 0.25, seed=self.seeds) if training else x


@cpu_only("on an accelerator layers with seeds of their own are not part of the graph")
def test_layers_with_seeds_of_their_own(side_by_side: Any) -> None:
    twice = {}

    def make() -> Any:
        inputs = layers.Input((12,))
        twice[0] = layers.Dropout(0.5, seed=3)
        hidden = twice[0](layers.Dense(8)(twice[0](inputs)))
        return keras.Model(
            inputs, layers.Dense(2)(layers.Dropout(0.1, noise_shape=(None, 1), seed=4)(OwnSeeds()(hidden)))
        )

    side_by_side(make, X, Y)
    assert twice[0].seed_generator._draws == 2 * 5


class Drawing(layers.Layer):
    """Draws noise from a generator that is made at each call."""

    def __init__(self, seed: Any) -> None:
        super().__init__()
        self.seed = seed

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        return x + keras.random.normal(tuple(x.shape), seed=self.seed) if training else x


@pytest.mark.parametrize("seed", [lambda: 3, lambda: keras.random.SeedGenerator(3)], ids=["number", "generator"])
def test_noise_from_a_generator_of_its_own_is_refused(seed: Any, refused: Any) -> None:
    refused(lambda: sequential((12,), [Drawing(seed())]), X, Y, "generator|Generator")


# Modules of torch ----------------------------------------------------------------------------------------------------


class Attending(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **options)
        self.out = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Any:
        x = x.view(-1, 3, 4)
        return self.out(self.attention(x, x, x, need_weights=False)[0].flatten(1))


class Whole(nn.Module):
    """A module whose result is a tuple, of which the first part counts."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.out = inner, nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Any:
        found = self.inner(x.view(-1, 6, 2))
        return self.out((found[0] if isinstance(found, tuple) else found).flatten(1))


class Cells(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = nn.LSTMCell(2, 3), nn.GRUCell(3, 3), nn.RNNCell(3, 2)

    def forward(self, x: Tensor) -> Any:
        memory, state, out = None, None, None
        for step in x.view(-1, 6, 2).unbind(1):
            memory = self.lstm(step, memory)
            state = self.gru(memory[0], state)
            out = self.rnn(state, out)
        return out


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 2)
        self.two.weight = self.one.weight
        self.shortcut = [self.out.bias]
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        if self.training:
            self.seen += x.detach().mean()
        return self.out(self.two(torch.tanh(self.one(x)))) + self.shortcut[0] * 2


class Bagged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bag, self.out = nn.EmbeddingBag(7, 4, mode="sum"), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.out(self.bag(x))


class Interpolated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 2, padding=1), nn.ConvTranspose2d(2, 1, 2)

    def forward(self, x: Tensor) -> Any:
        x = nn.functional.interpolate(self.first(x.view(-1, 1, 3, 4)), scale_factor=2.0, mode="bilinear")
        return self.second(x).flatten(1)[:, :2]


def flat(*parts: nn.Module, width: int = 12) -> nn.Module:
    return nn.Sequential(nn.Linear(12, 12), *parts, nn.Flatten(), nn.Linear(width, 2))


def shaped(*parts: nn.Module, width: int, shape: tuple[int, ...] = (2, 6)) -> nn.Module:
    return nn.Sequential(nn.Linear(12, 12), nn.Unflatten(1, shape), *parts, nn.Flatten(), nn.Linear(width, 2))


TORCH: dict[str, Callable[[], nn.Module]] = {
    "activations": lambda: flat(nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.Softplus(), nn.PReLU()),
    "activations in place": lambda: flat(nn.ReLU(inplace=True), nn.Linear(12, 12), nn.ELU(inplace=True)),
    "AlphaDropout": lambda: flat(nn.SELU(), nn.AlphaDropout(0.3)),
    "AvgPool1d, MaxPool1d": lambda: shaped(nn.AvgPool1d(2), nn.MaxPool1d(3), width=2),
    "AdaptiveAvgPool2d": lambda: shaped(nn.AdaptiveAvgPool2d(1), width=2, shape=(2, 2, 3)),
    "BatchNorm1d": lambda: flat(nn.BatchNorm1d(12), nn.BatchNorm1d(12, affine=False, track_running_stats=False)),
    "BatchNorm2d, Dropout2d": lambda: shaped(nn.BatchNorm2d(2), nn.Dropout2d(0.3), width=12, shape=(2, 2, 3)),
    "Bilinear": lambda: Twice(),
    "Conv1d": lambda: shaped(nn.Conv1d(2, 3, 2, padding=1, groups=1), width=21),
    "Conv2d": lambda: shaped(nn.Conv2d(2, 4, 2, groups=2, bias=False), nn.PixelShuffle(2), width=8, shape=(2, 2, 3)),
    "Conv3d": lambda: shaped(nn.Conv3d(1, 2, (1, 2, 2)), width=8, shape=(1, 2, 2, 3)),
    "Dropout": lambda: flat(nn.Dropout(0.3), nn.Dropout(0.2, inplace=True)),
    "GroupNorm": lambda: shaped(nn.GroupNorm(2, 4), width=12, shape=(4, 3)),
    "InstanceNorm1d": lambda: shaped(nn.InstanceNorm1d(2, affine=True, track_running_stats=True), width=12),
    "LayerNorm, RMSNorm": lambda: flat(nn.LayerNorm(12), nn.RMSNorm(12)),
    "LSTM": lambda: Whole(nn.LSTM(2, 3, batch_first=True, num_layers=2, bidirectional=True), 36),
    "MultiheadAttention": lambda: Attending(),
    "TransformerEncoderLayer": lambda: Whole(nn.TransformerEncoderLayer(2, 1, 4, dropout=0.1, batch_first=True), 12),
    "cells": Cells,
    "convolutions and back": Interpolated,
    "parametrized": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(12, 12)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(12, 2)),
    ),
    "shared and hidden weights": Tied,
}


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Bilinear(6, 6, 2)

    def forward(self, x: Tensor) -> Any:
        return self.both(x[:, :6], x[:, 6:])


@pytest.mark.parametrize("name", TORCH)
@cpu_only("there an LSTM would be unrolled")
def test_modules_of_torch(name: str, side_by_side: Any) -> None:
    side_by_side(lambda: keras.Model(TORCH[name]()), X, Y)


def test_an_embedding_bag(side_by_side: Any) -> None:
    side_by_side(lambda: keras.Model(Bagged()), IDS, Y)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Whole(nn.GRU(2, 3, batch_first=True), 18), r"`torch.gru` would be unrolled"),
        (lambda: Whole(nn.RNN(2, 3, nonlinearity="relu", batch_first=True), 18), r"`torch.rnn_relu` would be unrolled"),
        (lambda: Whole(nn.LSTM(2, 3, proj_size=2, batch_first=True), 12), r"`torch.lstm` would be unrolled"),
        (lambda: flat(nn.BatchNorm1d(12, momentum=None)), "the value of a tensor"),
    ],
    ids=["GRU", "RNN", "LSTM with projections", "a mean of all batches"],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_modules_of_torch_that_are_refused(make: Any, reason: str, refused: Any) -> None:
    refused(lambda: keras.Model(make()), X, Y, reason)


@pytest.mark.usefixtures("quick")
@cpu_only("there an LSTM would be unrolled")
def test_a_killed_run_with_a_stateful_layer_resumes_bit_for_bit(tmp_path: Path) -> None:
    class Cut(Exception):
        """The power goes off."""

    def run(folder: str, cut: bool) -> list[Any]:
        def power(batch: int, logs: Any) -> None:
            if cut and batch == 2:
                raise Cut

        keras.utils.set_random_seed(0)
        model = sequential(
            SEQUENCE, [layers.LSTM(3, stateful=True, return_sequences=True), layers.GRU(2, "relu", stateful=True)]
        )
        model.compile("adam", "mse", jit_compile=True)
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder, save_freq=1, delete_checkpoint=False)
        callbacks = [backup, keras.callbacks.LambdaCallback(on_train_batch_end=power)]
        model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
        assert model.step_account.startswith("The steps ran as one compiled graph;")
        return model.get_weights()

    whole = run("whole", False)
    with pytest.raises(Cut):
        run("cut", True)
    for one, other in zip(run("cut", False), whole, strict=True):
        np.testing.assert_array_equal(one, other)
