"""Files of one form are laid out once, and each holds what was saved."""

from __future__ import annotations

import io
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from oncue.saving import hdf5_file
from oncue.saving.hdf5_file import hdf5_pieces
from oncue.saving.tree import Stored, Tree


def tree(value: float = 1.0, size: int = 3, dtype: torch.dtype = torch.float32, **attributes: Any) -> Tree:
    made = Tree()
    made.attrs.update({"name": "model", "weights": [b"small", b"large"], **attributes})
    group = made.create_group("layers")
    group["small"] = Stored(torch.full((2, size), value).to(dtype), (1, 0))
    group["none"] = Stored(torch.ones(0, 4))
    group["count"] = Stored(torch.tensor(int(value)))
    group["large"] = Stored(torch.full((40, 50), value))
    return made


def content(one: Tree) -> bytes:
    return b"".join(hdf5_pieces(one))


def of_a_fresh_process(one: Tree, monkeypatch: pytest.MonkeyPatch) -> bytes:
    with monkeypatch.context() as patch:
        patch.setattr(hdf5_file, "_known", {})
        return content(one)


FORMS: list[dict[str, Any]] = [
    {},
    {"value": 2.0},
    {"size": 4},
    {"dtype": torch.float16},
    {"dtype": torch.bool},
    {"name": "other"},
    {"name": b"model"},
    {"weights": [b"small", b"LARGE"]},
    {"epoch": 3},
    {"epoch": 3.0},
    {"epoch": np.arange(3)},
]


def test_every_file_is_that_of_a_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for form in [*FORMS, *reversed(FORMS)]:
        assert content(tree(**form)) == of_a_fresh_process(tree(**form), monkeypatch), form


def test_what_is_saved_is_what_is_read() -> None:
    content(tree(1.0))
    with h5py.File(io.BytesIO(content(tree(2.0)))) as file:
        layers: Any = file["layers"]
        assert (layers["small"][()] == 2.0).all() and layers["small"].shape == (3, 2)
        assert (layers["large"][()] == 2.0).all() and layers["count"][()] == 2 and layers["none"].shape == (0, 4)
        assert file.attrs["name"] == "model"


def test_a_second_file_of_a_form_is_not_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    content(tree(1.0))
    monkeypatch.setattr(h5py, "File", None)
    assert content(tree(3.0))


def test_few_forms_are_remembered() -> None:
    for size in range(1, 20):
        content(tree(size=size))
    assert len(hdf5_file._known) <= 4
