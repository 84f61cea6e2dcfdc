"""A file that was damaged since it was written is an error that names it, and nothing of it is used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oncue as keras
from helpers import same_arrays
from oncue import layers

NAMES = ["m.keras", "m.h5", "w.h5", "w.weights.h5", "w.safetensors"]


def model(seed: int) -> Any:
    keras.utils.set_random_seed(seed)
    made = keras.Sequential([layers.Input((4,)), layers.Dense(7, name="a"), layers.Dense(1, name="b")])
    made.compile("adam", "mse")
    made.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0)
    return made


def save(name: str, folder: Path) -> tuple[Path, list[Any]]:
    made, path = model(0), folder / name
    if name.startswith("m"):
        made.save(path)
    else:
        made.save_weights(path)
    return path, made.get_weights()


def load(path: Path, into: Any) -> list[Any]:
    if path.name.startswith("m"):
        return keras.models.load_model(path).get_weights()
    into.load_weights(path)
    return into.get_weights()


@pytest.mark.parametrize("name", NAMES)
def test_a_bit_of_a_weight(name: str, tmp_path: Path) -> None:
    path, weights = save(name, tmp_path)
    content, found = path.read_bytes(), 0
    for weight in weights:
        start = content.find(weight.tobytes())
        if start < 0 or weight.size < 2:
            # Zeros are everywhere.
            continue
        found += 1
        for offset in range(0, weight.nbytes, 3):
            damaged = bytearray(content)
            damaged[start + offset] ^= 1 << (offset % 8)
            path.write_bytes(damaged)
            other = model(1)
            before = other.get_weights()
            with pytest.raises(ValueError, match=re.escape(path.name)):
                load(path, other)
            assert same_arrays(other.get_weights(), before)
    assert found


@pytest.mark.parametrize("name", NAMES)
def test_any_byte_anywhere_is_noticed_or_without_meaning(name: str, tmp_path: Path) -> None:
    path, weights = save(name, tmp_path)
    content, other = path.read_bytes(), model(1)
    before, noticed = other.get_weights(), 0
    places = np.random.default_rng(0).choice(len(content), 60, replace=False)
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            assert same_arrays(load(path, other), weights)
            other.set_weights(before)
        except (ValueError, KeyError):
            noticed += 1
            assert same_arrays(other.get_weights(), before)
    assert noticed


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_was_cut(name: str, tmp_path: Path) -> None:
    path, _ = save(name, tmp_path)
    content, other = path.read_bytes(), model(1)
    before = other.get_weights()
    for size in (0, 1, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=re.escape(path.name)):
            load(path, other)
        assert same_arrays(other.get_weights(), before)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_state_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    made = model(0)
    write = made.save if name.startswith("m") else made.save_weights
    contents = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / name)
        contents.append((tmp_path / folder / name).read_bytes())
    if not name.endswith(".keras"):
        # An archive has the time in it.
        assert contents[0] == contents[1]
