"""Dtype policies: the global one, those of layers, and what they do to a model."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import normal, tensor
from oncue import dtype_policies, mixed_precision
from oncue.layers import Dense, Embedding, Input

X = normal(16, 4)


@pytest.fixture(autouse=True)
def no_policy_stays() -> Iterator[None]:
    yield
    mixed_precision.set_global_policy(None)


@pytest.mark.parametrize(
    "given",
    [
        "mixed_float16",
        dtype_policies.DTypePolicy("mixed_float16"),
        {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "mixed_float16"}, "registered_name": None},
    ],
)
def test_what_stands_for_a_policy(given: Any) -> None:
    layer = Dense(2, dtype=given)
    assert layer.dtype_policy == dtype_policies.DTypePolicy("mixed_float16")
    assert Dense.from_config(layer.get_config()).compute_dtype == "float16"


@pytest.mark.parametrize("given", [torch.float64, np.float64, np.dtype("float64"), "float64"])
def test_types_stand_for_policies_too(given: Any) -> None:
    assert Dense(2, dtype=given).dtype == "float64"


def test_the_global_policy_is_that_of_floatx_until_it_is_set() -> None:
    try:
        oncue.backend.set_floatx("float64")
        assert oncue.config.dtype_policy().name == "float64" == Dense(1).dtype
        oncue.config.set_dtype_policy("mixed_bfloat16")
        assert Dense(1).compute_dtype == "bfloat16"
    finally:
        oncue.backend.set_floatx("float32")
    oncue.backend.clear_session()
    assert oncue.config.dtype_policy().name == "float32"


def test_experimental_names_of_keras_2() -> None:
    policy = mixed_precision.experimental.Policy("mixed_float16")
    mixed_precision.experimental.set_policy(policy)
    assert mixed_precision.experimental.global_policy() is not None
    assert Dense(1).compute_dtype == "float16"


def test_a_misspelt_policy() -> None:
    with pytest.raises(ValueError, match="got 'mixed_bflaot16'. Did you mean 'mixed_bfloat16'"):
        mixed_precision.set_global_policy("mixed_bflaot16")
    with pytest.raises(ValueError, match="`policy` must be a DTypePolicy or the name of one.*got 16 of type int"):
        mixed_precision.set_global_policy(16)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(TypeError, match="`name` of a DTypePolicy must be a string.*got 16"):
        mixed_precision.Policy(16)  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_keep_it(way: Any) -> None:
    mixed_precision.set_global_policy("mixed_bfloat16")
    model = oncue.Sequential([Input((4,)), Dense(2)])
    mixed_precision.set_global_policy(None)
    other = way(model)
    assert other.layers[0].compute_dtype == "bfloat16" and other.dtype_policy.name == "mixed_bfloat16"
    x = tensor(X)
    assert other(x).dtype == torch.bfloat16 and torch.equal(other(x), model(x))


def test_a_pickle_is_mixed_in_a_new_process(tmp_path: Path) -> None:
    layer = Dense(2, dtype="mixed_bfloat16")
    layer.build((None, 4))
    (tmp_path / "layer.pickle").write_bytes(pickle.dumps(layer))
    code = "import pickle, sys, numpy; layer = pickle.load(open(sys.argv[1], 'rb')); print(layer(numpy.ones((1, 4))).dtype)"
    command = [sys.executable, "-c", code, str(tmp_path / "layer.pickle")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "torch.bfloat16"


def test_masks_travel_with_what_is_cast() -> None:
    mixed_precision.set_global_policy("mixed_bfloat16")
    embedding = Embedding(5, 3, mask_zero=True)
    outputs = embedding(tensor([[1, 0, 2]]))
    assert outputs.dtype == torch.bfloat16 and outputs._keras_mask.tolist() == [[True, False, True]]
    last = oncue.layers.Dense(1, dtype="float32")(outputs)
    assert last.dtype == torch.float32 and oncue.layers.LSTM(2)(outputs).dtype == torch.bfloat16


def test_a_torch_module_in_a_mixed_sequential() -> None:
    mixed_precision.set_global_policy("mixed_bfloat16")
    model = oncue.Sequential([Input((4,)), Dense(8), torch.nn.Linear(8, 1)])
    model.compile("adam", "mse")
    model.fit(X, X[:, :1], verbose=0)
    assert model(tensor(X)).dtype == torch.bfloat16
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_around_a_torch_module(policy: str) -> None:
    seen = []

    class Inner(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(self.linear(x).dtype)
            return self.linear(x)

    mixed_precision.set_global_policy(policy)
    model = oncue.Model(Inner())
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(X, X[:, :1], verbose=0, validation_data=(X, X[:, :1]))
    model.predict(X, verbose=0)
    assert {str(dtype) for dtype in seen} == {f"torch.{policy.removeprefix('mixed_')}"}


def test_losses_and_metrics_get_32_bits() -> None:
    given = []

    def loss(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
        given.append(y_pred.dtype)
        return (y_true - y_pred).square()

    mixed_precision.set_global_policy("mixed_float16")
    model = oncue.Sequential([Input((4,)), Dense(1)])
    model.compile("adam", torch.nn.MSELoss(), metrics=[loss])
    # In float16 the square of 300 is infinite.
    value = model.evaluate(X, X[:, :1] + 300, verbose=0)
    assert np.isfinite(value).all() and value[0] > 65504
    assert set(given) == {torch.float32}


def test_a_layer_of_float32_after_mixed_ones_is_left_to_an_autocast_outside() -> None:
    layer = Dense(2)
    x = tensor(X)
    with torch.autocast(x.device.type, torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    Dense(2, dtype="mixed_float16")
    with torch.autocast(x.device.type, torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


def test_setting_the_policy_of_a_layer() -> None:
    layer = Dense(2)
    layer.build((None, 4))
    layer.dtype_policy = "mixed_bfloat16"
    assert layer(tensor(X)).dtype == torch.bfloat16 and layer.kernel.dtype == "float32"
    layer.dtype_policy = "float32"
    assert layer(tensor(X)).dtype == torch.float32


def test_the_module_imports_no_torch() -> None:
    code = "import sys, oncue; oncue.mixed_precision.set_global_policy('mixed_float16'); print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"
