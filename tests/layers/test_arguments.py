"""What layers refuse, and how they say it; arguments of older versions of Keras."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor
from oncue import initializers, layers


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Dense(0), r"`units` of Dense must be a whole number of 1 or more; got 0 of type int"),
        (lambda: layers.Dense("3"), r"`units` of Dense .* got '3' of type str"),
        (lambda: layers.Dense(True), r"got True of type bool"),
        (lambda: layers.Dense(3, unit=4), "no argument `unit`.*Did you mean `units`"),
        (lambda: layers.Dense(3, activation="rleu"), "Unknown activation: 'rleu'. Did you mean"),
        (lambda: layers.Dense(3, kernel_initializer="zeroes"), "Did you mean 'zeros'"),
        (lambda: layers.Dense(3, kernel_regularizer="l3"), "Unknown regularizer: 'l3'"),
        (lambda: layers.Dense(3, kernel_constraint="maxnrm"), "Did you mean 'maxnorm'"),
        (lambda: layers.Dropout(1.5), r"`rate` of Dropout must be a number from 0 to 1.*got 1.5"),
        (lambda: layers.Dropout(-0.1), r"from 0 to 1"),
        (lambda: layers.Conv2D(3, 3, padding="sane"), "Did you mean 'same'"),
        (lambda: layers.Conv2D(3, 3, padding="causal"), "Unknown `padding` of Conv2D"),
        (lambda: layers.Conv2D(3, (3, 3, 3)), r"`kernel_size` of Conv2D must be a whole number or 2 of them"),
        (lambda: layers.Conv2D(3, 3, strides=2, dilation_rate=2), "both strides and dilation"),
        (lambda: layers.Conv2D(3, 3, groups=2), "multiple of `groups`"),
        (lambda: layers.Conv2D(3, 3, data_format="channel_last"), "Did you mean 'channels_last'"),
        (lambda: layers.LSTM(4, dropout=2), "`dropout` of LSTM"),
        (lambda: layers.Bidirectional(layers.Dense(3)), "must be a recurrent layer"),
        (lambda: layers.Bidirectional(layers.LSTM(3), merge_mode="concatenate"), "Did you mean 'concat'"),
        (lambda: layers.Embedding(0, 3), "`input_dim` of Embedding"),
        (lambda: layers.Permute((0, 1)), "numbers 1 to 2"),
        (lambda: layers.Reshape((-1, -1)), "at most one of them -1"),
        (lambda: layers.Normalization(mean=1.0), "given together"),
        (lambda: layers.Input(), r"Use `Input\(shape="),
        (lambda: layers.Input((3,), batch_shape=(None, 3)), "either `shape`"),
        (lambda: layers.Input(("a",)), "whole numbers"),
        (lambda: layers.LeakyReLU(-1.0), "0 or more"),
    ],
)
def test_bad_arguments_are_refused_at_once(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            lambda: layers.Conv2D(3, 3),
            (2, 28, 28),
            r"4 axes \(batch, height, width, channels\).*\(.*28, 28\).*\[\.\.\., None\]",
        ),
        (lambda: layers.Conv1D(3, 3), (2, 9), r"3 axes \(batch, steps, features\)"),
        (lambda: layers.MaxPooling2D(), (2, 28, 28), r"4 axes"),
        (lambda: layers.GlobalMaxPooling1D(), (2, 28), r"3 axes"),
        (lambda: layers.LSTM(3), (2, 28), r"3 axes \(batch, steps, features\)"),
        (lambda: layers.Dense(3), (2,), r"2 axes or more"),
        (lambda: layers.RepeatVector(3), (2, 3, 4), r"2 axes \(batch, features\)"),
        (lambda: layers.TimeDistributed(layers.Dense(3)), (2, 3), r"3 axes or more"),
        (lambda: layers.Add(), (2, 3), r"Use `layer\(\[a, b\]\)`"),
    ],
)
def test_inputs_of_the_wrong_rank_are_explained(layer: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer()(tensor(torch.zeros(shape)))


@pytest.mark.parametrize(
    ("layer", "right", "wrong"),
    [
        (layers.Dense(3), (2, 4), (2, 5)),
        (layers.Conv2D(3, 3), (2, 8, 8, 1), (2, 8, 8, 3)),
        (layers.LSTM(3), (2, 5, 4), (2, 5, 3)),
    ],
)
def test_a_built_layer_names_the_size_it_was_built_for(layer: Any, right: Any, wrong: Any) -> None:
    layer(tensor(torch.zeros(right)))
    with pytest.raises(ValueError, match=rf"built for inputs of size {right[-1]}"):
        layer(tensor(torch.zeros(wrong)))


def test_too_large_a_window_is_refused_while_the_model_is_traced() -> None:
    with pytest.raises(ValueError, match="larger than its input"):
        layers.Conv2D(3, 5)(layers.Input((4, 4, 1)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            lambda: layers.Dense(output_dim=3, init="uniform", W_regularizer="l2", bias=False, name="a"),
            lambda: layers.Dense(3, kernel_initializer="uniform", kernel_regularizer="l2", use_bias=False, name="a"),
        ),
        (lambda: layers.Dropout(p=0.3, name="a"), lambda: layers.Dropout(0.3, name="a")),
        (
            lambda: layers.Convolution2D(nb_filter=4, nb_row=3, nb_col=2, border_mode="same", subsample=2, name="a"),
            lambda: layers.Conv2D(4, (3, 2), padding="same", strides=2, name="a"),
        ),
        (lambda: layers.Convolution2D(4, 3, 2, name="a"), lambda: layers.Conv2D(4, (3, 2), name="a")),
        (
            lambda: layers.Convolution2D(4, 3, 3, "zero", "relu", border_mode="same", subsample=(2, 2), name="a"),
            lambda: layers.Conv2D(4, 3, 2, padding="same", activation="relu", kernel_initializer="zeros", name="a"),
        ),
        (
            lambda: layers.Convolution1D(4, 3, "zero", "relu", name="a"),
            lambda: layers.Conv1D(4, 3, activation="relu", kernel_initializer="zeros", name="a"),
        ),
        (
            lambda: layers.LSTM(output_dim=4, inner_init="zero", inner_activation="hard_sigmoid", name="a"),
            lambda: layers.LSTM(4, recurrent_initializer="zeros", recurrent_activation="hard_sigmoid", name="a"),
        ),
        (lambda: layers.LeakyReLU(alpha=0.1, name="a"), lambda: layers.LeakyReLU(0.1, name="a")),
        (
            lambda: layers.Conv2D(4, 3, dim_ordering="th", name="a"),
            lambda: layers.Conv2D(4, 3, data_format="channels_first", name="a"),
        ),
    ],
)
def test_arguments_of_keras_1_and_2(old: Any, new: Any) -> None:
    with pytest.warns(DeprecationWarning, match="older Keras"):
        found = old()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert new().get_config() == found.get_config()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (lambda: layers.Convolution2D(4, 3, name="a"), lambda: layers.Conv2D(4, 3, name="a")),
        (lambda: layers.Convolution2D(4, (3, 2), (2, 1), name="a"), lambda: layers.Conv2D(4, (3, 2), (2, 1), name="a")),
        (lambda: layers.Convolution2D(4, 3, strides=3, name="a"), lambda: layers.Conv2D(4, 3, 3, name="a")),
        (lambda: layers.Convolution1D(4, 3, 2, name="a"), lambda: layers.Conv1D(4, 3, 2, name="a")),
    ],
)
def test_todays_arguments_under_a_name_of_keras_1(old: Any, new: Any) -> None:
    written, expected = layers.serialize(old()), layers.serialize(new())
    assert written == expected
    assert layers.deserialize(written).get_config() == expected["config"]


def test_what_keras_1_did_otherwise_is_refused() -> None:
    with pytest.raises(ValueError, match="only mode 0 is left"):
        layers.BatchNormalization(mode=2)
    with pytest.raises(ValueError, match="`axis` of BatchNormalization must be a whole number; got 1e-05"):
        layers.BatchNormalization(1e-5)
    with pytest.raises(ValueError, match="`weights` of Convolution2D"):
        layers.Convolution2D(4, 3, 3, weights=[np.zeros(1)])


def test_shapes_of_a_first_layer() -> None:
    assert layers.Dense(3, input_dim=4)._input_shape_arg == (None, 4)
    assert layers.Conv2D(3, 3, input_shape=(8, 8, 1))._input_shape_arg == (None, 8, 8, 1)
    assert layers.LSTM(3, batch_input_shape=(2, 5, 4))._input_shape_arg == (2, 5, 4)
    assert layers.Embedding(10, 4, input_length=5)._input_shape_arg == (None, 5)


def test_every_name_can_be_had_and_every_layer_made_again() -> None:
    for name in layers.__all__:
        assert callable(getattr(layers, name)), name
    with pytest.raises(AttributeError, match="Densee"):
        layers.Densee  # noqa: B018  # what the test is about
    with pytest.raises(ValueError, match="Did you mean 'Dense'"):
        layers.deserialize({"class_name": "Densee", "config": {}})


def test_own_layers_are_made_again_by_custom_objects() -> None:
    class Mine(layers.Layer):
        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs

    written = layers.serialize(Mine(name="own"))
    assert layers.deserialize(written, {"Mine": Mine}).name == "own"


def test_dtype_policies_of_keras_and_activity_regularizers_survive() -> None:
    layer = layers.Dense(3, dtype="float64", activity_regularizer="l2")
    again = layers.Dense.from_config(layer.get_config())
    assert again.dtype == "float64"
    assert again(tensor(torch.ones(2, 2))).dtype == torch.float64
    assert again.losses and float(again.losses[0].detach()) > 0


def test_initializers_see_keras_order_of_axes() -> None:
    seen = []

    class Spy(initializers.Initializer):
        def __call__(self, shape: Any, dtype: Any = None) -> torch.Tensor:
            seen.append(tuple(shape))
            return tensor(torch.arange(float(np.prod(shape)))).reshape(shape)

    conv = layers.Conv2D(5, (2, 3), kernel_initializer=Spy())
    conv.build((None, 8, 8, 4))
    lstm = layers.LSTM(5, kernel_initializer=Spy())
    lstm.build((None, 6, 4))
    assert seen == [(2, 3, 4, 5), (4, 20)]
    np.testing.assert_array_equal(conv.get_weights()[0].ravel(), np.arange(120.0))
    assert tuple(conv.kernel.shape) == (2, 3, 4, 5) and tuple(conv.stored("kernel").shape) == (5, 4, 2, 3)
    np.testing.assert_array_equal(lstm.get_weights()[0].ravel(), np.arange(80.0))


def test_data_of_another_width_for_adapt() -> None:
    layer = layers.Normalization()
    layer.adapt(np.ones((4, 5)))
    with pytest.raises(ValueError, match=r"must have the shape \(None, 5\); got \(4, 3\)"):
        layer.adapt(np.ones((4, 3)))


def test_factors_of_channels_that_come_first() -> None:
    before = oncue.config.image_data_format()
    oncue.config.set_image_data_format("channels_first")
    try:
        scaled = layers.Rescaling([1.0, 2.0], offset=[0.0, 1.0])(np.ones((1, 2, 3, 4), "float32"))
    finally:
        oncue.config.set_image_data_format(before)
    assert scaled[0, :, 0, 0].tolist() == [1.0, 3.0]
