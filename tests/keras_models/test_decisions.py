"""Code that decides by values of tensors comes to the same where every way is run and none is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

pytest.importorskip("keras")

from oncue.with_keras.decisions import run_every_way


def walk(x: torch.Tensor, count: torch.Tensor) -> None:
    """Decide by a value, and then by one that the first decision has changed."""
    if x.sum() > 3.0:
        x.mul_(0.5)
        if x.max() < 2.0:
            count.add_(10)
    else:
        x.add_(1.0)
    if count % 2 == 0:
        count.add_(1)


@pytest.mark.parametrize("start", [0.5, 1.0, 2.5, 4.0])
@pytest.mark.parametrize("count", [0, 1])
def test_the_way_that_is_chosen_is_the_one_that_code_takes(start: float, count: int) -> None:
    def run(how: Callable[[torch.Tensor, torch.Tensor], Any]) -> list[torch.Tensor]:
        given = [torch.full((2,), start), torch.tensor(count)]
        how(*given)
        return given

    def every_way(*given: torch.Tensor) -> list[torch.Tensor]:
        run_every_way(lambda: walk(*given), given)
        return list(given)

    expected, graph = run(walk), make_fx(every_way)(torch.zeros(2), torch.tensor(0))
    for how in (every_way, graph):
        assert all(map(torch.equal, run(how), expected))


def test_ever_more_decisions_are_refused() -> None:
    x = torch.tensor([1.0])

    def halve() -> None:
        while x.sum() > 0.001:
            x.mul_(0.5)

    with pytest.raises(RuntimeError, match="more than 4 decisions"):
        run_every_way(halve, [x])
