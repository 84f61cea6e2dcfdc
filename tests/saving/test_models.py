"""Whole models in `.keras` and `.h5` files: what is loaded is what was saved, and training continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import samples
from oncue import layers

EXTENSIONS = ["keras", "h5", "hdf5"]


def small(**compiled: Any) -> Any:
    model = keras.Sequential([layers.Input((4,)), layers.Dense(3, activation="tanh"), layers.Dense(1)])
    if compiled:
        model.compile(**compiled)
        model.fit(samples(4), samples(1), batch_size=4, epochs=2, verbose=0, shuffle=False)
    return model


def again(model: Any, path: Path, **options: Any) -> Any:
    model.save(path)
    return keras.models.load_model(path, **options)


def same(one: Any, other: Any, x: Any) -> None:
    np.testing.assert_array_equal(one.predict(x, verbose=0), other.predict(x, verbose=0))


LAYERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "Activation": (lambda: layers.Activation("relu"), (4,)),
    "AveragePooling1D": (lambda: layers.AveragePooling1D(2), (6, 2)),
    "AveragePooling2D": (lambda: layers.AveragePooling2D(2), (6, 6, 2)),
    "BatchNormalization": (lambda: layers.BatchNormalization(), (4,)),
    "Bidirectional": (lambda: layers.Bidirectional(layers.GRU(2)), (3, 2)),
    "Conv1D": (lambda: layers.Conv1D(2, 3), (6, 2)),
    "Conv2D": (lambda: layers.Conv2D(2, 3, groups=2), (6, 6, 2)),
    "Dense": (lambda: layers.Dense(3, kernel_regularizer=keras.regularizers.L1L2(0.1, 0.2)), (4,)),
    "Dropout": (lambda: layers.Dropout(0.5, seed=1), (4,)),
    "ELU": (lambda: layers.ELU(0.5), (4,)),
    "Embedding": (lambda: layers.Embedding(9, 2), (4,)),
    "Flatten": (lambda: layers.Flatten(), (3, 2)),
    "GRU": (lambda: layers.GRU(2, reset_after=False), (3, 2)),
    "GaussianNoise": (lambda: layers.GaussianNoise(0.5), (4,)),
    "GlobalAveragePooling1D": (lambda: layers.GlobalAveragePooling1D(), (3, 2)),
    "GlobalAveragePooling2D": (lambda: layers.GlobalAveragePooling2D(keepdims=True), (3, 3, 2)),
    "GlobalMaxPooling1D": (lambda: layers.GlobalMaxPooling1D(), (3, 2)),
    "GlobalMaxPooling2D": (lambda: layers.GlobalMaxPooling2D(), (3, 3, 2)),
    "LSTM": (lambda: layers.LSTM(2, return_sequences=True, unit_forget_bias=False), (3, 2)),
    "LayerNormalization": (lambda: layers.LayerNormalization(axis=[1, 2]), (3, 2)),
    "LeakyReLU": (lambda: layers.LeakyReLU(0.1), (4,)),
    "Masking": (lambda: layers.Masking(1.0), (3, 2)),
    "MaxPooling1D": (lambda: layers.MaxPooling1D(2), (6, 2)),
    "MaxPooling2D": (lambda: layers.MaxPooling2D((2, 1), padding="same"), (6, 6, 2)),
    "Normalization": (lambda: layers.Normalization(mean=[1.0, 2.0], variance=[3.0, 4.0]), (2,)),
    "PReLU": (lambda: layers.PReLU(shared_axes=[1]), (3, 2)),
    "Permute": (lambda: layers.Permute((2, 1)), (3, 2)),
    "RNN": (lambda: layers.RNN(layers.GRUCell(2)), (3, 2)),
    "ReLU": (lambda: layers.ReLU(max_value=1.0), (4,)),
    "RepeatVector": (lambda: layers.RepeatVector(2), (4,)),
    "Rescaling": (lambda: layers.Rescaling(2.0, 1.0), (4,)),
    "Reshape": (lambda: layers.Reshape((2, -1)), (4,)),
    "SimpleRNN": (lambda: layers.SimpleRNN(2), (3, 2)),
    "Softmax": (lambda: layers.Softmax(), (4,)),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Conv1D(2, 2)), (3, 4, 2)),
    "ZeroPadding1D": (lambda: layers.ZeroPadding1D(1), (3, 2)),
    "ZeroPadding2D": (lambda: layers.ZeroPadding2D(1), (3, 3, 2)),
}
MERGES = ["Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"]


def test_the_table_has_every_layer() -> None:
    from oncue.layers import _HOME

    classes = {name for name in _HOME if name[0].isupper() and not name.endswith("Cell")}
    assert classes - {"Layer", "Input", "InputLayer", "InputSpec", *MERGES} == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_comes_back(name: str, tmp_path: Path) -> None:
    make, shape = LAYERS[name]
    model = keras.Sequential([layers.Input(shape, dtype="int32" if name == "Embedding" else None), make()])
    x = np.abs(samples(*shape)).round().astype("int32") if name == "Embedding" else samples(*shape)
    for extension in ("keras", "h5"):
        loaded = again(model, tmp_path / f"m.{extension}")
        same(model, loaded, x)
        assert loaded.get_config() == model.get_config()


@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_merging_layers_come_back(extension: str, tmp_path: Path) -> None:
    x, y = layers.Input((3,), name="x"), layers.Input((3,), name="y")
    joined = [getattr(layers, name)()([x, y]) for name in MERGES]
    model = keras.Model([x, y], [*joined, layers.Dense(2)(joined[2])])
    loaded = again(model, tmp_path / f"m.{extension}")
    for one, other in zip(*(m.predict([samples(3), samples(3) + 1], verbose=0) for m in (model, loaded)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_training_continues(extension: str, tmp_path: Path) -> None:
    model = small(optimizer=keras.optimizers.Adam(0.02), loss="mse", metrics=["mae"])
    loaded = again(model, tmp_path / f"m.{extension}")
    assert loaded.optimizer.learning_rate == 0.02
    assert loaded.optimizer.iterations == 4
    data = {"x": samples(4), "y": samples(1), "batch_size": 4, "epochs": 2, "verbose": 0, "shuffle": False}
    assert loaded.fit(**data).history == model.fit(**data).history


def test_arguments_of_compile_are_restored(tmp_path: Path) -> None:
    model = small(
        optimizer=keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10), momentum=0.5, clipnorm=1.0),
        loss=keras.losses.Huber(delta=0.5),
        metrics=["mae", keras.metrics.MeanSquaredError(name="q")],
        weighted_metrics=[keras.metrics.RootMeanSquaredError()],
        steps_per_execution=2,
    )
    loaded = again(model, tmp_path / "m.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert loaded.loss.get_config() == model.loss.get_config()
    assert loaded.steps_per_execution == 2
    data = samples(4), samples(1)
    assert loaded.evaluate(*data, verbose=0, return_dict=True) == model.evaluate(*data, verbose=0, return_dict=True)


def test_several_outputs_are_compiled_again(tmp_path: Path) -> None:
    x = layers.Input((4,))
    model = keras.Model(x, {"a": layers.Dense(1, name="a")(x), "b": layers.Dense(2, name="b")(x)})
    model.compile("sgd", loss={"a": "mse", "b": "mae"}, loss_weights={"a": 0.3, "b": 0.7}, metrics={"b": ["mse"]})
    data = samples(4), {"a": samples(1), "b": samples(2)}
    for extension in ("keras", "h5"):
        loaded = again(model, tmp_path / f"m.{extension}")
        assert loaded.evaluate(*data, verbose=0, return_dict=True) == model.evaluate(*data, verbose=0, return_dict=True)


def test_without_compiling(tmp_path: Path) -> None:
    model = small(optimizer="adam", loss="mse")
    for extension in ("keras", "h5"):
        assert not again(model, tmp_path / f"m.{extension}", compile=False).compiled
        model.save(tmp_path / f"n.{extension}", include_optimizer=False)
        assert not keras.models.load_model(tmp_path / f"n.{extension}").compiled
        assert not again(small(), tmp_path / f"o.{extension}").compiled


def test_weights_that_are_not_trained_stay_so(tmp_path: Path) -> None:
    model = small()
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    model.fit(samples(4), samples(1), verbose=0)
    for extension in ("keras", "h5"):
        loaded = again(model, tmp_path / f"m.{extension}")
        assert [layer.trainable for layer in loaded.layers] == [False, True]
        assert len(loaded.trainable_weights) == 2
        assert loaded.optimizer.iterations == 1


def halve(x: torch.Tensor) -> torch.Tensor:
    return x / 2


def error(y_true: torch.Tensor, y_pred: torch.Tensor) -> torch.Tensor:
    return ((y_true - y_pred) ** 4).mean(-1)


class Scale(layers.Layer):
    def __init__(self, factor: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def build(self, input_shape: Any) -> None:
        self.shift = self.add_weight((input_shape[-1],), "ones", name="shift")

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * self.factor + self.shift

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_classes_and_functions_of_your_own(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"m.{extension}"
    model = keras.Sequential([layers.Input((4,)), Scale(3.0), layers.Dense(1, activation=halve)])
    model.compile("adam", loss=error, metrics=[error])
    model.fit(samples(4), samples(1), verbose=0)
    model.save(path)
    mine = {"Scale": Scale, "halve": halve, "error": error}
    for loaded in (
        keras.models.load_model(path, custom_objects=mine),
        _inside(keras.saving.custom_object_scope(mine), path),
    ):
        same(model, loaded, samples(4))
        assert loaded.loss is error
    with pytest.raises(ValueError, match=r"Unknown layer: 'Scale'"):
        keras.models.load_model(path)


def _inside(scope: Any, path: Path) -> Any:
    with scope:
        return keras.models.load_model(path)


class Net(keras.Model):
    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.blocks = [layers.Dense(width), layers.Dense(width)]
        self.head = layers.Dense(1)
        self.width = width

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            inputs = block(inputs)
        return self.head(inputs)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "width": self.width}


def test_a_model_class_of_your_own_with_a_configuration(tmp_path: Path) -> None:
    model = Net(3)
    model.compile("adam", "mse")
    model.fit(samples(4), samples(1), verbose=0)
    loaded = again(model, tmp_path / "m.keras", custom_objects={"Net": Net})
    same(model, loaded, samples(4))
    assert loaded.optimizer.iterations == 1


class Bare(keras.Model):
    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(inputs)


@pytest.mark.parametrize("extension", ["keras", "h5"])
def test_a_model_without_configuration_is_refused_with_the_formats_that_hold_it(extension: str, tmp_path: Path) -> None:
    torch_inside = keras.Sequential([layers.Input((4,)), torch.nn.Linear(4, 2)])
    nested = keras.Sequential([layers.Input((4,)), keras.Sequential([layers.Input((4,)), torch.nn.Linear(4, 2)])])
    subclassed = Bare(layers.Dense(1))
    subclassed.predict(samples(4), verbose=0)
    for model in (keras.Model(torch.nn.Linear(4, 1)), torch_inside, nested, subclassed):
        with pytest.raises(ValueError, match=r"\.safetensors.*\.weights\.h5"):
            model.save(tmp_path / f"m.{extension}")
    assert list(tmp_path.iterdir()) == []


def test_arguments_of_compile_that_cannot_be_saved_are_omitted_with_a_warning(tmp_path: Path) -> None:
    model = small()
    model.compile(lambda parameters: torch.optim.SGD(parameters, lr=0.1), torch.nn.MSELoss())
    model.fit(samples(4), samples(1), verbose=0)
    with pytest.warns(UserWarning, match="without the arguments of `compile`"):
        loaded = again(model, tmp_path / "m.keras")
    assert not loaded.compiled
    same(model, loaded, samples(4))


def test_a_layer_in_two_models_stays_one_layer(tmp_path: Path) -> None:
    shared = layers.Dense(4, name="shared")
    x, y = layers.Input((4,)), layers.Input((4,))
    inner = keras.Model(x, layers.Dense(4)(shared(x)), name="inner")
    model = keras.Model(y, shared(inner(y)))
    for extension in ("keras", "h5"):
        loaded = again(model, tmp_path / f"m.{extension}")
        assert loaded.get_layer("shared") is loaded.get_layer("inner").get_layer("shared")
        same(model, loaded, samples(4))


def test_json(tmp_path: Path) -> None:
    model = small()
    made = keras.models.model_from_json(model.to_json(indent=2))
    assert made.get_config() == model.get_config()
    assert not np.array_equal(made.get_weights()[0], model.get_weights()[0])


def test_a_model_that_was_never_built_is_only_its_architecture(tmp_path: Path) -> None:
    model = keras.Sequential([layers.Dense(3)])
    loaded = again(model, tmp_path / "m.keras")
    assert not loaded.built
    assert loaded.predict(samples(4), verbose=0).shape == (8, 3)


def test_extensions(tmp_path: Path) -> None:
    model = small()
    for name in ("model", "model.pt", "model.ckpt", "model.safetensors"):
        with pytest.raises(ValueError, match=r"\.keras .*\.h5 "):
            model.save(tmp_path / name)
        with pytest.raises(ValueError, match=r"\.keras .*\.h5 "):
            keras.models.load_model(tmp_path / name)
    with pytest.raises(ValueError, match="`filepath` must be a path"):
        model.save(3)
    with pytest.raises(ValueError, match="no argument `signatures`"):
        model.save(tmp_path / "m.keras", signatures=None)
    with pytest.raises(ValueError, match="zipped=False"):
        model.save(tmp_path / "m.keras", zipped=False)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for extension in ("keras", "h5"):
        with pytest.raises(FileNotFoundError, match="There is no file"):
            keras.models.load_model(tmp_path / f"m.{extension}")
        with pytest.raises(ValueError, match="There is no file"):
            keras.models.load_model(tmp_path / f"m.{extension}")


def test_overwriting_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "folder" / "m.keras"
    one, other = small(), small()
    one.save(path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        other.save(path, overwrite=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, expected in (("n", one), ("y", other)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        other.save(path, overwrite=False)
        same(keras.models.load_model(path), expected, samples(4))
    one.save(path)
    same(keras.models.load_model(path), one, samples(4))
    assert [entry.name for entry in path.parent.iterdir()] == ["m.keras"]


def test_the_names_of_the_public_face(tmp_path: Path) -> None:
    model = small()
    keras.saving.save_model(model, tmp_path / "m.keras")
    same(keras.saving.load_model(str(tmp_path / "m.keras"), None, False, True), model, samples(4))
    keras.models.save_model(model, tmp_path / "m.h5")
    keras.saving.save_weights(model, tmp_path / "m.weights.h5")
    keras.saving.load_weights(model, tmp_path / "m.weights.h5")


def test_a_registered_class_is_found_in_an_old_file(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("of_tests")
    class Own(layers.Dense):
        pass

    try:
        model = keras.Sequential([keras.Input((2,)), Own(2)])
        model.save(tmp_path / "model.h5")
        assert type(keras.models.load_model(tmp_path / "model.h5").layers[0]) is Own
    finally:
        del keras.saving.get_custom_objects()["of_tests>Own"]
