"""Objects as plain values in Keras's form, and back."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from oncue import constraints, dtype_policies, initializers, layers, losses, metrics, optimizers, random, regularizers
from oncue.saving import custom_object_scope, deserialize_keras_object, serialize_keras_object

OBJECTS = (
    layers.Dense(3, activation="relu"),
    layers.Conv1D(2, 3, activation=layers.LeakyReLU(negative_slope=0.2)),
    losses.Huber(delta=2.0),
    metrics.Precision(thresholds=0.3),
    optimizers.Adam(0.5),
    optimizers.schedules.ExponentialDecay(0.1, 10, 0.9),
    initializers.HeNormal(seed=1),
    regularizers.L1L2(0.1, 0.2),
    constraints.MaxNorm(2.0),
    dtype_policies.DTypePolicy("mixed_bfloat16"),
    random.SeedGenerator(3),
)


def again(value: Any, **options: Any) -> Any:
    return deserialize_keras_object(json.loads(json.dumps(serialize_keras_object(value))), **options)


def doubled(x: Any) -> Any:
    return 2 * x


@pytest.mark.parametrize("thing", OBJECTS, ids=lambda thing: type(thing).__name__)
def test_an_object_comes_back_equal(thing: Any) -> None:
    made = again(thing)
    assert type(made) is type(thing)
    assert serialize_keras_object(made) == serialize_keras_object(thing)


@pytest.mark.parametrize("thing", OBJECTS, ids=lambda thing: type(thing).__name__)
@pytest.mark.parity
def test_keras_reads_what_is_written(thing: Any, keras: Any) -> None:
    made = keras.saving.deserialize_keras_object(serialize_keras_object(thing))
    assert type(made).__name__ == type(thing).__name__
    back = deserialize_keras_object(keras.saving.serialize_keras_object(made))
    assert type(back) is type(thing)


def test_plain_values_and_arrays_come_back() -> None:
    given = {"a": [1, 2.5, None, True, "x"], "b": np.arange(3), "c": slice(None, 2, 1), "d": ..., "e": b"xy"}
    found = again(given)
    assert found.pop("b").tolist() == given.pop("b").tolist()
    assert found == given
    assert torch.equal(again(torch.ones(2, 2)), torch.ones(2, 2))


def test_a_compiled_model_comes_back_compiled() -> None:
    model = oncue.Sequential([oncue.Input((2,)), layers.Dense(1)])
    model.compile("adam", "mse")
    made = again(model)
    assert made.compiled and made.count_params() == 3


def test_functions_are_found_by_their_name_among_those_given() -> None:
    assert again(doubled, custom_objects={"doubled": doubled}) is doubled
    with custom_object_scope({"doubled": doubled}, None):
        assert again({"f": doubled})["f"] is doubled
    with pytest.raises(ValueError, match="'doubled' isn't known.*custom_objects"):
        again(doubled)


def test_an_object_of_the_users_in_a_configuration_is_written_and_made() -> None:
    class Scale(layers.Layer):
        def __init__(self, by: Any, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.by = deserialize_keras_object(by) if isinstance(by, dict) else by

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "by": self.by}

    made = again(Scale(doubled), custom_objects={"Scale": Scale, "doubled": doubled})
    assert isinstance(made, Scale) and made.by is doubled


@pytest.mark.parametrize("name", ["Lambda", "__lambda__", "__typespec__", "package>TFSMLayer"])
@pytest.mark.parametrize("safe_mode", [True, False])
def test_code_in_a_configuration_is_refused(name: str, safe_mode: bool) -> None:
    with pytest.raises(ValueError, match="arbitrary code|`function` of its Lambda is code"):
        deserialize_keras_object({"class_name": name, "config": {"value": "x"}}, safe_mode=safe_mode)


def test_a_lambda_is_refused_before_it_is_written() -> None:
    with pytest.raises(ValueError, match="register it"):
        serialize_keras_object({"f": lambda x: x})


def test_a_class_under_another_name_is_refused() -> None:
    config = {"module": "keras.layers", "class_name": "Dense", "registered_name": "os.system", "config": {"units": 1}}
    with pytest.raises(ValueError, match="resolved to a Keras built-in.*'os.system'"):
        deserialize_keras_object(config)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"class_name": "Dense", "config": [1]}, "Expected 'config' to be a dict"),
        ({"class_name": "function", "config": [1]}, "name of a function"),
    ],
)
def test_a_configuration_of_another_form_is_refused(config: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        deserialize_keras_object(config)


@pytest.mark.parity
def test_a_loss_that_only_keras_has_is_found_by_its_name(keras: Any) -> None:
    assert type(losses.get("Circle")) is keras.losses.Circle
    made = again(oncue.losses.Circle(gamma=3.0))
    assert type(made) is keras.losses.Circle and made.gamma == 3.0
    assert isinstance(optimizers.get("lion").keras_optimizer, keras.optimizers.Lion)
