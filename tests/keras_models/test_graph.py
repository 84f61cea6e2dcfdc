"""A model of Keras's own layers is run without Keras's looking at each call, with quicker layers: to the same numbers."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from keras_models.side_by_side import X, Y, fit, is_current, made_of, same, twins

import oncue
from helpers import normal, tensor, to_numpy
from oncue.nested import flatten
from oncue.with_keras.graph import GraphForward, LayerForward, is_plain
from oncue.with_keras.quick_layers import quick_call

LAYERS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("Conv2D", {"filters": 4, "kernel_size": 3}, (7, 8, 4)),
    (
        "Conv2D",
        {"filters": 4, "kernel_size": (2, 3), "padding": "same", "strides": (2, 3), "use_bias": False},
        (7, 8, 4),
    ),
    ("Conv2D", {"filters": 6, "kernel_size": 3, "padding": "same", "groups": 2, "activation": "relu"}, (7, 8, 4)),
    ("Conv2D", {"filters": 2, "kernel_size": 2, "padding": "same", "dilation_rate": (2, 3)}, (7, 8, 1)),
    ("Conv2D", {"filters": 2, "kernel_size": 2, "data_format": "channels_first"}, (4, 7, 8)),
    ("Conv2D", {"filters": 5, "kernel_size": 1, "activation": "relu"}, (4, 5, 3)),
    ("Conv2D", {"filters": 5, "kernel_size": 1, "padding": "same", "use_bias": False}, (14, 14, 2)),
    ("Conv2D", {"filters": 4, "kernel_size": 1, "strides": 2}, (5, 4, 3)),
    ("Conv2D", {"filters": 4, "kernel_size": 1, "groups": 2}, (5, 4, 6)),
    ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2, "padding": "same", "strides": 2}, (7, 8, 3)),
    ("DepthwiseConv2D", {"kernel_size": (2, 3), "dilation_rate": 2, "activation": "tanh"}, (7, 8, 3)),
    ("SeparableConv2D", {"filters": 4, "kernel_size": 3, "padding": "same", "strides": 2}, (7, 8, 3)),
    ("SeparableConv2D", {"filters": 4, "kernel_size": 3, "depth_multiplier": 2, "use_bias": False}, (7, 8, 3)),
    ("SeparableConv2D", {"filters": 4, "kernel_size": 2, "dilation_rate": 2}, (7, 8, 3)),
    ("MaxPooling2D", {}, (7, 8, 3)),
    ("MaxPooling2D", {"pool_size": (3, 2), "strides": (2, 1), "padding": "same"}, (7, 8, 3)),
    ("MaxPooling2D", {"pool_size": 2, "padding": "same", "data_format": "channels_first"}, (3, 7, 8)),
    ("AveragePooling2D", {"pool_size": 2}, (7, 8, 3)),
    ("AveragePooling2D", {"pool_size": (3, 2), "strides": (2, 1), "padding": "same"}, (7, 8, 3)),
    ("AveragePooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}, (7, 9, 3)),
    ("BatchNormalization", {}, (4,)),
    ("BatchNormalization", {"axis": 1, "scale": False, "momentum": 0.5}, (3, 5, 4)),
    ("BatchNormalization", {"center": False, "epsilon": 0.1}, (5, 4)),
    ("BatchNormalization", {"renorm": True}, (4,)),
    ("LSTM", {"units": 3, "return_sequences": True}, (5, 4)),
    ("LSTM", {"units": 3, "use_bias": False}, (5, 4)),
    ("LSTM", {"units": 3, "activation": "relu"}, (5, 4)),
    ("LSTM", {"units": 3, "go_backwards": True, "return_sequences": True}, (5, 4)),
    ("LSTM", {"units": 3, "return_state": True}, (5, 4)),
    ("GRU", {"units": 3, "return_sequences": True}, (5, 4)),
    ("GRU", {"units": 3, "return_state": True, "return_sequences": True, "go_backwards": True}, (5, 4)),
    ("GRU", {"units": 3, "use_bias": False}, (5, 4)),
    ("GRU", {"units": 3, "reset_after": False}, (5, 4)),
]


@pytest.mark.parametrize(
    ("name", "options", "shape"), LAYERS, ids=[f"{name}-{place}" for place, (name, *_) in enumerate(LAYERS)]
)
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_a_quick_layer_is_the_layer(
    keras: ModuleType, name: str, options: dict[str, Any], shape: tuple[int, ...], training: bool
) -> None:
    keras.utils.set_random_seed(1)
    layer = made_of(getattr(keras.layers, name), options)
    layer(tensor(normal(6, *shape)))
    for place, weight in enumerate(layer.weights):
        weight.assign(
            np.abs(normal(*weight.shape, seed=place))
            if "variance" in weight.name
            else normal(*weight.shape, seed=place)
        )
    before, found = layer.get_weights(), []
    trains = name == "BatchNormalization"
    for call in (layer, quick_call(layer) or layer.call):
        layer.set_weights(before)
        x = tensor(normal(6, *shape, seed=3)).requires_grad_()
        outputs = torch.cat([part.flatten() for part in flatten(call(x, training=training) if trains else call(x))])
        weights = [weight.value for weight in layer.trainable_weights]
        # Of a sum of what was normalized no gradient is left but rounding.
        factors = torch.linspace(0.1, 1.0, outputs.numel(), device=outputs.device).view(outputs.shape)
        gradients = torch.autograd.grad((outputs * factors).sum(), [x, *weights])
        found.append([to_numpy(part) for part in (outputs, *gradients)] + layer.get_weights())
    same(*found)


def test_which_layers_are_quick(keras: ModuleType) -> None:
    """Those that would compute something else are left to Keras."""
    slow = []
    known = [one for one in LAYERS if is_current(keras) or "renorm" not in one[1]]
    for place, (name, options, shape) in enumerate(known):
        layer = getattr(keras.layers, name)(**options)
        layer.build((None, *shape))
        if quick_call(layer) is None:
            slow.append(place)
    odd = ("dilation_rate", "renorm", "activation", "reset_after")
    expected = [
        place
        for place, (name, options, _) in enumerate(known)
        if "channels_first" in options.values()
        or (name.startswith(("LSTM", "GRU", "Batch", "Separable")) and any(key in options for key in odd))
    ]
    assert slow == expected and len(slow) == len(known) - len(LAYERS) + 6
    assert quick_call(keras.layers.Dense(1)) is None


MASKS = {
    "ends": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]],
    "begins": [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]],
    "holes": [[1, 0, 1, 0, 0], [1, 1, 0, 1, 1], [0, 1, 1, 1, 0], [1, 0, 0, 0, 1]],
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_masked_sequences(keras: ModuleType, name: str, mask: str) -> None:
    for chosen in itertools.product((True, False), repeat=3):
        options = dict(zip(("return_sequences", "go_backwards", "zero_output_for_mask"), chosen, strict=True))
        layer = getattr(keras.layers, name)(3, **options)
        layer.build((None, 5, 2))
        found = []
        for call in (layer.call, quick_call(layer)):
            x = tensor(normal(4, 5, 2, seed=1)).requires_grad_()
            outputs = call(x, mask=tensor(MASKS[mask]).bool())
            (gradient,) = torch.autograd.grad((outputs**2).sum(), [x])
            found.append([to_numpy(outputs), to_numpy(gradient)])
        same(*found)


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
@pytest.mark.parametrize(
    "options",
    [
        {"stateful": True},
        {"stateful": True, "return_sequences": True, "return_state": True, "go_backwards": True},
        {"dropout": 0.3, "seed": 4},
        {"return_state": True},
    ],
    ids=["stateful", "stateful backwards", "dropout", "states"],
)
def test_recurrent_layers_that_begin_with_states(keras: ModuleType, name: str, options: dict[str, Any]) -> None:
    found = []
    for quick in (False, True):
        keras.utils.set_random_seed(1)
        layer = getattr(keras.layers, name)(3, **options)
        layer(tensor(normal(4, 5, 2)))
        call = quick_call(layer) if quick else layer
        given = None if layer.stateful else [tensor(normal(4, 3, seed=place)) for place in range(len(layer.state_size))]
        seen: list[Any] = []
        for place, training in enumerate((True, False, True)):
            x = tensor(normal(4, 5, 2, seed=place)).requires_grad_()
            # Keras's own stateful layers write what gradients would be computed from.
            with torch.set_grad_enabled(not layer.stateful):
                outputs = flatten(call(x, initial_state=given if place else None, training=training))
            seen += [to_numpy(part) for part in outputs]
            if not layer.stateful:
                total = torch.stack([(part**2).sum() for part in outputs]).sum()
                gradients = torch.autograd.grad(total, [x, *[weight.value for weight in layer.trainable_weights]])
                seen += [to_numpy(part) for part in gradients]
            seen += [to_numpy(state.value) for state in layer.states or []]
            seen += [to_numpy(variable.value) for variable in layer.variables]
        found.append(seen)
    same(*found)


def test_states_that_do_not_fit_are_left_to_keras(keras: ModuleType) -> None:
    layer = keras.layers.LSTM(3, stateful=True)
    layer(tensor(normal(4, 5, 2)))
    # An older Keras lets torch say it.
    with pytest.raises((ValueError, RuntimeError), match=r"batch size|size of tensor a \(3\)"):
        quick_call(layer)(tensor(normal(3, 5, 2)))


ATTENTION: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"use_bias": False}, {"use_causal_mask": True}),
    ({"value_dim": 5, "output_shape": 7}, {}),
    ({"output_shape": (2, 3)}, {}),
    ({"dropout": 0.3, "seed": 5}, {"training": True}),
    ({"dropout": 0.3, "seed": 5}, {"training": False}),
    ({}, {"return_attention_scores": True}),
    ({}, {"attention_mask": np.tri(4, 4) > 0}),
    ({"attention_axes": (1,)}, {}),
]


@pytest.mark.parametrize(("options", "told"), ATTENTION, ids=map(str, range(len(ATTENTION))))
@pytest.mark.parametrize("of", ["itself", "another", "a key"])
def test_attention(keras: ModuleType, options: dict[str, Any], told: dict[str, Any], of: str) -> None:
    given = [normal(3, 4, 6, seed=place) for place in range({"itself": 1, "another": 2, "a key": 3}[of])]
    found = []
    for quick in (False, True):
        keras.utils.set_random_seed(1)
        layer = keras.layers.MultiHeadAttention(2, 3, **options)
        tensors = [tensor(one).requires_grad_() for one in given]
        arguments = tensors * 2 if of == "itself" else tensors
        layer(*arguments)
        for place, weight in enumerate(layer.weights):
            weight.assign(normal(*weight.shape, seed=place) * 0.3)
        call = quick_call(layer) if quick else layer
        kwargs = {name: tensor(value) if isinstance(value, np.ndarray) else value for name, value in told.items()}
        outputs = flatten(call(*arguments, **kwargs))
        weights = [weight.value for weight in layer.trainable_weights]
        gradients = torch.autograd.grad((outputs[0] ** 2).sum(), [*tensors, *weights])
        found.append([to_numpy(part) for part in (*outputs, *gradients)])
    same(*found)


def test_attention_that_does_more_is_left_to_keras(keras: ModuleType) -> None:
    def made(shape: tuple[int, ...] = (4, 6), **options: Any) -> Any:
        layer = keras.layers.MultiHeadAttention(2, 3, **options)
        layer(*[tensor(normal(2, *shape))] * 2)
        return layer

    assert quick_call(made()) is not None
    assert quick_call(made((2, 4, 6), attention_axes=(1, 2))) is None
    assert quick_call(made(activity_regularizer="l2")) is None
    for option in ("use_gate", "sliding_window"):
        if option in inspect.signature(keras.layers.MultiHeadAttention).parameters:
            assert quick_call(made(**{option: 1})) is None
    hooked = made()
    hooked.query_dense.register_forward_hook(lambda *args: None)
    assert quick_call(hooked) is None


def test_masked_attention_is_left_to_keras(keras: ModuleType) -> None:
    class Masked(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.words = keras.layers.Embedding(7, 4, mask_zero=True)
            self.attention = keras.layers.MultiHeadAttention(2, 3)

        def call(self, x: Any) -> Any:
            words = self.words(x)
            return keras.ops.mean(self.attention(words, words), (1, 2), keepdims=True)[:, 0]

    tokens = np.maximum(0, (np.arange(200).reshape(40, 5) * 7 % 11 % 7) - np.arange(5)).astype("int64")

    def make(keras: Any) -> Any:
        model = Masked()
        model(tensor(tokens))
        return model

    models = twins(keras, make, lambda keras: {"optimizer": "adam", "loss": "mse"})
    same(fit(models[0], tokens, Y), fit(oncue.Model(models[1]), tokens, Y))
    run = oncue.Model(models[1])._graph_forward
    assert isinstance(run, LayerForward) and len(run._quick) == 1


def test_quick_layers_in_a_model_that_is_called_as_it_is(keras: ModuleType) -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            layers = keras.layers
            self.words = layers.Embedding(7, 4, mask_zero=True)
            self.inner = [layers.Bidirectional(layers.LSTM(3, return_sequences=True)), layers.GRU(3), layers.Dense(1)]

        def call(self, inputs: Any, training: bool = False) -> Any:
            hidden = self.words(inputs)
            for layer in self.inner:
                hidden = layer(hidden)
            return hidden

    tokens = np.maximum(0, (np.arange(200).reshape(40, 5) * 7 % 11 % 7) - np.arange(5)).astype("int64")
    models = twins(keras, lambda keras: Own(), lambda keras: {"optimizer": "adam", "loss": "mse"})
    same(fit(models[0], tokens, Y), fit(oncue.Model(models[1]), tokens, Y))
    run = oncue.Model(models[1])._graph_forward
    assert isinstance(run, LayerForward) and len(run._quick) == 3
    # Nothing is left on the layers, even by a call that fails.
    with pytest.raises(ValueError, match="Exception encountered|incompatible|rank|shape|dim"):
        run(tensor(normal(2, 3, 4, 5)), False)
    assert not any("call" in vars(layer) for layer in models[1]._flatten_layers())


def nested(keras: Any) -> Any:
    layers = keras.layers
    inner = keras.Sequential(
        [
            keras.Input((4,)),
            layers.BatchNormalization(),
            layers.Dense(4, activation="relu"),
            layers.Dropout(0.4, seed=2),
        ],
        name="inner",
    )
    one, two = keras.Input((4,), name="one"), keras.Input((4,), name="two")
    shared = layers.Dense(4)
    pair = keras.Model([one, two], [shared(one) + shared(two), layers.Concatenate()([one, two])], name="pair")
    first, second = pair([inner(one, training=False), two])
    scaled = keras.ops.clip(first, -1.0, x_max=1.0) * 2.0
    long = layers.Reshape((2, 4))(second)
    long = layers.TimeDistributed(layers.Dense(3))(layers.Bidirectional(layers.GRU(2, return_sequences=True))(long))
    state = list(layers.LSTM(3, return_state=True)(long))
    state.append(layers.LSTM(3)(long, initial_state=state[1:]))
    state.append(layers.BatchNormalization()(state[0], mask=keras.ops.sum(state[0], axis=-1) > 0))
    attended = layers.MultiHeadAttention(2, 2, dropout=0.1, seed=1)(long, long)
    outputs = {
        "scaled": layers.Dense(2, name="scaled")(layers.BatchNormalization()(scaled)),
        "states": layers.Concatenate(name="states")([*state, layers.Flatten()(attended)]),
    }
    return keras.Model({"one": one, "two": two}, outputs)


def test_a_graph_of_graphs(keras: ModuleType) -> None:
    models = twins(keras, nested, None)
    x = {"one": tensor(X[:, :4]), "two": tensor(X[:, 2:])}
    assert is_plain(models[1])
    run = GraphForward(models[1])
    for training in (False, True, True):
        # The first call with inputs of a shape is Keras's own.
        expected, found = models[0](x, training=training), run(x, training)
        same(
            {name: to_numpy(value) for name, value in expected.items()},
            {name: to_numpy(value) for name, value in found.items()},
        )
    same(*[[np.array(variable.value.detach().cpu()) for variable in model.variables] for model in models])


OTHERS: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("Dense", {"units": 3, "activation": "gelu"}, (5,)),
    ("EinsumDense", {"equation": "abc,cd->abd", "output_shape": (None, 3)}, (4, 5)),
    ("Embedding", {"input_dim": 9, "output_dim": 2}, (5,)),
    ("Conv1D", {"filters": 3, "kernel_size": 3, "padding": "causal"}, (6, 2)),
    ("Conv3D", {"filters": 2, "kernel_size": 2}, (3, 4, 4, 2)),
    ("Conv2DTranspose", {"filters": 2, "kernel_size": 3, "strides": 2, "padding": "same"}, (4, 4, 3)),
    ("SeparableConv1D", {"filters": 2, "kernel_size": 3}, (6, 2)),
    ("LayerNormalization", {}, (4, 5)),
    ("RMSNormalization", {}, (4, 5)),
    ("GroupNormalization", {"groups": 2}, (4, 4, 6)),
    ("UnitNormalization", {}, (4,)),
    ("SimpleRNN", {"units": 3, "dropout": 0.2, "seed": 4}, (5, 2)),
    ("LSTM", {"units": 3, "dropout": 0.2, "recurrent_dropout": 0.1, "seed": 4}, (5, 2)),
    ("GRU", {"units": 3, "dropout": 0.2, "seed": 4, "stateful": True}, (5, 2)),
    ("ConvLSTM2D", {"filters": 2, "kernel_size": 2}, (3, 4, 4, 1)),
    ("Dropout", {"rate": 0.5, "seed": 4}, (6,)),
    ("SpatialDropout1D", {"rate": 0.5, "seed": 4}, (4, 3)),
    ("AlphaDropout", {"rate": 0.5, "seed": 4}, (6,)),
    ("GaussianNoise", {"stddev": 0.5, "seed": 4}, (6,)),
    ("GaussianDropout", {"rate": 0.5, "seed": 4}, (6,)),
    ("PReLU", {}, (4,)),
    ("Softmax", {}, (4,)),
    ("GlobalMaxPooling1D", {}, (5, 2)),
    ("AdaptiveAveragePooling2D", {"output_size": 2}, (4, 4, 1)),
    ("UpSampling2D", {"interpolation": "bilinear"}, (3, 3, 2)),
    ("Cropping2D", {"cropping": 1}, (4, 4, 1)),
    ("Permute", {"dims": (2, 1)}, (3, 2)),
    ("RepeatVector", {"n": 2}, (3,)),
    ("Rescaling", {"scale": 0.5, "offset": 1.0}, (3,)),
    ("Resizing", {"height": 3, "width": 5}, (4, 4, 1)),
    ("CenterCrop", {"height": 2, "width": 3}, (4, 4, 1)),
    ("Normalization", {"mean": 1.0, "variance": 4.0}, (3,)),
    ("RandomFlip", {"seed": 4}, (4, 4, 1)),
    ("RandomTranslation", {"height_factor": 0.2, "width_factor": 0.2, "seed": 4}, (4, 4, 1)),
    ("RandomContrast", {"factor": 0.5, "seed": 4}, (4, 4, 1)),
    ("Lambda", {"function": lambda x: x * 2}, (3,)),
]


@pytest.mark.parametrize(("name", "options", "shape"), OTHERS, ids=[name for name, *_ in OTHERS])
def test_every_other_layer_is_run_as_keras_runs_it(
    keras: ModuleType, name: str, options: dict[str, Any], shape: tuple[int, ...]
) -> None:
    if not hasattr(keras.layers, name):
        pytest.skip("this release of Keras has no such layer")
    if name in ("UpSampling2D", "Resizing") and not is_current(keras):
        pytest.importorskip("torchvision")

    def make(keras: Any) -> Any:
        inputs = keras.Input(batch_shape=(6, *shape))
        return keras.Model(inputs, getattr(keras.layers, name)(**options)(inputs))

    models = twins(keras, make, None)
    x = tensor(np.abs(normal(6, *shape, seed=2)) * 2)
    run = GraphForward(models[1]) if is_plain(models[1]) else LayerForward(models[1], told=True)
    for training in (False, True, True, False):
        expected, found = models[0](x, training=training), run(x, training)
        same([to_numpy(part) for part in flatten(expected)], [to_numpy(part) for part in flatten(found)])
    same(*[[to_numpy(variable.value) for variable in model.variables] for model in models])


def test_inputs_in_each_form(keras: ModuleType) -> None:
    def make(keras: Any) -> Any:
        one, two = keras.Input((4,), name="one"), keras.Input((1,), name="two")
        return keras.Model([one, two], keras.layers.Dense(1)(keras.layers.Multiply()([one, two])))

    model = make(keras)
    run, one, two = GraphForward(model), tensor(X[:, :4]), tensor(X[:, :1])
    forms = [[one, two], (one, two), {"one": one, "two": two}, [one.double(), two], [one, two[:, 0]]]
    for form in forms * 2:
        same(to_numpy(model([one, two])), to_numpy(run(form, False)))
    with pytest.raises(ValueError, match="expected shape=|incompatible"):
        run([one[:, :3], two], False)


def _counted(layer: Any) -> list[Any]:
    calls: list[Any] = []
    layer.register_forward_hook(lambda *args: calls.append(args))
    return calls


def _plain(keras: Any) -> Any:
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(1)])


@pytest.mark.parametrize(
    "change",
    [
        lambda model: _counted(model.layers[0]),
        lambda model: model.layers[0].enable_lora(1),
        lambda model: setattr(model.layers[0], "activity_regularizer", oncue.regularizers.L2()),
    ],
    ids=["hook", "lora", "penalty"],
)
def test_what_keras_looks_at_is_left_to_keras(keras: ModuleType, change: Callable[[Any], Any]) -> None:
    model = _plain(keras)
    assert is_plain(model)
    change(model)
    assert not is_plain(model)


def test_a_hook_that_is_added_between_epochs_is_called(keras: ModuleType) -> None:
    model = _plain(keras)
    model.compile("sgd", "mse")
    calls: list[Any] = []

    def add(epoch: int, logs: Any) -> None:
        if epoch == 1:
            calls.append(_counted(model.layers[0]))

    fit(oncue.Model(model), epochs=2, callbacks=[oncue.callbacks.LambdaCallback(on_epoch_begin=add)])
    assert len(calls[0]) == 5


def test_a_layer_that_is_added_between_runs_is_trained(keras: ModuleType) -> None:
    model = _plain(keras)
    model.compile("sgd", "mse")
    fit(oncue.Model(model), epochs=1)
    model.add(keras.layers.Dense(1, use_bias=False, name="added"))
    model.compile("sgd", "mse")
    before = model.get_weights()[-1]
    fit(oncue.Model(model), epochs=1)
    assert before.shape == (1, 1) and model.get_weights()[-1] != before


def test_masks_policies_and_own_layers_are_left_to_keras(keras: ModuleType) -> None:
    layers = keras.layers

    class Own(layers.Dense):
        pass

    for made in (
        [layers.Embedding(3, 2, mask_zero=True)],
        [layers.Masking()],
        [Own(1)],
        [layers.Dense(1, dtype="mixed_bfloat16")],
        [layers.Dense(1, activity_regularizer="l2")],
    ):
        model = keras.Sequential(made)
        model.build((None, 2, 2))
        assert not is_plain(model)


def test_the_hot_path_asks_keras_nothing(keras: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _plain(keras)
    model.compile("sgd", "mse")
    trained = oncue.Model(model)
    fit(trained, epochs=1)
    calls: list[str] = []
    original = keras.Layer.__call__

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(self.name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(keras.Layer, "__call__", noted)
    trained.predict(X, verbose=0)
    trained.train_on_batch(X[:8], Y[:8])
    fit(trained, epochs=1, validation_data=(X, Y))
    assert calls == []
