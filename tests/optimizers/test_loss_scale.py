"""LossScaleOptimizer: skipped steps, a factor that moves, and an inner optimizer that everything else goes to."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from oncue import optimizers
from oncue.optimizers import SGD, Adam, AdamW, LossScaleOptimizer, RMSprop, TorchOptimizer
from oncue.optimizers.deferred_overflow_check import DeferredOverflowCheck
from oncue.optimizers.schedules import ExponentialDecay

INF, NAN = float("inf"), float("nan")


def parameters() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.arange(1.0, 7.0).reshape(2, 3)), torch.nn.Parameter(torch.ones(3))]


def set_gradients(weights: list[torch.nn.Parameter], value: float, number: int) -> None:
    for weight in weights:
        weight.grad = torch.full_like(weight, 0.1 * number + 0.1)
    weights[0].grad[0, 1] *= value  # type: ignore[index]  # it was just set


# Which steps have a gradient that is not finite.
BAD = [INF, 1.0, 1.0, 1.0, NAN, 1.0, 1.0, -INF, INF, 1.0, 1.0, 1.0, 1.0]


FUSED: dict[str, Any] = {
    "adam": lambda: Adam(0.1),
    "sgd": lambda: SGD(0.1),
    "scheduled": lambda: Adam(ExponentialDecay(0.1, 2, 0.5)),
    "clipped": lambda: AdamW(0.1, clipnorm=0.01, weight_decay=0.1),
    "clipped together": lambda: SGD(0.1, global_clipnorm=0.01),
}
OTHERS: dict[str, Any] = {
    "averaged": lambda: Adam(0.1, use_ema=True, ema_overwrite_frequency=3),
    "decayed": lambda: SGD(0.1, weight_decay=0.1),
    "accumulating": lambda: Adam(0.1, gradient_accumulation_steps=2),
    "rmsprop": lambda: RMSprop(0.1),
    "momentum": lambda: SGD(0.1, momentum=0.9),
}


@pytest.mark.parametrize("name", [*FUSED, *OTHERS])
@pytest.mark.parametrize("deferred", [False, True])
def test_it_is_the_inner_optimizer_without_the_bad_steps(name: str, deferred: bool) -> None:
    make = {**FUSED, **OTHERS}[name]
    mine, plain = parameters(), parameters()
    wrapped, alone = LossScaleOptimizer(make(), initial_scale=2.0**10, dynamic_growth_steps=3), make()
    wrapped.build(mine)
    alone.build(plain)
    assert DeferredOverflowCheck.suits(wrapped.inner_optimizer) == (name in FUSED)
    if deferred:
        # What is done on an accelerator, as far as the CPU can.
        wrapped._deferred = DeferredOverflowCheck(wrapped.inner_optimizer)
    expected, finite = 2.0**10, 0
    for number, value in enumerate(BAD):
        scale = float(wrapped.dynamic_scale)  # type: ignore[arg-type]  # built
        set_gradients(mine, value, number)
        for weight in mine:
            weight.grad *= scale
        wrapped.step()
        if value == 1.0:
            set_gradients(plain, value, number)
            alone.step()
        expected, finite = (expected, finite + 1) if value == 1.0 else (expected / 2, 0)
        if finite == 3:
            expected, finite = expected * 2, 0
        assert wrapped.dynamic_scale == expected and wrapped.step_counter == finite
        for one, other in zip(mine, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert wrapped.iterations == alone.iterations == BAD.count(1.0) // (2 if name == "accumulating" else 1)
    assert wrapped.learning_rate == alone.learning_rate
    for one, other in zip(wrapped.state_tensors()[4:], alone.state_tensors(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_host_does_not_read_the_device_when_the_check_is_deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = parameters()
    optimizer = LossScaleOptimizer(Adam(0.1))
    optimizer.build(weights)
    optimizer._deferred = DeferredOverflowCheck(optimizer.inner_optimizer)
    settled = []
    monkeypatch.setattr(DeferredOverflowCheck, "settle", lambda self: settled.append(self._pending is None))
    monkeypatch.setattr(torch.Tensor, "item", lambda self: pytest.fail("the device was read"))
    set_gradients(weights, 1.0, 0)
    optimizer.step()
    assert settled == [True]


def test_torch_optimizers_too() -> None:
    weights = parameters()
    before = copy.deepcopy(weights)
    made = TorchOptimizer(lambda parameters: torch.optim.RMSprop(parameters, lr=0.1))
    optimizer = LossScaleOptimizer(made, initial_scale=4.0)
    optimizer.build(weights)
    set_gradients(weights, INF, 0)
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True)) and optimizer.iterations == 0
    set_gradients(weights, 1.0, 0)
    optimizer.step()
    assert not torch.equal(weights[0], before[0]) and optimizer.iterations == 1


def test_given_gradients() -> None:
    weights = parameters()
    optimizer = LossScaleOptimizer(SGD(1.0), initial_scale=4.0)
    gradients = [torch.full((2, 3), 8.0), torch.full((3,), 4.0)]
    optimizer.apply(gradients, weights)
    np.testing.assert_array_equal(weights[1].detach(), np.zeros(3))
    assert torch.equal(gradients[1], torch.full((3,), 4.0)), "the caller's own"
    assert optimizer.apply_gradients(zip([g * INF for g in gradients], weights, strict=True)) == 1


def test_everything_else_is_the_inner_optimizers() -> None:
    inner = Adam(0.1, weight_decay=0.01, use_ema=True)
    optimizer = LossScaleOptimizer(inner)
    optimizer.build(parameters())
    optimizer.learning_rate = 0.5
    optimizer.weight_decay = 0.02
    optimizer.iterations = 7
    assert (inner.learning_rate, inner.weight_decay, inner.iterations) == (0.5, 0.02, 7)
    assert optimizer.weight_decay == 0.02 and optimizer.iterations == 7
    assert optimizer.slots() == inner.slots() and optimizer.ema_variables is inner.ema_variables
    assert optimizer.torch_optimizer is inner.torch_optimizer


def test_state_goes_round() -> None:
    def stepped(steps: int) -> tuple[LossScaleOptimizer, list[torch.nn.Parameter]]:
        weights = parameters()
        optimizer = LossScaleOptimizer(Adam(0.1, gradient_accumulation_steps=2), dynamic_growth_steps=2)
        optimizer.build(weights)
        for number in range(steps):
            set_gradients(weights, INF if number == 1 else 1.0, number)
            optimizer.step()
        return optimizer, weights

    whole, weights = stepped(7)
    for way in ("state_dict", "variables"):
        part, mine = stepped(5)
        kept = copy.deepcopy(part.state_dict() if way == "state_dict" else part.variables)
        fresh, _ = stepped(0)
        after = [torch.nn.Parameter(weight.detach().clone()) for weight in mine]
        fresh = LossScaleOptimizer(Adam(0.1, gradient_accumulation_steps=2), dynamic_growth_steps=2)
        fresh.build(after)
        (fresh.load_state_dict if way == "state_dict" else fresh.set_weights)(kept)  # type: ignore[operator]
        for number in (5, 6):
            set_gradients(after, 1.0, number)
            fresh.step()
        assert fresh.iterations == whole.iterations
        for one, other in zip([*after, *fresh.state_tensors()], [*weights, *whole.state_tensors()], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_state_of_another_kind_is_refused() -> None:
    plain, wrapped = Adam(), LossScaleOptimizer(Adam())
    for optimizer in (plain, wrapped):
        optimizer.build(parameters())
    with pytest.raises(ValueError, match="loss_scale"):
        wrapped.load_state_dict(plain.state_dict())
    with pytest.raises(ValueError, match="loss_scale"):
        plain.load_state_dict(wrapped.state_dict())


def test_config() -> None:
    optimizer = LossScaleOptimizer(Adam(0.5, clipnorm=1.0), initial_scale=64.0, dynamic_growth_steps=7, name="x")
    again: Any = optimizers.deserialize(optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert type(again) is LossScaleOptimizer and again.inner_optimizer.clipnorm == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dynamic": False}, "loss_scale_factor"),
        ({"clipnorm": 1.0}, "`clipnorm` belongs to the `inner_optimizer`"),
        ({"initial_scale": 0}, "`initial_scale` must be a number above 0; got 0"),
        ({"dynamic_growth_steps": 0}, "`dynamic_growth_steps` must be a whole number of 1 or more; got 0"),
        ({"inital_scale": 2.0}, "Did you mean 'initial_scale'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossScaleOptimizer(Adam(), **arguments)


def test_it_wraps_an_optimizer_once() -> None:
    with pytest.raises(ValueError, match="not wrapped already"):
        LossScaleOptimizer(LossScaleOptimizer("adam"))
    assert LossScaleOptimizer(Adam(loss_scale_factor=8.0), dynamic=True).inner_optimizer.loss_scale_factor is None
