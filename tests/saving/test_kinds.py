"""Numbers of every type in every kind of file: the same bits come back, or the type is refused before a file is touched."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import oncue as keras
from helpers import cpu_only, samples
from oncue import layers
from oncue.callbacks import BackupAndRestore, EarlyStopping, ModelCheckpoint
from oncue.saving import safetensors_file

pytestmark = cpu_only("most of these types are only kept, which is no matter of the device")

PLAIN = (
    "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 float8_e4m3fn "
    "float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
).split()
COMPLEX = ["complex128"]
PACKED = ["int4", "uint2", "bits8", "float4_e2m1fn_x2"]
FILES = ["w.weights.h5", "w.h5", "w.safetensors"]


def values(kind: str) -> torch.Tensor:
    """Numbers whose bits are all different, where that is possible."""
    if kind == "bool":
        return torch.tensor([True, False, True])
    one = getattr(torch, kind)
    start = torch.arange(1, 49, dtype=torch.uint8)
    return start.view(one)


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.contiguous().view(torch.uint8).tolist()


class Net(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(4, 1)
        self.register_buffer("kept", values(kind))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(x)
        return result


def model(kind: str) -> Any:
    made = keras.Model(Net(kind))
    made.compile("sgd", "mse")
    return made


def blank(made: Any) -> None:
    made.module.kept.view(torch.uint8).fill_(0)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", PLAIN + COMPLEX)
def test_the_same_bits_come_back(kind: str, name: str, tmp_path: Path) -> None:
    made, path = model(kind), tmp_path / name
    if kind in COMPLEX and name.endswith(".safetensors"):
        path.write_bytes(b"old")
        with pytest.raises(ValueError, match=r"can't hold 'kept'.*complex128.*weights\.h5"):
            made.save_weights(path)
        assert path.read_bytes() == b"old"
        return
    made.save_weights(path)
    blank(made)
    made.load_weights(path)
    assert bits(made.module.kept) == bits(values(kind))


@pytest.mark.parametrize("kind", ["bool", "uint16", "complex64", "complex128", "float8_e5m2"])
def test_in_an_archive(kind: str, tmp_path: Path) -> None:
    def made() -> Any:
        net = keras.Sequential([layers.Input((4,)), layers.Dense(1)])
        net.layers[0].register_buffer("kept", values(kind))
        return net

    one, path = made(), tmp_path / "m.keras"
    one.save(path)
    other = made()
    other.layers[0].kept.view(torch.uint8).fill_(0)
    other.load_weights(path)
    assert bits(other.layers[0].kept) == bits(values(kind))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", PACKED)
def test_packed_numbers_are_refused_by_name(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=f"kept'.*{kind}"):
        model(kind).save_weights(path)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("kind", PLAIN + COMPLEX)
def test_the_best_weights_are_put_back(kind: str) -> None:
    made = model(kind)
    kept = made.get_weights()
    blank(made)
    made.set_weights(kept)
    assert bits(made.module.kept) == bits(values(kind))


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "uint32", "complex128"])
def test_in_a_run(kind: str, tmp_path: Path) -> None:
    class Cut(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 1:
                raise ConnectionError

    def run(*more: Any) -> Any:
        made = model(kind)
        blank(made) if not more else None
        stop = EarlyStopping("loss", patience=5, restore_best_weights=True)
        saver = ModelCheckpoint(str(tmp_path / "a.weights.h5"), save_weights_only=True, asynchronous=True)
        backup = BackupAndRestore(str(tmp_path / "b"), save_freq=1)
        made.fit(samples(4), samples(1), epochs=2, verbose=0, callbacks=[stop, saver, backup, *more])
        return made

    with pytest.raises(ConnectionError):
        run(Cut())
    assert bits(run().module.kept) == bits(values(kind))


# All or nothing ----------------------------------------------------------------------------------------------------------


def trained() -> Any:
    made = keras.Sequential([layers.Input((4,)), layers.Dense(3), layers.Dense(1)])
    made.compile("adam", "mse")
    made.fit(samples(4), samples(1), epochs=1, verbose=0)
    return made


def state(made: Any) -> list[Any]:
    return [*made.get_weights(), *(variable.tolist() for variable in made.optimizer.variables)]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def rewritten(path: Path, name: str, change: Callable[[Any], Any]) -> None:
    with h5py.File(path, "r+") as file:
        before = file[name][()]
        del file[name]
        after = change(before)
        if after is not None:
            file.create_dataset(name, data=after)


WRONG: dict[str, Callable[[Any], Any]] = {
    "longdouble": lambda a: a.astype(np.longdouble),
    "complex": lambda a: a.astype(complex),
    "shape": lambda a: np.ones((*a.shape, 2), "float32"),
    "too large": lambda a: np.full(a.shape, 1e300),
    "missing": lambda a: None,
}
PLACES = {"w.weights.h5": "layers/dense_1/vars/0", "w.h5": "last/last/kernel", "optimizer": "optimizer/vars/5"}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("wrong", WRONG)
def test_nothing_is_set_if_the_last_does_not_fit(name: str, wrong: str, tmp_path: Path) -> None:
    if name == "optimizer" and wrong == "missing":
        # As in Keras, the state of another optimizer is left out with a warning.
        return
    path = tmp_path / (name if "." in name else "w.weights.h5")
    source, made = trained(), trained()
    source.save_weights(path)
    place = PLACES[name]
    if name == "w.h5":
        layer = source.layers[-1].name
        place = f"{layer}/{source.name}/{layer}/kernel"
    rewritten(path, place, WRONG[wrong])
    before = state(made)
    with pytest.raises(ValueError, match=r"doesn't fit|don't fit|no array|lacks") as told:
        made.load_weights(path)
    assert same(state(made), before)
    assert "kernel" in str(told.value) or "optimizer" in str(told.value) or "weight" in str(told.value)


@pytest.mark.parametrize("name", ["w.weights.h5", "optimizer"])
def test_numbers_in_another_order_of_bytes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "w.weights.h5"
    source, made = trained(), trained()
    source.save_weights(path)
    rewritten(path, PLACES[name], lambda a: a.astype(">f8"))
    made.load_weights(path)
    assert same(state(made), state(source))


def test_a_rate_that_no_optimizer_has(tmp_path: Path) -> None:
    source, made = trained(), trained()
    source.save_weights(tmp_path / "w.weights.h5")
    rewritten(tmp_path / "w.weights.h5", "optimizer/vars/1", lambda a: np.float32("nan"))
    before = state(made)
    with pytest.raises(ValueError, match="learning_rate"):
        made.load_weights(tmp_path / "w.weights.h5")
    assert same(state(made), before)


def test_a_count_beyond_32_bits(tmp_path: Path) -> None:
    source, made = trained(), trained()
    source.optimizer.iterations = 2**31 + 5
    source.save_weights(tmp_path / "w.weights.h5")
    made.load_weights(tmp_path / "w.weights.h5")
    assert made.optimizer.iterations == 2**31 + 5


@pytest.mark.parametrize("kind", ["longdouble", "complex64", "U3"])
def test_set_weights_is_all_or_nothing(kind: str) -> None:
    made = trained()
    before = made.get_weights()
    new = [weight + 1 for weight in before]
    new[2] = new[2].astype(kind)
    with pytest.raises(ValueError, match="kernel"):
        made.set_weights(new)
    assert same(made.get_weights(), before)


def test_tensors_too_large_for_the_model_type(tmp_path: Path) -> None:
    wide, narrow = torch.nn.Linear(2, 1, dtype=torch.float64), torch.nn.Linear(2, 1)
    with torch.no_grad():
        wide.bias.fill_(1e300)
    keras.Model(wide).save_weights(tmp_path / "w.safetensors")
    before = narrow.weight.tolist()
    with pytest.raises(ValueError, match="bias: .*too large"):
        keras.Model(narrow).load_weights(tmp_path / "w.safetensors")
    assert narrow.weight.tolist() == before


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "w.safetensors", safetensors_file.read_tensors
    # Larger than what a file object reads ahead.
    made = keras.Model(torch.nn.Linear(1000, 200))
    made.save_weights(path)

    def cut(file: Any) -> Any:
        os.truncate(path, 5000)
        return read(file)

    monkeypatch.setattr(safetensors_file, "read_tensors", cut)
    with pytest.raises(ValueError, match="not what was written"):
        made.load_weights(path)
