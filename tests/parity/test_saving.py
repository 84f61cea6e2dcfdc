"""Files that cross the border between real Keras and oncue, both ways, in every format and for every layer."""

from __future__ import annotations

import inspect
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest

import oncue
from helpers import normal

Build = Callable[[Any], Any]


def rows(*shape: int) -> Any:
    return normal(6, *shape, seed=3)


def feed_forward(k: Any) -> Any:
    L = k.layers
    return k.Sequential(
        [
            L.Input((6,)),
            L.Rescaling(0.5, offset=0.1),
            L.Normalization(),
            L.Dense(5, activation="relu", kernel_regularizer="l2", kernel_constraint=k.constraints.MaxNorm(2.0)),
            L.Dropout(0.2),
            L.GaussianNoise(0.1),
            L.BatchNormalization(momentum=0.9),
            L.PReLU(),
            L.LayerNormalization(),
            L.LeakyReLU(negative_slope=0.2),
            L.ELU(),
            L.ReLU(max_value=4.0),
            L.Dense(4, use_bias=False, kernel_initializer=k.initializers.RandomNormal(stddev=0.3)),
            L.Activation("tanh"),
            L.RepeatVector(2),
            L.Permute((2, 1)),
            L.Reshape((8,)),
            L.Dense(3),
            L.Softmax(),
        ]
    )


def images(k: Any) -> Any:
    L = k.layers
    return k.Sequential(
        [
            L.Input((8, 8, 2)),
            L.ZeroPadding2D(1),
            L.Conv2D(4, 3, padding="same", activation="relu"),
            L.MaxPooling2D(2),
            L.Conv2D(3, (2, 1), strides=(1, 2), use_bias=False),
            L.AveragePooling2D(2, padding="same"),
            L.BatchNormalization(),
            L.Flatten(),
            L.Dense(3),
        ]
    )


def signals(k: Any) -> Any:
    L = k.layers
    return k.Sequential(
        [
            L.Input((10, 2)),
            L.ZeroPadding1D(1),
            L.Conv1D(3, 3, dilation_rate=2),
            L.MaxPooling1D(2),
            L.Conv1D(4, 2, padding="causal"),
            L.AveragePooling1D(2),
            L.GlobalAveragePooling1D(),
            L.Dense(3),
        ]
    )


def sequences(k: Any) -> Any:
    L = k.layers
    return k.Sequential(
        [
            L.Input((4, 6)),
            L.Masking(),
            L.Bidirectional(L.LSTM(3, return_sequences=True)),
            L.GRU(3, return_sequences=True, dropout=0.1),
            L.GRU(3, return_sequences=True, reset_after=False),
            L.TimeDistributed(L.Dense(2)),
            L.SimpleRNN(3, return_sequences=True, go_backwards=True),
            L.RNN(L.LSTMCell(4), return_sequences=True),
            L.RNN(L.GRUCell(3), return_sequences=True),
            L.RNN(L.SimpleRNNCell(3), return_sequences=True),
            L.Bidirectional(L.SimpleRNN(2), merge_mode="sum"),
            L.Dense(3),
        ]
    )


def words(k: Any) -> Any:
    L = k.layers
    return k.Sequential([L.Input((5,)), L.Embedding(10, 4, mask_zero=True), L.LSTM(3), L.Dense(3)])


def built_later(k: Any) -> Any:
    model = k.Sequential([k.layers.Dense(4, activation="relu"), k.layers.Dense(3)])
    model.build((None, 6))
    return model


def branches(k: Any) -> Any:
    L = k.layers
    a, b = L.Input((6,), name="a"), L.Input((6,), name="b")
    shared = L.Dense(4)
    inner = k.Sequential([L.Input((6,)), L.Dense(4, activation="relu"), L.BatchNormalization()], name="inner")
    x = L.Input((4,))
    block = k.Model(x, L.Multiply()([L.Dense(4)(x), x]), name="block")
    h = L.Add()([shared(a), shared(b)])
    h = L.Concatenate()([h, block(inner(a)), L.Average()([shared(a), inner(b)])])
    return k.Model([a, b], [L.Dense(1, name="o1")(h), L.PReLU(name="o2")(h) * 2.0 + 1.0], name="two_heads")


def grid(k: Any) -> Any:
    L = k.layers
    x = L.Input((6, 6, 2))
    h = L.Conv2D(2, 3)(x)
    top, mean = L.GlobalMaxPooling2D()(h), L.GlobalAveragePooling2D()(h)
    h = L.Maximum()([top, mean])
    h = L.Subtract()([h, L.Minimum()([top, mean])])
    return k.Model(x, L.Dense(3)(h))


def steps(k: Any) -> Any:
    L = k.layers
    x = L.Input((5, 2))
    return k.Model(x, L.Dense(3)(L.GlobalMaxPooling1D()(x)))


MODELS: dict[str, tuple[Build, Any]] = {
    "feed_forward": (feed_forward, rows(6)),
    "images": (images, rows(8, 8, 2)),
    "signals": (signals, rows(10, 2)),
    "sequences": (sequences, rows(4, 6)),
    "words": (words, np.arange(30).reshape(6, 5) % 10),
    "built_later": (built_later, rows(6)),
    "branches": (branches, [rows(6), rows(6) + 1]),
    "grid": (grid, rows(6, 6, 2)),
    "steps": (steps, rows(5, 2)),
}


def test_every_layer_is_in_one_of_them() -> None:
    held: set[type] = set()
    for build, _ in MODELS.values():
        model = build(oncue)
        held |= {type(part) for part in model.modules()} | {type(layer) for layer in model.layers}
    everything = [getattr(oncue.layers, name) for name in oncue.layers.__all__ if not name.startswith("Convolution")]
    public = {value for value in everything if inspect.isclass(value) and issubclass(value, oncue.layers.Layer)}
    assert public - held - {oncue.layers.Layer, oncue.layers.InputLayer} == set()


def fill(model: Any, seed: int = 5) -> Any:
    draw = np.random.default_rng(seed)
    # Positive, so that variances are.
    model.set_weights(
        [
            (
                draw.uniform(0.1, 0.6, np.shape(w)) * (1 if np.ndim(w) == 1 else draw.choice([-1, 1], np.shape(w)))
            ).astype(np.asarray(w).dtype)
            for w in model.get_weights()
        ]
    )
    return model


def predictions(model: Any, x: Any) -> list[Any]:
    found = model.predict(x, verbose=0)
    return found if isinstance(found, list) else [found]


def same(one: Any, other: Any, x: Any) -> None:
    for a, b in zip(predictions(one, x), predictions(other, x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.fixture(params=["keras_to_oncue", "oncue_to_keras"])
def way(request: pytest.FixtureRequest, keras: ModuleType) -> tuple[Any, Any]:
    return (keras, oncue) if request.param == "keras_to_oncue" else (oncue, keras)


@pytest.mark.parametrize("name", MODELS)
def test_every_format(way: tuple[Any, Any], name: str, tmp_path: Path) -> None:
    writer, reader = way
    build, x = MODELS[name]
    model = fill(build(writer))
    model.save_weights(tmp_path / "w.weights.h5")
    loaded = []
    for extension in ("keras", "h5"):
        model.save(tmp_path / f"m.{extension}")
        if extension == "h5" and name == "branches":
            continue  # Keras itself can't read arithmetic between tensors back from this format.
        loaded.append(reader.models.load_model(tmp_path / f"m.{extension}"))
        assert [layer.name for layer in loaded[-1].layers] == [layer.name for layer in model.layers]
        assert [np.shape(w) for w in loaded[-1].get_weights()] == [np.shape(w) for w in model.get_weights()]
        same(model, loaded[-1], x)
    other = loaded[0]
    for file in ("w.weights.h5", "m.keras", "m.h5"):
        fill(other, seed=9)
        other.load_weights(tmp_path / file)
        for one, two in zip(model.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(one, two, err_msg=file)


def test_weights_by_name(way: tuple[Any, Any], tmp_path: Path) -> None:
    writer, reader = way

    def build(k: Any, *names: str) -> Any:
        layers = [k.layers.Dense(3, name=name) for name in names]
        return fill(k.Sequential([k.layers.Input((3,)), *layers]), seed=len(names))

    model, other = build(writer, "a", "b"), build(reader, "b", "new", "a")
    model.save(tmp_path / "named.h5")
    kept = other.get_layer("new").get_weights()
    other.load_weights(tmp_path / "named.h5", by_name=True)
    for name in "ab":
        np.testing.assert_array_equal(other.get_layer(name).get_weights()[0], model.get_layer(name).get_weights()[0])
    np.testing.assert_array_equal(other.get_layer("new").get_weights()[0], kept[0])


def plain(config: Any) -> Any:
    """Leave out ids, what Keras only notes for itself, and digits beyond 32 bits."""
    if isinstance(config, list):
        return [plain(item) for item in config]
    if isinstance(config, float):
        return float(np.float32(config))
    if not isinstance(config, dict):
        return config
    left_out = ("shared_object_id", "build_config", "mask") + (
        () if config.get("compile_config") else ("compile_config",)
    )
    kept = {key: plain(item) for key, item in config.items() if key not in left_out}
    if str(kept.get("module")).startswith("keras.src.backend.torch.optimizers"):
        kept |= {"module": "keras.optimizers", "registered_name": None}
    return kept


@pytest.mark.parametrize("name", ["feed_forward", "sequences", "branches"])
def test_the_configuration_is_the_one_that_keras_writes(keras: ModuleType, name: str, tmp_path: Path) -> None:
    def written(k: Any) -> Any:
        k.backend.clear_session()
        model = MODELS[name][0](k)
        model.compile("adam", "mse", metrics=["mae", k.metrics.MeanSquaredError(name="q")])
        model.save(tmp_path / f"{k.__name__}.keras")
        with zipfile.ZipFile(tmp_path / f"{k.__name__}.keras") as archive:
            assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
            return plain(json.loads(archive.read("config.json")))

    assert written(oncue) == written(keras)


def test_the_weights_lie_where_keras_puts_them(keras: ModuleType, tmp_path: Path) -> None:
    def paths(k: Any) -> Any:
        model = fill(sequences(k))
        model.compile("adam", "mse")
        model.save_weights(tmp_path / f"{k.__name__}.weights.h5")
        found: dict[str, Any] = {}
        with h5py.File(tmp_path / f"{k.__name__}.weights.h5") as file:
            file.visititems(
                lambda name, item: found.update({name: (getattr(item, "shape", 0), getattr(item, "dtype", 0))})
            )
        return found

    assert paths(oncue) == paths(keras)


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda o: o.SGD(0.05, momentum=0.9, nesterov=True),
    "SGD_plain": lambda o: o.SGD(0.05),
    "Adam": lambda o: o.Adam(0.01),
    "Adam_amsgrad": lambda o: o.Adam(0.01, amsgrad=True),
    "AdamW": lambda o: o.AdamW(0.01, weight_decay=0.02),
    "Adamax": lambda o: o.Adamax(0.01),
    "Nadam": lambda o: o.Nadam(0.01),
    "Adagrad": lambda o: o.Adagrad(0.05),
    "Adadelta": lambda o: o.Adadelta(0.5),
    "RMSprop": lambda o: o.RMSprop(0.01, momentum=0.5, centered=True),
    "ema": lambda o: o.Adam(0.01, use_ema=True),
    "accumulation": lambda o: o.SGD(0.05, momentum=0.9, gradient_accumulation_steps=3),
    "schedule": lambda o: o.Adam(o.schedules.ExponentialDecay(0.05, 2, 0.5)),
    "clipped": lambda o: o.Adam(0.02, clipnorm=0.5),
    "loss_scale": lambda o: o.LossScaleOptimizer(o.Adam(0.01), initial_scale=64.0, dynamic_growth_steps=3),
}


def trained(k: Any, optimizer: str) -> tuple[Any, Any, Any]:
    model = fill(
        k.Sequential([k.layers.Input((6, 6, 1)), k.layers.Conv2D(2, 3), k.layers.Flatten(), k.layers.Dense(3)])
    )
    x, y = rows(6, 6, 1), rows(3)
    model.compile(OPTIMIZERS[optimizer](k.optimizers), k.losses.MeanSquaredError(), metrics=["mae"])
    model.fit(x, y, batch_size=3, epochs=2, verbose=0, shuffle=False)
    return model, x, y


def go_on(model: Any, x: Any, y: Any) -> Any:
    return model.fit(x, y, batch_size=3, epochs=2, verbose=0, shuffle=False).history


def assert_same_history(one: dict[str, list[float]], other: dict[str, list[float]]) -> None:
    assert sorted(one) == sorted(other)
    for key, values in one.items():
        np.testing.assert_allclose(values, other[key], rtol=2e-5, err_msg=key)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_continues_on_the_other_side(way: tuple[Any, Any], optimizer: str, tmp_path: Path) -> None:
    writer, reader = way
    model, x, y = trained(writer, optimizer)
    model.save(tmp_path / "m.keras")
    loaded = reader.models.load_model(tmp_path / "m.keras")
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)
    assert type(loaded.optimizer).__name__ == type(model.optimizer).__name__
    theirs, ours = go_on(model, x, y), go_on(loaded, x, y)
    assert_same_history(theirs, ours)


@pytest.mark.parametrize("optimizer", ["Adam", "RMSprop", "Nadam"])
def test_training_continues_from_old_files(keras: ModuleType, optimizer: str, tmp_path: Path) -> None:
    def run(k: Any) -> tuple[Any, Any, Any]:
        model = fill(k.Sequential([k.layers.Input((6,)), k.layers.Dense(3)]))
        model.compile(OPTIMIZERS[optimizer](k.optimizers), "mse", metrics=["mae"])
        model.fit(rows(6), rows(3), batch_size=3, epochs=2, verbose=0, shuffle=False)
        return model, rows(6), rows(3)

    model, x, y = run(keras)
    model.save(tmp_path / "m.h5")
    loaded = oncue.models.load_model(tmp_path / "m.h5")
    assert_same_history(go_on(model, x, y), go_on(loaded, x, y))

    model, x, y = run(oncue)
    model.save(tmp_path / "n.h5")
    # Keras reads it, including loss and optimizer, but can't continue training from any file of this kind.
    other = keras.models.load_model(tmp_path / "n.h5")
    assert int(other.optimizer.iterations) == 4
    np.testing.assert_allclose(other.evaluate(x, y, verbose=0), model.evaluate(x, y, verbose=0), rtol=1e-5)


def test_weights_bring_the_optimizer_along_as_in_keras(way: tuple[Any, Any], tmp_path: Path) -> None:
    writer, reader = way
    model, x, y = trained(writer, "Adam")
    model.save_weights(tmp_path / "m.weights.h5")
    other, _, _ = trained(reader, "Adam")
    other.load_weights(tmp_path / "m.weights.h5")
    assert_same_history(go_on(model, x, y), go_on(other, x, y))

    fresh = reader.models.clone_model(other)
    fresh.compile("adam", "mse")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        fresh.load_weights(tmp_path / "m.weights.h5")


def test_json_crosses_too(way: tuple[Any, Any]) -> None:
    writer, reader = way
    for name in ("feed_forward", "branches"):
        build, x = MODELS[name]
        model = fill(build(writer))
        other = reader.models.model_from_json(model.to_json())
        other.set_weights(model.get_weights())
        same(model, other, x)
