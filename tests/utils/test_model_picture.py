"""`plot_model`: what is in the picture, and by what it is drawn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import oncue as keras
from oncue.utils import model_to_dot, plot_model

LAYERS = keras.layers


@pytest.fixture(autouse=True)
def _names() -> None:
    keras.backend.clear_session()


def branched() -> Any:
    inputs = keras.Input((4,), name="entry")
    one, other = LAYERS.Dense(3, name="left", activation="relu")(inputs), LAYERS.Dense(3, name="right")(inputs)
    return keras.Model(inputs, LAYERS.add([one, other], name="sum"))


def test_layers_and_what_goes_where() -> None:
    boxes = model_to_dot(branched(), show_shapes=True).boxes
    assert [(box.lines, box.sources) for box in boxes] == [
        (["entry (InputLayer)", "(None, 4)"], []),
        (["left (Dense)", "(None, 4) -> (None, 3)"], [0]),
        (["right (Dense)", "(None, 4) -> (None, 3)"], [0]),
        (["sum (Add)", "(None, 3), (None, 3) -> (None, 3)"], [1, 2]),
    ]


def test_what_is_written() -> None:
    model = branched()
    model.get_layer("right").trainable = False
    dot = model_to_dot(model, show_dtype=True, show_layer_activations=True, show_trainable=True, show_layer_names=False)
    assert dot.boxes[1].lines == ["Dense: relu", "float32", "trained"]
    assert dot.boxes[2].lines[-1] == "not trained"


def test_a_shared_layer_is_drawn_at_each_call() -> None:
    shared, inputs = LAYERS.Dense(3, name="shared"), keras.Input((3,))
    model = keras.Model(inputs, shared(shared(inputs)))
    assert [box.sources for box in model_to_dot(model).boxes] == [[], [0], [1]]


def test_a_chain_and_a_model_inside() -> None:
    inner = keras.Sequential([keras.Input((4,)), LAYERS.Dense(3, name="deep")], name="inner")
    model = keras.Sequential([keras.Input((4,)), inner, LAYERS.Dense(1, name="last")])
    boxes = model_to_dot(model, expand_nested=True).boxes
    assert [box.sources for box in boxes][1:] == [[0], [1]]
    assert boxes[1].lines == ["inner (Sequential)", "- deep (Dense)"]


def test_a_class_of_ones_own() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = LAYERS.Dense(2, name="first"), LAYERS.Dense(1, name="second")

        def call(self, x: Any) -> Any:
            return self.second(self.first(x))

    model = Own()
    with pytest.raises(ValueError, match="isn't built"):
        plot_model(model)
    model.build((None, 3))
    assert [box.lines for box in model_to_dot(model).boxes] == [["first (Dense)"], ["second (Dense)"]]


@pytest.mark.parametrize("rankdir", ["TB", "LR"])
def test_drawn_by_matplotlib(rankdir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "model.png"
    assert plot_model(branched(), path, show_shapes=True, rankdir=rankdir, dpi=60) is None
    with Image.open(path) as picture:
        width, height = picture.size
        assert picture.convert("L").getextrema() == (0, 255)
    assert width > 100 and height > 100
    plot_model(branched(), tmp_path / "model.svg")
    assert "left (Dense)" in (tmp_path / "model.svg").read_text() or (tmp_path / "model.svg").stat().st_size > 1000


def test_drawn_by_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\necho "$1"\ncat\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    plot_model(branched(), tmp_path / "model.png")
    drawn = (tmp_path / "model.png").read_text()
    assert drawn.startswith("-Tpng\n") and '1 [label="left (Dense)"];' in drawn and "1 -> 3;" in drawn
    program.write_text("#!/bin/sh\necho wrong >&2\nexit 1\n")
    with pytest.raises(ValueError, match="could not draw the model as 'png': wrong"):
        plot_model(branched(), tmp_path / "model.png")


def test_the_text_alone(tmp_path: Path) -> None:
    plot_model(branched(), tmp_path / "model.dot", rankdir="LR", dpi=None)
    assert "graph [rankdir=LR];" in (tmp_path / "model.dot").read_text()
    assert plot_model(branched(), None) is None


def test_what_cant_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="rankdir"):
        plot_model(branched(), rankdir="UP")
    with pytest.raises(ValueError, match="draws models"):
        plot_model("model")
    with pytest.raises(ValueError, match="layer_range"):
        plot_model(branched(), layer_range=["a", "b"])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImportError, match="apt-get install graphviz"):
        model_to_dot(branched()).create()
