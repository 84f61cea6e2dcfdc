"""Functional models: what is traced, how it is fed, what it gives."""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import tensor
from oncue import layers


class Halves(layers.Layer):
    """Gives two outputs."""

    def call(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return inputs[:, :1], inputs[:, 1:]


class Named(layers.Layer):
    """Gives a dict."""

    def call(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"z": inputs + 1, "a": inputs[:, :1]}


class Blend(layers.Layer):
    """Takes a list, and another tensor by name."""

    def call(self, inputs: list[torch.Tensor], other: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
        return (inputs[0] + inputs[1]) * factor + other


def two_inputs() -> Any:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    return keras.Model([a, b], layers.Dense(2, kernel_initializer="ones", name="d")(a) + b)


def test_chain_computes_what_its_layers_compute() -> None:
    x = keras.Input((3,))
    first, second = layers.Dense(4, activation="relu"), layers.Dense(2)
    model = keras.Model(x, second(first(x)))
    data = tensor(torch.randn(5, 3))
    torch.testing.assert_close(model(data), second(first(data)))
    assert [layer.name for layer in model.layers] == [x.name, first.name, second.name]
    assert model.input_shape == (None, 3)
    assert model.output_shape == (None, 2)
    assert model.count_params() == 3 * 4 + 4 + 4 * 2 + 2


def test_shared_layer_is_one_layer_with_one_set_of_weights() -> None:
    a, b = keras.Input((3,)), keras.Input((3,))
    shared = layers.Dense(2, use_bias=False)
    model = keras.Model([a, b], shared(a) - shared(b))
    assert len(model.weights) == 1
    x = tensor(torch.randn(4, 3))
    assert torch.count_nonzero(model([x, x])) == 0
    torch.testing.assert_close(model([x, 2 * x]), -shared(x))


@pytest.mark.parametrize("as_what", ["list", "tuple", "dict"])
def test_several_inputs_are_fed_in_every_form(as_what: str) -> None:
    model = two_inputs()
    a, b = tensor(torch.ones(2, 3)), tensor([[1.0, 2.0], [3.0, 4.0]])
    data: Any = {"list": [a, b], "tuple": (a, b), "dict": {"b": b, "a": a}}[as_what]
    torch.testing.assert_close(model(data), 3 + b)


def test_dict_of_inputs_goes_by_its_keys_not_by_order() -> None:
    z, a = keras.Input((1,), name="z"), keras.Input((1,), name="a")
    model = keras.Model({"z": z, "a": a}, z - a)
    assert model({"a": tensor(torch.ones(1, 1)), "z": tensor(torch.full((1, 1), 5.0))}).item() == 4
    with pytest.raises(ValueError, match="takes a dict with the keys 'z', 'a'"):
        model([tensor(torch.ones(1, 1)), tensor(torch.ones(1, 1))])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"a": torch.ones(2, 3)}, "The input 'b' is missing.*'a', 'b'"),
        ({"a": torch.ones(2, 3), "bb": torch.ones(2, 2)}, "Should 'bb' be named"),
        ([torch.ones(2, 3)], r"takes 2 inputs \(a, b\); got 1.*\(2, 3\)"),
        ([torch.ones(2, 3), torch.ones(2, 5)], r"'b' expects the shape \(None, 2\).*\(2, 5\)"),
        ([torch.ones(2, 3), torch.ones(2, 2, 2)], r"'b' expects the shape \(None, 2\).*\(2, 2, 2\)"),
        ([torch.ones(2, 3), None], "'b' is not optional"),
    ],
)
def test_wrong_feed_names_the_input(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        two_inputs()(data)


def test_last_axis_of_one_comes_and_goes() -> None:
    x = keras.Input((1,))
    model = keras.Model(x, x * 2)
    assert model(tensor(torch.arange(3.0))).shape == (3, 1)
    assert model.predict(np.arange(3.0), verbose=0).shape == (3, 1)
    y = keras.Input((3,))
    assert keras.Model(y, y * 2)(tensor(torch.ones(2, 3, 1))).shape == (2, 3)


def test_inputs_are_cast_to_the_declared_dtype() -> None:
    x, n = keras.Input((2,)), keras.Input((2,), dtype="int32")
    model = keras.Model([x, n], [x, n])
    first, second = model([tensor(torch.ones(1, 2, dtype=torch.int64)), tensor(torch.ones(1, 2))])
    assert first.dtype == torch.float32
    assert second.dtype == torch.int32


def test_outputs_come_as_they_were_nested() -> None:
    x = keras.Input((2,))
    outputs = keras.Model(x, {"one": x + 1, "more": [x * 2, (x * 3,)]})(tensor(torch.ones(1, 2)))
    assert outputs["one"].tolist() == [[2, 2]]
    assert outputs["more"][0].tolist() == [[2, 2]]
    assert outputs["more"][1][0].tolist() == [[3, 3]]
    alone = keras.Model(x, [x + 1])(tensor(torch.ones(1, 2)))
    assert isinstance(alone, torch.Tensor)


def test_layer_with_two_outputs() -> None:
    x = keras.Input((3,))
    head, rest = Halves()(x)
    assert (head.shape, rest.shape) == ((None, 1), (None, 2))
    only_rest = keras.Model(x, rest)
    assert only_rest(tensor([[1.0, 2.0, 3.0]])).tolist() == [[2, 3]]
    both = keras.Model(x, rest + head)
    assert both(tensor([[1.0, 2.0, 3.0]])).tolist() == [[3, 4]]


def test_layer_with_a_dict_of_outputs() -> None:
    x = keras.Input((2,))
    named = Named()(x)
    assert named["z"].shape == (None, 2)
    assert named["a"].shape == (None, 1)
    model = keras.Model(x, named["z"] * named["a"])
    assert model(tensor([[3.0, 4.0]])).tolist() == [[12, 15]]


def test_lists_and_keyword_arguments_of_a_call() -> None:
    a, b, c = keras.Input((1,)), keras.Input((1,)), keras.Input((1,))
    model = keras.Model([a, b, c], Blend()([a, b], other=c, factor=10.0))
    assert model([tensor(torch.full((1, 1), value)) for value in (1.0, 2.0, 5.0)]).item() == 35


def test_models_are_layers() -> None:
    x = keras.Input((3,))
    inner = keras.Model(x, {"y": layers.Dense(2)(x), "x": x})
    sequential = keras.Sequential([layers.Dense(4), layers.Dense(1)])
    z = keras.Input((3,))
    inner_outputs = inner(z)
    outer = keras.Model(z, [sequential(inner_outputs["y"]), inner_outputs["x"]])
    assert outer.output_shape == [(None, 1), (None, 3)]
    assert outer.count_params() == inner.count_params() + sequential.count_params()
    data = tensor(torch.randn(2, 3))
    torch.testing.assert_close(outer(data)[0], sequential(inner(data)["y"]))


def test_training_argument_of_a_call_holds_in_every_run() -> None:
    x = keras.Input((100,))
    model = keras.Model(x, [layers.Dropout(0.5)(x, training=True), layers.Dropout(0.5)(x, training=False)])
    always, never = model(tensor(torch.ones(1, 100)))
    assert (always == 0).any()
    assert (never == 1).all()
    model.train()
    assert (model(tensor(torch.ones(1, 100)))[1] == 1).all()
    assert all(layer.training for layer in model.layers[1:])


def test_wrapped_torch_module() -> None:
    x = keras.Input((4,))
    linear = torch.nn.Linear(4, 2)
    model = keras.Model(x, keras.Model(linear)(x))
    data = tensor(torch.randn(3, 4))
    torch.testing.assert_close(model(data), linear(data))
    assert model.count_params() == 10


@pytest.mark.parametrize(
    "use",
    [torch.nn.Linear(4, 2), torch.nn.Sequential(torch.nn.Linear(4, 2)), torch.nn.Conv1d(4, 1, 1), torch.relu],
    ids=["Linear", "Sequential", "Conv1d", "relu"],
)
def test_plain_torch_on_a_symbolic_tensor_says_what_to_type(use: Any) -> None:
    with pytest.raises(TypeError, match=r"Model\(module\)\(x\)"):
        use(keras.Input((4,)))


def test_torch_method_of_a_symbolic_tensor_says_what_to_type() -> None:
    with pytest.raises(AttributeError, match=r"has no `dim`.*Model\(module\)\(x\)"):
        torch.nn.BatchNorm1d(4)(keras.Input((4,)))
    assert not hasattr(keras.Input((4,)), "nonsense")


def test_arithmetic() -> None:
    x = keras.Input((2,))
    model = keras.Model(x, [1 - x, 8 / x, (x**2) @ np.ones((2, 1), "float32"), abs(-x), x[:, 0], 2 + x, 3 * x])
    results = [part.tolist() for part in model(tensor([[1.0, 2.0]]))]
    assert results == [[[0, -1]], [[8, 4]], [[5]], [[1, 2]], [1], [[3, 4]], [[3, 6]]]
    assert [layer.name for layer in model.layers] == [x.name]


def test_model_between_tensors_in_the_middle() -> None:
    x = keras.Input((3,))
    hidden = layers.Dense(4, name="hidden")(x)
    model = keras.Model(x, layers.Dense(2, name="end")(hidden))
    features = keras.Model(model.input, model.get_layer("hidden").output)
    head = keras.Model(hidden, model.output)
    data = tensor(torch.randn(2, 3))
    torch.testing.assert_close(head(features(data)), model(data))
    assert [layer.name for layer in features.layers] == [x.name, "hidden"]
    assert features.get_layer("hidden") is model.get_layer("hidden")
    assert head.input_shape == (None, 4)


def test_part_of_a_sequential_model() -> None:
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), torch.nn.Tanh(), layers.Dense(2)])
    features = keras.Model(inputs=model.inputs, outputs=model.layers[-1].input)
    data = tensor(torch.randn(2, 3))
    torch.testing.assert_close(features(data), torch.tanh(model.layers[0](data)))


def test_missing_input_is_named() -> None:
    a, b = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    outputs = layers.Dense(1)(a + b)
    with pytest.raises(ValueError, match=r"needs the input 'right' of shape \(None, 3\).*'left'"):
        keras.Model(a, outputs)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda x: keras.Model([x, x], x * 2), ValueError, "same tensor twice"),
        (lambda x: keras.Model(x, [x, 3]), ValueError, "`outputs` of a functional model"),
        (lambda x: keras.Model(x, 3), TypeError, "outputs=3"),
        (lambda x: keras.Model([x, keras.Input((2,), name="x")], x), ValueError, "called 'x'"),
        (
            lambda x: keras.Model(x, layers.Dense(1, name="twin")(layers.Dense(1, name="twin")(x))),
            ValueError,
            "more than one called 'twin'",
        ),
    ],
)
def test_wrong_models_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(keras.Input((2,), name="x"))


def test_optional_input() -> None:
    x, extra = keras.Input((2,)), keras.Input((2,), name="extra", optional=True)

    class AddIfThere(layers.Layer):
        def call(self, inputs: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
            return inputs if other is None else inputs + other

    model = keras.Model([x, extra], AddIfThere()(x, extra))
    assert model([tensor(torch.ones(1, 2)), None]).tolist() == [[1, 1]]
    assert model([tensor(torch.ones(1, 2)), tensor(torch.ones(1, 2))]).tolist() == [[2, 2]]


@pytest.mark.parametrize("name", ["output", "input", "loss", "optimizer", "training", "a.b", "module"])
def test_layers_may_be_called_like_attributes_of_the_model(name: str) -> None:
    x = keras.Input((2,))
    model = keras.Model(x, layers.Dense(1, name=name)(x))
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert model.output_names == [name]
    assert model.get_layer(name).name == name
    assert len(model.state_dict()) == 2


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_compute_the_same_and_share_nothing(again: Any) -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    shared = layers.Dense(2)
    first, second = shared(a), shared(b)
    model = keras.Model({"a": a, "b": b}, {"sum": first + second, "tail": [second[:, :1]]})
    other = again(model)
    data = {"a": tensor(torch.randn(2, 3)), "b": tensor(torch.randn(2, 3))}
    torch.testing.assert_close(other(data), model(data))
    assert other.output_shape == model.output_shape
    with torch.no_grad():
        other.get_layer(shared.name).kernel.zero_()
    assert torch.count_nonzero(other(data)["sum"]) == 0
    assert torch.count_nonzero(model(data)["sum"]) > 0
    part = keras.Model(other.inputs, other.outputs[0])
    assert torch.count_nonzero(part(data)) == 0


def test_deep_models_are_no_trouble() -> None:
    x = y = keras.Input((2,))
    for _ in range(400):
        y = layers.Activation("linear")(y)
    model = copy.deepcopy(keras.Model(x, y))
    assert model(tensor(torch.ones(1, 2))).tolist() == [[1, 1]]
    assert len(pickle.loads(pickle.dumps(model)).layers) == 401


def test_copy_of_a_layer_leaves_the_graph_behind() -> None:
    x = keras.Input((2,))
    first, second = layers.Dense(3), layers.Dense(1)
    second(first(x))
    other = copy.deepcopy(second)
    with pytest.raises(AttributeError, match="no symbolic output"):
        _ = other.output
    torch.testing.assert_close(other.kernel, second.kernel)


def test_fit_of_several_outputs_names_them() -> None:
    x = keras.Input((3,))
    hidden = layers.Dense(4)(x)
    model = keras.Model(x, [layers.Dense(1, name="left")(hidden), layers.Dense(1, name="right")(hidden)])
    model.compile("sgd", ["mse", "mae"])
    data = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    history = model.fit(data, [data[:, :1], data[:, 1:2]], epochs=2, verbose=0)
    assert set(history.history) == {"loss", "left_loss", "right_loss"}
    assert history.history["loss"][1] < history.history["loss"][0]


def test_weights_load_into_the_same_architecture() -> None:
    one, two = two_inputs(), two_inputs()
    one.get_layer("d").bias.data.fill_(7)
    two.load_state_dict(one.state_dict())
    data = [tensor(torch.ones(1, 3)), tensor(torch.zeros(1, 2))]
    assert two(data).tolist() == [[10, 10]]
    assert two.to("cpu") is two


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_floats_are_cast_to_the_type_that_an_input_is_told(kind: str) -> None:
    x = keras.Input((2,), dtype=kind)
    result = keras.Model(x, x * 2)(np.ones((1, 2), "float32"))
    assert str(result.dtype) == f"torch.{kind}"


def test_outputs_in_a_named_tuple_keep_their_names() -> None:
    pair = namedtuple("pair", ["one", "two"])
    inputs = keras.Input((2,))
    model = keras.Model(inputs, pair(layers.Dense(1)(inputs), layers.Dense(3)(inputs)))
    outputs = model(tensor(np.zeros((4, 2), "float32")))
    assert type(outputs) is pair and outputs.two.shape == (4, 3)
