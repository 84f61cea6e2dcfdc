"""A training step: what it uses, what it leaves alone, and what it never does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from oncue.optimizers import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, Nadam, Optimizer, RMSprop, TorchOptimizer

CLASSES = [SGD, Adam, AdamW, RMSprop, Adagrad, Adadelta, Adamax, Nadam]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.1, "clipnorm": 1.0, "use_ema": True, "ema_overwrite_frequency": 2},
    {"global_clipnorm": 1.0, "gradient_accumulation_steps": 2, "loss_scale_factor": 4.0},
    {"clipvalue": 0.1},
]


def parameter(*values: float) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(values))


def give_gradients(parameters: list[torch.nn.Parameter], value: float = 1.0) -> None:
    for p in parameters:
        p.grad = torch.full_like(p, value)


@pytest.fixture
def no_host_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a step read a tensor on the host")

    for name in ("item", "tolist", "__float__", "__bool__", "__int__", "cpu", "numpy", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    yield


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.usefixtures("no_host_reads")
def test_no_step_reads_the_device(cls: type[Optimizer], options: dict[str, Any]) -> None:
    parameters = [parameter(1.0, 2.0), parameter(3.0)]
    optimizer = cls(learning_rate=0.1, **options)
    optimizer.build(parameters)
    for _ in range(4):
        give_gradients(parameters)
        optimizer.step()
    optimizer.learning_rate = 0.05
    give_gradients(parameters)
    optimizer.step()
    assert optimizer.iterations == (2 if "gradient_accumulation_steps" in options else 5)


def test_step_before_build_says_so() -> None:
    with pytest.raises(ValueError, match="not built"):
        SGD().step()


def test_step_without_any_gradient_is_an_error() -> None:
    optimizer = SGD()
    optimizer.build([parameter(1.0)])
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        optimizer.step()
    assert optimizer.iterations == 0


def test_a_missing_gradient_is_a_warning_that_names_the_variable() -> None:
    class Weight:
        path, value = "dense/kernel", parameter(1.0)

    other = parameter(1.0)
    optimizer = SGD(0.5)
    optimizer.build([Weight(), other])
    give_gradients([other])
    with pytest.warns(UserWarning, match="dense/kernel"):
        optimizer.step()
    assert Weight.value.item() == 1.0
    assert other.item() == 0.5


def test_build_again_with_the_same_parameters_does_nothing_and_with_others_is_an_error() -> None:
    weight = parameter(1.0)
    optimizer = SGD(momentum=0.9)
    optimizer.build([weight])
    give_gradients([weight])
    optimizer.step()
    before = optimizer.slots()["momentum"][0].clone()
    optimizer.build([weight])
    assert torch.equal(optimizer.slots()["momentum"][0], before)
    with pytest.raises(ValueError, match="Compile the model again"):
        optimizer.build([parameter(1.0)])


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ([3.0], "torch parameters"),
        ([torch.zeros(1)], "does not require a gradient"),
        ([torch.nn.Parameter(torch.zeros(1))] * 2, "twice"),
    ],
)
def test_build_refuses_what_cannot_be_trained(variables: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SGD().build(variables)


def test_an_optimizer_built_for_nothing_only_counts() -> None:
    optimizer = Adam()
    optimizer.build([])
    optimizer.step()
    assert optimizer.iterations == 1


def test_clipping_shows_in_grad_and_accumulation_does_not() -> None:
    weight = parameter(0.0)
    clipped = SGD(1.0, clipvalue=0.5)
    clipped.build([weight])
    give_gradients([weight], 3.0)
    clipped.step()
    assert weight.grad is not None
    assert weight.grad.item() == 0.5
    assert weight.item() == -0.5

    weight = parameter(0.0)
    slow = SGD(1.0, gradient_accumulation_steps=2, clipvalue=1.5)
    slow.build([weight])
    for value, expected in ((1.0, 0.0), (3.0, -1.5), (1.0, -1.5)):
        give_gradients([weight], value)
        slow.step()
        assert weight.grad is not None
        assert weight.grad.item() == value
        assert weight.item() == expected


def test_zero_grad_drops_the_gradients() -> None:
    weight = parameter(1.0)
    optimizer = SGD()
    optimizer.build([weight])
    give_gradients([weight])
    optimizer.zero_grad()
    assert weight.grad is None


def test_apply_leaves_own_gradients_and_given_ones_alone() -> None:
    weight, gradient = parameter(0.0), torch.tensor([3.0])
    weight.grad = torch.tensor([7.0])
    optimizer = SGD(1.0, clipvalue=1.0)
    optimizer.apply([gradient], [weight])
    assert weight.item() == -1.0
    assert gradient.item() == 3.0
    assert weight.grad.item() == 7.0


def test_apply_gradients_takes_pairs_and_returns_the_count() -> None:
    weight = parameter(0.0)
    optimizer = SGD(1.0)
    assert optimizer.apply_gradients([([2.0], weight)]) == 1
    assert weight.item() == -2.0


def test_apply_to_some_of_the_variables() -> None:
    one, two = parameter(0.0), parameter(0.0)
    optimizer = SGD(1.0)
    optimizer.build([one, two])
    optimizer.apply([torch.tensor([1.0])], [two])
    assert (one.item(), two.item()) == (0.0, -1.0)


@pytest.mark.parametrize(
    ("gradients", "variables", "message"),
    [
        ([torch.zeros(1)], None, "needs an optimizer that is built"),
        ([torch.zeros(1), torch.zeros(1)], [parameter(1.0)], "one gradient for each"),
        ([torch.zeros(2)], [parameter(1.0)], "shape"),
        ([None], [parameter(1.0)], "No gradients provided"),
    ],
)
def test_apply_refuses_what_does_not_fit(gradients: list[Any], variables: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SGD().apply(gradients, variables)


def test_apply_to_an_unknown_variable_is_an_error() -> None:
    optimizer = SGD()
    optimizer.build([parameter(1.0)])
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([torch.zeros(1)], [parameter(1.0)])


def test_loss_scaling_goes_both_ways() -> None:
    weight = parameter(1.0)
    optimizer = SGD(1.0, loss_scale_factor=4.0)
    optimizer.build([weight])
    optimizer.scale_loss((weight * 3.0).sum()).backward()
    assert weight.grad is not None
    assert weight.grad.item() == 12.0
    optimizer.step()
    assert weight.item() == -2.0


def test_weight_decay_may_change_between_steps() -> None:
    for cls in (SGD, AdamW):
        weight = parameter(1.0)
        optimizer = cls(learning_rate=0.5, weight_decay=0.0)
        optimizer.build([weight])
        optimizer.weight_decay = 1.0
        weight.grad = torch.zeros(1)
        optimizer.step()
        assert weight.item() == 0.5


def test_hyperparameters_may_change_between_steps() -> None:
    weight = parameter(0.0)
    optimizer = SGD(1.0, momentum=0.5)
    optimizer.build([weight])
    give_gradients([weight])
    optimizer.step()
    optimizer.momentum = 1.0
    give_gradients([weight], 0.0)
    optimizer.step()
    assert weight.item() == -2.0
    for momentum, moved in ((0.0, -1.0), (0.5, -0.5 - 1.0)):
        # Without momentum the velocity stays what it was, -1 here, as in Keras.
        optimizer.momentum = momentum
        give_gradients([weight], 1.0)
        before = weight.item()
        optimizer.step()
        assert weight.item() - before == moved


def test_constraints_hold_after_the_update() -> None:
    class Weight:
        value = parameter(1.0, -1.0)
        constraint = staticmethod(torch.relu)

    optimizer = SGD(0.1)
    optimizer.build([Weight()])
    Weight.value.grad = torch.ones(2)
    optimizer.step()
    assert Weight.value.tolist() == pytest.approx([0.9, 0.0])


def test_moving_average_is_kept_and_put_in_place() -> None:
    weight = parameter(0.0)
    optimizer = SGD(1.0, use_ema=True, ema_momentum=0.5)
    assert optimizer.ema_variables is None
    optimizer.build([weight])
    for _ in range(2):
        give_gradients([weight])
        optimizer.step()
    assert weight.item() == -2.0
    optimizer.finalize_variable_values([weight])
    assert weight.item() == -1.5
    with pytest.raises(ValueError, match="in their order"):
        optimizer.finalize_variable_values([])


def test_exclusion_comes_before_build_and_needs_names() -> None:
    optimizer = SGD(weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    with pytest.raises(ValueError, match="Give `var_list` instead"):
        optimizer.build([parameter(1.0)])
    optimizer = SGD()
    optimizer.build([parameter(1.0)])
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude_from_weight_decay()


@pytest.mark.parametrize("same", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cls", CLASSES)
def test_a_copy_is_independent(cls: type[Optimizer], options: dict[str, Any], same: Any) -> None:
    weights = [parameter(1.0), parameter(2.0)]
    optimizer = cls(learning_rate=0.1, **options)
    optimizer.exclude_from_weight_decay(var_list=weights[:1])
    optimizer.build(weights)
    give_gradients(weights)
    optimizer.step()
    twin, copies = same((optimizer, weights))
    before = [weight.item() for weight in weights]
    for step in range(3):
        give_gradients(copies, step - 0.5)
        twin.step()
    assert [weight.item() for weight in weights] == before
    for step in range(3):
        give_gradients(weights, step - 0.5)
        optimizer.step()
    assert [weight.item() for weight in weights] == [weight.item() for weight in copies]
    twin.learning_rate = 0.5
    assert optimizer.learning_rate == 0.1


def test_own_optimizers_need_only_a_torch_optimizer() -> None:
    class Rprop(Optimizer):
        def make_torch_optimizer(self, groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
            return torch.optim.Rprop(groups, lr=learning_rate)

    weight = parameter(1.0)
    Rprop(0.5).apply([torch.ones(1)], [weight])
    assert weight.item() == 0.5
    with pytest.raises(NotImplementedError, match="make_torch_optimizer"):
        Optimizer(0.5).build([weight])


@pytest.mark.parametrize("make", [SGD, lambda: TorchOptimizer(torch.optim.SGD)])
def test_repr_names_the_class(make: Any) -> None:
    assert type(make()).__name__ in repr(make())
