"""Layers, models and functions of Keras in models of oncue's: beside real Keras, and in all that is done with a model."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor, to_numpy
from oncue import layers, ops
from oncue.with_keras.layer import KerasLayer

keras = pytest.importorskip("keras")

_random = np.random.default_rng(0)
A = _random.random((8, 6, 6, 2)).astype("float32")
B = np.concatenate([np.ones((8, 1), int), _random.integers(0, 5, (8, 3))], axis=1)
Y = {"one": _random.random((8, 1)).astype("float32"), "two": _random.random((8, 2)).astype("float32")}


def wide(library: Any) -> Any:
    """Return a model with several inputs and outputs, shared layers, masks, penalties, constraints, and functions."""
    made, functions = library.layers, library.ops
    a, b = library.Input((6, 6, 2), name="a"), library.Input((4,), dtype="int32", name="b")
    x = made.Conv2DTranspose(3, 3, kernel_regularizer="l2", activity_regularizer="l1")(a)
    x = made.BatchNormalization()(x)
    x = made.DepthwiseConv2D(3, depthwise_constraint="max_norm")(x)
    x = made.UpSampling2D()(x)
    x = made.GlobalAveragePooling2D()(x)
    e = made.Embedding(5, 4, mask_zero=True)(b)
    attention = made.MultiHeadAttention(2, 3)
    e = attention(e, e)
    e = attention(e, e)
    e = made.UnitNormalization()(made.LSTM(3)(e))
    joined = made.Concatenate()(
        [x, e, made.Dot(axes=1)([x, e]), functions.maximum(x, 0.1), functions.sum(e, axis=-1, keepdims=True)]
    )
    one = made.Dense(1, name="one")(functions.relu(joined[:, 1:] - 0.2) * 2)
    two = made.Dense(2, name="two")(made.Identity()(joined))
    return library.Model([a, b], {"one": one, "two": two})


def alike(one: Any, other: Any, atol: float = 1e-5) -> bool:
    first, second = one.predict([A, B], verbose=0), other.predict([A, B], verbose=0)
    return all(np.allclose(first[name], second[name], atol=atol) for name in first)


def twin() -> tuple[Any, Any]:
    theirs, ours = wide(keras), wide(oncue)
    ours.set_weights(theirs.get_weights())
    return theirs, ours


def test_a_mixed_model_trains_as_keras_trains_its_own() -> None:
    theirs, ours = twin()
    assert [weight.shape for weight in ours.weights] == [tuple(weight.shape) for weight in theirs.weights]
    assert alike(theirs, ours)
    for model, library in ((theirs, keras), (ours, oncue)):
        model.compile(library.optimizers.Adam(0.01), "mse", metrics={"one": ["mae"], "two": ["mse"]})
    for _ in range(3):
        expected = theirs.train_on_batch([A, B], Y, return_dict=True)
        assert ours.train_on_batch([A, B], Y, return_dict=True) == pytest.approx(expected, abs=1e-4)
    for one, other in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_every_way_to_keep_a_mixed_model(tmp_path: Path) -> None:
    theirs, ours = twin()
    for name in ("m.keras", "m.h5"):
        ours.save(tmp_path / name)
        assert alike(oncue.models.load_model(tmp_path / name), ours), name
    for name in ("m.weights.h5", "m.safetensors"):
        ours.save_weights(tmp_path / name)
        other = wide(oncue)
        other.load_weights(tmp_path / name)
        assert alike(other, ours), name
    assert alike(keras.models.load_model(tmp_path / "m.keras"), ours)
    theirs.save(tmp_path / "theirs.keras")
    assert alike(oncue.models.load_model(tmp_path / "theirs.keras"), theirs)
    cloned = oncue.models.clone_model(ours)
    assert not alike(cloned, ours)
    cloned.set_weights(ours.get_weights())
    again = oncue.Model.from_config(ours.get_config())
    again.set_weights(ours.get_weights())
    for made in (cloned, again, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert alike(made, ours)


def test_summary_names_layers_and_functions() -> None:
    lines: list[str] = []
    wide(oncue).summary(line_length=160, print_fn=lines.append)
    for word in ("Conv2DTranspose", "MultiHeadAttention", "UpSampling2D", "Maximum", "(None, 6, 6, 2)"):
        assert word in lines[0]
    assert "?" not in lines[0]


@pytest.fixture(scope="module")
def backbone() -> Any:
    """Return an application, as `oncue.applications` gives it."""
    return oncue.applications.MobileNetV2(weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.35)


IMAGES, CLASSES = _random.random((8, 32, 32, 3)).astype("float32"), np.arange(8) % 3


def fitted(model: Any, **options: Any) -> Any:
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(IMAGES, CLASSES, verbose=0, **options)
    return model


def test_an_application_is_a_layer(backbone: Any) -> None:
    backbone.trainable = False
    model = oncue.Sequential(
        [backbone, layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")], name="outer"
    )
    before = backbone.get_weights()
    fitted(model)
    assert len(model.trainable_weights) == 2
    assert all(np.array_equal(one, other) for one, other in zip(before, backbone.get_weights(), strict=True))
    backbone.trainable = True
    fitted(model)
    assert not any(
        np.array_equal(one, other) for one, other in zip(before[2:5], backbone.get_weights()[2:5], strict=True)
    )


def test_a_model_goes_on_from_the_output_of_an_application(backbone: Any) -> None:
    outputs = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(backbone.output))
    model = oncue.Model(inputs=backbone.input, outputs=outputs)
    assert model.count_params() == backbone.count_params() + 1280 * 3 + 3
    for layer in model.layers[:-2]:
        layer.trainable = False
    before = backbone.get_weights()
    fitted(model)
    assert all(np.array_equal(one, other) for one, other in zip(before, backbone.get_weights(), strict=True))
    backbone.trainable = True


def test_training_false_keeps_statistics(backbone: Any) -> None:
    inputs = oncue.Input((32, 32, 3))
    hidden = layers.GlobalMaxPooling2D()(backbone(inputs, training=False))
    model = oncue.Model(inputs, layers.Dense(3, activation="softmax")(hidden))
    before = [to_numpy(weight.value) for weight in backbone.non_trainable_weights]
    fitted(model)
    after = [to_numpy(weight.value) for weight in backbone.non_trainable_weights]
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


class Block(layers.Layer):
    """A layer of a user's own, of oncue's layers and Keras's, some in a list."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.attention = layers.MultiHeadAttention(2, units)
        self.norms = [layers.LayerNormalization(), layers.RMSNormalization()]
        self.drop = layers.SpatialDropout1D(0.5, seed=1)
        self.dense = layers.Dense(units)

    def call(self, x: Any) -> Any:
        """Attend, then compute."""
        x = self.norms[0](x + self.drop(self.attention(x, x)))
        return self.norms[1](x + self.dense(x))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "units": self.units}


S, T = _random.random((8, 5, 4)).astype("float32"), _random.random((8, 1)).astype("float32")


def with_block() -> Any:
    inputs = oncue.Input((5, 4))
    return oncue.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(Block(4)(inputs))))


def test_a_layer_of_ones_own_holds_both_kinds(tmp_path: Path) -> None:
    model = with_block()
    assert len(model.trainable_weights) == 8 + 2 + 1 + 2 + 2
    model.compile("adam", "mse")
    before = model.get_weights()
    # What is dropped in training is kept in inference.
    trained, kept = [to_numpy(model(S, training=flag)) for flag in (True, False)]
    assert not np.allclose(trained, kept)
    assert np.allclose(kept, to_numpy(model(S, training=False)))
    model.fit(S, T, epochs=2, verbose=0)
    # The bias of keys has no effect in attention.
    changed = [not np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True)]
    assert sum(changed) >= len(changed) - 1
    model.save(tmp_path / "m.keras")
    again = oncue.models.load_model(tmp_path / "m.keras", custom_objects={"Block": Block})
    np.testing.assert_allclose(again.predict(S, verbose=0), model.predict(S, verbose=0), atol=1e-6)


def test_a_subclassed_model_holds_both_kinds() -> None:
    class Net(oncue.Model):
        def __init__(self) -> None:
            super().__init__()
            self.ups = [layers.Conv2DTranspose(2, 1) for _ in range(2)]
            self.out = layers.Dense(1)

        def call(self, x: Any) -> Any:
            for up in self.ups:
                x = up(x)
            return self.out(ops.mean(x, axis=(1, 2)))

    model = Net()
    model.compile("sgd", "mse")
    model.fit(A, T, verbose=0)
    assert len(model.trainable_weights) == 6
    assert all(isinstance(up, KerasLayer) for up in model.ups)


def test_a_layer_is_built_on_the_first_data() -> None:
    model = oncue.Sequential([layers.Conv2DTranspose(3, 3), layers.Cropping2D(1), layers.Flatten(), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(A, T, verbose=0)
    assert [tuple(weight.shape) for weight in model.weights[:2]] == [(3, 3, 3, 2), (3,)]


def test_what_oncue_has_no_attribute_for_is_asked_of_the_layer_inside() -> None:
    model = oncue.Sequential([oncue.Input((6, 6, 2)), layers.Conv2DTranspose(3, 3, name="up")])
    layer = model.get_layer("up")
    assert (layer.filters, layer.name, layer.output.shape) == (3, "up", (None, 8, 8, 3))
    layer.strides = (2, 2)
    assert layer.keras_layer.strides == (2, 2)
    layer.trainable = False
    assert (len(model.trainable_weights), layer.keras_layer.trainable) == (0, False)
    model.trainable = True
    assert (len(model.trainable_weights), layer.keras_layer.trainable) == (2, True)


def test_statistics_are_never_trained() -> None:
    inner = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    model = oncue.Sequential([oncue.Input((3,)), inner, layers.Dense(1)])
    model.trainable = False
    model.trainable = True
    assert [weight.trainable for weight in model.weights] == [True, True, False, False, True, True]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", lambda x: ops.relu(x)),
        ("comparison", lambda x: ops.where(x > 0, x, 0.0)),
        ("arithmetic", lambda x: (x // 2 + x % 2 - 2**x) * (1 - x)),
        ("index", lambda x: ops.expand_dims(x[:, 1:], 1)),
        ("split", lambda x: ops.concatenate(ops.split(x, [1], axis=1)[::-1], axis=1)),
        ("logic", lambda x: ops.cast((x > 0) & ~(x > 1) | (x < -1), "float32")),
        ("constant", lambda x: ops.matmul(x, np.ones((3, 2), "float32"))),
    ],
)
def test_functions_are_steps_of_a_model(name: str, function: Any, tmp_path: Path) -> None:
    values = _random.normal(size=(4, 3)).astype("float32")

    def computed(library: ModuleType) -> Any:
        inputs = library.Input((3,))
        model = library.Model(inputs, function(inputs))
        return model, model.predict(values, verbose=0)

    _, expected = computed(keras)
    model, found = computed(oncue)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if name != "constant":
        model.save(tmp_path / "m.keras")
        again = oncue.models.load_model(tmp_path / "m.keras")
        np.testing.assert_allclose(again.predict(values, verbose=0), expected, atol=1e-6)


def test_functions_take_tensors_and_arrays() -> None:
    assert to_numpy(ops.softmax(torch.zeros(2))).tolist() == [0.5, 0.5]
    assert to_numpy(ops.sum(np.ones((2, 2)))) == 4


@pytest.mark.parametrize("name", ["Conv2DTranspose", "MultiHeadAttention", "RandomFlip", "GroupNormalization"])
def test_time_distributed_and_serialize_take_layers_of_keras(name: str) -> None:
    arguments = {"Conv2DTranspose": (2, 2), "MultiHeadAttention": (1, 2)}.get(name, ())
    layer = getattr(layers, name)(*arguments)
    again = layers.deserialize(layers.serialize(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    if name == "Conv2DTranspose":
        assert layers.TimeDistributed(layer)(np.ones((2, 3, 4, 4, 1), "float32")).shape == (2, 3, 5, 5, 2)


def test_classes_of_oncue_find_layers_of_keras() -> None:
    theirs = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    assert [isinstance(layer, layers.BatchNormalization) for layer in theirs.layers] == [False, True]
    assert isinstance(theirs.layers[0], layers.Dense)
    assert not isinstance(theirs.layers[0], layers.Layer)
    ours = oncue.Sequential([oncue.Input((6, 6, 2)), layers.Conv2DTranspose(3, 3), layers.Dense(1)])
    assert [isinstance(layer, layers.Conv2DTranspose) for layer in ours.layers] == [True, False]
    assert all(isinstance(layer, layers.Layer) for layer in ours.layers)

    class Dense(layers.Dense):
        """One of a user's own finds only its own."""

    assert not isinstance(theirs.layers[0], Dense)


@pytest.mark.parametrize("name", ["Lion", "Lamb", "Adafactor", "Muon", "Ftrl", "ScheduleFreeAdamW"])
def test_optimizers_that_only_keras_has(name: str, tmp_path: Path) -> None:
    def made(library: Any) -> Any:
        return library.Sequential(
            [
                library.Input((6, 6, 2)),
                library.layers.Conv2D(3, 3),
                library.layers.Conv2DTranspose(2, 2, kernel_constraint="unit_norm"),
                library.layers.Flatten(),
                library.layers.Dense(1, kernel_constraint="max_norm"),
            ]
        )

    theirs, ours = made(keras), made(oncue)
    ours.set_weights(theirs.get_weights())
    losses = []
    for model, library in ((theirs, keras), (ours, oncue)):
        model.compile(getattr(library.optimizers, name)(0.01), "mse")
        losses.append(model.fit(A, T, epochs=3, batch_size=4, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    ours.save(tmp_path / "m.keras")
    again = oncue.models.load_model(tmp_path / "m.keras")
    more = [model.fit(A, T, batch_size=4, shuffle=False, verbose=0).history["loss"] for model in (ours, again)]
    assert more[0] == more[1]


def _by_map(made: Any) -> Any:
    chosen = made.OptimizerMap(made.SGD(0.01), {".*second.*": made.RMSprop(0.02)})
    chosen[".*first.*"] = made.Adam(0.1)
    return made.MultiOptimizer(chosen)


def _by_function(made: Any) -> Any:
    adam, sgd = made.Adam(0.1), made.SGD(0.01)
    return made.MultiOptimizer(lambda variable: adam if "kernel" in variable.path else sgd)


@pytest.mark.parametrize("choose", [_by_map, _by_function])
def test_several_optimizers_in_one(choose: Any, tmp_path: Path) -> None:
    def trained(library: Any) -> tuple[Any, list[float]]:
        names = ("first", "second", "third")
        parts = [library.layers.Dense(2, kernel_initializer="ones", name=name) for name in names]
        model = library.Sequential([library.Input((3,)), *parts])
        model.compile(choose(library.optimizers), "mse")
        x, y = np.arange(24.0).reshape(8, 3) / 24, np.ones((8, 2))
        return model, model.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0).history["loss"]

    ours, losses = trained(oncue)
    theirs, expected = trained(keras)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    if choose is _by_map:
        ours.save(tmp_path / "m.keras")
        again = oncue.models.load_model(tmp_path / "m.keras")
        x, y = np.ones((8, 3)), np.ones((8, 2))
        more = [model.fit(x, y, batch_size=4, shuffle=False, verbose=0).history["loss"] for model in (ours, again)]
        assert more[0] == more[1]


def test_what_goes_into_no_optimizer_of_keras() -> None:
    trained = oncue.optimizers.Adam()
    model = oncue.Sequential([oncue.Input((3,)), layers.Dense(1)])
    model.compile(trained, "mse")
    model.fit(np.ones((2, 3)), np.ones((2, 1)), verbose=0)
    with pytest.raises(TypeError, match="a Adam, can't be put into an optimizer of Keras's: it has trained already"):
        oncue.optimizers.OptimizerMap(trained)

    class Own(oncue.optimizers.SGD):
        pass

    with pytest.raises(TypeError, match="it is of a class that Keras doesn't know"):
        oncue.optimizers.OptimizerMap(oncue.optimizers.SGD())["a"] = Own()


def test_the_average_of_an_optimizer_of_keras_is_put_in_place() -> None:
    def weights(average: bool) -> Any:
        model = oncue.Sequential([oncue.Input((3,)), layers.Dense(1, kernel_initializer="ones")])
        model.compile(oncue.optimizers.Lion(0.1, use_ema=average, ema_momentum=0.5), "mse")
        model.fit(np.ones((8, 3)), np.zeros((8, 1)), batch_size=2, verbose=0)
        return model.get_weights()[0].ravel().tolist()

    assert weights(False) == pytest.approx([0.6] * 3, abs=1e-3)
    assert all(0.61 < weight < 0.9 for weight in weights(True))


class Stop(oncue.callbacks.Callback):
    """Ends a run amid an epoch."""

    def __init__(self, at: int = 3) -> None:
        super().__init__()
        self.at = at

    def on_train_begin(self, logs: Any = None) -> None:
        self.seen = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen == self.at:
            raise KeyboardInterrupt


def test_a_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    def run(*callbacks: Any) -> Any:
        oncue.utils.set_random_seed(3)
        inputs = oncue.Input((5, 4))
        x = layers.MultiHeadAttention(2, 4, dropout=0.2)(inputs, inputs)
        x = layers.GaussianDropout(0.3)(layers.SpatialDropout1D(0.3)(layers.GroupNormalization(2)(x)))
        model = oncue.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(x)))
        model.compile("adam", "mse")
        model.fit(S, T, epochs=2, batch_size=4, verbose=0, callbacks=list(callbacks))
        return model.get_weights()

    expected = run()
    backup = oncue.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=1)
    with pytest.raises(KeyboardInterrupt):
        run(backup, Stop())
    found = run(oncue.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=1))
    assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))


class Change(oncue.callbacks.Callback):
    """Changes settings of layers, once."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.model.layers[0].rate = 0.6
            self.model.layers[1].trainable = False


def test_what_a_callback_changes_on_a_layer_of_keras_is_in_the_backup(tmp_path: Path) -> None:
    def run(*callbacks: Any) -> Any:
        oncue.utils.set_random_seed(1)
        model = oncue.Sequential(
            [oncue.Input((5, 4)), layers.GaussianDropout(0.1, seed=3), layers.EinsumDense("abc,cd->abd", (5, 3))]
        )
        model.add(layers.GlobalAveragePooling1D())
        model.add(layers.Dense(1))
        model.compile("adam", "mse")
        model.fit(S, T, epochs=3, batch_size=4, verbose=0, callbacks=[Change(), *callbacks])
        return model

    expected = run()
    with pytest.raises(KeyboardInterrupt):
        run(oncue.callbacks.BackupAndRestore(tmp_path, save_freq=1), Stop(2 * len(S) // 4 + 1))
    found = run(oncue.callbacks.BackupAndRestore(tmp_path, save_freq=1))
    assert (found.layers[0].rate, found.layers[1].trainable) == (0.6, False)
    for one, other in zip(expected.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@oncue.saving.register_keras_serializable("mixing")
def tripled(x: Any) -> Any:
    return x * 3


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_a_lambda_of_a_registered_function_is_in_files(tmp_path: Path, name: str) -> None:
    model = oncue.Sequential([oncue.Input((3,)), layers.Lambda(tripled), layers.Dense(1, kernel_initializer="ones")])
    model.save(tmp_path / name)
    for load in (oncue.models.load_model, keras.models.load_model):
        again = load(tmp_path / name)
        assert to_numpy(again(tensor(np.ones((1, 3), "float32")))).tolist() == [[9.0]]


def test_a_lambda_of_another_function_needs_it(tmp_path: Path) -> None:
    def halved(x: Any) -> Any:
        return x / 2

    oncue.Sequential([oncue.Input((3,)), layers.Lambda(halved)]).save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"names (builtins\.)?halved.*custom_objects"):
        oncue.models.load_model(tmp_path / "m.keras")
    again = oncue.models.load_model(tmp_path / "m.keras", custom_objects={"halved": halved})
    assert to_numpy(again(tensor(np.ones((1, 3), "float32")))).tolist() == [[0.5] * 3]


def test_a_lambda_of_code_is_said_when_it_is_saved(tmp_path: Path) -> None:
    model = oncue.Sequential([oncue.Input((3,)), layers.Lambda(lambda x: x * 2)])
    for name in ("m.keras", "m.h5"):
        with pytest.warns(UserWarning, match=r"lambda in it.*register_keras_serializable"):
            model.save(tmp_path / name)
        with pytest.raises(ValueError, match="__lambda__, which runs code"):
            oncue.models.load_model(tmp_path / name)


SERIES = _random.random((4, 5, 3)).astype("float32")


def _holders(library: Any) -> list[Any]:
    made = library.layers
    return [
        lambda: made.RNN(made.StackedRNNCells([made.LSTMCell(3), made.GRUCell(2)])),
        lambda: made.RNN([made.LSTMCell(3), made.SimpleRNNCell(2)], return_sequences=True),
        lambda: made.SpectralNormalization(made.Dense(3, activation="relu")),
        lambda: made.TimeDistributed(made.EinsumDense("ab,bc->ac", output_shape=2)),
    ]


@pytest.mark.parametrize("place", range(4))
def test_layers_of_keras_hold_those_of_oncue(place: int, tmp_path: Path) -> None:
    theirs, ours = (
        library.Sequential([library.Input((5, 3)), _holders(library)[place]()]) for library in (keras, oncue)
    )
    ours.set_weights(theirs.get_weights())
    np.testing.assert_allclose(ours.predict(SERIES, verbose=0), theirs.predict(SERIES, verbose=0), atol=1e-6)
    ours.compile("sgd", "mse")
    ours.fit(SERIES, np.zeros_like(ours.predict(SERIES, verbose=0)), verbose=0)
    ours.save(tmp_path / "m.keras")
    again = oncue.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.predict(SERIES, verbose=0), ours.predict(SERIES, verbose=0), atol=1e-6)


def test_both_directions_of_a_layer_that_only_keras_has() -> None:
    layer = layers.Bidirectional(layers.ConvLSTM1D(2, 2))
    assert oncue.Sequential([oncue.Input((5, 6, 1)), layer]).output_shape == (None, 5, 4)


def test_a_layer_of_ones_own_in_a_layer_of_keras_is_refused() -> None:
    class Own(layers.Dense):
        """A user's."""

    with pytest.raises(
        TypeError, match=r"'own', a Own of oncue's, can't be put into a layer of Keras's: it is a layer of"
    ):
        layers.SpectralNormalization(Own(3, name="own"))
    built = layers.Dense(2)
    built.build((None, 3))
    with pytest.raises(TypeError, match="it has its weights already"):
        layers.SpectralNormalization(built)


@pytest.mark.parametrize("changed", ["trainable", "activity_regularizer", "activation"])
def test_what_a_hook_changes_of_a_layer_of_keras_counts(changed: str) -> None:
    values = {
        "trainable": False,
        "activity_regularizer": keras.regularizers.L2(0.5),
        "activation": keras.activations.tanh,
    }

    class Change(oncue.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            setattr(self.model.get_layer("up"), changed, values[changed])

    def run(*callbacks: Any) -> Any:
        oncue.utils.set_random_seed(0)
        model = oncue.Sequential([oncue.Input((5, 4)), layers.Conv1DTranspose(1, 1, name="up"), layers.Flatten()])
        model.add(layers.Dense(1))
        model.compile(oncue.optimizers.SGD(0.1), "mse")
        return model.fit(S, T, epochs=2, verbose=0, shuffle=False, callbacks=list(callbacks)).history["loss"]

    plain, other = run(), run(Change())
    assert plain[0] == other[0]
    assert changed == "trainable" or plain[1] != other[1]


def test_initializers_and_the_like_of_oncue_in_files(tmp_path: Path) -> None:
    layer = layers.Conv2DTranspose(
        *(3, 3),
        kernel_initializer=oncue.initializers.HeNormal(seed=1),
        kernel_regularizer=oncue.regularizers.L2(0.01),
        bias_constraint=oncue.constraints.NonNeg(),
        activation=oncue.activations.relu,
    )
    model = oncue.Sequential([oncue.Input((8, 8, 2)), layer])
    assert model.layers[0].get_config()["kernel_initializer"]["module"] == "keras.initializers"
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        for load in (oncue.models.load_model, keras.models.load_model):
            again = load(tmp_path / name).layers[-1]
            assert again.get_config()["kernel_regularizer"]["config"] == {"l2": 0.01}
            assert type(again.bias_constraint).__name__ == "NonNeg"


def test_masks_of_steps_reach_a_layer_of_keras() -> None:
    class Times(keras.layers.Layer):
        supports_masking = True

        def call(self, x: Any, mask: Any = None) -> Any:
            return x if mask is None else x * keras.ops.cast(mask, x.dtype)[:, None]

    x, mask = tensor(np.ones((1, 2, 1), "float32")), tensor(np.array([[False, True]]))
    assert to_numpy(layers.TimeDistributed(Times())(x, mask=mask)).tolist() == [[[0.0], [1.0]]]
