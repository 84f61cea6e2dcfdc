"""The learning rate and the count: read as numbers, set in every way that Keras code sets them."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from oncue import backend
from oncue.optimizers import SGD, Adam, schedules
from oncue.optimizers.schedules import ExponentialDecay, LearningRateSchedule


def test_reads_as_a_float() -> None:
    rate = SGD(0.25).learning_rate
    assert isinstance(rate, float)
    assert (rate, rate * 2, str(rate), json.dumps({"lr": rate})) == (0.25, 0.5, "0.25", '{"lr": 0.25}')
    assert rate.value == 0.25
    assert type(rate.value) is float
    assert rate.numpy() == np.float32(0.25)
    assert rate.numpy().dtype == np.float32
    assert np.asarray(rate) == 0.25
    assert float(backend.get_value(rate)) == 0.25


@pytest.mark.parametrize("same", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_plain_numbers(same: Any) -> None:
    optimizer = SGD(0.25)
    assert type(same(optimizer.learning_rate)) is float
    assert type(same(optimizer.iterations)) is int


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), np.array(0.5), torch.tensor(0.5), SGD(0.5).learning_rate])
@pytest.mark.parametrize("built", [False, True])
def test_is_set_by_any_number(value: Any, built: bool) -> None:
    optimizer = SGD(0.1)
    weight = torch.nn.Parameter(torch.zeros(1))
    if built:
        optimizer.build([weight])
    optimizer.learning_rate = value
    assert optimizer.learning_rate == float(value)
    optimizer.apply([torch.ones(1)], [weight])
    assert weight.item() == -float(value)


def test_old_ways_to_set_it() -> None:
    optimizer = SGD(0.1)
    with pytest.warns(DeprecationWarning, match="`optimizer.lr` is from an older Keras"):
        assert hasattr(optimizer, "lr")
    optimizer.lr = 0.2
    assert optimizer.learning_rate == 0.2
    optimizer.lr.assign(0.3)
    assert optimizer.lr == 0.3
    backend.set_value(optimizer.lr, 0.4)
    assert optimizer.lr == 0.4
    optimizer.learning_rate *= 0.5
    assert optimizer.lr == 0.2


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, "0.1", None, [0.1], np.array([0.1]), True, 1j])
def test_refuses_what_is_no_rate(value: Any) -> None:
    with pytest.raises(ValueError, match="`learning_rate` must be"):
        SGD(value)
    optimizer = SGD(0.1)
    with pytest.raises(ValueError, match="`learning_rate` must be"):
        optimizer.learning_rate = value
    assert optimizer.learning_rate == 0.1


def test_a_schedule_moves_it_and_a_number_cannot_replace_it() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = SGD(ExponentialDecay(1.0, decay_steps=1, decay_rate=0.5))
    optimizer.build([weight])
    for expected in (-1.0, -1.5, -1.75):
        optimizer.apply([torch.ones(1)])
        assert weight.item() == expected
    assert optimizer.learning_rate == 0.125
    with pytest.raises(TypeError, match="LearningRateSchedule"):
        optimizer.learning_rate = 0.1
    with pytest.raises(TypeError, match="LearningRateSchedule"):
        optimizer.learning_rate.assign(0.1)
    optimizer.learning_rate = ExponentialDecay(8.0, decay_steps=1, decay_rate=0.5)
    assert optimizer.learning_rate == 1.0


def test_a_schedule_class_is_not_a_schedule() -> None:
    with pytest.raises(ValueError, match="give an instance"):
        SGD(ExponentialDecay)


def test_a_function_gives_it() -> None:
    rates = iter([1.0, 2.0])
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = SGD(1.0)
    optimizer.build([weight])
    optimizer.learning_rate = lambda: next(rates)
    with pytest.raises(StopIteration):
        optimizer.apply([torch.ones(1)])
        optimizer.apply([torch.ones(1)])


def test_a_schedule_of_ones_own() -> None:
    class Mine(LearningRateSchedule):
        def __call__(self, step: int) -> float:
            return 1.0 / (step + 1)

    optimizer = SGD(Mine())
    optimizer.iterations = 3
    assert optimizer.learning_rate == 0.25
    with pytest.raises(NotImplementedError, match="get_config"):
        optimizer.get_config()


def test_old_arguments_warn_and_work() -> None:
    with pytest.warns(DeprecationWarning, match="learning_rate=") as caught:
        optimizer = Adam(lr=0.5, epsilon=None)
    assert optimizer.learning_rate == 0.5
    assert optimizer.epsilon == 1e-7
    assert [w.filename for w in caught] == [__file__]

    weight = torch.nn.Parameter(torch.zeros(1))
    with pytest.warns(DeprecationWarning, match="InverseTimeDecay"):
        optimizer = SGD(1.0, decay=1.0)
    optimizer.build([weight])
    for expected in (-1.0, -1.5):
        optimizer.apply([torch.ones(1)])
        assert weight.item() == expected
    assert optimizer.learning_rate == 1.0
    optimizer.learning_rate = 3.0
    optimizer.apply([torch.ones(1)])
    assert weight.item() == -2.5
    assert SGD.from_config(optimizer.get_config()).get_config()["decay"] == 1.0


@pytest.mark.filterwarnings("error")
def test_configs_of_keras_2_are_quiet_about_what_is_off() -> None:
    config = {"name": "SGD", "learning_rate": 0.1, "decay": 0.0, "jit_compile": False, "is_legacy_optimizer": False}
    assert SGD.from_config(config).learning_rate == 0.1


def test_unknown_arguments_name_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"argument of Adam.*'beta1'.*'beta_1'"):
        Adam(beta1=0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clipnorm": 1.0, "clipvalue": 1.0}, "Only one of"),
        ({"clipnorm": -1.0}, "`clipnorm` must be"),
        ({"clipvalue": "1"}, "`clipvalue` must be"),
        ({"use_ema": True, "ema_momentum": 1.5}, "`ema_momentum`"),
        ({"use_ema": True, "ema_overwrite_frequency": 0}, "`ema_overwrite_frequency`"),
        ({"gradient_accumulation_steps": 1}, "`gradient_accumulation_steps`"),
        ({"loss_scale_factor": 0.0}, "`loss_scale_factor`"),
        ({"weight_decay": -1.0}, "`weight_decay`"),
        ({"momentum": 1.5}, "`momentum`"),
    ],
)
def test_refuses_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SGD(**arguments)


def test_the_count_is_an_int_that_can_be_set() -> None:
    optimizer = SGD(0.1)
    assert isinstance(optimizer.iterations, int)
    optimizer.iterations.assign(np.int64(5))
    assert optimizer.iterations == 5
    assert optimizer.iterations.numpy() == 5
    with pytest.raises(ValueError, match="`iterations`"):
        optimizer.iterations = 1.5
    with pytest.raises(ValueError, match="`iterations`"):
        optimizer.iterations = -1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.ExponentialDecay(0.1, 0, 0.5), "decay_steps"),
        (lambda: schedules.CosineDecayRestarts(0.1, -1), "first_decay_steps"),
        (lambda: schedules.PiecewiseConstantDecay([1], [0.1]), "one element more"),
        (lambda: schedules.PiecewiseConstantDecay([2, 1], [0.1, 0.2, 0.3]), "increase"),
        (lambda: schedules.deserialize({"class_name": "CosineDecai", "config": {}}), "CosineDecay"),
    ],
)
def test_schedules_refuse(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("t_mul", [1.0, 1.5, 2.0, 10.0])
def test_restarts_fall_on_their_steps(t_mul: float) -> None:
    schedule = schedules.CosineDecayRestarts(1.0, first_decay_steps=4, t_mul=t_mul)
    step, length = 0.0, 4.0
    for _ in range(8):
        assert schedule(step) == pytest.approx(1.0)
        step, length = step + length, length * t_mul
