"""Old methods, arguments and keys: each does what it did, and names today's word once."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import oncue as keras
from helpers import to_numpy
from oncue.legacy.modules import CALLED
from oncue.legacy.warning import _warned

X = np.random.default_rng(0).random((20, 4)).astype("float32")
Y = np.eye(3, dtype="float32")[np.arange(20) % 3]
LAYERS = keras.layers


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    _warned.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def classifier(outputs: int = 3) -> Any:
    keras.backend.clear_session()
    last = "softmax" if outputs > 1 else "sigmoid"
    model = keras.Sequential([LAYERS.Dense(8, activation="relu", input_dim=4), LAYERS.Dense(outputs, activation=last)])
    loss = "categorical_crossentropy" if outputs > 1 else "binary_crossentropy"
    model.compile(loss=loss, optimizer="adam", metrics=["accuracy"])
    return model


def test_history_answers_old_names() -> None:
    plateau = keras.callbacks.ReduceLROnPlateau()
    history = classifier().fit(X, Y, verbose=0, validation_split=0.5, callbacks=[plateau]).history
    assert history["acc"] == history["accuracy"]
    assert history["val_acc"] == history["val_accuracy"]
    assert history["lr"] == history["learning_rate"]
    assert not {"acc", "val_acc", "lr"} & set(history)


def test_classes_are_predicted() -> None:
    model = classifier()
    classes = model.predict_classes(X, batch_size=5)
    np.testing.assert_array_equal(classes, model.predict(X, verbose=0).argmax(-1))
    np.testing.assert_array_equal(model.predict_proba(X), model.predict(X, verbose=0))
    binary = classifier(1)
    assert set(np.unique(binary.predict_classes(X))) <= {0, 1}
    assert binary.predict_classes(X).shape == (20, 1)


def test_generators_with_the_words_of_keras_1() -> None:
    model = classifier()
    seen: list[int] = []

    def batches() -> Iterator[Any]:
        while True:
            yield X[:5], Y[:5]

    counter = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    history = model.fit_generator(
        batches(),
        samples_per_epoch=12,
        nb_epoch=2,
        verbose=0,
        validation_data=batches(),
        nb_val_samples=10,
        nb_worker=1,
        max_q_size=2,
        pickle_safe=False,
        callbacks=[counter],
    )
    assert seen == [0, 1, 2] * 2
    assert len(history.history["val_loss"]) == 2
    assert len(model.evaluate_generator(batches(), val_samples=10)) == 2
    assert model.predict_generator(batches(), val_samples=10).shape == (10, 3)


def test_generators_with_the_words_of_keras_2(capsys: pytest.CaptureFixture[str]) -> None:
    model = classifier()

    def batches() -> Iterator[Any]:
        while True:
            yield X[:5], Y[:5]

    history = model.fit_generator(batches(), 2, 3, 0, workers=2, use_multiprocessing=True, initial_epoch=1)
    assert history.epoch == [1, 2]
    model.evaluate_generator(batches(), 2, max_queue_size=2)
    model.predict_generator(batches(), steps=2)
    assert capsys.readouterr().out == "", "they were silent"


def test_states_are_reset() -> None:
    model = keras.Sequential([LAYERS.LSTM(3, stateful=True, batch_input_shape=(2, 5, 4)), LAYERS.Dense(1)])
    model.compile("sgd", "mse")
    data = np.ones((2, 5, 4), "float32")
    first = model.predict(data, verbose=0)
    assert not np.allclose(model.predict(data, verbose=0), first)
    model.reset_states()
    np.testing.assert_allclose(model.predict(data, verbose=0), first, rtol=1e-5)


@pytest.mark.parametrize("module", sorted(CALLED))
def test_modules_named_as_classes_are_called(module: str) -> None:
    package, _, name = module.rpartition(".")
    old = getattr(__import__(package, fromlist=["x"]), name)
    if name == "merge":
        a, b = keras.Input((3,)), keras.Input((3,))
        assert old([a, b], mode="concat", concat_axis=-1).shape == (None, 6)
        assert old([a, b], mode="sum").shape == (None, 3)
        with pytest.raises(ValueError, match="mode='cos'"):
            old([a, b], mode="cos")
        return
    assert old(lr=0.5).learning_rate == 0.5
    assert type(old(lr=0.5)).__name__.lower() == name


def test_first_weights_of_a_layer() -> None:
    kernel, bias = np.arange(6.0).reshape(3, 2), np.ones(2)
    model = keras.Sequential([LAYERS.Dense(2, input_dim=3, weights=[kernel, bias])])
    np.testing.assert_array_equal(model.get_weights()[0], kernel)
    with pytest.raises(ValueError, match="shape"):
        keras.Sequential([LAYERS.Dense(2, input_dim=3, weights=[kernel.T, bias])])


def test_the_size_of_a_batch_is_said_by_the_first_layer() -> None:
    model = keras.Sequential([LAYERS.LSTM(2, input_shape=(5, 3), batch_size=4, stateful=True)])
    assert model.input_shape == (4, 5, 3)
    assert keras.Sequential([LAYERS.Dense(2, batch_input_shape=(4, 3))]).input_shape == (4, 3)


class Asks(keras.callbacks.Callback):
    """Keeps what it was told, under old keys."""

    def on_train_begin(self, logs: Any = None) -> None:
        keys = ("samples", "nb_sample", "metrics", "nb_epoch", "batch_size", "do_validation")
        self.told = {key: self.params[key] for key in keys}
        self.keys = sorted(self.params)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        held = self.validation_data
        self.held = None if held is None else [np.shape(part) for part in held]


def test_callbacks_are_told_by_old_keys() -> None:
    asks = Asks()
    classifier().fit(X, Y, epochs=2, batch_size=4, verbose=0, validation_data=(X[:6], Y[:6]), callbacks=[asks])
    assert asks.told == {
        "samples": 20,
        "nb_sample": 20,
        "metrics": ["loss", "accuracy", "val_loss", "val_accuracy"],
        "nb_epoch": 2,
        "batch_size": 4,
        "do_validation": True,
    }
    assert asks.keys == ["epochs", "steps", "verbose"]
    assert asks.held == [(6, 4), (6, 3), (6,)]
    assert asks.validation_data is None, "nothing is held once the run has ended"
    assert type(pickle.loads(pickle.dumps(asks)).params) is dict


def test_validation_data_by_a_split_and_without_any() -> None:
    asks = Asks()
    classifier().fit(X, Y, verbose=0, validation_split=0.25, callbacks=[asks])
    assert asks.held is not None and asks.held[0] == (5, 4)
    classifier().fit(X, Y, verbose=0, callbacks=[asks])
    assert asks.held is None
    mine = Asks()
    mine.validation_data = "mine"
    assert mine.validation_data == "mine"


def test_unknown_keys_stay_unknown() -> None:
    class Wrong(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            assert self.params.get("nothing", 3) == 3
            self.params["nothing"]

    with pytest.raises(KeyError, match="nothing"):
        classifier().fit(X, Y, verbose=0, callbacks=[Wrong()])


def test_layers_tell_their_ends() -> None:
    model = classifier()
    layer = model.layers[0]
    assert (layer.input_shape, layer.output_shape) == ((None, 4), (None, 8))
    assert layer.get_output_at(0) is layer.output
    assert layer.get_output_shape_at(0) == (None, 8)
    with pytest.raises(ValueError, match="another call"):
        layer.get_output_at(1)

    class Own(LAYERS.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.output_shape = (3, 3)

        def call(self, x: Any) -> Any:
            return x

    assert Own().output_shape == (3, 3), "an attribute of the user's own comes first"


def test_layers_by_their_names_in_keras_1() -> None:
    keras.backend.clear_session()
    layers = [LAYERS.Conv2D(2, 3, input_shape=(9, 9, 1)), LAYERS.MaxPooling2D(), LAYERS.Conv2D(2, 3)]
    model = keras.Sequential(layers)
    assert model.get_layer("convolution2d_1") is layers[0]
    assert model.get_layer("convolution2d_2") is layers[2]
    assert model.get_layer("maxpooling2d_1") is layers[1]
    for wrong in ("convolution2d_3", "convolution2d_0", "nothing_1"):
        with pytest.raises(ValueError, match="There is no layer"):
            model.get_layer(wrong)


def test_optimizers_tell_their_weights_and_rate() -> None:
    model = classifier()
    model.fit(X, Y, verbose=0)
    weights = model.optimizer.get_weights()
    assert len(weights) == len(model.optimizer.weights)
    model.fit(X, Y, verbose=0)
    model.optimizer.set_weights(weights)
    for kept, now in zip(weights, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(kept, to_numpy(now))
    assert model.optimizer._decayed_lr("float32") == model.optimizer.learning_rate


def test_what_is_better_is_told() -> None:
    stopper = keras.callbacks.EarlyStopping(monitor="val_accuracy", mode="max")
    assert stopper.monitor_op(2, 1) and not stopper.monitor_op(1, 2)
    with pytest.raises(AttributeError):
        stopper.monitor_op = np.less


def test_seeds_of_tensorflow() -> None:
    for seed in (keras.random.set_seed, keras.set_random_seed):
        seed(3)
        first = np.random.rand()
        seed(3)
        assert np.random.rand() == first


@pytest.mark.parametrize("targets", [Y.astype(bool), (X[:, 0] > 0.5)])
def test_true_and_false_are_targets(targets: Any) -> None:
    model = classifier(3 if targets.ndim > 1 else 1)
    history = model.fit(X, targets, verbose=0).history
    again = classifier(3 if targets.ndim > 1 else 1)
    again.set_weights(model.get_weights())
    measured = model.evaluate(X, targets, verbose=0)
    np.testing.assert_allclose(measured, model.evaluate(X, targets.astype("float32"), verbose=0), rtol=1e-6)
    assert sorted(history) == ["accuracy", "loss"]


def test_versions_pass_the_checks_of_scripts() -> None:
    import oncue as tf

    assert tf.__version__ >= "2.0"
    assert int(keras.__version__.split(".")[0]) >= 3
    assert "oncue" in keras.__version__


def test_a_symbolic_loss_says_what_to_do() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, LAYERS.Dense(1)(inputs))
    with pytest.raises(ValueError, match="compute_loss"):
        model.add_loss(keras.backend.mean(model.output))


def test_each_word_warns_once() -> None:
    model = classifier()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            model.predict_proba(X)
            keras.optimizers.adam(lr=0.1)
            assert model.layers[0].output_shape
    words = [str(one.message).split("`")[1] for one in caught]
    assert words == ["predict_proba", "oncue.optimizers.adam(...)", "lr=", "layer.output_shape"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LAYERS.Embedding(3, 2, dropout=0.2), "SpatialDropout1D"),
        (lambda: LAYERS.BatchNormalization(mode=2), "only mode 0 is left"),
    ],
)
def test_arguments_that_cant_be_honoured(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"is from Keras 1 and is not here.*{words}"):
        make()
    LAYERS.Embedding(3, 2, dropout=0.0), LAYERS.BatchNormalization(mode=0)
