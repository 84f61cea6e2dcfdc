"""Optimizers of the user's own are part of a traced step, or follow it where they can't be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import oncue as keras
from helpers import cpu_only, normal
from oncue import layers
from oncue.optimizers import SGD, Adam, LossScaleOptimizer, Nadam, Optimizer, schedules
from oncue.optimizers.foreach import add_scaled_

X = normal(20, 6, seed=1)
Y = normal(20, 2, seed=2)
OPTIONS: dict[str, Any] = {"clipnorm": 0.5, "weight_decay": 0.1, "use_ema": True, "ema_overwrite_frequency": 3}
SHARE = 0.5


def network() -> Any:
    first = layers.Dense(5, "relu", kernel_constraint="unit_norm", kernel_regularizer="l2")
    return keras.Sequential(
        [layers.Input((6,)), layers.Reshape((2, 3)), layers.Conv1D(4, 2), layers.Flatten(), first, layers.Dense(2)]
    )


class Corrected(Optimizer):
    """Adam, as Keras's documentation says to write an optimizer."""

    def __init__(self, learning_rate: Any = 0.05, **options: Any) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.beta_1, self.beta_2 = 0.8, 0.9

    def build(self, variables: Any) -> None:
        if not self.built:
            super().build(variables)
            self.means, self.squares = self.add_optimizer_variables(variables, ["mean", "square"])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        place, update = self._get_variable_index(variable), self.iterations + 1
        mean, square = self.means[place], self.squares[place]
        rate = learning_rate * (1 - self.beta_2**update) ** 0.5 / (1 - self.beta_1**update)
        self.assign_add(mean, (1 - self.beta_1) * (gradient - mean))
        self.assign_add(square, (1 - self.beta_2) * (gradient**2 - square))
        self.assign_sub(variable, rate * mean / (square**0.5 + 1e-3))


class Halved(Nadam):
    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(0.5 * gradient, variable, learning_rate)


class Renamed(Adam):
    pass


class Signs(Optimizer):
    @staticmethod
    def update_rule(
        parameters: list[Tensor], gradients: list[Tensor], slots: Mapping[str, list[Tensor]], numbers: Mapping[str, Any]
    ) -> None:
        add_scaled_(parameters, [SHARE * gradient.tanh() for gradient in gradients], numbers["change"])

    def update_numbers(self, update: int, rate: float) -> dict[str, float]:
        return {"change": -rate / update}


class Shared(Optimizer):
    """Reads a global, and an attribute that may be set."""

    power = 1.0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        variable.assign_sub(learning_rate * SHARE * gradient * gradient.abs() ** self.power)


class Slowing(Optimizer):
    """Counts by what no document names."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        variable.assign_sub(learning_rate / (1 + self._iterations) * gradient)


class Noisy(Optimizer):
    """Draws, and writes into the gradient and past the variable."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        gradient.add_(0.1 * torch.randn(gradient.shape)).mul_(learning_rate)
        variable.value.data.sub_(gradient)


class Centred(SGD):
    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply([gradient - gradient.mean() for gradient in grads], trainable_variables)


class Normalized(Adam):
    """As in Keras 2: by pairs, with what was counted and the rate."""

    def apply_gradients(self, grads_and_vars: Any) -> Any:
        pairs = list(grads_and_vars)
        size = torch.stack([gradient.norm() for gradient, _ in pairs]).norm() * (
            1 + self.iterations * self.learning_rate
        )
        return super().apply_gradients([(gradient.div_(size), variable) for gradient, variable in pairs])


class Smoothed(Corrected):
    """Changes a variable of its own before, and a weight after the update."""

    def build(self, variables: Any) -> None:
        if not self.built:
            super().build(variables)
            self.size = self.add_variable((), "ones", name="size")

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        self.size.assign(0.9 * self.size + 0.1 * sum(gradient.abs().mean() for gradient in grads))
        super().apply([gradient / self.size.value for gradient in grads], trainable_variables)
        trainable_variables[-1].assign(trainable_variables[-1] * 0.5)


class LastAlone(SGD):
    """Leaves weights out."""

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply(grads[2:], trainable_variables[2:])


INSIDE: dict[str, Callable[[], Any]] = {
    "corrected by the count": Corrected,
    "with all options": lambda: Corrected(schedules.ExponentialDecay(0.1, 2, 0.5), **OPTIONS),
    "accumulating": lambda: Corrected(gradient_accumulation_steps=2, loss_scale_factor=8.0),
    "by the step of its parent": lambda: Halved(schedules.ExponentialDecay(0.1, 2, 0.5)),
    "renamed": lambda: Renamed(0.05),
    "by a rule": lambda: Signs(0.1, **OPTIONS),
    "by a rule, scaled": lambda: LossScaleOptimizer(Signs(0.1), initial_scale=2.0**127),
    "by a global": lambda: Shared(0.1),
    "by the count itself": lambda: Slowing(0.5),
    "noise": lambda: Noisy(0.1),
    "an apply": lambda: Centred(0.1, momentum=0.9),
    "an apply with all options": lambda: Centred(schedules.ExponentialDecay(0.1, 2, 0.5), **OPTIONS),
    "an apply, accumulating": lambda: Centred(0.1, gradient_accumulation_steps=2, loss_scale_factor=8.0),
    "an apply by pairs": lambda: Normalized(0.1, gradient_accumulation_steps=2),
    "an apply and an update_step": lambda: Smoothed(schedules.ExponentialDecay(0.1, 2, 0.5)),
    "an apply of some": lambda: LastAlone(0.1),
    # Of larger targets, so that the first gradients overflow.
    "scaled": lambda: LossScaleOptimizer(Corrected(**OPTIONS), initial_scale=2.0**127),
    "an apply, scaled": lambda: LossScaleOptimizer(Centred(0.1, momentum=0.9), initial_scale=2.0**127),
    "an apply of Adam's, scaled": lambda: LossScaleOptimizer(Normalized(0.1), initial_scale=2.0**127),
    "an apply and an update_step, scaled": lambda: LossScaleOptimizer(Smoothed(0.1), initial_scale=2.0**127),
    "scaled, accumulating": lambda: LossScaleOptimizer(Corrected(gradient_accumulation_steps=2), 2.0**127),
}


def targets(name: str) -> Any:
    return 8 * Y if "scaled" in name else Y


@pytest.mark.parametrize("name", INSIDE)
@cpu_only("an accelerator draws other numbers")
def test_an_update_of_the_users_in_the_graph(name: str, side_by_side: Any) -> None:
    side_by_side(network, X, targets(name), optimizer=lambda model: INSIDE[name]())


class Reading(SGD):
    """Decides by the count."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self.iterations % 2 == 0:
            super().update_step(gradient, variable, learning_rate)


class Doubled(Adam):
    """Has the parent compute another rate's numbers."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient, variable, 2 * learning_rate)


class Counting(SGD):
    """Counts in Python."""

    calls = 0

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.calls += 1
        super().update_step(gradient / self.calls, variable, learning_rate)


class Late(Optimizer):
    """Makes its state in the first update."""

    def __init__(self, learning_rate: Any = 0.05) -> None:
        super().__init__(learning_rate)
        self.sums: dict[str, Tensor] = {}

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        total = self.sums.setdefault(variable.path, torch.zeros_like(gradient))
        variable.assign_sub(learning_rate * total.mul_(0.5).add_(gradient))


class Aside(SGD):
    """Changes a tensor that nobody but itself knows."""

    def __init__(self, learning_rate: Any = 0.05) -> None:
        super().__init__(learning_rate)
        self.size = torch.ones(())

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        self.size.mul_(0.9)
        super().update_step(gradient * self.size, variable, learning_rate)


class Typed(Optimizer):
    """Has another arithmetic for numbers than for tensors."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        variable.assign_sub((1.0 if isinstance(learning_rate, float) else 2.0) * learning_rate * gradient)


class Twice(SGD):
    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply(grads, trainable_variables)
        super().apply(grads, trainable_variables)


class Stepping(SGD):
    def step(self) -> None:
        super().step()


FOLLOWING: dict[str, Callable[[], Any]] = {
    "reads a value": lambda: Reading(0.1),
    "another rate": lambda: Doubled(0.01),
    "counts": lambda: Counting(0.1),
    "makes state late": Late,
    "asks for types": lambda: Typed(0.1),
    "an apply that updates twice": lambda: Twice(0.1),
    "a step": lambda: Stepping(0.1),
    "counts, scaled": lambda: LossScaleOptimizer(Counting(0.1), initial_scale=2.0**127),
    "changes a tensor, scaled": lambda: LossScaleOptimizer(Aside(0.1), initial_scale=8.0),
    "a step, scaled": lambda: LossScaleOptimizer(Stepping(0.1), initial_scale=2.0**127),
}


@pytest.mark.parametrize("name", FOLLOWING)
def test_an_update_that_cant_be_traced_follows(name: str, side_by_side: Any) -> None:
    side_by_side(network, X, targets(name), optimizer=lambda model: FOLLOWING[name](), whole=False)


class Setting(keras.callbacks.Callback):
    """Sets what an update reads, after each epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        global SHARE
        SHARE = 0.5 / (epoch + 1)
        self.model.optimizer.power = float(epoch)
        self.model.optimizer.learning_rate = 0.1 + epoch / 10

    def on_train_begin(self, logs: Any = None) -> None:
        global SHARE
        SHARE = 0.5


@pytest.mark.parametrize("kind", [Shared, Signs])
def test_what_an_update_reads_is_noticed(kind: Any, side_by_side: Any) -> None:
    fit = {"epochs": 3, "callbacks": lambda: [Setting()]}
    side_by_side(network, X, Y, optimizer=lambda model: kind(0.1), fit=fit)


class Weighing(SGD):
    """Scales the loss in its own way."""

    power = 1.0

    def scale_loss(self, loss: Any) -> Any:
        return loss * (1.0 + self.power)


def test_what_a_scale_of_the_loss_reads_is_noticed(side_by_side: Any) -> None:
    fit = {"epochs": 3, "callbacks": lambda: [Setting()]}
    side_by_side(network, X, Y, optimizer=lambda model: Weighing(0.1), whole=False, fit=fit)


def test_another_optimizer_for_the_same_weights_has_another_graph(quick: None) -> None:
    models = []
    for jit in (False, True):
        keras.utils.set_random_seed(0)
        model = network()
        for optimizer in (SGD(0.1), Adam(0.01), Corrected(), SGD(0.3)):
            if model.optimizer is None:
                model.compile(optimizer, "mse", jit_compile=jit)
            else:
                model.optimizer = optimizer
            model.fit(X, Y, batch_size=4, shuffle=False, verbose=0)
            assert optimizer.iterations == 5
        models.append(model)
    assert models[1].step_account.startswith("The steps ran as one compiled graph")
    assert models[1]._plan.graphs.steps["train"].graphs == 3
    for one, other in zip(*[model.get_weights() for model in models], strict=True):
        assert abs(one - other).max() < 1e-5
