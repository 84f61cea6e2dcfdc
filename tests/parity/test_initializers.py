from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from helpers import to_numpy
from oncue import initializers

CASES: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("Zeros", {}, (3, 4)),
    ("Ones", {}, (3,)),
    ("Constant", {"value": 0.5}, (3, 4)),
    ("Identity", {"gain": 2.0}, (3, 4)),
    ("RandomNormal", {"mean": 1.0, "stddev": 0.3, "seed": 4}, (3, 4)),
    ("RandomUniform", {"minval": -1.0, "maxval": 2.0, "seed": 4}, (3, 4)),
    ("TruncatedNormal", {"stddev": 0.3, "seed": 4}, (30, 4)),
    ("VarianceScaling", {"scale": 2.0, "mode": "fan_out", "distribution": "uniform", "seed": 4}, (3, 4)),
    ("VarianceScaling", {"distribution": "untruncated_normal", "seed": 4}, (2, 2, 3, 4)),
    ("VarianceScaling", {"seed": 4, "input_axes": [0], "output_axes": [1, 2]}, (3, 4, 5)),
    ("GlorotNormal", {"seed": 4}, (3, 4)),
    ("GlorotUniform", {"seed": 4}, (3, 3, 2, 4)),
    ("HeNormal", {"seed": 4}, (3,)),
    ("HeUniform", {"seed": 4}, (3, 4)),
    ("LecunNormal", {"seed": 4}, (3, 4)),
    ("LecunUniform", {"seed": 4}, ()),
    ("Orthogonal", {"gain": 1.5, "seed": 4}, (3, 7)),
    ("Orthogonal", {"seed": 4}, (2, 5, 3)),
]


@pytest.mark.parametrize(("name", "kwargs", "shape"), CASES)
def test_seeded_values_and_configuration(
    keras: ModuleType, name: str, kwargs: dict[str, Any], shape: tuple[int, ...]
) -> None:
    theirs, ours = getattr(keras.initializers, name)(**kwargs), getattr(initializers, name)(**kwargs)
    # Keras draws on the device, which gives other numbers on each kind; ours are those of the CPU everywhere.
    with keras.device("cpu"):
        expected = theirs(shape)
    np.testing.assert_allclose(to_numpy(ours(shape)), to_numpy(expected), atol=1e-6)
    if name != "Identity":  # Keras forgets its gain
        assert initializers.serialize(ours) == keras.initializers.serialize(theirs)
    again = initializers.deserialize(keras.initializers.serialize(getattr(keras.initializers, name)(**kwargs)))
    assert type(again) is type(ours)


@pytest.mark.parametrize("name", sorted({case[0] for case in CASES} - {"Zeros", "Ones"}))
def test_arguments_and_defaults(keras: ModuleType, name: str) -> None:
    theirs = inspect.signature(getattr(keras.initializers, name).__init__).parameters
    ours = inspect.signature(getattr(initializers, name).__init__).parameters
    assert {key: value.default for key, value in ours.items()} == {key: v.default for key, v in theirs.items()}
    assert list(ours) == list(theirs)


def test_all_public_names(keras: ModuleType) -> None:
    public = {name for name in dir(keras.initializers) if not name.startswith("_")}
    assert not public - set(initializers.__all__)
    assert initializers.STFT is keras.initializers.STFT
