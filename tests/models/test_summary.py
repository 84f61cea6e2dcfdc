"""The table that `summary` prints."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import tensor
from oncue import layers


@pytest.fixture(autouse=True)
def _first_names() -> None:
    keras.backend.clear_session()


def mlp() -> Any:
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )


def text_of(model: Any, **arguments: Any) -> str:
    texts: list[str] = []
    model.summary(print_fn=texts.append, **arguments)
    assert len(texts) == 1
    return texts[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the table's lines that begin a row."""
    lines = [line for line in text.splitlines() if line[:1] in "│┃|"]
    return [[cell.strip() for cell in re.split("[│┃|]", line)[1:-1]] for line in lines]


def test_table_of_a_chain(capsys: pytest.CaptureFixture[str]) -> None:
    mlp().summary()
    text = capsys.readouterr().out
    assert rows(text) == [
        ["Layer (type)", "Output Shape", "Param #"],
        ["dense (Dense)", "(None, 128)", "100,480"],
        ["dropout (Dropout)", "(None, 128)", "0"],
        ["dense_1 (Dense)", "(None, 64)", "8,256"],
        ["dropout_1 (Dropout)", "(None, 64)", "0"],
        ["dense_2 (Dense)", "(None, 10)", "650"],
    ]
    lines = text.splitlines()
    assert lines[0] == 'Model: "sequential"'
    assert lines[-3:] == [
        " Total params: 109,386 (427.29 KB)",
        " Trainable params: 109,386 (427.29 KB)",
        " Non-trainable params: 0 (0.00 B)",
    ]
    assert {len(line) for line in lines[1:-3]} == {76}
    assert "\x1b" not in text


def test_width_of_a_pipe_does_not_hang_on_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mlp().summary()
    before = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    keras.backend.clear_session()
    mlp().summary()
    assert capsys.readouterr().out == before


def test_optimizer_is_counted_once_it_is_built() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    model.compile("adam", "mse")
    assert "Optimizer" not in text_of(model)
    model.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0)
    text = text_of(model)
    # Two moments for each of the 9 weights, the step and the learning rate.
    assert " Optimizer params: 20 (" in text
    assert " Total params: 29 (" in text


def test_frozen_layers() -> None:
    model = mlp()
    model.layers[0].trainable = False
    text = text_of(model, show_trainable=True)
    assert [row[-1] for row in rows(text)[1:]] == ["N", "-", "Y", "-", "Y"]
    assert " Trainable params: 8,906 (34.79 KB)" in text
    assert " Non-trainable params: 100,480 (392.50 KB)" in text


def test_unbuilt_layers() -> None:
    model = keras.Sequential([layers.Dense(3), torch.nn.LazyLinear(2)])
    assert [row[1:] for row in rows(text_of(model))[1:]] == [["?", "0 (unbuilt)"], ["?", "0 (unbuilt)"]]
    model(tensor(torch.ones(1, 4)))
    assert [row[1:] for row in rows(text_of(model))[1:]] == [["(None, 3)", "15"], ["(None, 2)", "8"]]


def test_connections_of_a_graph() -> None:
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(3, name="d")
    total = shared(a) + shared(b)
    model = keras.Model([a, b], [total, total[:, :1]])
    found = rows(text_of(model, line_length=100))
    assert found == [
        ["Layer (type)", "Output Shape", "Param #", "Connected to"],
        ["a (InputLayer)", "(None, 4)", "0", "-"],
        ["b (InputLayer)", "(None, 4)", "0", "-"],
        ["d (Dense)", "(None, 3)", "15", "a[0][0], b[0][0]"],
        ["add (Add)", "(None, 3)", "0", "d[0][0], d[1][0]"],
        ["get_item (GetItem)", "(None, 1)", "0", "add[0][0]"],
    ]


def test_chain_made_of_symbols_has_no_connections() -> None:
    x = keras.Input((4,), name="x")
    text = text_of(keras.Model(x, layers.Dense(3)(x)))
    assert rows(text)[0] == ["Layer (type)", "Output Shape", "Param #"]
    assert rows(text)[1] == ["x (InputLayer)", "(None, 4)", "0"]
    assert 'Model: "functional"' in text


def test_nested_layers() -> None:
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="deep")], name="inner")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="flat"), inner])
    assert [row[0] for row in rows(text_of(model))[1:]] == ["flat (Dense)", "inner (Sequential)"]
    assert rows(text_of(model, expand_nested=True))[1:] == [
        ["flat (Dense)", "(None, 3)", "15"],
        ["inner (Sequential)", "(None, 2)", "8"],
        ["└ deep (Dense)", "(None, 2)", "8"],
    ]


def test_torch_modules() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Sequential(torch.nn.Linear(4, 2)))
    text = text_of(keras.Model(module), expand_nested=True)
    assert rows(text)[1:] == [
        ["0 (Linear)", "?", "16"],
        ["1 (ReLU)", "?", "0"],
        ["2 (Sequential)", "?", "10"],
        ["└ 0 (Linear)", "?", "10"],
    ]
    assert " Total params: 26 (104.00 B)" in text
    assert rows(text_of(keras.Model(torch.nn.Linear(3, 4))))[1:] == [["linear (Linear)", "?", "16"]]
    mixed = keras.Sequential([keras.Input((3,)), torch.nn.Linear(3, 4)])
    assert rows(text_of(mixed))[1][1:] == ["(None, 4)", "16"]


def test_subclass_shows_shapes_once_it_has_run() -> None:
    class Small(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.one = layers.Dense(2, name="one")

        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.one(inputs)

    model = Small()
    assert rows(text_of(model))[1] == ["one (Dense)", "?", "0 (unbuilt)"]
    model(tensor(torch.ones(5, 3)))
    assert rows(text_of(model))[1] == ["one (Dense)", "(None, 2)", "8"]


def test_several_outputs_of_a_layer() -> None:
    class Halves(layers.Layer):
        def call(self, inputs: torch.Tensor) -> list[torch.Tensor]:
            return [inputs[:, :1], inputs[:, 1:]]

    x = keras.Input((3,))
    left, right = Halves(name="halves")(x)
    model = keras.Model(x, [left, right])
    assert rows(text_of(model, line_length=120))[2][1] == "[(None, 1), (None, 2)]"


def test_layer_range() -> None:
    model = mlp()
    assert [row[0] for row in rows(text_of(model, layer_range=("dropout$", "dense_1")))[1:]] == [
        "dropout (Dropout)",
        "dense_1 (Dense)",
    ]
    with pytest.raises(ValueError, match=r"no layer matches 'conv'.*dense, dropout"):
        model.summary(layer_range=("dense", "conv"))
    with pytest.raises(ValueError, match="first and the last layer"):
        model.summary(layer_range=("dense",))


def test_line_length() -> None:
    assert {len(line) for line in text_of(mlp(), line_length=120).splitlines()[1:-3]} == {120}
    with pytest.raises(ValueError, match="`line_length` of 10"):
        mlp().summary(line_length=10)


def test_names_that_look_like_markup_come_out_as_they_are() -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, name="[bold]x")], name="a[b]")
    text = text_of(model)
    assert 'Model: "a[b]"' in text
    assert "[bold]x (Dense)" in text


def test_ascii_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(2)], name="a_name_too_long_for_the_column_that_it_is_in")
    keras.Sequential([keras.Input((3,)), inner]).summary(expand_nested=True)
    stream.flush()
    buffer: Any = stream.buffer
    text = buffer.getvalue().decode("ascii")
    assert "?" not in text
    assert rows(text)[-1] == ["- dense (Dense)", "(None, 2)", "8"]


def test_logged_when_interactive_logging_is_off(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    keras.utils.disable_interactive_logging()
    try:
        with caplog.at_level("INFO", logger="oncue"):
            mlp().summary()
    finally:
        keras.utils.enable_interactive_logging()
    assert capsys.readouterr().out == ""
    assert "Total params: 109,386" in caplog.text
