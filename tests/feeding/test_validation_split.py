"""The validation split."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from oncue.feeding.batches import split_validation


@given(samples=st.integers(2, 200), fraction=st.floats(0.001, 0.999))
def test_the_tail_is_held_out(samples: int, fraction: float) -> None:
    x = np.arange(samples)
    at = math.floor(samples * (1.0 - fraction))
    if at in (0, samples):
        with pytest.raises(ValueError, match="validation_split"):
            split_validation(x, validation_split=fraction)
    else:
        train, held_out = split_validation(x, validation_split=fraction)
        assert train[0].tolist() + held_out[0].tolist() == x.tolist()
        assert len(train[0]) == at


def test_parts_are_views() -> None:
    x = {"a": torch.arange(10.0), "b": np.zeros((10, 2))}
    train, held_out = split_validation(x, list(range(10)), validation_split=0.3)
    held_out[0]["a"][0] = -1.0
    held_out[0]["b"][0, 0] = -2.0
    assert x["a"][7] == -1.0
    assert x["b"][7, 0] == -2.0
    assert train[1].tolist() == list(range(7))
    assert train[2] is None


@pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.1, True, "half", float("nan")])
def test_bad_fractions(fraction: Any) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_validation(np.zeros(10), validation_split=fraction)


def test_streams_and_loaders_need_validation_data() -> None:
    for x in (
        (n for n in range(3)),
        torch.utils.data.DataLoader([1, 2]),
        torch.utils.data.TensorDataset(torch.ones(2)),
    ):
        with pytest.raises(ValueError, match="validation_data="):
            split_validation(x, validation_split=0.5)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="same number of samples"):
        split_validation(np.zeros(10), np.zeros(9), validation_split=0.5)
