"""Images are taken by the gradients of convolutions as they are stored, whatever torch's compiler makes of strides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import oncue as keras
from helpers import cpu_only, graphs_compiled_by, normal, uncompiled
from oncue import torch_private

GREY = normal(20, 6, 6, 1)
COLOURED = normal(20, 6, 6, 2)
FIRST = normal(20, 2, 6, 6)
Y = normal(20, 3)


class ChannelsFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def _of_grey() -> Any:
    parts = [ChannelsFirst(), nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 2)]
    return keras.Model(nn.Sequential(*parts, nn.Flatten(), nn.Linear(8, 3)))


def _by_channel() -> Any:
    parts = [ChannelsFirst(), nn.Conv2d(2, 4, 3, groups=2, bias=False), nn.Conv2d(4, 4, 3, padding=1, groups=4)]
    return keras.Model(nn.Sequential(*parts, nn.Flatten(), nn.Linear(64, 3)))


def _of_layers() -> Any:
    parts = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.MaxPooling2D(), keras.layers.Conv2D(8, 2)]
    return keras.Sequential([keras.Input((6, 6, 1)), *parts, keras.layers.Flatten(), keras.layers.Dense(3)])


def _transposed() -> Any:
    return keras.Model(nn.Sequential(ChannelsFirst(), nn.ConvTranspose2d(2, 1, 2), nn.Flatten(), nn.Linear(49, 3)))


def _channels_first() -> Any:
    return keras.Model(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)))


def _kept(traced: list[Any]) -> Callable[..., Any]:
    def keep(graph: torch.fx.GraphModule, *others: Any) -> Any:
        traced.extend(str(node.target) for node in graph.graph.nodes)
        return uncompiled(graph, *others)

    return keep


@pytest.mark.parametrize(
    ("make", "x", "count"),
    [(_of_grey, GREY, 2), (_by_channel, COLOURED, 2), (_of_layers, GREY, 2), (_transposed, COLOURED, 1)],
)
@cpu_only("elsewhere the compiler's own order is the quick one")
def test_images_with_their_channels_last(make: Any, x: Any, count: int, side_by_side: Callable[..., Any]) -> None:
    targets: list[str] = []
    with graphs_compiled_by(_kept(targets)):
        side_by_side(make, x, Y)
    assert targets.count("oncue.convolution_backward.default") == count
    assert "aten.convolution_backward.default" not in targets


def test_images_with_their_channels_first_are_left_to_the_compiler(side_by_side: Callable[..., Any]) -> None:
    targets: list[str] = []
    with graphs_compiled_by(_kept(targets)):
        side_by_side(_channels_first, FIRST, Y)
    assert targets.count("aten.convolution_backward.default") == 1


@pytest.mark.slow
def test_compiled(side_by_side: Callable[..., Any]) -> None:
    with graphs_compiled_by(torch_private.compile_traced):
        side_by_side(_of_grey, GREY, Y)
        side_by_side(_by_channel, COLOURED, Y)
