"""`Model.export`: programs that compute what the model computes, for any number of samples."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import cpu_only, to_numpy
from oncue import layers

pytestmark = cpu_only("a program is exported for the device that it was made on")

X = np.random.default_rng(0).random((5, 6, 6, 2)).astype("float32")


def functional() -> Any:
    inputs = oncue.Input((6, 6, 2))
    x = layers.Dropout(0.5)(layers.BatchNormalization()(layers.Conv2D(3, 3)(inputs)))
    x = layers.GlobalAveragePooling2D()(x)
    return oncue.Model(inputs, {"a": layers.Dense(1)(x), "b": x * 2})


def test_a_program_takes_any_number_of_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = functional()
    model.export(tmp_path / "m.pt2", format="torch")
    assert "m.pt2" in capsys.readouterr().out
    program = torch.export.load(tmp_path / "m.pt2").module()
    for count in (1, 5):
        found, expected = program(torch.from_numpy(X[:count])), model.predict(X[:count], verbose=0)
        for name in expected:
            np.testing.assert_allclose(to_numpy(found[name]), expected[name], atol=1e-6)


def test_several_inputs_and_sizes_that_vary(tmp_path: Path) -> None:
    a, b = oncue.Input((None, 3), name="a"), oncue.Input((2,), name="b")
    model = oncue.Model([a, b], layers.Concatenate()([layers.GlobalMaxPooling1D()(a), b]))
    model.export(tmp_path / "m.pt2", format="torch", verbose=False)
    program = torch.export.load(tmp_path / "m.pt2").module()
    first, second = torch.rand(4, 9, 3), torch.rand(4, 2)
    assert torch.equal(program(first, second), model([first, second]))


def test_a_module_of_torch_and_a_subclass_say_what_they_take(tmp_path: Path) -> None:
    class Own(oncue.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    for model in (oncue.Model(torch.nn.Linear(3, 2)), Own()):
        with pytest.raises(ValueError, match=r"must know the inputs.*input_signature=\[keras\.KerasTensor"):
            model.export(tmp_path / "m.pt2", format="torch")
        model.export(tmp_path / "m.pt2", format="torch", verbose=False, input_signature=[oncue.KerasTensor((None, 3))])
        x = torch.rand(7, 3)
        assert torch.allclose(torch.export.load(tmp_path / "m.pt2").module()(x), model(x), atol=1e-6)


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    model = functional()
    for name in ("tf_saved_model", "litert", "openvino"):
        with pytest.raises(ValueError, match=rf"`format='{name}'` can't be written on torch.*format=\"torch\""):
            model.export(tmp_path / "m", format=name)
    with pytest.raises(ValueError, match=r"can't be written on torch"):
        model.export(tmp_path / "m")
    with pytest.raises(ValueError, match=r"Unknown format: 'touch'. Did you mean 'torch'"):
        model.export(tmp_path / "m.pt2", format="touch")
    with pytest.raises(ValueError, match=r"must end with '\.pt2'"):
        model.export(tmp_path / "m.pt", format="torch")

    class Looks(oncue.layers.Layer):
        def call(self, x: Any) -> Any:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(ValueError, match=r"'looks' can't be written as a program"):
        oncue.Sequential([oncue.Input((2,)), Looks()], name="looks").export(
            tmp_path / "m.pt2", format="torch", verbose=False
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is not None, reason="what ONNX needs is installed")
def test_onnx_names_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"needs onnx.*pip install onnx"):
        functional().export(tmp_path / "m.onnx", format="onnx")
