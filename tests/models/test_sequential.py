"""Sequential: layers one after another, of oncue and of torch."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import tensor
from oncue import layers


def test_built_at_once_when_the_input_is_known() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    assert model.built
    assert [weight.shape for weight in model.weights] == [(4, 3), (3,), (3, 2), (2,)]
    assert model.input_shape == (None, 4)
    assert model.output_shape == (None, 2)
    assert len(model.layers) == 2


@pytest.mark.parametrize(
    ("first", "shape"),
    [
        ({"input_shape": (4,)}, (None, 4)),
        ({"input_dim": 4}, (None, 4)),
        ({"batch_input_shape": (8, 4)}, (8, 4)),
    ],
)
def test_old_arguments_for_the_input_of_the_first_layer(first: dict[str, Any], shape: tuple[int | None, ...]) -> None:
    model = keras.Sequential([layers.Dense(3, **first)])
    assert model.built
    assert model.input_shape == shape
    assert model.count_params() == 15


def test_built_on_first_data() -> None:
    model = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    assert not model.built
    with pytest.raises(ValueError, match="no weights yet"):
        model.count_params()
    with pytest.raises(AttributeError, match="not been built"):
        _ = model.output_shape
    assert model(tensor(torch.ones(5, 4))).shape == (5, 2)
    assert model.count_params() == 15 + 8
    assert model.output_shape == (None, 2)


def test_built_by_build() -> None:
    model = keras.Sequential([layers.Dense(3)])
    model.build((None, 4))
    assert model.count_params() == 15


def test_fit_builds() -> None:
    model = keras.Sequential([layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0)
    assert model.weights[0].shape == (3, 1)


def test_add_and_pop() -> None:
    model = keras.Sequential()
    model.add(keras.Input((4,)))
    model.add(layers.Dense(3))
    model.add(layers.Dense(2, name="last"))
    last = model.pop()
    assert last.name == "last"
    assert model.output_shape == (None, 3)
    assert model(tensor(torch.ones(1, 4))).shape == (1, 3)
    model.add(layers.Dense(5, name="last"))
    assert model(tensor(torch.ones(1, 4))).shape == (1, 5)
    model.pop()
    model.pop()
    with pytest.raises(ValueError, match="no layer to remove"):
        model.pop()


def test_layers_and_torch_modules_may_be_mixed() -> None:
    model = keras.Sequential([keras.Input((4,)), torch.nn.Linear(4, 6), torch.nn.BatchNorm1d(6), layers.Dense(2)])
    assert model.output_shape == (None, 2)
    data = tensor(torch.randn(3, 4))
    expected = model.layers[2](model.layers[1](model.layers[0](data)))
    torch.testing.assert_close(model(data), expected)
    # Finding out the shapes must not have moved the running means.
    assert model.layers[1].num_batches_tracked.item() == 0


def test_torch_modules_are_placed_when_they_are_put_into_a_model() -> None:
    # There is no other device that every machine has.
    model = keras.Sequential([torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2, affine=False)], device="meta")
    assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {"meta"}
    linear, x = torch.nn.Linear(4, 2), keras.Input((4,))
    keras.Model(x, keras.Model(linear)(x), device="meta")
    assert linear.weight.device.type == "meta"


def test_torch_modules_behind_an_unbuilt_layer() -> None:
    model = keras.Sequential([layers.Dense(6), torch.nn.LazyLinear(2)])
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 3)), np.ones((8, 2)), verbose=0)
    assert model.output_shape == (None, 2)
    assert model.count_params() == 24 + 14


@pytest.mark.parametrize(
    ("things", "error", "message"),
    [
        ([layers.Dense], TypeError, r"the class Dense; use `Dense\(...\)`"),
        (["dense"], TypeError, "'dense'"),
        ([layers.Dense(1, name="d"), layers.Dense(1, name="d")], ValueError, "two called 'd'"),
        ([layers.Dense(1), keras.Input((2,))], ValueError, "must come first"),
        ([keras.Input((2,)), keras.Input((2,))], ValueError, "must come first"),
        ([layers.Dense(1)(keras.Input((2,)))], ValueError, "not the output of a layer"),
    ],
)
def test_wrong_things_are_refused(things: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        keras.Sequential(things)


def test_get_layer() -> None:
    keras.backend.clear_session()
    model = keras.Sequential([layers.Dense(1, name="one"), torch.nn.Linear(1, 1), layers.Dense(1, name="three")])
    assert model.get_layer("one") is model.layers[0]
    assert model.get_layer(index=1) is model.layers[1]
    assert model.get_layer("linear") is model.layers[1]
    with pytest.raises(ValueError, match=r"no layer 'thre'. Did you mean 'three'.*one, linear, three"):
        model.get_layer("thre")
    with pytest.raises(ValueError, match="below 3"):
        model.get_layer(index=3)
    with pytest.raises(ValueError, match="either a `name` or an `index`"):
        model.get_layer()


@pytest.mark.parametrize(
    ("data", "got"),
    [(np.ones((2, 5)), r"\(2, 5\)"), (np.ones((2, 4, 4)), r"\(2, 4, 4\)"), (np.ones(3), r"\(3,\)")],
)
def test_data_that_does_not_fit_is_refused_by_name(data: Any, got: str) -> None:
    model = keras.Sequential([keras.Input((4,), name="features"), layers.Dense(1)])
    with pytest.raises(ValueError, match=rf"'features' expects the shape \(None, 4\).*{got}"):
        model.predict(data, verbose=0)


def test_one_number_for_each_sample_may_come_flat() -> None:
    model = keras.Sequential([keras.Input((1,)), layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(np.arange(6.0), np.ones((6, 2)), verbose=0)
    assert model.predict(np.arange(6.0), verbose=0).shape == (6, 2)


def test_get_and_set_weights() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(1)])
    weights = model.get_weights()
    assert [array.shape for array in weights] == [(2, 3), (3,), (3,), (3,), (3,), (3,), (3, 1), (1,)]
    new = [np.full_like(array, index) for index, array in enumerate(weights)]
    model.set_weights(new)
    for given, found in zip(new, model.get_weights(), strict=True):
        np.testing.assert_array_equal(given, found)
    with pytest.raises(ValueError, match=r"a list of 8 arrays.*got 7"):
        model.set_weights(new[:-1])
    with pytest.raises(ValueError, match=r"has the shape \(1,\).*\(2,\)"):
        model.set_weights([*new[:-1], np.ones(2)])


def test_freezing_a_layer() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(1)])
    assert (len(model.trainable_weights), len(model.non_trainable_weights)) == (6, 2)
    model.layers[0].trainable = False
    assert (len(model.trainable_weights), len(model.non_trainable_weights)) == (4, 4)
    frozen = model.layers[0].get_weights()[0]
    model.compile("sgd", "mse")
    model.fit(np.random.default_rng(0).normal(size=(8, 2)), np.ones((8, 1)), verbose=0)
    np.testing.assert_array_equal(model.layers[0].get_weights()[0], frozen)
    model.trainable = False
    assert model.trainable_weights == []


def test_layers_named_like_attributes() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2, name="loss"), layers.Dense(1, name="output")])
    model.compile("sgd", "mse")
    assert model.get_layer("loss") is model.layers[0]
    assert model.output.shape == (None, 1)
    assert model.output_names == ["output"]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("known", [True, False])
def test_copies(again: Any, known: bool) -> None:
    head = [keras.Input((4,))] if known else []
    model = keras.Sequential([*head, layers.Dense(3), torch.nn.Linear(3, 2)])
    data = tensor(torch.randn(2, 4))
    model(data)
    other = again(model)
    torch.testing.assert_close(other(data), model(data))
    assert other.output_shape == (None, 2)
    assert keras.Model(other.inputs, other.outputs)(data).shape == (2, 2)
    other.add(layers.Dense(7))
    assert other(data).shape == (2, 7)
    assert model(data).shape == (2, 2)


def test_deep_sequential_models_are_copied() -> None:
    model = keras.Sequential([keras.Input((2,)), *(layers.Activation("linear") for _ in range(300))])
    assert len(copy.deepcopy(model).layers) == 300


def test_state_dict_round_trip() -> None:
    def make() -> Any:
        return keras.Sequential([keras.Input((2,)), layers.Dense(3, name="a"), layers.Dense(1, name="b")])

    one, two = make(), make()
    assert list(one.state_dict()) == ["a.kernel", "a.bias", "b.kernel", "b.bias"]
    two.load_state_dict(one.state_dict())
    data = tensor(torch.randn(4, 2))
    torch.testing.assert_close(two(data), one(data))


def test_model_made_again_from_its_config() -> None:
    model = keras.Sequential([keras.Input((2,), name="in"), layers.Dense(3, name="a"), layers.Dense(1)], name="small")
    other = keras.Sequential.from_config(model.get_config())
    assert other.name == "small"
    assert [layer.name for layer in other.layers] == [layer.name for layer in model.layers]
    assert other.count_params() == model.count_params()
    assert other.inputs[0].name == "in"


def test_ends_are_missing_until_the_shape_is_known() -> None:
    model = keras.Sequential([layers.Dense(1)])
    assert not hasattr(model, "inputs") and not hasattr(model, "outputs")
    model.build((None, 2))
    assert len(model.inputs) == len(model.outputs) == 1
