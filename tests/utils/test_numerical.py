"""One-hot rows and norms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from helpers import to_numpy
from oncue.utils.numerical import normalize, to_categorical


@given(labels=st.lists(st.integers(0, 9), min_size=1), more=st.integers(0, 3))
def test_one_hot_rows_lead_back_to_the_labels(labels: list[int], more: int) -> None:
    rows = to_categorical(labels, max(labels) + 1 + more)
    assert rows.shape == (len(labels), max(labels) + 1 + more)
    assert rows.sum(-1).tolist() == [1.0] * len(labels)
    assert rows.argmax(-1).tolist() == labels


@pytest.mark.parametrize(
    ("labels", "shape"),
    [([0, 1, 2], (3, 3)), ([[0], [1]], (2, 2)), ([[0, 1], [1, 0]], (2, 2, 2)), (3, (4,)), ([[[0], [1]]], (1, 2, 2))],
)
def test_the_classes_come_last(labels: Any, shape: tuple[int, ...]) -> None:
    assert to_categorical(labels).shape == shape
    assert to_categorical(labels).dtype == np.float64


def test_tensors_stay_tensors() -> None:
    rows = to_categorical(torch.tensor([[1], [0]]), 3)
    assert torch.equal(rows, torch.tensor([[0.0, 1, 0], [1, 0, 0]]))


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 3, 7], 3, "outside 0 to 2: 3, 7"),
        ([1, 2, 3], 3, "outside 0 to 2: 3.*Shift"),
        ([-1, 1], None, "outside 0 to 1: -1.*Shift"),
        ([0.5, 1.0], None, r"whole class indices; got \[0.5\]"),
        ([float("nan")], 2, "whole class indices"),
        (["cat", "dog"], None, "return_inverse"),
        ([], None, "`x` is empty"),
        ([0], 0, "`num_classes`"),
        ([0], 2.5, "`num_classes`"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_bad_labels_are_named(labels: Any, classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_categorical(labels, classes)


@pytest.mark.parametrize("order", [1, 2, np.inf])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_norms_become_one_and_zero_stays_zero(order: float, axis: int) -> None:
    x = np.array([[3.0, -4.0, 0.0], [1.0, 1.0, 0.0], [0.5, 2.0, 0.0]])
    for got in (normalize(x, axis, order), to_numpy(normalize(torch.from_numpy(x), axis, order))):
        norms = np.linalg.norm(got, order, axis)
        assert np.allclose(norms[norms != 0], 1.0)
        assert np.array_equal(got == 0, x == 0)
