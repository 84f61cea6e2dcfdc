"""Layers of the real Keras as parts of modules of torch are refused, and what the message says to do works."""

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


class Block(oncue.layers.Layer):
    def __init__(self, part: Any) -> None:
        super().__init__()
        self.part, self.parts = part, (part,)

    def call(self, x: Any) -> Any:
        return self.parts[0](x)


@pytest.mark.parametrize(
    "hold",
    [
        lambda part: oncue.Model(torch.nn.Sequential(part)),
        lambda part: oncue.Model(torch.nn.Sequential(torch.nn.Linear(3, 3), part)),
    ],
    ids=["module", "inside"],
)
def test_a_layer_of_the_real_keras_is_refused(keras: ModuleType, hold: Callable[[Any], Any]) -> None:
    for part in (real(keras), real(keras).layers[0]):
        said = f"{part.name!r}, a {type(part).__name__} of the real Keras.*Derive the class around it from `oncue.layers.Layer`"
        with pytest.raises(TypeError, match=said):
            hold(part)


@pytest.mark.parametrize(
    "hold",
    [
        lambda part: oncue.Model(part),
        lambda part: oncue.Sequential([oncue.layers.Input((3,)), part]),
        lambda part: oncue.Sequential([Block(part)]),
    ],
    ids=["alone", "sequential", "in a layer"],
)
def test_what_oncue_knows_is_a_part(keras: ModuleType, hold: Callable[[Any], Any]) -> None:
    for part in (real(keras), keras.layers.Dense(1, kernel_regularizer="l2")):
        model = hold(part)
        model.compile("sgd", "mse")
        assert model.fit(np.ones((8, 3), "float32"), np.ones((8, 1), "float32"), verbose=0).history["loss"]
        assert len(model.trainable_weights) == len(part.trainable_weights) > 0
