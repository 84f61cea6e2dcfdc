"""Layers of the real Keras in a model of oncue are refused, and what the message says to do works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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
        oncue.Model,
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


def test_the_two_ways_that_the_message_names(keras: ModuleType, tmp_path: Path) -> None:
    x, y = np.ones((8, 3), "float32"), np.ones((8, 1), "float32")
    model = real(keras)
    model.compile("sgd", "mse")
    stopping = oncue.callbacks.EarlyStopping(monitor="loss")
    assert model.fit(x, y, verbose=0, callbacks=[stopping]).history["loss"]
    model.save(tmp_path / "model.keras")
    loaded = oncue.models.load_model(tmp_path / "model.keras")
    loaded.fit(x, y, verbose=0)
