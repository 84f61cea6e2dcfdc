"""Every optimizer, with every option, moves weights as Keras's does."""

from __future__ import annotations

import itertools
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from helpers import parameter, tensor, to_numpy
from oncue import optimizers

SHAPES = [(3, 4), (4,), (2, 3, 2)]
NAMES = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "Nadam"]
OWN: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}],
    "Adam": [{}, {"amsgrad": True}, {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.1}],
    "AdamW": [{}, {"weight_decay": 0.3, "amsgrad": True}],
    "RMSprop": [
        {"momentum": momentum, "centered": centered, "epsilon": epsilon}
        for momentum, centered, epsilon in itertools.product((0.0, 0.8), (False, True), (1e-7, 0.1))
    ],
    "Adagrad": [{}, {"initial_accumulator_value": 0.0, "epsilon": 0.1}],
    "Adadelta": [{}, {"rho": 0.5, "epsilon": 1e-3}],
    "Adamax": [{}, {"beta_1": 0.5, "beta_2": 0.6, "epsilon": 0.1}],
    "Nadam": [{}, {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.1}],
}
COMMON: list[dict[str, Any]] = [
    {"weight_decay": 0.2},
    {"clipnorm": 0.5},
    {"clipvalue": 0.3},
    {"global_clipnorm": 0.7},
    {"loss_scale_factor": 8.0},
    {"use_ema": True, "ema_momentum": 0.6},
    {"use_ema": True, "ema_momentum": 0.6, "ema_overwrite_frequency": 2},
    {"gradient_accumulation_steps": 2},
    {"gradient_accumulation_steps": 3, "clipnorm": 0.5, "weight_decay": 0.1},
    {"gradient_accumulation_steps": 2, "use_ema": True, "ema_momentum": 0.6, "ema_overwrite_frequency": 2},
]
CASES = [(name, own) for name in NAMES for own in OWN[name]] + [(n, c) for n in NAMES for c in COMMON]


class Pair:
    """The same weights under both optimizers."""

    def __init__(self, keras: ModuleType, name: str, arguments: dict[str, Any]) -> None:
        rng = np.random.default_rng(0)
        start = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
        self.gradients = [[rng.normal(size=shape).astype("float32") for shape in SHAPES] for _ in range(8)]
        self.theirs = getattr(keras.optimizers, name)(**arguments)
        self.ours = getattr(optimizers, name)(**arguments)
        names = ["kernel", "bias", "other"]
        self.variables = [keras.Variable(value, name=name_) for value, name_ in zip(start, names, strict=True)]
        self.parameters = [parameter(value) for value in start]

    def step(self, number: int, absent: tuple[int, ...] = ()) -> None:
        gradients: list[Any] = list(self.gradients[number])
        for position in absent:
            gradients[position] = None
        self.theirs.apply([None if g is None else tensor(g) for g in gradients], self.variables)
        if not self.ours.built:
            self.ours.build(self.parameters)
        for weight, gradient in zip(self.parameters, gradients, strict=True):
            weight.grad = None if gradient is None else tensor(gradient)
        self.ours.step()

    def check(self) -> None:
        for variable, weight in zip(self.variables, self.parameters, strict=True):
            # Keras takes `1 - beta_2 ** t` in 32 bits, which is off by up to 5e-5 of itself in the first steps.
            np.testing.assert_allclose(to_numpy(weight), to_numpy(variable.value), rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_six_steps_with_a_change_of_rate(keras: ModuleType, name: str, arguments: dict[str, Any]) -> None:
    pair = Pair(keras, name, {"learning_rate": 0.1, **arguments})
    for number in range(6):
        if number == 3:
            pair.theirs.learning_rate = 0.02
            pair.ours.learning_rate = 0.02
        pair.step(number)
        pair.check()
    assert pair.ours.iterations == int(pair.theirs.iterations)
    if arguments.get("use_ema"):
        pair.theirs.finalize_variable_values(pair.variables)
        pair.ours.finalize_variable_values(pair.parameters)
        pair.check()


@pytest.mark.parametrize(
    ("name", "option"), [("SGD", "momentum"), ("SGD", "nesterov"), ("RMSprop", "momentum"), ("RMSprop", "centered")]
)
def test_a_momentum_that_is_0_for_some_steps(keras: ModuleType, name: str, option: str) -> None:
    pair = Pair(keras, name, {"learning_rate": 0.1, option: True, "momentum": 0.9})
    for number, momentum in enumerate((0.9, 0.9, 0.0, 0.0, 0.5, 0.9)):
        pair.theirs.momentum = pair.ours.momentum = momentum
        pair.step(number)
        pair.check()


@pytest.mark.parametrize("name", NAMES)
def test_state_is_listed_as_keras_lists_it(keras: ModuleType, name: str) -> None:
    arguments: dict[str, Any] = {"use_ema": True, "gradient_accumulation_steps": 2}
    arguments |= {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9, "centered": True}}.get(name, {})
    arguments |= {"amsgrad": True} if name in ("Adam", "AdamW") else {}
    pair = Pair(keras, name, arguments)
    for number in range(5):
        pair.step(number)
    ours, theirs = pair.ours.variables, pair.theirs.variables
    assert [tuple(v.shape) for v in ours] == [tuple(v.shape) for v in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(to_numpy(mine), to_numpy(other), rtol=1e-5, atol=1e-6, err_msg=other.path)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_started_in_keras_continues_here(keras: ModuleType, name: str) -> None:
    pair = Pair(keras, name, {"learning_rate": 0.1})
    for number in range(3):
        pair.step(number)
    store: dict[str, Any] = {}
    pair.theirs.save_own_variables(store)
    pair.ours = getattr(optimizers, name)(learning_rate=0.5)
    pair.ours.build(pair.parameters)
    pair.ours.load_own_variables(store)
    for number in range(3, 6):
        pair.step(number)
        pair.check()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_absent_gradients(keras: ModuleType, name: str) -> None:
    pair = Pair(keras, name, {"learning_rate": 0.1, "weight_decay": 0.1})
    for number, absent in enumerate([(), (1,), (0, 2), (), (1,)]):
        pair.step(number, absent)
        pair.check()


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_moves_with_updates_and_not_with_accumulated_steps(keras: ModuleType, name: str) -> None:
    """On purpose not as in Keras, whose schedules see every step; so the rates are given to Keras one by one."""
    arguments = {"initial_learning_rate": 0.1, "decay_steps": 2, "decay_rate": 0.5}
    pair = Pair(keras, name, {"gradient_accumulation_steps": 2})
    pair.ours.learning_rate = optimizers.schedules.ExponentialDecay(**arguments)
    for number in range(6):
        rate = 0.1 * 0.5 ** (number // 2 / 2)
        pair.theirs.learning_rate = rate
        assert pair.ours.learning_rate == pytest.approx(rate, rel=1e-6)
        pair.step(number)
        pair.check()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("by", ["var_list", "var_names"])
def test_exclusion_from_weight_decay(keras: ModuleType, name: str, by: str) -> None:
    pair = Pair(keras, name, {"learning_rate": 0.1, "weight_decay": 0.5})
    if by == "var_list":
        pair.theirs.exclude_from_weight_decay(var_list=[pair.variables[1]])
        pair.ours.exclude_from_weight_decay(var_list=[pair.parameters[1]])
    else:
        pair.theirs.exclude_from_weight_decay(var_names=["bias"])
        pair.ours.exclude_from_weight_decay(var_names=["bias"])
        named = [Named(p, v.name) for p, v in zip(pair.parameters, pair.variables, strict=True)]
        pair.ours.build(named)
    for number in range(3):
        pair.step(number)
        pair.check()


class Named:
    """A variable with a name, as the layers of a model have."""

    def __init__(self, value: torch.nn.Parameter, name: str) -> None:
        self.value, self.name = value, name


@pytest.mark.parametrize("name", NAMES)
def test_defaults_and_configs_are_those_of_keras(keras: ModuleType, name: str) -> None:
    ours, theirs = getattr(optimizers, name)(name="x"), getattr(keras.optimizers, name)(name="x")
    mine, other = ours.get_config(), theirs.get_config()
    assert mine.pop("learning_rate") == pytest.approx(other.pop("learning_rate"))
    assert mine == other
    assert keras.optimizers.deserialize(optimizers.serialize(ours)).get_config()["name"] == "x"
    assert type(optimizers.deserialize(keras.optimizers.serialize(theirs))) is type(ours)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_come_in_the_order_of_keras(keras: ModuleType, name: str) -> None:
    import inspect

    ours = list(inspect.signature(getattr(optimizers, name)).parameters)
    assert ours == list(inspect.signature(getattr(keras.optimizers, name).__init__).parameters)[1:]


def test_automatic_names(keras: ModuleType) -> None:
    from oncue import naming

    naming.reset()
    keras.backend.clear_session()
    for name in NAMES:
        assert getattr(optimizers, name)().name == getattr(keras.optimizers, name)().name


def test_an_infinite_global_norm_makes_all_weights_nan(keras: ModuleType) -> None:
    pair = Pair(keras, "SGD", {"global_clipnorm": 1.0})
    pair.gradients[0][0][0, 0] = np.inf
    pair.step(0)
    pair.check()
    assert bool(torch.isnan(pair.parameters[1]).all())


def classes(optimizers: Any) -> dict[str, Any]:
    """Return the same classes, written as Keras's documentation says, for either package."""

    class Momentum(optimizers.Optimizer):
        def build(self, variables: Any) -> None:
            super().build(variables)
            self.velocities = [self.add_variable_from_reference(variable, name="velocity") for variable in variables]

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            velocity = self.velocities[self._get_variable_index(variable)]
            self.assign(velocity, velocity * 0.9 - gradient * float(learning_rate) / (float(self.iterations) + 1.0))
            self.assign_add(variable, velocity)

    class Pairs(optimizers.Optimizer):
        def build(self, variables: Any) -> None:
            super().build(variables)
            self.means, self.squares = self.add_optimizer_variables(variables, ["mean", "square"], ["zeros", "ones"])

        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            place = self._get_variable_index(variable)
            self.assign_add(self.means[place], (gradient - self.means[place]) * 0.5)
            self.assign_add(self.squares[place], gradient * gradient)
            self.assign_sub(variable, self.means[place] / self.squares[place] * float(learning_rate))

    class Halved(optimizers.Adam):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            super().update_step(gradient * 0.5, variable, learning_rate)

    class Applied(optimizers.RMSprop):
        def apply(self, grads: Any, trainable_variables: Any = None) -> None:
            super().apply([gradient * 0.5 for gradient in grads], trainable_variables)

    return {kind.__name__: kind for kind in (Momentum, Pairs, Halved, Applied)}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clipnorm": 0.5, "weight_decay": 0.2},
        {"gradient_accumulation_steps": 2, "use_ema": True, "ema_momentum": 0.6, "ema_overwrite_frequency": 2},
    ],
    ids=["plain", "clipped", "accumulated"],
)
@pytest.mark.parametrize("name", ["Momentum", "Pairs", "Halved", "Applied"])
def test_classes_of_ones_own(keras: ModuleType, name: str, options: dict[str, Any]) -> None:
    pair = Pair(keras, "SGD", {})
    pair.theirs = classes(keras.optimizers)[name](learning_rate=0.1, **options)
    pair.ours = classes(optimizers)[name](learning_rate=0.1, **options)
    for number in range(6):
        pair.step(number)
    pair.check()
