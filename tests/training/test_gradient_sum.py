"""Gradients that are summed over processes, with numbers that ride along; as on a device, by an event that is injected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from helpers import cpu_only
from oncue.training.gradient_sum import GradientSum, LateNumbers, messages_of

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

    def record(self, stream: Any) -> None:
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


def test_an_event_is_recorded_where_the_numbers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnDevice(torch.Tensor):
        is_cuda = True  # type: ignore[assignment]  # as of one on a device that isn't the current one

    recorded: list[Any] = []

    class Noting(Event):
        def record(self, stream: Any) -> None:
            recorded.append(stream)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    numbers = torch.ones(1).as_subclass(OnDevice)
    LateNumbers(1, Noting).exchange(numbers)
    assert recorded == ["the stream of cpu"]


class Noted(Twice):
    """Notes messages that are begun, and when they are waited for."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__()
        self.notes = notes

    def sum_(self, tensor: torch.Tensor, what: str = "") -> torch.Tensor:
        self.notes.append("the last")
        return super().sum_(tensor)

    def begin_sum(self, tensor: torch.Tensor, what: str = "") -> Callable[[], None]:
        number = self.notes.count("begun")
        self.notes.append("begun")

        def wait() -> None:
            self.notes.append(f"waited {number}")
            tensor.mul_(2)

        return wait


SIDE = 1024
"""Of matrices of which three are more than one message."""


def test_large_gradients_are_sent_while_the_backward_pass_goes_on() -> None:
    notes: list[str] = []
    group: Any = Noted(notes)
    weights = [torch.nn.Parameter(torch.full((SIDE, SIDE), 0.01)) for _ in range(3)]
    # It gets no gradient, which is said in one message more.
    weights[1].requires_grad_(False)
    sums = GradientSum(weights, 1, group)
    x = torch.ones(2, SIDE, requires_grad=True)
    x.register_hook(lambda grad: notes.append("the end of the backward pass"))
    for sends in (True, False):
        notes.clear()
        for weight in weights:
            weight.grad = None
        y = x
        for weight in weights:
            y = y @ weight
        if sends:
            with sums.sending():
                y.sum().backward()
        else:
            y.sum().backward()
        assert notes[: 3 if sends else 1] == [*["begun"] * 2 * sends, "the end of the backward pass"]
        expected = [None if weight.grad is None else 2 * weight.grad for weight in weights]
        found, _ = sums([3.0])
        assert found == [6.0] and notes[3:] == ["the last", "waited 0", "waited 1", "the last"]
        for weight, gradient in zip(weights, expected, strict=True):
            assert (weight.grad is None) == (gradient is None)
            assert gradient is None or torch.equal(weight.grad, gradient)  # type: ignore[arg-type]
        assert not weights[0]._post_accumulate_grad_hooks  # type: ignore[attr-defined]


def test_a_step_that_fails_leaves_nothing_behind() -> None:
    group: Any = Noted([])
    weights = [torch.nn.Parameter(torch.ones(SIDE, SIDE)) for _ in range(3)]
    sums = GradientSum(weights, 1, group)
    with pytest.raises(ValueError, match="no"), sums.sending():
        (weights[0] + weights[2]).sum().backward()
        raise ValueError("no")
    assert sums.is_divided
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    sums([0.0])
    assert all(float(weight.grad.mean()) == 2.0 for weight in weights if weight.grad is not None)


def test_which_gradients_go_together() -> None:
    def of(*sizes: int) -> list[torch.Tensor]:
        return [torch.empty(size, device="meta") for size in sizes]

    assert messages_of([]) == [[]]
    assert messages_of(of(10, 20, 30)) == [[0, 1, 2]]
    million = 1 << 20
    # At most four, each of a million numbers at least, but the last.
    assert messages_of(of(*[million] * 8)) == [[6, 7], [4, 5], [2, 3], [0, 1]]
    assert messages_of(of(5, million, 3, 2 * million, 7)) == [[3, 4], [1, 2], [0]]
    assert messages_of(of(9 * million, 10)) == [[0, 1]]
    assert messages_of([torch.empty(3), torch.empty(2).double(), torch.empty(4)]) == [[1], [0, 2]]
