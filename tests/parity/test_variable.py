"""Variables of the user's own under Keras and oncue: types, names, and runs that anneal with them."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import cpu_only, samples, to_numpy

GIVEN: dict[str, dict[str, Any]] = {
    "float": {"initializer": 1.0},
    "floats": {"initializer": [[1.0, 2.0]]},
    "int": {"initializer": 1, "trainable": False},
    "ints": {"initializer": [1, 2], "trainable": False},
    "bool": {"initializer": True, "trainable": False},
    "float64": {"initializer": np.ones(2)},
    "a number of NumPy": {"initializer": np.float64(1.0)},
    "float16": {"initializer": np.float16(1.0)},
    "tensor": {"initializer": torch.ones(2, dtype=torch.float64)},
    "name of a type": {"initializer": 1, "dtype": "float16"},
    "initializer": {"initializer": "ones", "shape": (2, 3)},
    "initializer, int": {"initializer": "zeros", "shape": (2,), "dtype": "int32", "trainable": False},
    "function": {"initializer": lambda shape, dtype: np.full(shape, 3.0), "shape": (2,), "dtype": "float32"},
}


@pytest.mark.parametrize("given", GIVEN)
def test_types_and_values(given: str, keras: ModuleType) -> None:
    one, other = (k.Variable(**GIVEN[given]) for k in (oncue, keras))
    assert (one.dtype, tuple(one.shape), one.ndim, one.trainable) == (
        other.dtype, tuple(other.shape), other.ndim, other.trainable,
    )  # fmt: skip
    np.testing.assert_array_equal(to_numpy(one), np.asarray(other))


def annealed(k: Any, optimizer: Any) -> Any:
    class Net(k.Model):  # type: ignore[misc, name-defined]  # of either library
        def __init__(self) -> None:
            super().__init__()
            self.encoder = k.layers.Dense(2)
            self.decoder = k.layers.Dense(4)
            self.beta = k.Variable(0.0, trainable=False, name="beta")
            self.scale = k.Variable([1.0, 1.0], name="scale")

        def call(self, inputs: Any) -> Any:
            code = self.encoder(inputs) * self.scale
            self.add_loss(self.beta * (code**2).mean())
            return self.decoder(code)

    class Anneal(k.callbacks.Callback):  # type: ignore[misc, name-defined]  # as above
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.model.beta.assign(min(1.0, 0.25 * epoch))

    model = Net()
    model.compile(optimizer(k), "mse")
    x = samples(4)
    model(x[:1])
    draws = np.random.default_rng(0)
    model.set_weights([draws.normal(size=np.shape(weight)).astype("float32") for weight in model.get_weights()])
    history = model.fit(x, x, epochs=5, batch_size=4, shuffle=False, verbose=0, callbacks=[Anneal()])
    return history.history["loss"], model.get_weights(), [weight.name for weight in model.weights]


@cpu_only("both libraries are to compute on the same device")
@pytest.mark.parametrize(
    "optimizer",
    [lambda k: k.optimizers.SGD(0.05, momentum=0.9), lambda k: k.optimizers.Adam(0.02)],
    ids=["sgd", "adam"],
)
def test_annealing(optimizer: Any, keras: ModuleType) -> None:
    (losses, weights, names), (expected, theirs, their_names) = (annealed(k, optimizer) for k in (oncue, keras))
    np.testing.assert_allclose(losses, expected, rtol=2e-5)
    assert names == their_names
    for one, other in zip(weights, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


USES: dict[str, Any] = {
    "numpy": lambda k, w: w.numpy(),
    "array": lambda k, w: np.array(w),
    "value": lambda k, w: w.value.detach().clone(),
    "shape": lambda k, w: tuple(w.shape),
    "dtype": lambda k, w: w.dtype,
    "name": lambda k, w: w.name,
    "trainable": lambda k, w: w.trainable,
    "is a Variable": lambda k, w: isinstance(w, k.Variable),
    "assign": lambda k, w: (w.assign(np.ones(w.shape)), w.numpy())[1],
    "assign_add": lambda k, w: (w.assign(w * 0), w.assign_add(np.full(w.shape, 2.0)), w.assign_sub(w / 4), w.numpy())[
        3
    ],
    "arithmetic": lambda k, w: 2 * w + w**2 - 1 / (w + 3),
    "comparison": lambda k, w: (w > 0) | (w == w),
    "index": lambda k, w: w[..., 0],
    "slice": lambda k, w: w[:1],
    "torch": lambda k, w: torch.tanh(w),
    "regularizer": lambda k, w: k.regularizers.L2(0.1)(w),
    "repr names it": lambda k, w: w.name in repr(w),
}

LAYERS: dict[str, tuple[Any, tuple[int | None, ...]]] = {
    "Dense": (lambda k: k.layers.Dense(2), (None, 4)),
    "Conv2D": (lambda k: k.layers.Conv2D(5, (3, 2)), (None, 8, 8, 3)),
    "BatchNormalization": (lambda k: k.layers.BatchNormalization(), (None, 4)),
    "LSTM cell": (lambda k: k.layers.LSTM(5).cell, (None, 3)),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("layer", LAYERS)
def test_weights_of_layers(layer: str, use: str, keras: ModuleType) -> None:
    found = []
    for k in (keras, oncue):
        make, shape = LAYERS[layer]
        one = make(k)
        one.build(shape)
        draws = np.random.default_rng(0)
        one.set_weights([draws.normal(size=np.shape(weight)).astype("float32") for weight in one.get_weights()])
        results = [USES[use](k, weight) for weight in one.weights]
        found.append([to_numpy(result) if isinstance(result, torch.Tensor) else result for result in results])
        names = [name for name in ("kernel", "bias", "gamma", "moving_mean", "recurrent_kernel") if hasattr(one, name)]
        assert all(any(getattr(one, name) is weight for weight in one.weights) for name in names)
    for expected, ours in zip(*found, strict=True):
        if isinstance(expected, np.ndarray):
            np.testing.assert_allclose(ours, expected, rtol=1e-6)
        else:
            assert type(ours) is type(expected) and ours == expected


def test_weights_that_a_layer_of_the_users_own_makes(keras: ModuleType) -> None:
    found = []
    for k in (keras, oncue):

        class Own(k.layers.Layer):  # type: ignore[misc, name-defined]  # of either library
            def build(self, input_shape: Any) -> None:
                self.w = self.add_weight(shape=(input_shape[-1], 2), initializer="ones", name="w")
                self.b = self.add_weight(shape=(2,), initializer="zeros", name="b")
                self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

            def call(self, inputs: Any) -> Any:
                self.count.assign_add(1.0)
                return torch.matmul(inputs, self.w) + self.b

        layer = Own()
        outputs = layer(np.ones((3, 4), "float32"))
        outputs.sum().backward()
        assert layer.weights == [layer.w, layer.b, layer.count] and layer.trainable_weights == [layer.w, layer.b]
        assert layer.b is layer.trainable_weights[1] and isinstance(layer.count, k.Variable)
        layer.b.assign([1.0, 2.0])
        grads = [to_numpy(weight.value.grad) for weight in layer.trainable_weights]
        found.append([to_numpy(outputs), *grads, *layer.get_weights(), [weight.name for weight in layer.weights]])
    for expected, ours in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_a_step_by_the_gradients_of_the_values(keras: ModuleType) -> None:
    """The custom step of Keras's guide, with kernels whose axes torch orders otherwise, some of them square."""
    weights = []
    for k in (keras, oncue):
        model = k.Sequential([k.Input((6, 3)), k.layers.Conv1D(3, 3), k.layers.LSTM(2), k.layers.Dense(1)])
        draws = np.random.default_rng(0)
        model.set_weights([draws.normal(size=np.shape(weight)).astype("float32") for weight in model.get_weights()])
        optimizer = k.optimizers.SGD(0.1)
        x = samples(18).reshape(-1, 6, 3)
        for _ in range(2):
            model.zero_grad()
            (model(x, training=True) ** 2).mean().backward()
            with torch.no_grad():
                optimizer.apply([v.value.grad for v in model.trainable_weights], model.trainable_weights)
        weights.append(model.get_weights())
    for expected, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


def test_weights_shared_by_two_layers(keras: ModuleType) -> None:
    found = []
    for k in (keras, oncue):

        class Tied(k.layers.Layer):  # type: ignore[misc, name-defined]  # of either library
            def __init__(self, dense: Any) -> None:
                super().__init__()
                self.kernel = dense.kernel

            def call(self, inputs: Any) -> Any:
                return torch.matmul(inputs, torch.transpose(self.kernel, 0, 1))

        dense = k.layers.Dense(2, kernel_initializer="ones")
        dense.build((None, 4))
        model = k.Sequential([k.Input((4,)), dense, Tied(dense)])
        model.compile(k.optimizers.SGD(0.01), "mse")
        model.fit(np.ones((4, 4)), np.zeros((4, 4)), verbose=0)
        assert model.layers[1].kernel is dense.kernel
        found.append([len(model.weights), model.count_params(), *model.get_weights()])
    for expected, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
