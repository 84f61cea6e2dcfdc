"""Models made by the same code under Keras and oncue: names, order of weights, tables, configurations, results."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import oncue
from helpers import to_numpy


def mlp(k: Any) -> Any:
    return k.Sequential(
        [
            k.layers.Input((784,)),
            k.layers.Dense(128, activation="relu"),
            k.layers.Dropout(0.2),
            k.layers.Dense(64, activation="relu"),
            k.layers.Dropout(0.2),
            k.layers.Dense(10, activation="softmax"),
        ]
    )


def with_batch_normalization(k: Any) -> Any:
    x = k.Input((6,), name="x")
    y = k.layers.BatchNormalization()(k.layers.Dense(4)(x))
    return k.Model(x, k.layers.Dense(2)(y), name="normal")


def shared_layer(k: Any) -> Any:
    a, b = k.Input((4,), name="a"), k.Input((4,), name="b")
    dense = k.layers.Dense(3, name="shared")
    first, second = dense(a), dense(b)
    return k.Model([a, b], [first + second, first[:, 0:1] * 2], name="shared_graph")


def branches(k: Any) -> Any:
    x = k.Input((8,), name="x")
    short = k.layers.Dense(4, name="short")(x)
    deep = k.layers.Dense(4, name="deep_2")(k.layers.Dense(5, name="deep_1")(x))
    merged = k.layers.Concatenate()([short, deep])
    return k.Model(
        x, {"out": k.layers.Dense(1, name="head")(merged), "added": k.layers.Add()([short, deep])}, name="br"
    )


def nested(k: Any) -> Any:
    x = k.Input((4,), name="x")
    inner = k.Model(x, k.layers.Dense(3, name="inside")(x), name="inner")
    y = k.Input((4,), name="y")
    tail = k.Sequential([k.layers.Input((3,), name="tail_in"), k.layers.Dense(2, name="last")], name="tail")
    return k.Model(y, [tail(inner(y, training=False))], name="outer")


def nested_sequential(k: Any) -> Any:
    inner = k.Sequential(
        [k.layers.Input((3,), name="in_2"), k.layers.Dense(2), k.layers.BatchNormalization()], name="i"
    )
    return k.Sequential([k.layers.Input((4,), name="in_1"), k.layers.Dense(3), inner, k.layers.Dense(1)], name="o")


MODELS = [mlp, with_batch_normalization, shared_layer, branches, nested, nested_sequential]


@pytest.fixture
def both(keras: ModuleType) -> Callable[[Callable[[Any], Any]], tuple[Any, Any]]:
    """Make a model in both, with fresh names and the same weights."""

    def make(build: Callable[[Any], Any]) -> tuple[Any, Any]:
        keras.utils.clear_session()
        oncue.utils.clear_session()
        theirs, ours = build(keras), build(oncue)
        rng = np.random.default_rng(0)
        weights = [rng.uniform(0.1, 1, size=weight.shape).astype("float32") for weight in theirs.get_weights()]
        theirs.set_weights(weights)
        ours.set_weights(weights)
        return theirs, ours

    return make


def table(model: Any, **arguments: Any) -> str:
    texts: list[str] = []
    model.summary(print_fn=texts.append, **arguments)
    return texts[0]


@pytest.mark.parametrize("build", MODELS)
def test_names_shapes_and_counts(both: Any, build: Any) -> None:
    theirs, ours = both(build)
    assert [layer.name for layer in ours.layers] == [layer.name for layer in theirs.layers]
    assert [weight.name for weight in ours.weights] == [weight.name for weight in theirs.weights]
    assert [tuple(weight.shape) for weight in ours.weights] == [tuple(weight.shape) for weight in theirs.weights]
    assert ours.count_params() == theirs.count_params()
    assert (ours.input_shape, ours.output_shape) == (theirs.input_shape, theirs.output_shape)


@pytest.mark.parametrize("build", MODELS)
def test_results(both: Any, build: Any) -> None:
    theirs, ours = both(build)
    rng = np.random.default_rng(1)
    data = [rng.normal(size=(5, *tensor.shape[1:])).astype("float32") for tensor in theirs.inputs]
    fed: Any = data[0] if len(data) == 1 else data
    expected, found = theirs.predict(fed, verbose=0), ours.predict(fed, verbose=0)
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert sorted(found) == sorted(expected)
        expected, found = ([value[key] for key in sorted(value)] for value in (expected, found))
    several = isinstance(expected, list)
    for one, other in zip(expected if several else [expected], found if several else [found], strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("arguments", [{}, {"expand_nested": True, "show_trainable": True, "line_length": 100}])
def test_tables(both: Any, build: Any, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100" if arguments else "80")
    theirs, ours = both(build)
    assert table(ours, **arguments) == table(theirs, **arguments)


def test_table_with_optimizer(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    theirs, ours = both(mlp)
    for model in (theirs, ours):
        model.layers[0].trainable = False
        model.compile("adam", "mse")
        model.fit(np.ones((2, 784)), np.ones((2, 10)), verbose=0)
    assert table(ours) == table(theirs)


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_configuration_of_a_graph_reads_in_both(both: Any, keras: ModuleType) -> None:
    theirs, ours = both(nested)
    data = np.random.default_rng(2).normal(size=(3, 4)).astype("float32")
    from_ours = keras.Model.from_config(plain(ours.get_config()))
    from_theirs = oncue.Model.from_config(plain(theirs.get_config()))
    for model in (from_ours, from_theirs):
        model.set_weights(theirs.get_weights())
        np.testing.assert_allclose(model.predict(data, verbose=0), theirs.predict(data, verbose=0), rtol=1e-5)


@pytest.mark.parametrize("build", [with_batch_normalization, shared_layer, branches, nested])
def test_configuration_of_calls_is_the_same(both: Any, build: Any) -> None:
    theirs, ours = (plain(model.get_config()) for model in both(build))
    assert sorted(ours) == sorted(theirs)
    for key in ("name", "trainable", "input_layers", "output_layers"):
        assert ours[key] == theirs[key]
    for mine, other in zip(ours["layers"], theirs["layers"], strict=True):
        for key in ("module", "class_name", "registered_name", "name"):
            assert mine[key] == other[key]
        for node, expected in zip(mine["inbound_nodes"], other["inbound_nodes"], strict=True):
            assert node["args"] == expected["args"]
            # Keras also writes the masks that it passed, which are None here.
            assert node["kwargs"] == {name: value for name, value in expected["kwargs"].items() if value is not None}


def test_random_draws_repeat_as_in_keras(keras: ModuleType) -> None:
    for name, arguments in (("normal", {}), ("uniform", {"minval": -1.0, "maxval": 2.0})):
        for seed in (3, 77):
            expected = getattr(keras.random, name)((4, 2), seed=seed, **arguments)
            found = getattr(oncue.random, name)((4, 2), seed=seed, **arguments)
            np.testing.assert_allclose(to_numpy(found), to_numpy(expected), rtol=1e-6)


def test_states_and_masks(keras: ModuleType) -> None:
    def build(k: Any) -> Any:
        x = k.layers.Input((None,), name="words")
        embedded = k.layers.Embedding(10, 4, mask_zero=True, name="embedding")(x)
        sequence, state, _ = k.layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")(embedded)
        return k.Model(x, [k.layers.GRU(2, name="gru")(sequence), state], name="masked")

    theirs, ours = build(keras), build(oncue)
    # Keras writes the mask as a step of the graph.
    read = oncue.Model.from_config(plain(theirs.get_config()))
    data = np.array([[1, 2, 0, 0], [3, 4, 5, 6]])
    for model in (ours, read):
        model.set_weights(theirs.get_weights())
        for expected, found in zip(theirs.predict(data, verbose=0), model.predict(data, verbose=0), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("first", [True, False])
def test_building_runs_no_call_on_real_weights(keras: ModuleType, first: bool) -> None:
    counts = []
    for home in (oncue, keras):

        class Counter(home.layers.Layer):  # type: ignore[misc, name-defined]  # of either
            def build(self, input_shape: Any) -> None:
                self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

            def call(self, inputs: Any) -> Any:
                self.count.assign_add(1.0)
                return inputs * 1.0

        layer = Counter()
        model = home.Sequential([*([home.Input((4,))] if first else []), layer, home.layers.Dense(4)])
        found = [float(layer.get_weights()[0])] if first else []
        model.compile("sgd", "mse")
        x = np.ones((8, 4), "float32")
        model.fit(x, x, batch_size=2, validation_data=(x, x), verbose=0)
        counts.append([*found, float(layer.get_weights()[0])])
    assert counts[0] == counts[1]
