"""The functions of Keras 2's backend: on tensors, arrays and symbolic tensors, and those that can't be honoured."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import tensor, to_numpy
from oncue import backend as K
from oncue.legacy import backend_functions
from oncue.legacy.backend_names import BACKEND, TENSORFLOW_NAMES

X = np.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]], "float32")
Y = np.array([[0.5, 2.0, 1.0], [1.0, 0.0, 2.0]], "float32")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


CASES: list[tuple[str, Callable[[Any], Any], Any]] = [
    ("abs", lambda x: K.abs(x), np.abs(X)),
    ("all", lambda x: K.all(x, axis=-1), [True, True]),
    ("any", lambda x: K.any(K.greater(x, 3.5), axis=0), [False, True, False]),
    ("argmax", lambda x: K.argmax(x), [2, 1]),
    ("argmax of bool", lambda x: K.argmax(K.greater(x, 2.0)), [2, 1]),
    ("argmin", lambda x: K.argmin(x, axis=0), [1, 0, 1]),
    ("batch_dot", lambda x: K.batch_dot(x, Y, axes=1), (X * Y).sum(1, keepdims=True)),
    ("batch_flatten", lambda x: K.batch_flatten(K.expand_dims(x, 1)), X),
    ("bias_add", lambda x: K.bias_add(x, np.array([1.0, 2.0, 3.0], "float32")), X + np.array([1.0, 2.0, 3.0])),
    ("cast", lambda x: K.cast(x, "int32"), X.astype("int32")),
    ("clip", lambda x: K.clip(x, 0, 2), X.clip(0, 2)),
    ("concatenate", lambda x: K.concatenate([x, Y], axis=0), np.concatenate([X, Y])),
    ("cumsum", lambda x: K.cumsum(x, axis=1), X.cumsum(1)),
    ("dot", lambda x: K.dot(x, Y.T), X @ Y.T),
    ("equal", lambda x: K.equal(x, 4.0), X == 4.0),
    ("exp", lambda x: K.exp(x), np.exp(X)),
    ("flatten", lambda x: K.flatten(x), X.ravel()),
    ("gather", lambda x: K.gather(x, [1, 0]), X[::-1]),
    ("hard_sigmoid", lambda x: K.hard_sigmoid(x), (0.2 * X + 0.5).clip(0, 1)),
    ("l2_normalize", lambda x: K.l2_normalize(x, axis=1), X / np.linalg.norm(X, axis=1, keepdims=True)),
    ("log", lambda x: K.log(K.abs(x)), np.log(np.abs(X))),
    ("logsumexp", lambda x: K.logsumexp(x, axis=0), np.log(np.exp(X).sum(0))),
    ("max", lambda x: K.max(x, axis=-1, keepdims=True), X.max(-1, keepdims=True)),
    ("maximum", lambda x: K.maximum(x, 0.0), np.maximum(X, 0)),
    ("mean", lambda x: K.mean(x), X.mean()),
    ("mean of bool", lambda x: K.mean(K.greater(x, 0.0), axis=0), [1.0, 0.5, 0.5]),
    ("min", lambda x: K.min(x, axis=[0, 1]), X.min()),
    ("one_hot", lambda x: K.one_hot(K.argmax(x), 3), [[0, 0, 1], [0, 1, 0]]),
    ("ones_like", lambda x: K.ones_like(x), np.ones_like(X)),
    ("permute_dimensions", lambda x: K.permute_dimensions(x, (1, 0)), X.T),
    ("pow", lambda x: K.pow(x, 2), X**2),
    ("prod", lambda x: K.prod(x, axis=1), X.prod(1)),
    ("relu", lambda x: K.relu(x, alpha=0.1, max_value=2.0), np.where(X >= 0, X, 0.1 * X).clip(max=2.0)),
    ("repeat", lambda x: K.repeat(x, 2), np.repeat(X[:, None], 2, 1)),
    ("repeat_elements", lambda x: K.repeat_elements(x, 2, axis=1), np.repeat(X, 2, 1)),
    ("reshape", lambda x: K.reshape(x, (-1, 2)), X.reshape(-1, 2)),
    ("reverse", lambda x: K.reverse(x, 1), X[:, ::-1]),
    ("round", lambda x: K.round(x), np.round(X)),
    ("softmax", lambda x: K.softmax(x), np.exp(X) / np.exp(X).sum(-1, keepdims=True)),
    ("sqrt", lambda x: K.sqrt(x), np.sqrt(X.clip(min=0))),
    ("square", lambda x: K.square(x), X**2),
    ("squeeze", lambda x: K.squeeze(K.expand_dims(x), -1), X),
    ("stack", lambda x: K.stack([x, Y], axis=1), np.stack([X, Y], 1)),
    ("std", lambda x: K.std(x, axis=0), X.std(0)),
    ("sum", lambda x: K.sum(x, axis=1), X.sum(1)),
    ("switch", lambda x: K.switch(K.greater(x, 0.0), x, 0.0), X.clip(min=0)),
    (
        "temporal_padding",
        lambda x: K.temporal_padding(K.expand_dims(x), (1, 0)),
        np.pad(X, ((0, 0), (1, 0)))[..., None],
    ),
    ("tile", lambda x: K.tile(x, (1, 2)), np.tile(X, (1, 2))),
    ("transpose", lambda x: K.transpose(x), X.T),
    ("var", lambda x: K.var(x), X.var()),
    ("zeros_like", lambda x: K.zeros_like(x), np.zeros_like(X)),
    ("tf.reduce_mean", lambda x: keras.reduce_mean(keras.square(x)), (X**2).mean()),
    ("tf.cast", lambda x: keras.cast(x, keras.float32), X),
    ("tf.where", lambda x: keras.where(x > 0, x, 0.0), X.clip(min=0)),
    ("tf.math", lambda x: keras.math.log(keras.nn.sigmoid(x)), -np.log1p(np.exp(-X))),
]


@pytest.mark.parametrize(("name", "run", "expected"), CASES, ids=[case[0] for case in CASES])
def test_on_tensors_and_arrays(name: str, run: Callable[[Any], Any], expected: Any) -> None:
    for given in (torch.tensor(X), X):
        found = run(given)
        np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5, atol=1e-6)


SYMBOLIC = ("square", "mean", "max", "cast", "clip", "l2_normalize", "softmax", "concatenate", "tf.math", "sqrt", "sum")


@pytest.mark.parametrize("name", SYMBOLIC)
def test_on_symbolic_tensors(name: str) -> None:
    run, expected = next((run, expected) for case, run, expected in CASES if case == name)
    inputs = keras.Input((3,))
    other = {"concatenate": lambda x: K.concatenate([x, x], axis=0)}.get(name, run)
    outputs = other(inputs)
    model = keras.Model(inputs, outputs)
    found = to_numpy(model(tensor(X)))
    expected = np.concatenate([X, X]) if name == "concatenate" else expected
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_losses_and_metrics_of_the_users_own_train() -> None:
    def rmse(y_true: Any, y_pred: Any) -> Any:
        return K.sqrt(K.mean(K.square(y_pred - y_true), axis=-1))

    def hits(y_true: Any, y_pred: Any) -> Any:
        return K.mean(K.equal(K.round(y_true), K.round(y_pred)), axis=-1)

    model = keras.Sequential([keras.layers.Dense(3, input_dim=3)])
    model.compile("sgd", loss=rmse, metrics=[hits])
    history = model.fit(X, Y, verbose=0, epochs=2).history
    assert sorted(history) == ["hits", "loss"]
    assert history["loss"][1] < history["loss"][0]


def test_what_looks_at_shapes() -> None:
    inputs = keras.Input((3,))
    assert K.int_shape(inputs) == (None, 3)
    assert K.int_shape(X) == (2, 3)
    assert K.ndim(inputs) == 2
    assert K.dtype(torch.ones(1)) == "float32"
    assert K.count_params(np.ones((2, 3))) == 6
    with pytest.raises(ValueError, match="has no values"):
        K.eval(inputs)
    np.testing.assert_array_equal(K.eval(K.variable([1.0, 2.0])), [1.0, 2.0])


def test_random_numbers_go_by_a_seed() -> None:
    first, again = (to_numpy(K.random_normal((50,), mean=3.0, seed=1)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert abs(first.mean() - 3) < 1
    assert set(to_numpy(K.random_binomial((20,), p=0.5, seed=1))) == {0.0, 1.0}
    assert np.abs(to_numpy(K.truncated_normal((200,), seed=1))).max() <= 2


def test_a_function_between_two_layers() -> None:
    model = keras.Sequential([keras.layers.Dense(4, input_dim=3), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    between = K.function([model.layers[0].input, K.learning_phase()], [model.layers[1].output])
    (quiet,) = between([X, 0])
    np.testing.assert_allclose(quiet, to_numpy(model.layers[0](X)), rtol=1e-5)
    keras.utils.set_random_seed(1)
    (noisy,) = between([X, 1])
    assert (noisy == 0).any()
    with pytest.raises(ValueError, match="updates"):
        K.function([model.input], [model.output], updates=[1])


def test_weights_are_set_and_read() -> None:
    model = keras.Sequential([keras.layers.Dense(2, input_dim=3)])
    K.batch_set_value([(model.weights[1], np.array([1.0, 2.0]))])
    assert K.batch_get_value(model.weights)[1].tolist() == [1.0, 2.0]
    weight = K.variable([1.0, 2.0])
    K.update_add(weight, [1.0, 1.0])
    assert K.get_value(weight).tolist() == [2.0, 3.0]


def test_numbers_of_an_optimizer_are_set() -> None:
    model = keras.Sequential([keras.layers.Dense(1, input_dim=3)])
    model.compile(keras.optimizers.SGD(momentum=0.9), "mse")
    model.fit(X, Y[:, 0], verbose=0)
    K.set_value(model.optimizer.momentum, 0.5)
    assert model.optimizer.momentum == 0.5
    assert model.optimizer.get_config()["momentum"] == 0.5
    model.compile(keras.optimizers.Adam(), "mse")
    K.set_value(model.optimizer.beta_1, 0.8)
    assert K.get_value(model.optimizer.beta_1) == np.float32(0.8)


def test_the_order_of_axes_is_set() -> None:
    try:
        K.set_image_dim_ordering("th")
        assert (K.image_data_format(), K.image_dim_ordering()) == ("channels_first", "th")
        layer = keras.layers.Conv2D(2, 3)
        assert tuple(layer(np.ones((1, 3, 5, 5), "float32")).shape) == (1, 2, 3, 3)
    finally:
        K.set_image_data_format("channels_last")
    with pytest.raises(ValueError, match="channels_last"):
        keras.config.set_image_data_format("last")


def test_training_is_told_not_set() -> None:
    K.set_learning_phase(0)
    with pytest.raises(ValueError, match="training=True"):
        K.set_learning_phase(1)
    assert K.in_train_phase(1, 2, training=True) == 1
    with pytest.raises(ValueError, match="needs to be told"):
        K.in_train_phase(1, 2)


@pytest.mark.parametrize("name", sorted(BACKEND))
def test_every_function_is_there(name: str) -> None:
    assert callable(getattr(K, name))


def test_every_name_of_tensorflow_is_there() -> None:
    for full in TENSORFLOW_NAMES:
        found: Any = keras
        for part in full.split(".")[1:]:
            found = getattr(found, part)


def test_functions_for_symbolic_tensors_are_in_the_table() -> None:
    extra = {"add", "subtract", "multiply", "divide", "identity", "where", "matmul"}
    assert set(backend_functions.FUNCTIONS) - extra <= set(BACKEND)


def test_each_function_warns_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oncue.legacy.warning._warned", set())
    with pytest.warns(DeprecationWarning, match=r"`oncue.backend.mean` is from an older Keras; use `oncue.ops.mean`"):
        K.mean(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        K.mean(X)


REFUSED = [
    (lambda: K.gradients, "torch.autograd.grad"),
    (lambda: keras.GradientTape, "torch's autograd"),
    (lambda: keras.function, "Leave it out"),
    (lambda: keras.compat.v1, "TensorFlow 1"),
    (lambda: keras.saved_model.save, "torch.export"),
    (lambda: keras.layers.MaxoutDense, "Keras 2 took it out"),
    (lambda: keras.models.Graph, "functional models"),
    (lambda: keras.utils.multi_gpu_model, "torchrun"),
    (lambda: keras.Sequential().to_yaml, "to_json"),
    (lambda: keras.layers.Dense(1).add_metric, "keras.metrics.Mean"),
]


@pytest.mark.parametrize(("use", "words"), REFUSED, ids=[case[1] for case in REFUSED])
def test_what_cant_be_honoured_says_what_to_do(use: Callable[[], Any], words: str) -> None:
    with pytest.raises(AttributeError, match="is from .* and is not here") as caught:
        use()
    assert words in str(caught.value)


def test_a_from_import_says_it_too() -> None:
    with pytest.raises(ImportError, match="torch's autograd"):
        from oncue import GradientTape  # noqa: F401
    with pytest.raises(ImportError, match="Keras 2 took it out"):
        from oncue.keras.layers import MaxoutDense  # noqa: F401
