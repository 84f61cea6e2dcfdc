"""Tensors from the CPU go to a layer whose weights are on another device, as in Keras.

"meta" stands for the other device: torch mixes it with the CPU as little as an accelerator, and it is on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import oncue as keras
from helpers import normal
from oncue import layers as L

HOST = torch.from_numpy(normal(2, 4))
WHOLE = torch.from_numpy(normal(2, 3)).long()


@pytest.fixture(autouse=True)
def elsewhere() -> Iterator[None]:
    keras.backend.set_device("meta")
    yield
    keras.backend.set_device(None)


def functional() -> Any:
    a, b = keras.Input((4,)), keras.Input((4,))
    return keras.Model([a, b], L.Concatenate()([L.Dense(2)(a), b]))


MAKE: dict[str, tuple[Callable[[], Any], Any]] = {
    "layer": (lambda: L.Dense(3), HOST),
    "recurrent layer": (lambda: L.LSTM(3), HOST[:, :, None]),
    "sequential": (lambda: keras.Sequential([keras.Input((4,)), L.Dense(3), L.BatchNormalization()]), HOST),
    "not built yet": (lambda: keras.Sequential([L.Dense(3), L.Dense(1)]), HOST),
    "in a list": (lambda: keras.Sequential([keras.Input((4,)), L.Dense(3)]), [HOST]),
    "functional": (functional, [HOST, HOST]),
    "masked": (lambda: keras.Sequential([L.Embedding(5, 4, mask_zero=True), L.LSTM(3)]), WHOLE),
    "module": (lambda: keras.Model(torch.nn.Linear(4, 1, device="meta")), HOST),
    "module, by keyword": (lambda: keras.Model(torch.nn.Linear(4, 1, device="meta")), {"input": HOST}),
}


@pytest.mark.parametrize("case", MAKE)
def test_they_are_moved_to_the_weights(case: str) -> None:
    make, x = MAKE[case]
    made = make()
    # The first call may build.
    assert [made(x).device.type for _ in range(2)] == ["meta", "meta"]
    assert made(keras.nested.map_leaves(lambda leaf: leaf.to("meta"), x)).device.type == "meta"


def test_a_layer_without_weights_leaves_them() -> None:
    assert L.Dropout(0.5)(HOST).device.type == "cpu"


def test_their_masks_go_along() -> None:
    masked = HOST[:, :, None].clone()
    masked._keras_mask = torch.ones(2, 4, dtype=torch.bool)  # type: ignore[attr-defined]  # as Keras hands masks on
    layer = L.LSTM(3, return_sequences=True)
    assert layer(masked)._keras_mask.device.type == "meta"


def test_losses_and_metrics_take_targets_from_the_cpu() -> None:
    there = torch.ones(2, 4, device="meta")
    assert keras.losses.MeanSquaredError()(HOST, there, sample_weight=HOST[:, 0]).device.type == "meta"
    assert keras.losses.get("mae")(HOST, there).device.type == "meta"
