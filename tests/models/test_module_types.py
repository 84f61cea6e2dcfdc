"""A torch module gets inputs in the type of its own weights; targets are never of 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import oncue as keras
from helpers import normal, tensor, to_numpy
from oncue import layers as L

X = normal(32, 4).astype("float64")
Y = X.sum(axis=1, keepdims=True)


class Seen(nn.Module):
    """A linear module that keeps the types it was called with."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.types = nn.Linear(4, 1).to(dtype), set[torch.dtype]()

    def forward(self, x: torch.Tensor, index: torch.Tensor | None = None) -> torch.Tensor:
        self.types |= {x.dtype} if index is None else {x.dtype, index.dtype}
        return self.inner(x)


LOSSES: dict[str, Any] = {
    "by name": "mse",
    "of torch": nn.MSELoss(),
    "a function": lambda y_true, y_pred: torch.nn.functional.mse_loss(y_pred, y_true),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_inputs_and_targets_fit_the_module(dtype: torch.dtype, loss: str) -> None:
    for x, y in ((X, Y), (X.astype("float32"), Y.astype("float32"))):
        losses = []
        loader = DataLoader(TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=8)
        for data in ((x, y), (loader,)):
            module = Seen(dtype)
            model = keras.Model(module)
            model.compile(torch.optim.SGD(module.parameters(), lr=0.05), LOSSES[loss], metrics=["mae"])
            losses.append(model.fit(*data, validation_data=(x, y), epochs=3, verbose=0).history["loss"])
            model.train_on_batch(x, y)
            model.predict(x, verbose=0)
            assert module.types == {dtype}
        assert all(last < first for first, *_, last in losses)


def test_a_run_in_64_bits_is_one() -> None:
    def trained(x: Any, y: Any) -> np.ndarray[Any, Any]:
        module = Seen(torch.float64)
        model = keras.Model(module)
        model.compile("sgd", nn.MSELoss())
        model.fit(x, y, shuffle=False, epochs=2, verbose=0)
        return np.asarray(model.get_weights()[0])

    # The same as by hand to the last digits, which 32 bits don't hold.
    module = Seen(torch.float64).to(keras.backend.device())
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.mse_loss(module(tensor(X)), tensor(Y)).backward()
        optimizer.step()
    np.testing.assert_allclose(trained(X, Y), to_numpy(module.inner.weight), rtol=1e-13)
    assert trained(X, Y).dtype == np.float64
    assert keras.Model(Seen(torch.float64)).predict(X, verbose=0).dtype == np.float64
    assert keras.Model(Seen(torch.float64))(X.astype("float32")).dtype == torch.float64


def test_whole_numbers_and_layers_that_cast_are_left_alone() -> None:
    module = Seen(torch.float64)
    keras.Model(module).predict([X, np.arange(32)], verbose=0)
    assert module.types == {torch.float64, torch.int64}
    layers: list[Callable[[], Any]] = [
        lambda: keras.Sequential([keras.Input((4,)), L.Dense(1)]),
        lambda: keras.Sequential([keras.Input((4,)), L.Dense(1, dtype="float64")]),
        lambda: keras.Sequential([L.Dense(1)]),
        lambda: keras.Model(nn.Flatten()),
    ]
    assert [make().input_dtype for make in layers] == [torch.float32] * 4
    assert keras.Sequential([nn.Linear(4, 1).double()]).input_dtype == torch.float64
    single = Seen(torch.float32)
    keras.config.set_floatx("float64")
    try:
        keras.Model(single).predict(X, verbose=0)
    finally:
        keras.config.set_floatx("float32")
    assert single.types == {torch.float32}


def test_a_tensor_is_taken_as_torch_would() -> None:
    with pytest.raises(RuntimeError, match="dtype"):
        keras.Model(Seen(torch.float64))(tensor(X, torch.float32))


def test_what_cannot_be_trained_is_refused_when_the_model_is_made() -> None:
    module = nn.Sequential(nn.Linear(4, 1), nn.Dropout())
    with pytest.warns(DeprecationWarning):
        scripted = torch.jit.script(module)
    for made in (scripted, nn.Sequential(scripted)):
        with pytest.raises(
            TypeError, match=r"`Model` can't train a scripted or traced module of `torch.jit`.*made from"
        ):
            keras.Model(made)
    with pytest.raises(TypeError, match="`Sequential` can't train a scripted"):
        keras.Sequential([scripted])
    exported = torch.export.export(module, (torch.zeros(2, 4),))
    for made, hint in (
        (exported.module(), "no training mode. Pass the module that it was made from"),
        (exported, "Pass the module that it was made from|pass the module that it was made from"),
        (nn.Linear, r"make a module with `Linear\(...\)`"),
        (lambda x: x, "A function has no weights to train"),
    ):
        with pytest.raises(TypeError, match=hint):
            keras.Model(made)
    assert keras.Model(torch.fx.symbolic_trace(module)).predict(X, verbose=0).shape == (32, 1)
