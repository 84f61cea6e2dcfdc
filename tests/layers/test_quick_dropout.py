"""Quick dropout has the odds of torch's, eagerly and in graphs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from oncue.layers.quick_dropout import dropout, dropout_in_graph

Dropout = Callable[[Tensor, float], Tensor]
WAYS = [dropout, dropout_in_graph]
SHAPE = (32, 32, 1024)
NUMBER = 2**20


def kept(way: Dropout, rate: float, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return (way(torch.ones(SHAPE), rate) != 0).flatten()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_the_rate_is_met(way: Dropout, rate: float) -> None:
    share = 1.0 - kept(way, rate).double().mean().item()
    assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / NUMBER)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 64, 128, 256, 1024, 4096, 32768])
def test_numbers_are_dropped_independently(way: Dropout, lag: int) -> None:
    mask = kept(way, 0.3).double() - 0.7
    correlation = (mask[:-lag] * mask[lag:]).mean().item() / (0.3 * 0.7)
    assert abs(correlation) < 5 / math.sqrt(NUMBER)


@pytest.mark.parametrize("way", WAYS)
def test_corners_of_rectangles_are_independent(way: Dropout) -> None:
    mask = kept(way, 0.5).view(1024, 1024).double() * 2 - 1
    for rows, columns in ((1, 1), (3, 17), (512, 512)):
        product = mask[:-rows, :-columns] * mask[rows:, :-columns] * mask[:-rows, columns:] * mask[rows:, columns:]
        assert abs(product.mean().item()) < 5 / math.sqrt(product.numel())


@pytest.mark.parametrize("way", WAYS)
def test_calls_are_independent_and_a_seed_repeats_them(way: Dropout) -> None:
    first, again = kept(way, 0.5), kept(way, 0.5)
    assert torch.equal(first, again)
    torch.manual_seed(0)
    masks = [(way(torch.ones(SHAPE), 0.5) != 0).double() - 0.5 for _ in range(2)]
    assert abs((masks[0] * masks[1]).mean().item() * 4) < 5 / math.sqrt(NUMBER)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_kept_is_scaled_up(way: Dropout, dtype: torch.dtype) -> None:
    x = torch.full((3, 5, 401), 3.0, dtype=dtype, requires_grad=True)
    y = way(x, 0.25)
    assert y.shape == x.shape and y.dtype == dtype
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(y.detach()[y != 0], torch.full(((y != 0).sum(),), 4.0, dtype=dtype))
    assert torch.equal(x.grad != 0, y != 0)


@pytest.mark.parametrize("way", WAYS)
def test_few_numbers_are_dropped_as_torch_does(way: Dropout) -> None:
    torch.manual_seed(0)
    expected = F.dropout(torch.ones(1000), 0.5)
    torch.manual_seed(0)
    assert torch.equal(way(torch.ones(1000), 0.5), expected)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_and_everything_can_be_dropped(way: Dropout) -> None:
    assert way(torch.ones(5000), 0.0).eq(1).all()
    assert way(torch.ones(5000), 1.0).eq(0).all()
    assert way(torch.ones(0, 3), 0.5).shape == (0, 3)
