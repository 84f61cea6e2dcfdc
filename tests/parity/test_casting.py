"""What a layer's `dtype` makes of its inputs, under Keras and here."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor, to_numpy

POLICIES = ["float16", "float64", "mixed_bfloat16"]
KINDS = ["float16", "bfloat16", "float32", "float64", "int64", "int32", "uint8", "bool"]


def given(kind: str) -> torch.Tensor:
    made: torch.Tensor = tensor(torch.ones(2, 3)).to(getattr(torch, kind))
    return made


def name_of(value: Any) -> Any:
    """Return the types of nested tensors."""
    if isinstance(value, dict):
        return {key: name_of(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [name_of(part) for part in value]
    return str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__


def seeing(base: Any) -> Any:
    class Sees(base):  # type: ignore[misc]  # of either framework
        def call(self, x: Any, other: Any = None, third: Any = None) -> Any:
            self.seen = name_of([x, other, third])
            while isinstance(x, (list, dict)):
                x = x["a"] if isinstance(x, dict) else x[0]
            return x * 1

    return Sees


def compare(keras: ModuleType, run: Any) -> Any:
    """Return what both frameworks gave alike."""
    theirs, ours = run(keras), run(oncue)
    assert ours == theirs
    return ours


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("policy", [*POLICIES, "int32"])
def test_a_layer_of_the_users_own(keras: ModuleType, policy: str, autocast: bool) -> None:
    def run(k: Any) -> Any:
        found = []
        for kind in KINDS:
            layer = seeing(k.layers.Layer)(dtype=policy, autocast=autocast)
            found.append((name_of(layer(given(kind))), layer.seen))
        return found

    compare(keras, run)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", ["list", "dict", "further", "nested in further", "arrays"])
def test_nested_and_further_arguments(keras: ModuleType, case: str, policy: str) -> None:
    x, wide, whole = given("float32"), given("float64"), given("int64")

    def run(k: Any) -> Any:
        layer = seeing(k.layers.Layer)(dtype=policy)
        if case == "list":
            layer([x, {"a": wide, "b": whole}])
        elif case == "dict":
            layer({"a": wide, "b": whole})
        elif case == "further":
            layer(x, x, third=wide)
        elif case == "nested in further":
            layer(x, [x], third={"a": wide, "b": whole})
        else:
            layer(np.ones((2, 3)))
        return layer.seen

    compare(keras, run)


@pytest.mark.parametrize("policy", ["float16", "float64"])
def test_a_model_of_the_users_own(keras: ModuleType, policy: str) -> None:
    def run(k: Any) -> Any:
        found = []
        for kind in KINDS:
            model = seeing(k.Model)(dtype=policy)
            found.append((name_of(model(given(kind))), model.seen))
        model = seeing(k.Model)(dtype=policy)
        return found, str(model.predict(np.ones((2, 3)), verbose=0).dtype)

    compare(keras, run)


WEIGHTLESS: dict[str, Any] = {
    "Activation": lambda k, **kwargs: k.layers.Activation("relu", **kwargs),
    "Dropout": lambda k, **kwargs: k.layers.Dropout(0.5, **kwargs),
    "Flatten": lambda k, **kwargs: k.layers.Flatten(**kwargs),
    "Softmax": lambda k, **kwargs: k.layers.Softmax(**kwargs),
    "LeakyReLU": lambda k, **kwargs: k.layers.LeakyReLU(**kwargs),
    "RepeatVector": lambda k, **kwargs: k.layers.RepeatVector(2, **kwargs),
    "GaussianNoise": lambda k, **kwargs: k.layers.GaussianNoise(0.1, **kwargs),
    "Add": lambda k, **kwargs: lambda x: k.layers.Add(**kwargs)([x, x]),
    "Concatenate": lambda k, **kwargs: lambda x: k.layers.Concatenate(**kwargs)([x, x.float()]),
}


@pytest.mark.parametrize("name", WEIGHTLESS)
def test_layers_without_weights(keras: ModuleType, name: str) -> None:
    def run(k: Any) -> Any:
        return [
            name_of(WEIGHTLESS[name](k, dtype=policy)(given(kind)))
            for policy in ("float16", "float64", "float32")
            for kind in ("float16", "float32", "float64")
        ]

    compare(keras, run)


@pytest.mark.parametrize("first", ["float16", "mixed_float16", "float64"])
def test_a_layer_of_32_bits_behind_one_of_another_type(keras: ModuleType, first: str) -> None:
    def run(k: Any) -> Any:
        found = []
        for second in (k.layers.Activation("softmax"), seeing(k.layers.Layer)()):
            model = k.Sequential([k.layers.Input((3,)), k.layers.Dense(3, dtype=first), second])
            found.append((name_of(model(given("float32"))), model.outputs[0].dtype))
        return found

    compare(keras, run)


# Keras narrows int64 to int32 where the input is of that type, so that large numbers are others.
@pytest.mark.parametrize(
    ("how", "kind"),
    [(how, kind) for how in ("input", "built on data", "functional") for kind in ("uint8", "int64", "bool")]
    + [("whole", "uint8"), ("whole", "bool")],
)
def test_what_the_first_layer_gets_of_whole_numbers(keras: ModuleType, how: str, kind: str) -> None:
    x = np.full((2, 3), 200).astype(kind)

    def run(k: Any) -> Any:
        class Doubles(k.layers.Layer):  # type: ignore[misc]  # of either framework
            def call(self, inputs: Any) -> Any:
                return inputs * 2

        if how == "functional":
            inputs = k.layers.Input((3,))
            model = k.Model(inputs, Doubles()(inputs))
        else:
            start = {"input": [k.layers.Input((3,))], "whole": [k.layers.Input((3,), dtype="int32")]}.get(how, [])
            model = k.Sequential([*start, Doubles()])
        outputs = model.predict(x, verbose=0)
        return str(outputs.dtype), outputs.tolist()

    compare(keras, run)


def test_torch_modules_inside_are_given_what_they_compute_in() -> None:
    class Wraps(oncue.layers.Layer):  # type: ignore[misc]  # imported when first asked for
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 1, dtype=torch.float64)

        def call(self, x: torch.Tensor) -> Any:
            return self.linear(x)

    class Net(oncue.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inside = Wraps()

        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            return self.inside(inputs)

    model = Net()
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones(4), verbose=0)
    assert model.predict(np.ones((4, 3)), verbose=0).dtype == "float64"


def test_an_autocast_around_all_layers_chooses_for_those_of_32_bits() -> None:
    layer = oncue.layers.Activation("relu", dtype="float32")
    wide, narrow = given("float32"), given("bfloat16")
    layer(narrow)
    assert layer(narrow).dtype == torch.float32
    with torch.autocast(wide.device.type, torch.bfloat16):
        assert layer(narrow).dtype == torch.bfloat16


def test_a_copy_and_a_loaded_layer_cast_as_well() -> None:
    made = oncue.Sequential([oncue.layers.Input((3,)), oncue.layers.Dense(3, dtype="float16"), oncue.layers.ReLU()])
    for model in (made, oncue.models.clone_model(made), oncue.Sequential.from_config(made.get_config())):
        assert to_numpy(model(given("float32"))).dtype == "float32"
