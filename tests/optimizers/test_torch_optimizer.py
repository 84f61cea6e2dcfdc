"""Torch's own optimizers behind Keras's interface."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from oncue.optimizers import TorchOptimizer, get
from oncue.optimizers.schedules import ExponentialDecay


def parameters() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([3.0]))]


def momentum_sgd(params: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.1, momentum=0.9)


@pytest.mark.parametrize("instance", [False, True])
def test_steps_as_the_bare_optimizer(instance: bool) -> None:
    ours, theirs = parameters(), parameters()
    wrapped = TorchOptimizer(momentum_sgd(ours) if instance else momentum_sgd)
    wrapped.build(ours)
    bare = momentum_sgd(theirs)
    for step in range(4):
        for p in ours + theirs:
            p.grad = torch.full_like(p, step - 1.3)
        wrapped.step()
        bare.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert wrapped.iterations == 4
    assert list(wrapped.slots()) == ["momentum_buffer"]


def test_the_rate_is_that_of_the_first_group_and_keeps_the_ratios() -> None:
    one, two = parameters()
    inner = torch.optim.SGD([{"params": [one], "lr": 0.1}, {"params": [two], "lr": 0.01}])
    wrapped = TorchOptimizer(inner)
    wrapped.build([one, two])
    assert wrapped.learning_rate == 0.1
    wrapped.learning_rate = 0.5
    assert [group["lr"] for group in inner.param_groups] == pytest.approx([0.5, 0.05])
    inner.param_groups[0]["lr"] = 0.25
    assert wrapped.learning_rate == 0.25


def test_a_rate_in_a_tensor_is_set_in_place() -> None:
    rate = torch.tensor(0.1)
    wrapped = TorchOptimizer(lambda p: torch.optim.Adam(p, lr=rate, foreach=False))
    wrapped.build(parameters())
    wrapped.learning_rate = 0.5
    assert rate.item() == 0.5


def test_a_schedule_may_drive_it() -> None:
    params = parameters()
    wrapped = TorchOptimizer(torch.optim.SGD(params, lr=1.0))
    wrapped.build(params)
    wrapped.learning_rate = ExponentialDecay(1.0, 1, 0.5)
    for _ in range(2):
        wrapped.apply([torch.zeros(2), torch.ones(1)])
    assert params[1].item() == 1.5
    assert wrapped.learning_rate == 0.25


def test_the_rate_of_a_function_is_known_once_built() -> None:
    wrapped = TorchOptimizer(momentum_sgd)
    with pytest.raises(ValueError, match="once the torch optimizer is made"):
        _ = wrapped.learning_rate
    wrapped.learning_rate = 0.5
    assert wrapped.learning_rate == 0.5
    wrapped.build(parameters())
    assert wrapped.torch_optimizer.param_groups[0]["lr"] == 0.5


def test_options_of_oncue_apply() -> None:
    params = parameters()
    wrapped = TorchOptimizer(lambda p: torch.optim.SGD(p, lr=1.0), clipvalue=0.5, use_ema=True)
    wrapped.apply([torch.full((2,), 9.0), torch.full((1,), 9.0)], params)
    assert params[1].item() == 2.5
    assert wrapped.ema_variables is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: torch.optim.SGD(p[:1], lr=0.1), "lacks 1 of 2"),
        (lambda p: torch.optim.SGD([*p, torch.nn.Parameter(torch.zeros(7))], lr=0.1), r"1 others \(shapes \[\(7,\)\]"),
        (lambda p: torch.optim.SGD(parameters(), lr=0.1), "model.parameters"),
    ],
)
def test_refuses_an_optimizer_of_other_parameters(make: Any, message: str) -> None:
    params = parameters()
    with pytest.raises(ValueError, match=message):
        TorchOptimizer(make(params)).build(params)


def test_frozen_parameters_may_be_left_in_it() -> None:
    params = parameters()
    inner = torch.optim.SGD(params, lr=0.1)
    params[0].requires_grad_(False)
    TorchOptimizer(inner).build(params[1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TorchOptimizer(3), "got 3 of type int"),  # type: ignore[arg-type]  # the mistake under test
        (lambda: TorchOptimizer(torch.optim.LBFGS(parameters())), "closure"),
        (lambda: TorchOptimizer(momentum_sgd, learning_rate=0.1), "belongs to the torch optimizer"),
        (lambda: TorchOptimizer(lambda p: 3).build(parameters()), "must return a torch optimizer"),  # type: ignore[arg-type,return-value]  # the mistake under test
        (lambda: TorchOptimizer(momentum_sgd).get_config(), "torch.optim"),
    ],
)
def test_refuses(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_config_makes_the_same_optimizer_for_other_parameters() -> None:
    first = get(torch.optim.RMSprop)
    assert isinstance(first, TorchOptimizer)
    first.build(parameters())
    first.learning_rate = 0.5
    second = TorchOptimizer.from_config(first.get_config())
    assert second.get_config() == first.get_config() | {"torch_options": second.get_config()["torch_options"]}
    second.build(parameters())
    assert isinstance(second.torch_optimizer, torch.optim.RMSprop)
    assert second.learning_rate == 0.5
    with pytest.raises(ValueError, match="torch optimizer"):
        TorchOptimizer.from_config({"torch_class": "Adamm"})
