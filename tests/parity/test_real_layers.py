"""Layers of the real Keras as parts of a model of oncue are refused, and what the message says to do works."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import oncue


def real(keras: ModuleType) -> Any:
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    )


class Holder(oncue.Model):
    def __init__(self, *parts: Any) -> None:
        super().__init__()
        self.parts = list(parts)
        self._track_containers()


@pytest.mark.parametrize(
    "hold",
    [
        lambda part: oncue.Model(torch.nn.Sequential(part)),
        lambda part: oncue.Model(torch.nn.Sequential(torch.nn.Linear(3, 3), part)),
        lambda part: oncue.Sequential([oncue.layers.Input((3,)), part]),
        Holder,
        lambda part: setattr(oncue.layers.Dense(2), "inner", part),
    ],
    ids=["module", "inside", "sequential", "list", "attribute"],
)
def test_a_layer_of_the_real_keras_is_refused(keras: ModuleType, hold: Callable[[Any], Any]) -> None:
    for part in (real(keras), real(keras).layers[0]):
        with pytest.raises(TypeError, match=f"{part.name!r}, a {type(part).__name__} of the real Keras"):
            hold(part)


def test_a_single_layer_is_refused_and_a_whole_model_is_the_way_out(keras: ModuleType) -> None:
    with pytest.raises(TypeError, match=r"of the real Keras, can't be a part.*oncue\.Model\(keras\.Sequential"):
        oncue.Model(keras.layers.Dense(1))
    model = oncue.Model(keras.Sequential([keras.layers.Dense(1)]))
    model.compile("sgd", "mse")
    assert model.fit(np.ones((8, 3), "float32"), np.ones((8, 1), "float32"), verbose=0).history["loss"]
