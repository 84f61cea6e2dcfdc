"""Files that layers keep beside their weights: vocabularies and the like."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import oncue
from oncue import layers


class Words(layers.Layer):
    """A layer that learns words from data."""

    words: tuple[str, ...] = ()

    def call(self, x: Any) -> Any:
        return x * len(self.words)

    def save_assets(self, folder: str) -> None:
        Path(folder, "lists").mkdir()
        Path(folder, "lists", "words.txt").write_text("\n".join(self.words), encoding="utf-8")

    def load_assets(self, folder: str) -> None:
        self.words = tuple(Path(folder, "lists", "words.txt").read_text(encoding="utf-8").split("\n"))


class Around(layers.Layer):
    """A layer around others."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = Words()

    def call(self, x: Any) -> Any:
        return self.inner(x)


def made(*parts: Any) -> Any:
    return oncue.Sequential([oncue.Input((2,)), *parts, layers.Dense(1, kernel_initializer="ones")])


def test_files_of_layers_are_in_the_archive(tmp_path: Path) -> None:
    model = made(Words(name="first"), Around())
    model.layers[0].words, model.layers[1].inner.words = ("one", "größer"), ("a", "b", "c")
    model.save(tmp_path / "m.keras")
    names = zipfile.ZipFile(tmp_path / "m.keras").namelist()
    assert names[3:] == ["assets/layers/words/lists/words.txt", "assets/layers/around/inner/lists/words.txt"]
    again = oncue.models.load_model(tmp_path / "m.keras", {"Words": Words, "Around": Around})
    assert again.layers[0].words == ("one", "größer") and again.layers[1].inner.words == ("a", "b", "c")
    assert again.predict(np.ones((1, 2)), verbose=0).tolist() == [[12.0]]


def test_other_formats_have_no_place_for_them(tmp_path: Path) -> None:
    model = made(Words())
    with pytest.raises(ValueError, match=r"can't be kept in a \.h5 file: .* 'assets/layers/words/lists/words.txt'"):
        model.save(tmp_path / "m.h5")
    model.save_weights(tmp_path / "m.weights.h5")


def test_files_of_no_layer_are_refused(tmp_path: Path) -> None:
    made(Words()).save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras", "a") as archive:
        archive.writestr("assets/layers/other/words.txt", "x")
    with pytest.raises(ValueError, match="'assets/layers/other/words.txt' belongs to no layer that keeps files"):
        oncue.models.load_model(tmp_path / "m.keras", {"Words": Words})


@pytest.mark.parity
def test_layers_of_keras_keep_theirs_and_keras_reads_them(keras: ModuleType, tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("test_assets")
    class Table(keras.layers.Layer):
        words: Any = ""

        def call(self, x: Any) -> Any:
            return x

        def save_assets(self, folder: str) -> None:
            Path(folder, "words.txt").write_text(self.words)

        def load_assets(self, folder: str) -> None:
            self.words = Path(folder, "words.txt").read_text()

    model = made(Table())
    model.layers[0].words = "one two"
    model.save(tmp_path / "m.keras")
    for load in (oncue.models.load_model, keras.models.load_model, oncue.with_keras.load_model):
        again = load(tmp_path / "m.keras", custom_objects={"Table": Table})
        again = getattr(again, "keras_model", again)
        assert again.layers[0].words == "one two", load
