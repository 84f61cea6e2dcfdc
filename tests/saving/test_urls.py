"""Models and weights at URLs: there completely or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import oncue as keras
from oncue import layers

NAMES = ["m.keras", "m.h5", "w.h5", "w.weights.h5", "w.safetensors"]


@pytest.fixture(autouse=True)
def store(memory_store: Any) -> Any:
    return memory_store


def model(value: float) -> Any:
    made = keras.Sequential([layers.Input((4,)), layers.Dense(3, name="a"), layers.Dense(1, name="b")])
    made.compile("adam", "mse")
    made.set_weights([np.full_like(weight, value) for weight in made.get_weights()])
    return made


def save(name: str, made: Any, **options: Any) -> None:
    (made.save if name.startswith("m") else made.save_weights)(f"memory://runs/{name}", **options)


def load(name: str) -> float:
    if name.startswith("m"):
        made = keras.models.load_model(f"memory://runs/{name}")
    else:
        made = model(0.0)
        made.load_weights(f"memory://runs/{name}")
    return float(made.get_weights()[0][0, 0])


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name: str, store: Any) -> None:
    save(name, model(1.0))
    save(name, model(2.0))
    assert load(name) == 2.0 and [path.rsplit("/", 1)[-1] for path in store.find("/")] == [name]
    with pytest.raises(FileExistsError, match="is there already"):
        save(name, model(3.0), overwrite=False)


@pytest.mark.parametrize("step", ["put_file", "mv"])
@pytest.mark.parametrize("name", NAMES)
def test_a_failure_leaves_only_the_old_one(name: str, step: str, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save(name, model(1.0))

    def fails(*arguments: Any, **options: Any) -> NoReturn:
        raise OSError("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, step, fails)
        with pytest.raises(OSError, match="the store is away"):
            save(name, model(2.0))
    assert load(name) == 1.0 and len(store.find("/")) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_checkpoints(asynchronous: bool, store: Any) -> None:
    saver = keras.callbacks.ModelCheckpoint("memory://runs/{epoch}.keras", asynchronous=asynchronous)
    model(1.0).fit(np.ones((4, 4)), np.ones((4, 1)), epochs=2, verbose=0, callbacks=[saver])
    assert store.find("/") == ["/runs/1.keras", "/runs/2.keras"]
    keras.models.load_model("memory://runs/2.keras")


@pytest.mark.parametrize(
    "url",
    ["memory://runs/{epoch}.keras", "memory://runs/{epoch}/m.keras", "memory://m.keras", "memory://{epoch}.keras"],
)
def test_an_unwritable_store_is_found_before_the_first_step(
    url: str, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **options: Any) -> NoReturn:
        raise RuntimeError("no such bucket")

    made = model(1.0)
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fails)
    with pytest.raises(OSError, match=r"memory://.*no such bucket"):
        made.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0, callbacks=[keras.callbacks.ModelCheckpoint(url)])
    saver = keras.callbacks.ModelCheckpoint("nowhere://runs/m.keras")
    with pytest.raises(ValueError, match="can't be reached"):
        made.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0, callbacks=[saver])
    assert made.optimizer.iterations == 0 and not store.find("/")


def test_what_cannot_be_reached() -> None:
    with pytest.raises(ValueError, match="'nowhere://m.keras' can't be reached.*or give the path of a file"):
        model(1.0).save("nowhere://m.keras")
    with pytest.raises(FileNotFoundError):
        keras.models.load_model("memory://runs/missing.keras")


def test_a_file_url(tmp_path: Path) -> None:
    model(1.0).save(f"file://{tmp_path}/m.keras")
    assert [path.name for path in tmp_path.iterdir()] == ["m.keras"]
    keras.models.load_model(tmp_path / "m.keras")
