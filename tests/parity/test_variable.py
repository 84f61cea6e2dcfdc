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
