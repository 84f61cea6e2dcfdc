"""Weights in `.weights.h5`, `.h5` and `.safetensors` files: all that fits or nothing, with errors that say what."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import oncue as keras
from helpers import samples, to_numpy
from oncue import layers

EXTENSIONS = ["weights.h5", "h5", "hdf5", "safetensors"]


def small(width: int = 3, names: tuple[str, str] = ("hidden", "out")) -> Any:
    return keras.Sequential([layers.Input((4,)), layers.Dense(width, name=names[0]), layers.Dense(2, name=names[1])])


def deep() -> Any:
    x = layers.Input((6, 6, 2))
    h = layers.BatchNormalization()(layers.Conv2D(3, 3, activation="relu")(x))
    h = layers.Bidirectional(layers.LSTM(2))(layers.Reshape((16, 3))(h))
    return keras.Model(x, keras.Sequential([layers.Input((4,)), layers.Dense(3), layers.Dense(1)])(h))


def equal(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_round_trip(extension: str, tmp_path: Path) -> None:
    one, other = deep(), deep()
    assert not equal(one, other)
    one.save_weights(tmp_path / f"w.{extension}")
    other.load_weights(str(tmp_path / f"w.{extension}"))
    assert equal(one, other)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_round_trip_of_torch_modules(extension: str, tmp_path: Path) -> None:
    def build() -> Any:
        body = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten())
        return keras.Model(torch.nn.ModuleDict({"body": body, "head": torch.nn.Linear(48, 2)}))

    def mixed() -> Any:
        return keras.Sequential([layers.Input((4,)), torch.nn.Linear(4, 3), torch.nn.Linear(3, 3), layers.Dense(2)])

    for make in (build, mixed):
        one, other = make(), make()
        one.save_weights(tmp_path / f"w.{extension}")
        other.load_weights(tmp_path / f"w.{extension}")
        assert equal(one, other)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_round_trip_of_a_subclass(extension: str, tmp_path: Path) -> None:
    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = [layers.Dense(3), {"inner": layers.Dense(3)}]
            self._last = layers.Dense(1)
            self.measured = keras.metrics.Mean()

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return self._last(self.blocks[1]["inner"](self.blocks[0](inputs)))

    one, other = Net(), Net()
    for model in (one, other):
        model.predict(samples(4), verbose=0)
    one.save_weights(tmp_path / f"w.{extension}")
    other.load_weights(tmp_path / f"w.{extension}")
    assert equal(one, other)
    with pytest.raises(ValueError, match="has none yet"):
        Net().save_weights(tmp_path / f"v.{extension}")
    with pytest.raises(ValueError, match="has none yet"):
        Net().load_weights(tmp_path / f"w.{extension}")


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_other_shapes_are_named_and_nothing_is_loaded(extension: str, tmp_path: Path) -> None:
    small(5).save_weights(tmp_path / f"w.{extension}")
    model = small(3)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"don't fit the model; nothing was loaded") as caught:
        model.load_weights(tmp_path / f"w.{extension}")
    assert "(4, 3)" in str(caught.value) and "(4, 5)" in str(caught.value) and "hidden" in str(caught.value)
    assert "(3, 2)" in str(caught.value) and "(5, 2)" in str(caught.value) and "out" in str(caught.value)
    assert "skip_mismatch=True" in str(caught.value)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_matching_weights_are_loaded_on_request(extension: str, tmp_path: Path) -> None:
    one = keras.Sequential([layers.Input((4,)), layers.Dense(3, name="a"), layers.Dense(7, name="b")])
    other = keras.Sequential([layers.Input((4,)), layers.Dense(3, name="a"), layers.Dense(8, name="b")])
    one.save_weights(tmp_path / f"w.{extension}")
    kept = other.layers[1].get_weights()
    with pytest.warns(UserWarning, match=r"(?s)Not all weights.*\(3, 7\)"):
        other.load_weights(tmp_path / f"w.{extension}", skip_mismatch=True)
    assert equal(one.layers[0], other.layers[0])
    np.testing.assert_array_equal(other.layers[1].get_weights()[0], kept[0])


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_missing_and_unknown_weights_are_named(extension: str, tmp_path: Path) -> None:
    one, two = small(), keras.Sequential([layers.Input((4,)), layers.Dense(3, name="hidden")])
    one.save_weights(tmp_path / f"one.{extension}")
    two.save_weights(tmp_path / f"two.{extension}")
    with pytest.raises(ValueError, match=r"out|dense_1"):
        two.load_weights(tmp_path / f"one.{extension}")
    with pytest.raises(ValueError, match=r"out|dense_1"):
        one.load_weights(tmp_path / f"two.{extension}")


def test_by_name(tmp_path: Path) -> None:
    one, other = small(3, ("a", "b")), small(3, ("new", "b"))
    one.save_weights(tmp_path / "w.h5")
    kept = other.layers[0].get_weights()
    other.load_weights(tmp_path / "w.h5", by_name=True)
    assert equal(one.layers[1], other.layers[1])
    np.testing.assert_array_equal(other.layers[0].get_weights()[0], kept[0])
    with pytest.raises(ValueError, match="`by_name` is only for"):
        other.load_weights(tmp_path / "w.weights.h5", by_name=True)


def test_the_optimizer_comes_along(tmp_path: Path) -> None:
    def trained() -> Any:
        model = keras.Sequential([layers.Input((6, 6, 1)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.03), "mse")
        model.fit(samples(6, 6, 1), samples(1), epochs=2, verbose=0)
        return model

    one, other = trained(), trained()
    one.save_weights(tmp_path / "w.weights.h5")
    for model in (one, other):
        model.load_weights(tmp_path / "w.weights.h5")
    for name, tensors in one.optimizer.slots().items():
        for a, b in zip(tensors, other.optimizer.slots()[name], strict=True):
            assert torch.equal(a, b)
    assert other.optimizer.learning_rate == 0.03
    fresh = keras.models.clone_model(one)
    fresh.compile("adam", "mse")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer 'adam"):
        fresh.load_weights(tmp_path / "w.weights.h5")
    assert equal(fresh, one)
    uncompiled = keras.models.clone_model(one)
    uncompiled.load_weights(tmp_path / "w.weights.h5")
    assert equal(uncompiled, one)


def test_an_optimizer_before_its_first_step(tmp_path: Path) -> None:
    def compiled(optimizer: Any) -> Any:
        model = small()
        model.compile(optimizer, "mse")
        return model

    one, other = compiled(keras.optimizers.SGD(0.25)), compiled(keras.optimizers.SGD(0.5))
    one.optimizer.iterations = 7
    one.save_weights(tmp_path / "w.weights.h5")
    other.load_weights(tmp_path / "w.weights.h5")
    assert (other.optimizer.learning_rate, other.optimizer.iterations) == (0.25, 7)
    assert equal(one, other)
    one, other = (compiled(lambda parameters: torch.optim.SGD(parameters, lr=0.1)) for _ in range(2))
    one.save_weights(tmp_path / "w.weights.h5")
    other.load_weights(tmp_path / "w.weights.h5")
    assert equal(one, other)


def test_an_optimizer_of_the_same_size_and_other_shapes(tmp_path: Path) -> None:
    def trained(optimizer: Any) -> Any:
        model = small()
        model.compile(optimizer, "mse")
        model.fit(samples(4), samples(2), verbose=0)
        return model

    model = trained("sgd")
    model.save_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5", "r+") as file:
        del file["optimizer/vars/1"]
        file["optimizer/vars/1"] = np.zeros((2, 2))
    before = model.get_weights()
    with pytest.raises(ValueError, match="optimizer's state .* nothing was loaded"):
        model.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_kinds_of_numbers(extension: str, tmp_path: Path) -> None:
    def build(dtype: str) -> Any:
        return keras.Sequential([layers.Input((4,), dtype=dtype), layers.Dense(2, dtype=dtype, name="d")])

    wide, narrow, brain = build("float64"), build("float32"), build("bfloat16")
    wide.save_weights(tmp_path / f"w.{extension}")
    narrow.load_weights(tmp_path / f"w.{extension}")
    np.testing.assert_allclose(narrow.get_weights()[0], wide.get_weights()[0], rtol=1e-6)
    brain.save_weights(tmp_path / f"w.{extension}")
    narrow.load_weights(tmp_path / f"w.{extension}")
    assert equal(narrow, brain)


def test_the_bfloat16_that_keras_writes_is_read(tmp_path: Path) -> None:
    model = small()
    model.save_weights(tmp_path / "w.weights.h5")
    exact = torch.tensor([1.5, -2.0, 0.25])
    with h5py.File(tmp_path / "w.weights.h5", "r+") as file:
        group = file["layers/dense/vars"]
        del group["1"]
        halves = to_numpy(exact.bfloat16().view(torch.int16)).view("V2")
        group.create_dataset("1", data=halves).attrs["dtype"] = "bfloat16"
    model.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(model.layers[0].get_weights()[1], to_numpy(exact))


def test_files_of_other_backends_may_hold_random_states(tmp_path: Path) -> None:
    model = small()
    model.save_weights(tmp_path / "w.weights.h5")
    with h5py.File(tmp_path / "w.weights.h5", "r+") as file:
        file["layers/dense/seed_generator/vars/0"] = np.array([1, 2], dtype="uint32")
    model.load_weights(tmp_path / "w.weights.h5")


def test_a_long_list_of_layers(tmp_path: Path) -> None:
    names = [f"{index:03}_{'x' * 230}" for index in range(280)]
    # Keras cuts attributes of more than 64 KiB into pieces.
    model = keras.Sequential([layers.Input((1,)), *(layers.Dense(1, name=name) for name in names)])
    other = keras.Sequential([layers.Input((1,)), *(layers.Dense(1, name=name) for name in names)])
    model.save_weights(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5") as file:
        assert "layer_names0" in file.attrs and "layer_names" not in file.attrs
    other.load_weights(tmp_path / "w.h5")
    assert equal(model, other)


# safetensors -----------------------------------------------------------------------------------------------------


def test_the_names_are_those_of_the_module_itself(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2))
    expected = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    wrapped = [
        module,
        keras.Model(module),
        torch.nn.DataParallel(module),
        torch.compile(module),
        keras.Model(torch.compile(module)),
    ]
    for model in wrapped:
        keras.saving.save_weights(model, tmp_path / "w.safetensors")
        found = load_file(tmp_path / "w.safetensors")
        assert sorted(found) == sorted(expected)
        for name, tensor in found.items():
            assert torch.equal(tensor, expected[name])
        keras.saving.load_weights(model, tmp_path / "w.safetensors")
    inside = torch.nn.Sequential(torch.compile(torch.nn.Linear(4, 2)))
    keras.saving.save_weights(inside, tmp_path / "w.safetensors")
    assert sorted(load_file(tmp_path / "w.safetensors")) == ["0.bias", "0.weight"]


def test_a_file_of_another_library(tmp_path: Path) -> None:
    module = torch.nn.Linear(4, 2)
    save_file({"weight": torch.ones(2, 4), "bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    keras.Model(module).load_weights(tmp_path / "w.safetensors")
    assert torch.equal(module.weight, torch.ones(2, 4))


def test_tied_weights_are_written_once_and_stay_tied(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into = torch.nn.Embedding(5, 3)
            self.out = torch.nn.Linear(3, 5, bias=False)
            self.out.weight = self.into.weight

    one, other = Tied(), Tied()
    keras.saving.save_weights(one, tmp_path / "w.safetensors")
    assert list(load_file(tmp_path / "w.safetensors")) == ["into.weight"]
    keras.saving.load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(one.out.weight, other.out.weight) and other.out.weight is other.into.weight


def test_views_and_empty_tensors(tmp_path: Path) -> None:
    module = torch.nn.Module()
    whole = torch.arange(12.0).reshape(3, 4)
    module.register_buffer("turned", whole.t())
    module.register_buffer("part", whole[1:, ::2])
    module.register_buffer("empty", torch.empty(0, 3))
    module.register_buffer("count", torch.tensor(7))
    module.register_buffer("flags", torch.tensor([True, False]))
    again = copy.deepcopy(module)
    for tensor in again.buffers():
        tensor.zero_()
    keras.saving.save_weights(module, tmp_path / "w.safetensors")
    keras.saving.load_weights(again, tmp_path / "w.safetensors")
    for a, b in zip(module.buffers(), again.buffers(), strict=True):
        assert torch.equal(a, b)


def test_other_types_are_refused(tmp_path: Path) -> None:
    module = torch.nn.Linear(4, 2)
    save_file({"weight": torch.ones(2, 4, dtype=torch.int32), "bias": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"weight: the model's is of the type torch.float32"):
        keras.Model(module).load_weights(tmp_path / "w.safetensors")


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    module = torch.nn.Linear(1, 1)
    tensors = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    save_file(tensors, tmp_path / "w.safetensors", metadata={"oncue_format": "2"})
    with pytest.raises(ValueError, match="its format is '2', and this oncue reads '1'"):
        keras.Model(module).load_weights(tmp_path / "w.safetensors")


def test_extensions(tmp_path: Path) -> None:
    model = small()
    for name in ("w", "w.ckpt", "w.pt", "w.keras"):
        with pytest.raises(ValueError, match=r"\.weights\.h5 .*\.safetensors "):
            model.save_weights(tmp_path / name)
    for name in ("w", "w.ckpt", "w.pt"):
        with pytest.raises(ValueError, match=r"\.weights\.h5 .*\.safetensors "):
            model.load_weights(tmp_path / name)
    with pytest.raises(ValueError, match=r"Wrap it as `Model\(module\)`"):
        keras.saving.save_weights(torch.nn.Linear(1, 1), tmp_path / "w.h5")
    with pytest.raises(FileNotFoundError):
        model.load_weights(tmp_path / "w.h5")
    with pytest.raises(ValueError, match="has no argument `by_names`"):
        model.load_weights(tmp_path / "w.h5", by_names=True)
    with pytest.raises(ValueError, match="must be a model or a torch module"):
        keras.saving.save_weights("model", tmp_path / "w.h5")
