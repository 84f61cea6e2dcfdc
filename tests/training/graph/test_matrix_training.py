"""Every optimizer and every option of training is part of a traced step, or follows it, and gives what it gives eagerly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import oncue as keras
from helpers import cpu_only, normal
from oncue import layers, optimizers

X = normal(20, 6)
Y = X[:, :2] * X[:, 2:4]
Make = Callable[[Any], Any]
schedules = optimizers.schedules

OPTIMIZERS: dict[str, Make] = {
    "Adadelta": lambda made: optimizers.Adadelta(1.0, rho=0.8),
    "Adagrad": lambda made: optimizers.Adagrad(0.1),
    "Adam": lambda made: optimizers.Adam(0.01),
    "Adam, amsgrad": lambda made: optimizers.Adam(0.01, amsgrad=True, weight_decay=0.1),
    "AdamW": lambda made: optimizers.AdamW(0.01, weight_decay=0.1),
    "Adamax": lambda made: optimizers.Adamax(0.01),
    "Nadam": lambda made: optimizers.Nadam(0.01),
    "RMSprop": lambda made: optimizers.RMSprop(0.01),
    "RMSprop, all options": lambda made: optimizers.RMSprop(0.01, momentum=0.9, centered=True, weight_decay=0.1),
    "SGD": lambda made: optimizers.SGD(0.1),
    "SGD, momentum": lambda made: optimizers.SGD(0.1, momentum=0.9),
    "SGD, Nesterov": lambda made: optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "clipnorm": lambda made: optimizers.Adam(0.01, clipnorm=0.1),
    "clipvalue": lambda made: optimizers.SGD(0.1, clipvalue=0.01),
    "global_clipnorm": lambda made: optimizers.SGD(0.1, global_clipnorm=0.1),
    "average": lambda made: optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5),
    "average, put in": lambda made: optimizers.Adam(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "accumulation": lambda made: optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "accumulation, averaged": lambda made: optimizers.Adam(
        0.01, gradient_accumulation_steps=3, use_ema=True, clipnorm=1.0
    ),
    "a factor of the loss": lambda made: optimizers.SGD(0.1, loss_scale_factor=8.0),
    "LossScaleOptimizer": lambda made: optimizers.LossScaleOptimizer(
        optimizers.SGD(0.1), initial_scale=8.0, dynamic_growth_steps=2
    ),
    "LossScaleOptimizer, overflowing": lambda made: optimizers.LossScaleOptimizer(
        optimizers.Adam(0.01, use_ema=True), initial_scale=2.0**127, dynamic_growth_steps=1
    ),
    "LossScaleOptimizer, accumulation": lambda made: optimizers.LossScaleOptimizer(
        optimizers.SGD(schedules.ExponentialDecay(0.1, 1, 0.5), gradient_accumulation_steps=2, clipnorm=0.1)
    ),
    "a schedule": lambda made: optimizers.SGD(schedules.ExponentialDecay(0.1, 2, 0.5, staircase=True)),
    "warm-up": lambda made: optimizers.Adam(schedules.CosineDecay(0.0, 3, warmup_target=0.1, warmup_steps=2)),
    "pieces": lambda made: optimizers.Nadam(schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.01, 0.001])),
    "a function": lambda made: optimizers.SGD(lambda: 0.05),
}


class MoreMomentum(torch.optim.SGD):
    """An optimizer of the user's own."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["momentum"] = min(0.9, group["momentum"] + 0.1)
        return super().step(closure)


FOLLOWING: dict[str, Make] = {
    "TorchOptimizer": lambda made: optimizers.TorchOptimizer(MoreMomentum),
    "torch's SGD, dampened": lambda made: torch.optim.SGD(made.parameters(), lr=0.1, momentum=0.9, dampening=0.5),
    "torch's Adam of another form": lambda made: torch.optim.Adam(made.parameters(), lr=torch.tensor(0.01)),
}
OF_TORCH: dict[str, Make] = {
    "SGD": lambda made: torch.optim.SGD(made.parameters(), lr=0.1),
    "SGD, all options": lambda made: torch.optim.SGD(
        made.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01
    ),
    "SGD, fused": lambda made: torch.optim.SGD(made.parameters(), lr=0.1, fused=True),
    "Adam": lambda made: torch.optim.Adam(made.parameters(), lr=0.01),
    "Adam, all options": lambda made: torch.optim.Adam(made.parameters(), lr=0.01, amsgrad=True, weight_decay=0.1),
    "Adam, fused": lambda made: torch.optim.Adam(made.parameters(), lr=0.01, fused=True),
    "Adagrad": lambda made: torch.optim.Adagrad(made.parameters(), lr=0.1, lr_decay=0.1),
    "RMSprop": lambda made: torch.optim.RMSprop(made.parameters(), lr=0.01, momentum=0.9),
    "NAdam": lambda made: torch.optim.NAdam(made.parameters(), lr=0.01),
    "RAdam": lambda made: torch.optim.RAdam(made.parameters(), lr=0.01, betas=(0.5, 0.8)),
    "ASGD": lambda made: torch.optim.ASGD(made.parameters(), lr=0.1, t0=2),
    "Rprop": lambda made: torch.optim.Rprop(made.parameters(), lr=0.01),
    "Adafactor": lambda made: torch.optim.Adafactor(made.parameters(), lr=0.1),
    "Adafactor, loss scaling": lambda made: optimizers.LossScaleOptimizer(
        optimizers.TorchOptimizer(torch.optim.Adafactor(made.parameters(), lr=0.1), gradient_accumulation_steps=2)
    ),
    "Adam, loss scaling": lambda made: optimizers.LossScaleOptimizer(
        optimizers.TorchOptimizer(torch.optim.Adam(made.parameters(), lr=0.01)), initial_scale=2.0**127
    ),
    "AdamW, two groups": lambda made: torch.optim.AdamW(
        [{"params": list(made.parameters())[:2], "lr": 0.02}, {"params": list(made.parameters())[2:]}], lr=0.01
    ),
}


def network() -> Any:
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(5, "relu", kernel_constraint="unit_norm", kernel_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(2),
        ]
    )


def module() -> Any:
    return keras.Model(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.3), nn.Linear(5, 2)))


def test_every_optimizer_is_here() -> None:
    # What a star brings besides is Keras's own.
    kinds = {
        name: kind for name, kind in vars(optimizers).items() if name in optimizers.__all__ and isinstance(kind, type)
    }
    classes = {name for name, kind in kinds.items() if optimizers.Optimizer in kind.__mro__} - {"Optimizer"}
    assert classes == {name.partition(",")[0] for name in (*OPTIMIZERS, *FOLLOWING) if name[0].isupper()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer(name: str, side_by_side: Any) -> None:
    side_by_side(network, X, Y, optimizer=OPTIMIZERS[name])


@pytest.mark.parametrize("name", FOLLOWING)
def test_an_update_that_follows_the_graph(name: str, side_by_side: Any) -> None:
    side_by_side(network, X, Y, optimizer=FOLLOWING[name], whole=False)


@pytest.mark.parametrize("name", OF_TORCH)
def test_an_optimizer_of_torch(name: str, side_by_side: Any) -> None:
    side_by_side(module, X, Y, optimizer=OF_TORCH[name])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"])
@cpu_only("the types are those of the CPU")
def test_precisions(policy: str, side_by_side: Any) -> None:
    def make() -> Any:
        with_policy = {"dtype": policy}
        return keras.Sequential(
            [
                layers.Input((6,)),
                layers.Dense(5, "relu", **with_policy),
                *([] if policy == "float64" else [layers.Reshape((5, 1)), layers.LSTM(4, **with_policy)]),
                layers.BatchNormalization(**with_policy),
                layers.Dense(2, dtype="float32"),
            ]
        )

    # Weights of bfloat16 have 8 bits, each of whose roundings is up to 0.004 of them.
    tolerance = {"float64": 1e-5, "bfloat16": 3e-2}.get(policy, 1e-2)
    side_by_side(make, X, Y, optimizer=OPTIMIZERS["SGD"], tolerance=tolerance)


@cpu_only("the types are those of the CPU")
def test_a_policy_of_the_whole_model(side_by_side: Any) -> None:
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        side_by_side(network, X, Y, tolerance=1e-2)
    finally:
        keras.mixed_precision.set_global_policy(before)


class Free(nn.Module):
    """Casts and asks for gradients by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self.one(x)
        with torch.no_grad():
            factor = torch.sigmoid(hidden.mean())
        found: Tensor = self.two(hidden.float()) * factor
        return found + torch.utils.checkpoint.checkpoint(torch.tanh, found, use_reentrant=False)


class Squared(torch.autograd.Function):
    """A function with a gradient of its own, which isn't the true one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * x * 3


class OwnGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        return Squared.apply(self.one(x))  # type: ignore[no-untyped-call]


class Penalty(keras.Model):
    """A model whose loss has a gradient in it."""

    def __init__(self) -> None:
        super().__init__()
        self.one = layers.Dense(2, "tanh")

    def call(self, x: Tensor) -> Tensor:
        found: Tensor = self.one(x)
        return found

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **options: Any
    ) -> Any:
        if not torch.is_grad_enabled():
            return super().compute_loss(x, y, y_pred, sample_weight, **options)
        (slope,) = torch.autograd.grad(
            y_pred.sum(),
            self.one.kernel.value if hasattr(self.one.kernel, "value") else self.one.kernel,
            create_graph=True,
        )
        return super().compute_loss(x, y, y_pred, sample_weight, **options) + slope.square().mean()


@pytest.mark.parametrize("make", [lambda: keras.Model(OwnGradient()), Penalty], ids=["a function", "a penalty"])
def test_gradients_of_the_users_own(make: Any, side_by_side: Any) -> None:
    side_by_side(make, X, Y)


@cpu_only("it casts on the CPU")
def test_autocast_no_grad_and_checkpoints_inside_a_module(side_by_side: Any) -> None:
    side_by_side(lambda: keras.Model(Free()), X, Y, optimizer=OPTIMIZERS["Adam"], tolerance=1e-3)


def test_frozen_parts_stay(side_by_side: Any) -> None:
    def make() -> Any:
        model = network()
        model.layers[0].trainable = False
        return model

    side_by_side(make, X, Y, optimizer=OPTIMIZERS["Adam"])


def test_a_part_in_inference_mode(side_by_side: Any) -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.out = nn.BatchNorm1d(6), nn.Linear(6, 2)

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            self.norm.eval()
            return self

        def forward(self, x: Tensor) -> Any:
            return self.out(self.norm(x))

    side_by_side(lambda: keras.Model(Frozen()), X, Y)


def test_batches_that_are_not_full_run_eagerly_in_between(side_by_side: Any) -> None:
    model = side_by_side(network, X[:18], Y[:18], optimizer=OPTIMIZERS["average"], fit={"epochs": 2})
    assert model._plan.graphs.steps["train"].eager_batches == 1


def test_a_callback_between_batches_sees_and_changes_the_same(side_by_side: Any) -> None:
    seen: list[list[float]] = []

    def watching() -> Any:
        values: list[float] = []
        seen.append(values)

        def change(batch: int, logs: Any) -> None:
            values.append(logs["loss"])
            watcher.model.optimizer.learning_rate = 0.01 * (batch + 1)
            if batch == 2:
                watcher.model.set_weights([weight * 0.5 for weight in watcher.model.get_weights()])

        watcher = keras.callbacks.LambdaCallback(on_train_batch_end=change)
        return [watcher]

    side_by_side(network, X, Y, optimizer=OPTIMIZERS["Adam"], fit={"callbacks": watching})
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-5)
    assert len(seen[0]) == 5
