"""Optimizers written as Keras's documentation says, by `build`, `update_step` and `apply`, and what is refused in one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oncue as keras
from helpers import PowerCut, normal, parameter, same_arrays, tensor, to_numpy
from oncue import layers
from oncue.callbacks import BackupAndRestore
from oncue.optimizers import SGD, Adam, LossScaleOptimizer, Optimizer

X = normal(32, 4)
Y = X.sum(1, keepdims=True)


class Momentum(Optimizer):
    def __init__(self, learning_rate: Any = 0.05, share: float = 0.9, **options: Any) -> None:
        super().__init__(learning_rate=learning_rate, **options)
        self.share = share

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        velocity = self.velocities[self._get_variable_index(variable)]
        self.assign(velocity, self.share * velocity - learning_rate * gradient)
        self.assign_add(variable, velocity)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "share": self.share}


def model_of(optimizer: Any, **compile_options: Any) -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Reshape((2, 2, 1)),
            layers.Conv2D(3, (1, 2), kernel_constraint="max_norm"),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    model.compile(optimizer, "mse", **compile_options)
    return model


def losses(model: Any, callbacks: Any = (), epochs: int = 3) -> Any:
    fit = {"batch_size": 8, "epochs": epochs, "shuffle": False, "verbose": 0}
    return model.fit(X, Y, callbacks=list(callbacks), **fit).history["loss"]


@pytest.mark.parametrize(
    "options",
    [{}, {"clipnorm": 0.1, "weight_decay": 0.1}, {"gradient_accumulation_steps": 2, "use_ema": True}],
    ids=["plain", "clip and decay", "accumulation and average"],
)
def test_it_gives_what_the_built_in_one_gives(options: dict[str, Any]) -> None:
    own, built_in = model_of(Momentum(**options)), model_of(SGD(0.05, momentum=0.9, **options))
    np.testing.assert_allclose(losses(own), losses(built_in), rtol=1e-5)
    for one, other in zip(own.optimizer.state_tensors(), built_in.optimizer.state_tensors(), strict=True):
        one, other = to_numpy(one), to_numpy(other)
        # The velocity of a kernel is laid out as the variable is shown.
        np.testing.assert_allclose(np.sort(one.ravel()), np.sort(other.ravel()), atol=1e-5)


def test_a_run_that_was_killed_resumes_with_its_variables(tmp_path: Path) -> None:
    whole = model_of(Momentum())
    expected = losses(whole)
    with pytest.raises(ConnectionError):
        losses(model_of(Momentum()), [BackupAndRestore(tmp_path / "backup", save_freq=1), PowerCut(1, 2)])
    again = model_of(Momentum())
    assert losses(again, [BackupAndRestore(tmp_path / "backup", save_freq=1)]) == expected
    assert same_arrays(again.get_weights(), whole.get_weights())


def test_files_and_copies_have_its_variables(tmp_path: Path) -> None:
    model = model_of(Momentum())
    losses(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"Momentum": Momentum})
    copied = copy.deepcopy(model)
    more = losses(model)
    assert losses(loaded) == more == losses(copied)


def test_bare_parameters_and_a_factor_for_the_loss() -> None:
    weights = [parameter([1.0, 2.0]), parameter([[3.0]])]
    optimizer = LossScaleOptimizer(Momentum(1.0, share=0.5), initial_scale=4.0)
    optimizer.build(weights)
    for value in (8.0, float("inf"), 4.0):
        for weight in weights:
            weight.grad = torch.full_like(weight, value)
        optimizer.step()
    # Velocities of -2 and, after the step that was left out and halved the factor, of -1 - 2.
    assert [to_numpy(weight).ravel().tolist() for weight in weights] == [[-4.0, -3.0], [-2.0]]
    assert optimizer.iterations == 2


class Halved(SGD):
    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        super().update_step(gradient * 0.5, variable, learning_rate)


class Centred(Adam):
    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply([gradient - gradient.mean() for gradient in grads], trainable_variables)


class HalvedPairs(SGD):
    def apply_gradients(self, grads_and_vars: Any) -> Any:
        return super().apply_gradients((gradient * 0.5, variable) for gradient, variable in grads_and_vars)


class Doubled(SGD):
    def scale_loss(self, loss: Any) -> Any:
        return loss * 2.0


@pytest.mark.parametrize("kind", [Halved, HalvedPairs])
def test_what_a_subclass_makes_of_gradients_counts(kind: Any) -> None:
    np.testing.assert_allclose(
        losses(model_of(kind(0.1, momentum=0.9))), losses(model_of(SGD(0.05, momentum=0.9))), 1e-5
    )


def test_an_apply_and_a_scaled_loss_of_ones_own_count() -> None:
    assert losses(model_of(Centred(0.01))) != losses(model_of(Adam(0.01)))
    np.testing.assert_allclose(losses(model_of(Doubled(0.05))), losses(model_of(SGD(0.1))), rtol=1e-5)


def test_assign_of_ones_own_is_called_by_update_step() -> None:
    class Slower(Momentum):
        def assign_add(self, variable: Any, value: Any) -> None:
            variable.assign_add(0.5 * value)

    weight = parameter([0.0])
    Slower(1.0).apply([tensor([2.0])], [weight])
    assert weight.item() == -1.0


@pytest.mark.parametrize(
    "name",
    [
        "get_updates",
        "_resource_apply_dense",
        "_clip_gradients",
        "_backend_update_step",
        "save_own_variables",
        "minimize",
    ],
)
@pytest.mark.parametrize("parent", [Optimizer, Adam])
def test_what_would_never_be_called_is_refused_when_the_class_is_made(name: str, parent: type) -> None:
    with pytest.raises(TypeError, match=rf"`Mine.{name}` would never be called: .* instead"):
        type("Mine", (parent,), {name: lambda self: None})


def test_other_refusals() -> None:
    with pytest.raises(TypeError, match="`Mine.assign_sub` would never be called: .*update_step"):
        type("Mine", (SGD,), {"assign_sub": lambda self, variable, value: None})
    with pytest.raises(TypeError, match="`Mine.learning_rate` would never be called: give a `LearningRateSchedule`"):
        type("Mine", (SGD,), {"learning_rate": property(lambda self: 0.1)})
    both = {"update_step": lambda *_: None, "make_torch_optimizer": lambda *_: None}
    with pytest.raises(TypeError, match="`Mine` defines `update_step` and `make_torch_optimizer`"):
        type("Mine", (Optimizer,), both)
    with pytest.raises(NotImplementedError, match="must define `update_step"):
        type("Mine", (Optimizer,), {})(0.1).build([parameter([1.0])])

    class Unbuilt(Momentum):
        def build(self, variables: Any) -> None:
            self.built = True

    with pytest.raises(ValueError, match=r"is not built.*`super\(\).build\(variables\)`"):
        losses(model_of(Unbuilt()))


def test_more_weights_need_a_new_optimizer() -> None:
    class Keeping(Momentum):
        def build(self, variables: Any) -> None:
            known = self.built
            Optimizer.build(self, variables)
            if not known:
                self.velocities = self.add_optimizer_variables(variables, "velocity")

    optimizer, weight = Keeping(), parameter([1.0])
    optimizer.build([weight])
    with pytest.raises(ValueError, match="made variables of its own for 1 parameters, and can't take 1 more"):
        optimizer.build([weight, parameter([2.0])])
