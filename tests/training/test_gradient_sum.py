"""Gradients that are summed over processes, with numbers that ride along; as on a device, by an event that is injected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from helpers import cpu_only
from oncue.training.gradient_sum import GradientSum, LateNumbers

pytestmark = cpu_only("the event stands for that of a device")


class Twice:
    """Stands for a group of two processes that have the same, and notes what is waited for."""

    def __init__(self) -> None:
        self.reads = self.waits = 0

    def sum_(self, tensor: torch.Tensor, what: str = "") -> torch.Tensor:
        return tensor.mul_(2)

    def read(self, tensor: torch.Tensor, what: str = "") -> Any:
        self.reads += 1
        return tensor.tolist()

    def wait(self, wait: Callable[[], None], what: str = "") -> None:
        self.waits += 1
        wait()


class Event:
    """The numbers of a step are there when the next one has begun."""

    recorded = 0

    def record(self) -> None:
        Event.recorded += 1
        self.number = Event.recorded

    def synchronize(self) -> None:
        assert self.number < Event.recorded, "a step waits for itself"


@pytest.fixture
def late() -> tuple[GradientSum, list[torch.nn.Parameter], Twice]:
    group, weights = Twice(), [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3))]
    return GradientSum(weights, 1, group, LateNumbers(3, Event)), weights, group  # type: ignore[arg-type]


def step(sums: GradientSum, weights: list[torch.nn.Parameter], number: float, **options: Any) -> Any:
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    return sums([number], **options)


def test_only_the_first_step_is_waited_for(late: tuple[GradientSum, list[torch.nn.Parameter], Twice]) -> None:
    sums, weights, group = late
    found = []
    for number in (1.0, 0.0, 5.0, 0.0):
        found.append(step(sums, weights, number)[0])
        assert all(weight.grad is not None and weight.grad.unique().tolist() == [2.0] for weight in weights)
    # That of the first step at once, those of the others one step later.
    assert found == [[2.0], [0.0], [0.0], [10.0]]
    assert (group.reads, group.waits) == (1, 2)
    assert sums.is_late


def test_what_is_divided_by_stays_on_the_device(late: tuple[GradientSum, list[torch.nn.Parameter], Twice]) -> None:
    sums, weights, _ = late
    for _ in range(3):
        _, divided = step(sums, weights, 0.0, divisor=torch.tensor(4.0))
        assert float(divided) == 8.0
        assert weights[0].grad is not None and weights[0].grad.tolist() == [0.25, 0.25]
    assert isinstance(divided, torch.Tensor)


def test_a_gradient_that_is_missing_now_is_said_and_waited_for_from_then_on(
    late: tuple[GradientSum, list[torch.nn.Parameter], Twice],
) -> None:
    sums, weights, group = late
    step(sums, weights, 0.0)
    step(sums, weights, 0.0)
    weights[0].grad, weights[1].grad = torch.ones(2), None
    sums([0.0])
    assert weights[1].grad is not None and weights[1].grad.tolist() == [0.0] * 3
    with pytest.warns(UserWarning, match="Which weights get a gradient has changed"):
        step(sums, weights, 0.0)
    weights[0].grad, weights[1].grad = torch.ones(2), None
    sums([0.0])
    assert weights[1].grad is None and group.reads == 2
