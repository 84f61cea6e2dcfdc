"""Each layer beside its namesake in the real Keras: configuration, weights, shapes, outputs, gradients."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor, to_numpy
from oncue import layers, naming

pytestmark = pytest.mark.filterwarnings("ignore:You passed `rms_scaling")

Case = tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]

CASES: list[Case] = [
    ("Dense", (3,), {"activation": "relu"}, (4, 5)),
    ("Dense", (3,), {"use_bias": False, "kernel_initializer": "he_normal"}, (4, 6, 5)),
    ("Dense", (3,), {"kernel_regularizer": "l2", "bias_constraint": "non_neg", "activation": "softmax"}, (4, 5)),
    ("Activation", ("tanh",), {}, (4, 5)),
    ("ReLU", (), {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.2}, (4, 5)),
    ("LeakyReLU", (), {}, (4, 5)),
    ("PReLU", (), {}, (4, 5)),
    ("PReLU", (), {"shared_axes": [1, 2], "alpha_initializer": "ones"}, (4, 5, 6, 3)),
    ("ELU", (), {"alpha": 0.5}, (4, 5)),
    ("Softmax", (), {}, (4, 5)),
    ("Softmax", (), {"axis": [1, 2]}, (4, 5, 3)),
    ("Dropout", (0.5,), {"noise_shape": (None, 1), "seed": 3}, (4, 5)),
    ("GaussianNoise", (0.5,), {}, (4, 5)),
    ("Flatten", (), {}, (4, 5, 3, 2)),
    ("Flatten", (), {"data_format": "channels_first"}, (4, 5, 3, 2)),
    ("Reshape", ((5, -1),), {}, (4, 15, 2)),
    ("Permute", ((3, 1, 2),), {}, (4, 5, 3, 2)),
    ("RepeatVector", (3,), {}, (4, 5)),
    ("Conv1D", (3, 2), {}, (4, 9, 5)),
    ("Conv1D", (4, 3), {"padding": "same", "strides": 2, "activation": "tanh"}, (4, 9, 5)),
    ("Conv1D", (4, 3), {"padding": "causal", "dilation_rate": 2}, (4, 9, 5)),
    ("Conv1D", (4, 2), {"padding": "same", "groups": 2, "use_bias": False}, (4, 9, 6)),
    ("Conv2D", (3, 3), {"activation": "relu"}, (2, 8, 8, 1)),
    ("Conv2D", (3, (2, 3)), {"padding": "same"}, (2, 8, 7, 3)),
    ("Conv2D", (3, 3), {"padding": "same", "strides": 2}, (2, 8, 7, 3)),
    ("Conv2D", (4, 3), {"strides": (2, 1), "groups": 2, "use_bias": False}, (2, 8, 7, 4)),
    ("Conv2D", (4, 3), {"dilation_rate": 2, "padding": "same"}, (2, 8, 7, 4)),
    ("Conv2D", (4, 3), {"data_format": "channels_first", "padding": "same"}, (2, 3, 8, 7)),
    ("MaxPooling1D", (), {}, (2, 9, 3)),
    ("MaxPooling1D", (3,), {"strides": 2, "padding": "same"}, (2, 8, 3)),
    ("MaxPooling2D", (), {}, (2, 8, 9, 3)),
    ("MaxPooling2D", (3,), {"strides": 2, "padding": "same"}, (2, 8, 9, 3)),
    ("MaxPooling2D", (2,), {"data_format": "channels_first"}, (2, 3, 8, 9)),
    ("AveragePooling1D", (3,), {"strides": 2, "padding": "same"}, (2, 9, 3)),
    ("AveragePooling1D", (2,), {}, (2, 8, 3)),
    ("AveragePooling2D", (2,), {}, (2, 8, 9, 3)),
    ("AveragePooling2D", ((3, 3),), {"strides": (1, 2), "padding": "same"}, (2, 8, 9, 3)),
    ("GlobalAveragePooling1D", (), {}, (2, 8, 3)),
    ("GlobalAveragePooling2D", (), {"keepdims": True}, (2, 8, 9, 3)),
    ("GlobalMaxPooling1D", (), {"keepdims": True}, (2, 8, 3)),
    ("GlobalMaxPooling2D", (), {"data_format": "channels_first"}, (2, 3, 8, 9)),
    ("ZeroPadding1D", (2,), {}, (2, 8, 3)),
    ("ZeroPadding2D", (((1, 2), (0, 3)),), {}, (2, 8, 9, 3)),
    ("ZeroPadding2D", (), {"data_format": "channels_first"}, (2, 3, 8, 9)),
    ("BatchNormalization", (), {}, (4, 5)),
    ("BatchNormalization", (), {"scale": False, "momentum": 0.5}, (4, 6, 5)),
    ("BatchNormalization", (), {"center": False, "epsilon": 1e-5}, (2, 8, 9, 3)),
    ("BatchNormalization", (), {"axis": 1}, (2, 3, 8, 9)),
    ("BatchNormalization", (), {"renorm": True}, (4, 5)),
    ("LayerNormalization", (), {}, (4, 5)),
    ("LayerNormalization", (), {"axis": [1, 2], "scale": False}, (4, 5, 3)),
    ("LayerNormalization", (), {"rms_scaling": True}, (4, 5)),
    ("LayerNormalization", (), {"rms_scaling": True, "axis": [1, 2], "scale": False}, (4, 5, 3)),
    ("Masking", (), {"mask_value": 1.0}, (4, 5, 3)),
    ("Rescaling", (2.0,), {"offset": -1.0}, (4, 5)),
    ("Normalization", (), {"mean": [1.0, 2.0, 3.0], "variance": [4.0, 1.0, 0.25]}, (4, 5, 3)),
    ("Normalization", (), {"mean": 1.0, "variance": 4.0, "invert": True}, (4, 3)),
    ("Normalization", (), {"axis": None}, (4, 3)),
    ("SimpleRNN", (4,), {}, (3, 5, 2)),
    ("SimpleRNN", (4,), {"return_sequences": True, "activation": "relu", "go_backwards": True}, (3, 5, 2)),
    ("SimpleRNN", (4,), {"activation": "sigmoid", "use_bias": False}, (3, 5, 2)),
    ("LSTM", (4,), {}, (3, 5, 2)),
    ("LSTM", (4,), {"return_sequences": True, "go_backwards": True}, (3, 5, 2)),
    ("LSTM", (4,), {"use_bias": False, "unit_forget_bias": False}, (3, 5, 2)),
    ("LSTM", (4,), {"activation": "relu", "recurrent_activation": "hard_sigmoid"}, (3, 5, 2)),
    ("GRU", (4,), {}, (3, 5, 2)),
    ("GRU", (4,), {"return_sequences": True, "use_bias": False}, (3, 5, 2)),
    ("GRU", (4,), {"reset_after": False}, (3, 5, 2)),
    ("GRU", (4,), {"activation": "relu", "go_backwards": True}, (3, 5, 2)),
]


def _label(case: Case) -> str:
    name, args, kwargs, _ = case
    return f"{name}{args}{kwargs}".replace(" ", "")


def data(shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def pair(keras: ModuleType, kind: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """Return the layer of Keras and ours."""
    return getattr(keras.layers, kind)(*args, **kwargs), getattr(layers, kind)(*args, **kwargs)


def same_weights(theirs: Any, ours: Any) -> None:
    """Give both layers the same new weights."""
    own = theirs.get_weights()
    assert [w.shape for w in ours.get_weights()] == [w.shape for w in own]
    rng = np.random.default_rng(1)
    weights = [rng.uniform(0.1, 0.9, w.shape).astype(w.dtype) - (0.0 if w.ndim < 2 else 0.5) for w in own]
    theirs.set_weights(weights)
    ours.set_weights(weights)


def config(layer: Any) -> Any:
    return json.loads(json.dumps(layer.get_config(), default=lambda value: np.asarray(value).tolist()))


@pytest.mark.parametrize("case", CASES, ids=_label)
def test_output_weights_and_configuration(keras: ModuleType, case: Case) -> None:
    name, args, kwargs, shape = case
    theirs, ours = pair(keras, name, *args, name="same", **kwargs)
    x = data(shape)
    theirs(x)
    ours(tensor(x))
    same_weights(theirs, ours)
    expected, found = to_numpy(theirs(x)), ours(tensor(x))
    np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5, rtol=1e-5)
    assert config(ours) == config(theirs)
    unknown_batch = (None, *shape[1:])
    assert tuple(ours.compute_output_shape(unknown_batch)) == tuple(theirs.compute_output_shape(unknown_batch))
    again = type(ours).from_config(theirs.get_config())
    assert config(again) == config(theirs)
    revived = keras.layers.deserialize(layers.serialize(ours))
    assert config(revived) == config(theirs)


GRADIENTS: list[Case] = [
    ("Dense", (3,), {"activation": "tanh"}, (4, 5)),
    ("Conv1D", (4, 3), {"padding": "causal"}, (4, 9, 5)),
    ("Conv2D", (3, 3), {"padding": "same", "strides": 2}, (2, 8, 7, 3)),
    ("BatchNormalization", (), {}, (4, 5)),
    ("BatchNormalization", (), {}, (2, 8, 9, 3)),
    ("BatchNormalization", (), {"renorm": True}, (2, 8, 9, 3)),
    ("LayerNormalization", (), {"rms_scaling": True}, (4, 5)),
    ("SimpleRNN", (4,), {"return_sequences": True}, (3, 5, 2)),
    ("LSTM", (4,), {"return_sequences": True}, (3, 5, 2)),
    ("LSTM", (4,), {"activation": "relu"}, (3, 5, 2)),
    ("GRU", (4,), {"return_sequences": True}, (3, 5, 2)),
    ("GRU", (4,), {"reset_after": False}, (3, 5, 2)),
]


@pytest.mark.parametrize("case", GRADIENTS, ids=_label)
def test_gradients_in_training(keras: ModuleType, case: Case) -> None:
    name, args, kwargs, shape = case
    theirs, ours = pair(keras, name, *args, **kwargs)
    x = data(shape)
    theirs(x)
    ours(tensor(x))
    same_weights(theirs, ours)
    gradients = []
    for layer, weights in ((theirs, theirs.trainable_weights), (ours, ours.trainable_weights)):
        inputs = tensor(x).requires_grad_()
        outputs = layer(inputs, training=True)
        (outputs**2 * tensor(torch.arange(outputs.numel())).reshape(outputs.shape)).mean().backward()
        parts = [weight.value.grad for weight in weights]
        gradients.append([to_numpy(part) for part in [*parts, inputs.grad]])
    for expected, found in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)
    for expected, found in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"renorm": True, "renorm_clipping": {"rmin": 0.5, "rmax": 2.0, "dmax": 1.0}}], ids=str
)
@pytest.mark.parametrize("shape", [(4, 5), (1, 5), (2, 8, 9, 3), (1, 1, 1, 2), (3, 4, 5)])
def test_batch_normalization_in_training(keras: ModuleType, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    theirs, ours = pair(keras, "BatchNormalization", momentum=0.9, **options)
    for step in range(3):
        x = data(shape, step) * 3 + 1
        expected, found = to_numpy(theirs(x, training=True)), to_numpy(ours(tensor(x), training=True))
        np.testing.assert_allclose(found, expected, atol=2e-5)
    for expected, found in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    x = data(shape, 9)
    np.testing.assert_allclose(to_numpy(ours(tensor(x))), to_numpy(theirs(x)), atol=1e-5)


@pytest.mark.parametrize("renorm", [False, True])
def test_masked_batch_normalization(keras: ModuleType, renorm: bool) -> None:
    theirs, ours = pair(keras, "BatchNormalization", renorm=renorm)
    x, mask = data((3, 4, 5)), np.random.default_rng(2).uniform(size=(3, 4)) > 0.4
    expected = theirs(x, training=True, mask=keras.ops.convert_to_tensor(mask))
    found = ours(tensor(x), training=True, mask=tensor(mask))
    np.testing.assert_allclose(to_numpy(found), to_numpy(expected), atol=1e-5)
    for left, right in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(right, left, atol=1e-6)


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "options",
    [{}, {"return_sequences": True}, {"return_sequences": True, "go_backwards": True}, {"zero_output_for_mask": True}],
    ids=str,
)
def test_recurrent_layers_skip_masked_steps(keras: ModuleType, name: str, options: dict[str, Any]) -> None:
    theirs, ours = pair(keras, name, 4, return_state=True, **{"return_sequences": True, **options})
    x = data((3, 5, 2))
    mask = np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], bool)
    theirs(x)
    ours(tensor(x))
    same_weights(theirs, ours)
    expected = theirs(x, mask=keras.ops.convert_to_tensor(mask))
    found = ours(tensor(x), mask=tensor(mask))
    assert len(expected) == len(found)
    for left, right in zip(expected, found, strict=True):
        np.testing.assert_allclose(to_numpy(right), to_numpy(left), atol=1e-5)


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_recurrent_layers_start_from_a_state(keras: ModuleType, name: str, activation: str) -> None:
    theirs, ours = pair(keras, name, 4, return_state=True, activation=activation)
    x = data((3, 5, 2))
    theirs(x)
    ours(tensor(x))
    same_weights(theirs, ours)
    states = [data((3, 4), 5 + n) for n in range(2 if name == "LSTM" else 1)]
    expected = theirs(x, initial_state=[keras.ops.convert_to_tensor(s) for s in states])
    found = ours(tensor(x), initial_state=[tensor(s) for s in states])
    for left, right in zip(expected, found, strict=True):
        np.testing.assert_allclose(to_numpy(right), to_numpy(left), atol=1e-5)


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_stateful_layers_carry_on(keras: ModuleType, name: str) -> None:
    theirs, ours = pair(keras, name, 4, stateful=True)
    theirs.build((3, 5, 2))
    ours.build((3, 5, 2))
    same_weights(theirs, ours)
    for step in range(3):
        x = data((3, 5, 2), step)
        np.testing.assert_allclose(to_numpy(ours(tensor(x))), to_numpy(theirs(x)), atol=1e-5)
    theirs.reset_state()
    ours.reset_state()
    x = data((3, 5, 2))
    np.testing.assert_allclose(to_numpy(ours(tensor(x))), to_numpy(theirs(x)), atol=1e-5)


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("sequences", [False, True])
def test_bidirectional(keras: ModuleType, merge_mode: str | None, sequences: bool) -> None:
    options = {"return_sequences": sequences, "name": "inner"}
    theirs = keras.layers.Bidirectional(keras.layers.LSTM(4, **options), merge_mode=merge_mode, name="both")
    ours = layers.Bidirectional(layers.LSTM(4, **options), merge_mode=merge_mode, name="both")
    x = data((3, 5, 2))
    theirs(x)
    ours(tensor(x))
    same_weights(theirs, ours)
    expected, found = theirs(x), ours(tensor(x))
    if merge_mode is not None:
        expected, found = [expected], [found]
    for left, right in zip(expected, found, strict=True):
        np.testing.assert_allclose(to_numpy(right), to_numpy(left), atol=1e-5)
    mine, other = config(ours), config(theirs)
    for part in (other["layer"], other["backward_layer"]):
        part.pop("build_config", None)
    assert mine == other
    mask = np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [1, 1, 1, 1, 1]], bool)
    expected, found = (
        theirs(x, mask=keras.ops.convert_to_tensor(mask)),
        ours(tensor(x), mask=tensor(mask)),
    )
    if merge_mode is not None:
        np.testing.assert_allclose(to_numpy(found), to_numpy(expected), atol=1e-5)


def test_time_distributed(keras: ModuleType) -> None:
    theirs = keras.layers.TimeDistributed(keras.layers.Dense(3))
    ours = layers.TimeDistributed(layers.Dense(3))
    x = data((4, 5, 2))
    theirs(x)
    ours(tensor(x))
    same_weights(theirs, ours)
    np.testing.assert_allclose(to_numpy(ours(tensor(x))), to_numpy(theirs(x)), atol=1e-5)


@pytest.mark.parametrize("name", ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"])
def test_merge_layers(keras: ModuleType, name: str) -> None:
    theirs, ours = pair(keras, name, name="merged")
    parts = [data((4, 3), 1), data((4, 3), 2)]
    found = ours([tensor(part) for part in parts])
    np.testing.assert_allclose(to_numpy(found), to_numpy(theirs(parts)), atol=1e-6)
    assert config(ours) == config(theirs)
    lower = getattr(layers, name.lower())([tensor(part) for part in parts])
    assert torch.equal(lower, found)


def test_embedding_and_its_mask(keras: ModuleType) -> None:
    theirs, ours = pair(keras, "Embedding", 10, 4, mask_zero=True, name="words")
    ids = np.array([[1, 2, 0], [9, 0, 0]])
    theirs(ids)
    ours(tensor(ids))
    same_weights(theirs, ours)
    np.testing.assert_array_equal(to_numpy(ours(tensor(ids))), to_numpy(theirs(ids)))
    np.testing.assert_array_equal(to_numpy(ours(tensor(ids.astype("float32")))), to_numpy(theirs(ids)))
    np.testing.assert_array_equal(to_numpy(ours(tensor(ids))._keras_mask), ids != 0)
    assert config(ours) == config(theirs)


def test_a_mask_travels_from_embedding_to_lstm(keras: ModuleType) -> None:
    ids = np.array([[1, 2, 0, 0], [9, 0, 3, 0]])
    outputs = []
    weights: list[Any] = []
    for room in (keras.layers, layers):
        embed, drop, first, second, dense = (
            room.Embedding(10, 4, mask_zero=True),
            room.Dropout(0.5),
            room.LSTM(3, return_sequences=True),
            room.GRU(3),
            room.Dense(2),
        )
        chain = [embed, drop, first, second, dense]

        def run(chain: list[Any] = chain) -> Any:
            x: Any = tensor(ids)
            for layer in chain:
                x = layer(x)
            return x

        run()
        for index, layer in enumerate(chain):
            if not weights or index >= len(weights):
                weights.append([data(w.shape, index) for w in layer.get_weights()])
            layer.set_weights(weights[index])
        outputs.append(to_numpy(run()))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)


def test_normalization_adapts(keras: ModuleType) -> None:
    for options in ({}, {"axis": None}, {"axis": 1}, {"axis": (1, 2)}, {"invert": True}):
        theirs, ours = pair(keras, "Normalization", **options)
        x = data((6, 5, 3)) * 4 + 2
        theirs.adapt(x)
        ours.adapt(x)
        np.testing.assert_allclose(to_numpy(ours(tensor(x))), to_numpy(theirs(x)), atol=1e-4)
        assert [w.shape for w in ours.get_weights()] == [w.shape for w in theirs.get_weights()]


def test_seeded_dropout_draws_the_same_masks(keras: ModuleType) -> None:
    x = data((4, 5))
    for noise_shape in (None, (4, 1)):
        theirs, ours = pair(keras, "Dropout", 0.4, noise_shape=noise_shape, seed=7)
        for _ in range(3):
            expected = theirs(keras.ops.convert_to_tensor(x), training=True)
            np.testing.assert_allclose(to_numpy(ours(tensor(x), training=True)), to_numpy(expected), atol=1e-6)


def test_input_layer_configuration(keras: ModuleType) -> None:
    for options in ({"shape": (3,), "dtype": "int32"}, {"batch_shape": (2, 3)}, {"shape": (3,), "batch_size": 4}):
        theirs, ours = pair(keras, "InputLayer", name="x", **options)
        assert config(ours) == config(theirs)
        assert ours.output.shape == theirs.output.shape
        assert ours.output.dtype == theirs.output.dtype
        assert config(layers.InputLayer.from_config(theirs.get_config())) == config(theirs)


def test_automatic_names(keras: ModuleType) -> None:
    keras.backend.clear_session()
    naming.reset()
    for name, args, kwargs, _ in [*CASES, *CASES]:
        theirs, ours = pair(keras, name, *args, **kwargs)
        assert ours.name == theirs.name
    bare = keras.layers.Bidirectional(keras.layers.GRU(2)), layers.Bidirectional(layers.GRU(2))
    assert bare[1].name == bare[0].name
    assert bare[1].backward_layer.name == bare[0].backward_layer.name


def test_the_losses_of_layers_outside_a_model_are_those_of_the_last_call(keras: ModuleType) -> None:
    def found(module: ModuleType) -> list[list[float]]:
        class Adds(module.layers.Layer):  # type: ignore[misc,name-defined]  # of either
            def call(self, inputs: Any) -> Any:
                self.add_loss(inputs.sum() * 0 + 1.0)
                self.add_loss(inputs.sum() * 0 + 2.0)
                return inputs

        class Outer(module.layers.Layer):  # type: ignore[misc,name-defined]  # of either
            def __init__(self) -> None:
                super().__init__()
                self.inner = Adds()

            def call(self, inputs: Any) -> Any:
                self.add_loss(inputs.sum() * 0 + 5.0)
                return self.inner(self.inner(inputs))

        x = tensor(torch.ones(2, 3))
        outer, dense = Outer(), module.layers.Dense(1, activity_regularizer="l2", kernel_initializer="ones")
        outer.inner(x)
        parts: list[Any] = [outer.inner, outer, dense, module.Sequential([module.Input((3,)), Outer()])]
        results = []
        for part in parts:
            for _ in range(3):
                part(x)
            results.append([loss.item() for loss in part.losses])
        outer.inner(x)
        return [*results, [loss.item() for loss in outer.losses]]

    assert found(oncue) == found(keras)
