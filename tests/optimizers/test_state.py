"""State: a run that is stopped and resumed continues as if nothing had happened, and a wrong state is refused."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from oncue.optimizers import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Nadam, Optimizer, RMSprop, TorchOptimizer
from oncue.optimizers.schedules import ExponentialDecay, LearningRateSchedule

MAKERS: dict[str, Any] = {
    cls.__name__: cls for cls in (SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, Nadam)
} | {
    "momentum": lambda **k: SGD(momentum=0.9, **k),
    "amsgrad": lambda **k: Adam(amsgrad=True, **k),
    "rmsprop of all": lambda **k: RMSprop(momentum=0.9, centered=True, **k),
    "ema": lambda **k: Adam(use_ema=True, **k),
    "accumulation": lambda **k: Adam(gradient_accumulation_steps=2, **k),
    "schedule": lambda **k: SGD(ExponentialDecay(0.1, 2, 0.5)),
    "function": lambda **k: SGD(lambda: 0.1),
    "torch": lambda **k: TorchOptimizer(lambda p: torch.optim.Adam(p, lr=0.1)),
}


def run(optimizer: Optimizer, parameters: list[torch.nn.Parameter], steps: range) -> None:
    optimizer.build(parameters)
    for step in steps:
        optimizer.apply([torch.full_like(p, (step % 3) - 0.7) for p in parameters])


def fresh() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.tensor([1.0, 2.0])), torch.nn.Parameter(torch.tensor([[3.0]]))]


@pytest.mark.parametrize("name", MAKERS)
def test_resumed_is_the_same_as_never_stopped(name: str) -> None:
    whole = fresh()
    run(MAKERS[name](), whole, range(7))

    first, half = MAKERS[name](), fresh()
    run(first, half, range(3))
    if name != "schedule":
        file = io.BytesIO()
        torch.save(first.state_dict(), file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
    else:
        state = first.state_dict()
    second = MAKERS[name]()
    second.build(half)
    second.load_state_dict(state)
    run(second, half, range(3, 7))
    for one, other in zip(whole, half, strict=True):
        assert torch.equal(one, other)
    assert second.iterations == (3 if name == "accumulation" else 7)


@pytest.mark.parametrize("name", MAKERS)
def test_the_learning_rate_is_part_of_the_state(name: str) -> None:
    if name in ("schedule", "function"):
        return
    first, second = MAKERS[name](), MAKERS[name]()
    run(first, fresh(), range(2))
    first.learning_rate = 0.125
    run(second, fresh(), range(1))
    second.load_state_dict(first.state_dict())
    assert second.learning_rate == 0.125


def changed(original: dict[str, Any], /, **changes: Any) -> dict[str, Any]:
    return {**original, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "ema"}, "keys"),
        (lambda s: changed(s, extra=1), "keys"),
        (lambda s: changed(s, state={"momentum": s["state"]["momentum"]}), "keys"),
        (lambda s: changed(s, state=changed(s["state"], velocity=[torch.zeros(5), torch.zeros(1, 1)])), "velocity"),
        (lambda s: changed(s, ema=[torch.zeros(2)]), "ema"),
        (lambda s: changed(s, learning_rate={"class_name": "CosineDecay", "config": {}}), "CosineDecay"),
        (lambda s: changed(s, learning_rate=None), "function"),
    ],
)
def test_a_wrong_state_is_refused_and_changes_nothing(change: Any, message: str) -> None:
    optimizer = Adam(0.1)
    run(optimizer, fresh(), range(2))
    before = [v.clone() for v in optimizer.variables]
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(change(optimizer.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(before, optimizer.variables, strict=True))


def test_state_needs_a_built_optimizer() -> None:
    state = Adam().state_dict()
    with pytest.raises(ValueError, match="built"):
        Adam().load_state_dict(state)
    with pytest.raises(ValueError, match="built"):
        Adam().set_weights([])
    with pytest.raises(ValueError, match="until `build"):
        _ = Adam().torch_optimizer


def test_loading_keeps_the_tensors() -> None:
    optimizer = Adam(0.1)
    run(optimizer, fresh(), range(2))
    velocity = optimizer.slots()["velocity"][0]
    optimizer.load_state_dict({**optimizer.state_dict(), "iterations": 9})
    assert optimizer.slots()["velocity"][0] is velocity
    assert optimizer.iterations == 9


def test_a_schedule_without_config_does_not_stop_a_checkpoint() -> None:
    class Mine(LearningRateSchedule):
        def __call__(self, step: int) -> float:
            return 0.1

    optimizer = SGD(Mine())
    run(optimizer, fresh(), range(2))
    other = SGD(Mine())
    other.build(fresh())
    other.load_state_dict(optimizer.state_dict())
    assert other.iterations == 2


def test_slots_have_the_names_of_keras() -> None:
    expected = {
        "SGD": [],
        "momentum": ["momentum"],
        "amsgrad": ["momentum", "velocity", "velocity_hat"],
        "rmsprop of all": ["velocity", "momentum", "average_gradient"],
        "Adagrad": ["accumulator"],
        "Adadelta": ["accumulated_grad", "accumulated_delta_var"],
        "Adamax": ["momentum", "norm"],
        "Nadam": ["momentum", "velocity"],
    }
    for name, slots in expected.items():
        optimizer = MAKERS[name]()
        assert optimizer.slots() == {}
        optimizer.build(fresh())
        assert list(optimizer.slots()) == slots
        for tensors in optimizer.slots().values():
            assert [tuple(t.shape) for t in tensors] == [(2,), (1, 1)]


def test_set_weights_refuses_other_shapes() -> None:
    optimizer = Adam()
    optimizer.build(fresh())
    with pytest.raises(ValueError, match="shapes"):
        optimizer.set_weights(optimizer.variables[:-1])


def test_variables_are_read_and_set_as_keras_shows_them() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = SGD(0.5, momentum=0.9, name="sgd")
    optimizer.build([weight])
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert [variable.path for variable in optimizer.variables] == [
        "sgd/iteration",
        "sgd/learning_rate",
        "sgd/variable_0_of_shape_2_momentum",
    ]
    kept = [variable.numpy() for variable in optimizer.variables]
    optimizer.step()
    for variable, value in zip(optimizer.variables, kept, strict=True):
        variable.assign(value)
    assert int(optimizer.iterations) == 1
    assert [variable.numpy().tolist() for variable in optimizer.variables] == [value.tolist() for value in kept]
    optimizer.variables[1].assign(0.25)
    assert optimizer.learning_rate == 0.25
    assert optimizer.variables[2].value is optimizer.slots()["momentum"][0]


def test_an_update_of_given_values_leaves_weights_and_state_alone() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = Adam(0.1)
    optimizer.build([weight])
    optimizer.apply([torch.ones(2)])
    before = [value.clone() for value in optimizer.state_tensors()], weight.detach().clone()
    values, state = optimizer.stateless_apply(optimizer.variables, [torch.ones(2)], [weight])
    assert all(torch.equal(a, b) for a, b in zip(before[0], optimizer.state_tensors(), strict=True))
    assert torch.equal(before[1], weight)
    optimizer.apply([torch.ones(2)])
    torch.testing.assert_close(values[0], weight.detach())
    assert int(state[0]) == int(optimizer.iterations) == 2
