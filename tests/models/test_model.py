"""Model: around a torch module, and subclassed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import tensor
from oncue import layers


class WithCall(keras.Model):
    """Written as for Keras."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layers.Dense(4, activation="relu")
        self.last = layers.Dense(1)

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(inputs))


class WithForward(keras.Model):
    """Written as for torch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 4)
        self.output = torch.nn.Linear(4, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.output(torch.relu(self.first(inputs)))


class WithList(keras.Model):
    """Keeps layers in a plain list and a dict, which torch doesn't see."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = [layers.Dense(2), layers.Dense(2)]
        self.heads = {"one": layers.Dense(1)}

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            inputs = block(inputs)
        return self.heads["one"](inputs)


class ByMode(keras.Model):
    """Does something else in training."""

    def call(self, inputs: torch.Tensor, training: bool = False) -> torch.Tensor:
        return inputs + 1 if training else inputs


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("make", [WithCall, WithForward, WithList])
def test_subclasses_learn(make: Any, data: tuple[np.ndarray, np.ndarray]) -> None:
    model = make()
    model.compile(keras.optimizers.SGD(0.05), "mse")
    history = model.fit(*data, epochs=5, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert model.predict(data[0], verbose=0).shape == (32, 1)


def test_layers_in_plain_containers_are_tracked(data: tuple[np.ndarray, np.ndarray]) -> None:
    model = WithList()
    assert len(model.layers) == 3
    model(tensor(data[0]))
    assert len(model.weights) == 6
    assert len(list(model.parameters())) == 6


def test_attribute_called_output_is_what_was_assigned() -> None:
    model = WithForward()
    assert isinstance(model.output, torch.nn.Linear)
    assert [name for name, _ in model.named_children()] == ["first", "output"]


def test_training_argument() -> None:
    model = ByMode()
    x = tensor(torch.zeros(1, 1))
    assert model(x).item() == 0
    assert model(x, training=True).item() == 1
    assert not model.training


def test_torch_module(data: tuple[np.ndarray, np.ndarray]) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    model = keras.Model(module)
    assert model.layers == list(module.children())
    assert model.get_layer("0") is module[0]
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(*data, verbose=0)
    torch.testing.assert_close(model(tensor(data[0])), module(tensor(data[0])))
    assert [weight.shape for weight in model.weights] == [(4, 3), (4,), (1, 4), (1,)]


def test_module_of_several_arguments() -> None:
    class Two(torch.nn.Module):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return left - right

    model = keras.Model(Two())
    a, b = tensor(torch.full((1, 1), 5.0)), tensor(torch.ones(1, 1))
    assert model((a, b)).item() == 4
    assert model({"right": a, "left": b}).item() == -4


@pytest.mark.parametrize("wrong", [(3, None), ("dense", None), (np.ones(3), np.ones(3))])
def test_neither_module_nor_symbolic(wrong: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError, match=r"a torch.nn.Module, or `inputs` and `outputs`"):
        keras.Model(*wrong)


def test_module_with_outputs_is_refused() -> None:
    with pytest.raises(TypeError, match="takes no `outputs`"):
        keras.Model(torch.nn.Linear(1, 1), keras.Input((1,)))


def test_model_without_call_says_so() -> None:
    class Empty(keras.Model):
        pass

    with pytest.raises(NotImplementedError, match="Empty must define"):
        Empty()(tensor(torch.ones(1, 1)))


def test_nested_models(data: tuple[np.ndarray, np.ndarray]) -> None:
    class Outer(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = WithCall()
            self.body = keras.Sequential([layers.Dense(3), layers.Dense(2)])

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.inner(self.body(inputs)[:, :1].expand(-1, 3))

    model = Outer()
    model.compile("sgd", "mse")
    model.fit(*data, verbose=0)
    assert len(model.weights) == 8
    assert {path.split("/")[0] for path in (weight.path for weight in model.weights)} == {
        model.inner.name,
        model.body.name,
    }


def test_deep_copy_trains_apart(data: tuple[np.ndarray, np.ndarray]) -> None:
    model = WithCall()
    model.compile("sgd", "mse")
    model.fit(*data, verbose=0)
    other = copy.deepcopy(model)
    before = model.get_weights()
    other.fit(*data, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert any((a != b).any() for a, b in zip(before, other.get_weights(), strict=True))


def test_shapes_of_a_subclass_are_not_known() -> None:
    model = WithCall()
    for name in ("input_shape", "output_shape", "input", "output"):
        with pytest.raises(AttributeError):
            getattr(model, name)
    assert model.inputs == model.outputs == []


def test_random_seed_reaches_every_generator() -> None:
    def draws() -> list[float]:
        import random

        keras.utils.set_random_seed(11)
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # NumPy's global one

    assert draws() == draws()


@pytest.mark.parametrize("seed", [1.5, "1", None, True, -1, 2**32])
def test_wrong_seed_is_refused(seed: Any) -> None:
    with pytest.raises(ValueError, match="`seed` must be"):
        keras.utils.set_random_seed(seed)


def test_seed_generator_draws_on() -> None:
    seeds = keras.random.SeedGenerator(5)
    first, second = keras.random.normal((3,), seed=seeds), keras.random.normal((3,), seed=seeds)
    assert not torch.equal(first, second)
    assert torch.equal(first, keras.random.normal((3,), seed=5))
    assert torch.equal(first, keras.random.normal((3,), seed=keras.random.SeedGenerator.from_config({"seed": 5})))


def test_registered_classes_are_found_by_name() -> None:
    @keras.utils.register_keras_serializable("mine")
    class Thing(layers.Layer):
        pass

    assert keras.utils.get_registered_name(Thing) == "mine>Thing"
    assert keras.utils.get_registered_object("mine>Thing") is Thing
    assert isinstance(layers.deserialize(layers.serialize(Thing())), Thing)
    with keras.utils.custom_object_scope({"Other": Thing}):
        assert isinstance(layers.deserialize({"class_name": "Other", "config": {}}), Thing)
    with pytest.raises(ValueError, match="Other"):
        layers.deserialize({"class_name": "Other", "config": {}})
    del keras.utils.get_custom_objects()["mine>Thing"]


def test_torch_modules_inside_work_in_the_mode_of_the_model() -> None:
    ones = np.ones((1, 50), "float32")
    around = keras.Model(torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(50)))
    assert not any(module.training for module in around.modules())
    np.testing.assert_array_equal(around.predict(ones, verbose=0) == 0, False)
    around.module.train()
    np.testing.assert_array_equal(around.predict(ones, verbose=0) == 0, False)
    mixed = keras.Sequential([torch.nn.Dropout(0.5)])
    assert (mixed(tensor(torch.ones(1, 50))) == 1).all()
    assert (mixed(tensor(torch.ones(1, 50)), training=True) == 0).any()


def test_the_state_of_a_model_as_a_tree_and_back() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, name="out")], name="net")
    model.compile(keras.optimizers.Adam(name="adam"), "mse")
    model.fit(np.ones((2, 2)), np.ones((2, 1)), verbose=0)
    tree = model.get_state_tree("numpy_array")
    assert tree["optimizer_variables"]["adam"]["iteration"] == 1
    assert float(tree["metrics_variables"]["loss"]["count"]) > 0
    kernel = tree["trainable_variables"]["net"]["out"]["kernel"] if "net" in tree["trainable_variables"] else None
    kernel = tree["trainable_variables"]["out"]["kernel"] if kernel is None else kernel
    before = kernel.copy()
    tree = {"trainable_variables": tree["trainable_variables"]}
    model.fit(np.ones((2, 2)), np.zeros((2, 1)), verbose=0)
    model.set_state_tree(tree)
    assert np.allclose(model.get_weights()[0], before)
    with pytest.raises(ValueError, match="'other'"):
        model.set_state_tree({"trainable_variables": {"other": 1.0}})


def test_layers_are_not_to_be_replaced() -> None:
    class Mine(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [layers.Dense(1)]

    with pytest.raises(AttributeError, match="reserved.*self.blocks"):
        Mine()


def test_what_a_model_leaves_out_of_a_dict_is_said_once() -> None:
    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Add()([a, b]))
    x = np.ones((2, 1), "float32")
    with pytest.warns(UserWarning, match="'c' of the dict that it was given is left out"):
        model({"a": x, "b": x, "c": x})
    model({"a": x, "b": x, "c": x})


def test_a_sequential_of_models_is_built_at_once() -> None:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    assert keras.Sequential([inner, layers.Dense(2)]).count_params() == 15 + 8
