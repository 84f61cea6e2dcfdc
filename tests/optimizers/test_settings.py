"""Every setting that can be assigned counts from the next update, or is refused by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from helpers import parameter, tensor, to_numpy
from oncue.optimizers import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    LossScaleOptimizer,
    Nadam,
    Optimizer,
    RMSprop,
    TorchOptimizer,
)

CLASSES: list[type[Optimizer]] = [SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, Nadam]
OTHER: dict[str, Any] = {
    "weight_decay": 0.5,
    "clipnorm": 0.01,
    "clipvalue": 0.01,
    "global_clipnorm": 0.01,
    "use_ema": True,
    "ema_momentum": 0.1,
    "ema_overwrite_frequency": 2,
    "loss_scale_factor": 8.0,
    "gradient_accumulation_steps": 2,
    "decay": 0.5,
    "momentum": 0.25,
    "nesterov": True,
    "beta_1": 0.25,
    "beta_2": 0.25,
    "epsilon": 0.5,
    "rho": 0.25,
    "amsgrad": True,
    "centered": True,
    "initial_accumulator_value": 0.5,
}
# What else must be on for a setting to matter.
WITH: dict[str, dict[str, Any]] = {
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9},
    "ema_momentum": {"use_ema": True},
    "ema_overwrite_frequency": {"use_ema": True},
}
FIXED = {"use_ema", "amsgrad", "centered", "initial_accumulator_value"}
# The rates of Keras 2 and what only wrappers have are no part of this.
CASES = [
    (cls, name)
    for cls in CLASSES
    for name in [*cls(**{}).get_config(), "decay"]
    if name not in ("name", "learning_rate")
]


def built(cls: type[Optimizer], **options: Any) -> tuple[Optimizer, list[torch.nn.Parameter]]:
    parameters = [parameter([1.0, 2.0]), parameter([[3.0, -1.0]])]
    optimizer = cls(**{"learning_rate": 0.1, **options})
    optimizer.build(parameters)
    return optimizer, parameters


def train(optimizer: Optimizer, parameters: list[torch.nn.Parameter], start: int, steps: int = 3) -> None:
    for step in range(start, start + steps):
        for place, one in enumerate(parameters):
            one.grad = torch.full_like(one, 0.5 * (-1) ** step + 0.1 * step + place)
        optimizer.step()


def state(optimizer: Optimizer, parameters: list[torch.nn.Parameter]) -> list[Any]:
    return [to_numpy(one).copy() for one in [*parameters, *optimizer.variables]]


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def again(optimizer: Optimizer, parameters: list[torch.nn.Parameter]) -> tuple[Optimizer, list[torch.nn.Parameter]]:
    """Return a new optimizer of the same configuration and state."""
    copies = [torch.nn.Parameter(one.detach().clone()) for one in parameters]
    config = json.loads(json.dumps(optimizer.get_config()))
    made = type(optimizer).from_config(config)
    made.build(copies)
    made.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return made, copies


@pytest.mark.parametrize(("cls", "name"), CASES)
@pytest.mark.filterwarnings("ignore:.*decay:DeprecationWarning")
def test_what_is_set_counts_from_the_next_update_or_is_refused(cls: type[Optimizer], name: str) -> None:
    left, its = built(cls, **WITH.get(name, {}))
    changed, own = built(cls, **WITH.get(name, {}))
    train(left, its, 0)
    train(changed, own, 0)
    before = changed.get_config()
    if name in FIXED:
        with pytest.raises(ValueError, match=f"`{name}` of {cls.__name__} can't be set .* Create a new optimizer"):
            setattr(changed, name, OTHER[name])
        assert changed.get_config() == before
        setattr(changed, name, before[name])
        return
    setattr(changed, name, OTHER[name])
    assert changed.get_config()[name] == OTHER[name]
    fresh, copies = again(changed, own)
    for optimizer, parameters in ((left, its), (changed, own), (fresh, copies)):
        train(optimizer, parameters, 3)
    assert same(state(changed, own), state(fresh, copies))
    assert not same(state(changed, own), state(left, its))


@pytest.mark.parametrize("cls", CLASSES)
def test_the_table_knows_every_setting(cls: type[Optimizer]) -> None:
    assert set(cls(**{}).get_config()) - {"name", "learning_rate"} <= set(OTHER)


@pytest.mark.parametrize("cls", [SGD, RMSprop])
def test_a_momentum_needs_a_velocity_from_the_beginning(cls: Any) -> None:
    optimizer, _ = built(cls, momentum=0.0)
    with pytest.raises(
        ValueError, match="`momentum` of .* can't be set from 0.0 to 0.5 once .* made from the beginning"
    ):
        optimizer.momentum = 0.5
    assert optimizer.get_config()["momentum"] == 0.0


def test_only_one_clip_can_be_set() -> None:
    optimizer, _ = built(SGD, clipnorm=1.0)
    for name in ("clipvalue", "global_clipnorm"):
        with pytest.raises(ValueError, match="Only one of .*clipnorm=1.0. Set `clipnorm` to None first"):
            setattr(optimizer, name, 0.5)
    optimizer.clipnorm = None
    optimizer.clipvalue = 0.5
    assert SGD.from_config(optimizer.get_config()).clipvalue == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clipnorm", -1.0),
        ("clipvalue", "1"),
        ("global_clipnorm", True),
        ("weight_decay", -0.1),
        ("ema_momentum", 1.5),
        ("ema_overwrite_frequency", 0),
        ("loss_scale_factor", 0),
        ("gradient_accumulation_steps", 1),
        ("beta_1", 1.0),
        ("beta_2", -0.1),
        ("epsilon", float("nan")),
        ("amsgrad", "yes"),
        ("decay", -1),
    ],
)
@pytest.mark.parametrize("when", ["made", "set"])
@pytest.mark.filterwarnings("ignore:.*decay:DeprecationWarning")
def test_out_of_range_is_refused_wherever_it_comes(name: str, value: Any, when: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        if when == "made":
            Adam(**{name: value})
        else:
            setattr(built(Adam)[0], name, value)


@pytest.mark.parametrize("make", [np.float32, np.float64, np.array, tensor])
@pytest.mark.parametrize("name", ["clipnorm", "weight_decay", "beta_1", "epsilon", "ema_momentum", "loss_scale_factor"])
def test_numbers_of_numpy_and_torch_are_numbers(name: str, make: Callable[[float], Any]) -> None:
    number = make(0.5)
    for optimizer in (Adam(**{name: number}), built(Adam)[0]):
        setattr(optimizer, name, number)
        assert isinstance(getattr(optimizer, name), float)
        assert json.loads(json.dumps(optimizer.get_config()))[name] == 0.5
    optimizer.gradient_accumulation_steps = np.int64(4)
    assert json.loads(json.dumps(optimizer.get_config()))["gradient_accumulation_steps"] == 4


def test_gathered_gradients_count_for_the_update_that_they_were_gathered_for() -> None:
    optimizer, parameters = built(SGD, learning_rate=1.0, gradient_accumulation_steps=3)
    train(optimizer, parameters, 0, steps=2)
    with pytest.raises(ValueError, match="2 of the 3 gradients of an update are gathered already"):
        optimizer.gradient_accumulation_steps = 2
    with pytest.raises(ValueError, match="2 of the 3 gradients"):
        optimizer.gradient_accumulation_steps = None
    optimizer.gradient_accumulation_steps = 4
    train(optimizer, parameters, 2, steps=1)
    assert (optimizer.iterations, to_numpy(parameters[0]).tolist()) == (0, [1.0, 2.0])
    train(optimizer, parameters, 3, steps=1)
    mean = sum(0.5 * (-1) ** step + 0.1 * step for step in range(4)) / 4
    assert optimizer.iterations == 1
    np.testing.assert_allclose(to_numpy(parameters[0]), [1.0 - mean, 2.0 - mean], rtol=1e-6)


def test_a_wrapped_optimizer_is_set_through_its_wrapper() -> None:
    inner = Adam(0.1, use_ema=True)
    wrapped = LossScaleOptimizer(inner, initial_scale=8.0)
    wrapped.build([parameter([1.0])])
    for name, value in (("beta_1", 0.5), ("clipnorm", 0.5), ("weight_decay", 0.5), ("ema_momentum", 0.5)):
        setattr(wrapped, name, value)
        assert getattr(inner, name) == getattr(wrapped, name) == value
        assert wrapped.get_config()["inner_optimizer"]["config"][name] == value
    wrapped.dynamic_growth_steps = 1
    wrapped.zero_grad()
    wrapped._parameters[0].grad = tensor([8.0])
    wrapped.step()
    assert float(wrapped.dynamic_scale) == 16.0
    with pytest.raises(ValueError, match="`initial_scale` of LossScaleOptimizer can't be set"):
        wrapped.initial_scale = 4.0
    with pytest.raises(ValueError, match="`dynamic_growth_steps` must be"):
        wrapped.dynamic_growth_steps = 0
    with pytest.raises(AttributeError, match="no attribute 'momentum'"):
        wrapped.momentum  # noqa: B018  # reading it is the test


def test_what_torchs_optimizer_has_itself_is_not_set_on_the_wrapper() -> None:
    optimizer = TorchOptimizer(lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9))
    for name in ("weight_decay", "momentum", "beta_1", "betas"):
        with pytest.raises(ValueError, match=f"`{name}` can't be set .*param_groups"):
            setattr(optimizer, name, 0.5)
    assert not hasattr(optimizer, "momentum")
    optimizer.clipvalue = 0.5
    weight = parameter([1.0])
    optimizer.apply([tensor([4.0])], [weight])
    assert weight.item() == pytest.approx(0.95)
