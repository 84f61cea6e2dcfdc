"""Models made again: from their configuration, and by `clone_model`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import tensor
from oncue import layers


def graph() -> Any:
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(3, name="shared")
    first, second = shared(a), shared(b)
    x = keras.Input((3,), name="x")
    inner = keras.Model(x, layers.Dense(2)(x), name="inner")
    tail = keras.Sequential([keras.Input((3,)), layers.Dense(2)], name="tail")
    total = inner(first, training=False) * 2 - tail(second)
    return keras.Model({"a": a, "b": b}, {"total": total[:, 0:1], "inner": inner(second)}, name="whole")


DATA = {name: np.linspace(at, at + 1, 8, dtype="float32").reshape(2, 4) for at, name in enumerate("ab")}


def same_after_copying_weights(model: Any, other: Any) -> None:
    assert [layer.name for layer in other.layers] == [layer.name for layer in model.layers]
    assert not {id(parameter) for parameter in model.parameters()} & {id(parameter) for parameter in other.parameters()}
    other.set_weights(model.get_weights())
    torch.testing.assert_close(other(DATA), model(DATA))


def test_from_config() -> None:
    model = graph()
    config = json.loads(json.dumps(model.get_config()))
    other = keras.Model.from_config(config)
    assert other.name == "whole"
    same_after_copying_weights(model, other)


def test_config_survives_a_second_round() -> None:
    config = json.loads(json.dumps(graph().get_config()))
    assert json.loads(json.dumps(keras.Model.from_config(config).get_config())) == config


def test_layers_called_before_in_the_list() -> None:
    x = keras.Input((2,))
    back_and_forth = layers.Dense(2, name="first")
    y = back_and_forth(layers.Dense(2, name="second")(back_and_forth(x)))
    model = keras.Model(x, y)
    other = keras.Model.from_config(model.get_config())
    other.set_weights(model.get_weights())
    torch.testing.assert_close(other(tensor(torch.ones(1, 2))), model(tensor(torch.ones(1, 2))))


def test_own_layers_are_named() -> None:
    class Mine(layers.Layer):
        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs + 1

    x = keras.Input((2,))
    config = keras.Model(x, Mine()(x)).get_config()
    with pytest.raises(ValueError, match="Mine"):
        keras.Model.from_config(config)
    other = keras.Model.from_config(config, custom_objects={"Mine": Mine})
    assert other(tensor(torch.zeros(1, 2))).tolist() == [[1, 1]]


def test_torch_modules_have_no_config() -> None:
    model = keras.Sequential([keras.Input((2,)), torch.nn.Linear(2, 2)])
    with pytest.raises(ValueError, match="is a torch module, which has no configuration"):
        model.get_config()


def test_config_of_disconnected_calls() -> None:
    x = keras.Input((2,), name="x")
    config = json.loads(json.dumps(keras.Model(x, layers.Dense(1, name="d")(x)).get_config()))
    config["layers"][1]["inbound_nodes"][0]["args"][0]["config"]["keras_history"][0] = "y"
    with pytest.raises(ValueError, match="not in it: d"):
        keras.Model.from_config(config)


def test_old_form_of_calls() -> None:
    x = keras.Input((2,), name="x")
    config = json.loads(json.dumps(keras.Model(x, layers.Dense(1, name="d")(x)).get_config()))
    config["layers"][1]["inbound_nodes"] = [[["x", 0, 0, {}]]]
    config["input_layers"], config["output_layers"] = [["x", 0, 0]], [["d", 0, 0]]
    assert keras.Model.from_config(config)(tensor(torch.ones(3, 2))).shape == (3, 1)


def test_clone_of_a_graph() -> None:
    model = graph()
    clone = keras.models.clone_model(model)
    assert not np.array_equal(clone.get_weights()[0], model.get_weights()[0])
    assert clone.output_shape == model.output_shape
    same_after_copying_weights(model, clone)


def test_clone_on_other_inputs() -> None:
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(2)(x))
    wide = keras.Input((4,), name="other")
    clone = keras.models.clone_model(model, input_tensors=wide)
    assert clone.input is wide
    with pytest.raises(ValueError, match="1 symbolic tensors"):
        keras.models.clone_model(model, input_tensors=[wide, wide])


@pytest.mark.parametrize("known", [True, False])
def test_clone_of_a_sequential(known: bool) -> None:
    head = [keras.Input((4,), name="in")] if known else []
    model = keras.Sequential([*head, layers.Dense(3), torch.nn.Linear(3, 2)], name="s")
    clone = keras.models.clone_model(model)
    assert clone.name == "s"
    assert clone.built == known
    data = tensor(torch.randn(2, 4))
    assert not torch.allclose(clone(data), model(data))
    assert clone(data).shape == (2, 2)
    clone.set_weights(model.get_weights())
    torch.testing.assert_close(clone(data), model(data))


def test_clone_function_replaces_layers() -> None:
    def wider(layer: Any) -> Any:
        config = layer.get_config()
        return type(layer).from_config({**config, "units": config["units"] * 2} if "units" in config else config)

    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(3)(layers.Dropout(0.5)(x)))
    assert keras.models.clone_model(model, clone_function=wider).output_shape == (None, 6)
    sequential = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    assert keras.models.clone_model(sequential, clone_function=wider).output_shape == (None, 6)
    with pytest.raises(ValueError, match="must be a function"):
        keras.models.clone_model(model, clone_function=3)  # type: ignore[arg-type]  # the error is what is tested


def test_clone_around_a_torch_module() -> None:
    model = keras.Model(torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()))
    clone = keras.models.clone_model(model)
    assert not np.array_equal(clone.get_weights()[0], model.get_weights()[0])
    assert [a.shape for a in clone.get_weights()] == [a.shape for a in model.get_weights()]


def test_a_class_of_the_users_is_cloned_by_its_configuration() -> None:
    class Mine(keras.Model):
        def __init__(self, units: int = 1, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.units = units

        def get_config(self) -> dict[str, Any]:
            return {"name": self.name, "units": self.units}

    assert keras.models.clone_model(Mine(3)).units == 3
    with pytest.raises(ValueError, match="`clone_function` is for Sequential and functional models"):
        keras.models.clone_model(Mine(), clone_function=lambda layer: layer)


def test_a_compiled_sequential_is_cloned_compiled() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("adam", "mse")
    clone = keras.models.clone_model(model)
    assert clone.compiled and clone.optimizer is not model.optimizer


def test_a_function_calls_the_layers_of_a_clone() -> None:
    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        result = layer(*args, **kwargs)
        return layers.Dropout(0.5)(result) if isinstance(layer, layers.Dense) else result

    x = keras.Input((2,))
    inner = keras.Model(x, layers.Dense(3)(x))
    model = keras.Model(x, layers.Dense(1)(inner(x)))
    clone = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    assert [type(layer).__name__ for layer in clone.layers] == ["InputLayer", "Model", "Dense", "Dropout"]
    deep = keras.models.clone_model(model, call_function=call, recursive=True)
    assert [type(layer).__name__ for layer in deep.layers[1].layers] == ["InputLayer", "Dense", "Dropout"]
    with pytest.raises(ValueError, match="`call_function` is for functional models"):
        keras.models.clone_model(keras.Sequential([layers.Dense(1)]), call_function=call)


def test_inputs_of_a_clone_are_nested_as_those_of_the_model() -> None:
    model = graph()
    a, b = keras.Input((4,)), keras.Input((4,))
    with pytest.raises(ValueError, match="same structure as model.input"):
        keras.models.clone_model(model, input_tensors=[a, b])


def test_a_tuple_of_outputs_stays_a_tuple() -> None:
    x = keras.Input((2,))
    model = keras.Model(x, (layers.Dense(1)(x), layers.Dense(1)(x)))
    assert isinstance(keras.Model.from_config(model.get_config())(np.ones((1, 2), "float32")), tuple)


def test_a_symbolic_call_gives_a_tuple_where_the_outputs_are_one() -> None:
    x = keras.Input((2,))
    model = keras.Model(x, (layers.Dense(1)(x), layers.Dense(1)(x)))
    assert isinstance(model(keras.Input((2,))), tuple)
