"""Targets that can't be right are refused before training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from oncue import losses
from oncue.losses import check_targets

LABELS = np.array([0, 1, 2, 2])
ONE_HOT = np.eye(3)[LABELS]

WRONG: list[tuple[Any, Any, tuple[int | None, ...], str]] = [
    ("sparse_categorical_crossentropy", [0, 1, 3], (None, 3), r"0 to 2 for 3 classes.*from 0 to 3.*4 units"),
    ("sparse_categorical_crossentropy", [-1, 1, 2], (None, 3), r"from -1 to 2.*ignore_class=-1"),
    ("sparse_categorical_crossentropy", [0, 1], (None, 1), r"binary_crossentropy"),
    ("sparse_categorical_crossentropy", [0.5, 1.0], (None, 3), r"whole numbers.*0\.5"),
    ("sparse_categorical_crossentropy", ONE_HOT, (None, 3), r"one-hot.*categorical_crossentropy.*argmax"),
    ("sparse_categorical_crossentropy", np.zeros((4, 2)), (None, 3), r"\('samples',\).*\(4, 2\)"),
    (losses.SparseCategoricalCrossentropy(ignore_class=255), [0, 255, 3], (None, 3), r"from 0 to 3"),
    ("categorical_crossentropy", LABELS, (None, 3), r"sparse_categorical_crossentropy.*to_categorical\(y, 3\)"),
    ("categorical_crossentropy", LABELS[:, None], (None, 3), r"sparse_categorical_crossentropy"),
    ("categorical_crossentropy", ONE_HOT, (None, 4), r"\(4, 3\).*\(None, 4\)"),
    ("categorical_crossentropy", LABELS[:, None], (None, 1), r"binary_crossentropy"),
    ("binary_crossentropy", [[0.0], [2.0]], (None, 1), r"0 to 1.*from 0 to 2"),
    ("binary_crossentropy", [-1.0, 1.0], (None, 1), r"hinge"),
    ("binary_crossentropy", [0.0, float("nan")], (None, 1), r"nan"),
    ("mse", np.zeros((4, 2)), (None, 3), r"\(4, 2\).*\(None, 3\)"),
    ("mae", np.zeros(4), (None, 3), r"\(4,\).*\(None, 3\)"),
    (nn.CrossEntropyLoss(), [0, 3], (None, 3), r"torch.nn.CrossEntropyLoss.*from 0 to 3"),
    (nn.CrossEntropyLoss(), ONE_HOT.astype(int), (None, 3), r"floats"),
    (nn.MSELoss(), np.zeros(4), (None, 3), r"torch.nn.MSELoss"),
    (nn.BCEWithLogitsLoss(), [[3.0]], (None, 1), r"0 to 1"),
]


@pytest.mark.parametrize(("loss", "y_true", "shape", "message"), WRONG)
def test_wrong_targets(loss: Any, y_true: Any, shape: tuple[int | None, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        check_targets(loss, y_true, shape)


REPEATED: list[tuple[Any, Any, tuple[int | None, ...]]] = [
    ("mse", np.zeros((4, 1)), (None, 3)),
    ("mae", np.zeros((4, 3)), (None, 1)),
    ("huber", np.zeros((4, 1, 2)), (None, 5, 2)),
    (losses.KLDivergence(), np.ones(3), (None, 3)),
]


@pytest.mark.parametrize(("loss", "y_true", "shape"), REPEATED)
def test_targets_that_are_repeated(loss: Any, y_true: Any, shape: tuple[int | None, ...]) -> None:
    """Keras goes on with them, as its losses compute with such arrays."""
    told: set[str] = set()
    with pytest.warns(UserWarning) as given:
        for _ in range(2):
            check_targets(loss, y_true, shape, told)
    assert len(given) == 1
    assert all(str(size) in str(given[0].message) for size in (np.shape(y_true), shape))


RIGHT: list[tuple[Any, Any, tuple[int | None, ...]]] = [
    ("sparse_categorical_crossentropy", LABELS, (None, 3)),
    ("sparse_categorical_crossentropy", LABELS[:, None].astype("float32"), (32, 3)),
    ("sparse_categorical_crossentropy", np.zeros((4, 7), int), (None, 7, 3)),
    (losses.SparseCategoricalCrossentropy(ignore_class=255), [0, 255, 2], (None, 3)),
    (losses.SparseCategoricalCrossentropy(axis=1), np.zeros((4, 5, 5), int), (None, 3, 5, 5)),
    ("categorical_crossentropy", ONE_HOT, (None, 3)),
    ("binary_crossentropy", [0, 1, 1], (None, 1)),
    ("binary_crossentropy", [[0.5, 0.2]], (None, 2)),
    ("mse", np.zeros((4, 3)), (32, 3)),
    ("mse", np.zeros(4), (None, 1)),
    ("mse", np.zeros((4, 3)), (None, None)),
    (nn.CrossEntropyLoss(), LABELS, (None, 3)),
    (nn.CrossEntropyLoss(), ONE_HOT, (None, 3)),
    (nn.CrossEntropyLoss(), [0, -100, 2], (None, 3)),
    (nn.CrossEntropyLoss(), np.zeros((4, 5, 5), int), (None, 3, 5, 5)),
    (lambda y_true, y_pred: y_pred, np.zeros((4, 9)), (None, 3)),
    (None, np.zeros(3), (None, 1)),
]


@pytest.mark.parametrize(("loss", "y_true", "shape"), RIGHT)
def test_right_targets(loss: Any, y_true: Any, shape: tuple[int | None, ...]) -> None:
    check_targets(loss, y_true, shape)
    check_targets(loss, torch.as_tensor(np.asarray(y_true)), shape)
