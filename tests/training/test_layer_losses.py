"""Losses that layers add in their calls belong to one pass over one model, whatever else runs in the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import tensor
from oncue import layers

X = np.ones((64, 3), "float32")
Y = np.ones((64, 1), "float32")


class AddsOne(layers.Layer):
    """Adds a loss of one in every call."""

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        self.add_loss(inputs.sum() * 0 + 1.0)
        return inputs


class Meets(layers.Layer):
    """Waits in each of its first calls until another thread has come as far."""

    def __init__(self, barrier: threading.Barrier, times: int) -> None:
        super().__init__()
        self.barrier, self.times = barrier, times

    def call(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.times:
            self.times -= 1
            self.barrier.wait(60)
        return inputs


def penalized(factor: float, *parts: Any) -> Any:
    """Return a model that has 3 in all outputs for ones, and adds 9 times a factor to its loss."""
    ones, l2 = oncue.initializers.Ones(), oncue.regularizers.L2(factor)
    dense = layers.Dense(1, use_bias=False, kernel_initializer=ones, activity_regularizer=l2)
    return oncue.Sequential([layers.Input((3,)), dense, *parts])


def at_once(*works: Callable[[], None]) -> None:
    """Run functions in threads; raise what the first one raised that failed."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]


def added(model: Any) -> list[float]:
    return [loss.item() for loss in model.losses]


def test_each_call_begins_with_none() -> None:
    model = oncue.Sequential([layers.Input((3,)), AddsOne(), layers.Dense(1)])
    for _ in range(3):
        model(tensor(torch.ones(2, 3)))
        assert added(model) == [1.0]
    model.add(AddsOne())
    for _ in range(3):
        model(tensor(torch.ones(2, 3)))
        assert added(model) == [1.0, 1.0]


def test_a_model_inside_another_keeps_the_losses_of_all_its_calls() -> None:
    inner = oncue.Sequential([layers.Input((3,)), AddsOne()])

    class Twice(oncue.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def call(self, inputs: torch.Tensor, training: bool | None = None, mask: Any = None) -> torch.Tensor:
            outputs: torch.Tensor = self.inner(self.inner(inputs))
            return outputs

    outer = Twice()
    for _ in range(3):
        outer(tensor(torch.ones(2, 3)))
        assert added(outer) == [1.0, 1.0]
    inner(tensor(torch.ones(2, 3)))
    assert added(inner) == [1.0]


def test_a_call_that_fails_leaves_the_next_one_a_pass_of_its_own() -> None:
    class Fails(layers.Layer):
        def call(self, inputs: torch.Tensor) -> torch.Tensor:
            self.add_loss(inputs.sum())
            if float(inputs[0, 0]) < 0:
                raise ArithmeticError("negative")
            return inputs

    model = oncue.Sequential([layers.Input((3,)), Fails()])
    model(tensor(torch.ones(1, 3)))
    with pytest.raises(ArithmeticError):
        model(-tensor(torch.ones(1, 3)))
    model(tensor(torch.ones(1, 3)))
    assert added(model) == [3.0]


def test_predictions_keep_no_losses() -> None:
    model = oncue.Sequential([layers.Input((3,)), AddsOne(), layers.Dense(1)])
    model.predict(X, batch_size=4, verbose=0)
    assert len(model.losses) == 1


def test_a_regularizer_that_is_given_later_counts_from_the_next_run_on() -> None:
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    assert model.evaluate(X, 3 * Y, verbose=0) == 0.0
    model.layers[0].activity_regularizer = oncue.regularizers.L2(1.0)
    assert model.evaluate(X, 3 * Y, verbose=0) == pytest.approx(9.0)


def test_two_models_called_in_two_threads_at_once() -> None:
    barrier = threading.Barrier(2)

    def calls(factor: float) -> None:
        model = penalized(factor, Meets(barrier, 20))
        for _ in range(20):
            model(tensor(torch.ones(2, 3)))
            assert added(model) == [9.0 * factor]

    at_once(lambda: calls(1.0), lambda: calls(2.0))


def test_two_models_trained_in_two_threads_at_once() -> None:
    barrier = threading.Barrier(2)

    def trains(factor: float) -> None:
        model = penalized(factor, Meets(barrier, 20))
        model.compile(oncue.optimizers.SGD(0.0), "mse")
        losses = model.fit(X, 3 * Y, batch_size=8, epochs=5, verbose=0).history["loss"]
        assert losses == [9.0 * factor] * 5

    at_once(lambda: trains(1.0), lambda: trains(2.0))


def test_layers_that_change_between_calls_are_seen_at_the_next_call() -> None:
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(4), layers.Dense(1)])
    x = tensor(X[:2])
    model(x)
    model.layers[0].activity_regularizer = oncue.regularizers.L2(0.1)
    for _ in range(3):
        model(x)
        assert len(model.losses) == 1
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0)
    outer = oncue.Sequential([layers.Input((3,)), model])
    outer.compile("sgd", "mse")
    outer.fit(X, Y, verbose=0)
    model.add(layers.Dense(2, activity_regularizer="l2"))
    for _ in range(3):
        outer(x)
        assert len(outer.losses) == 2


def test_losses_of_a_layer_that_a_hook_changed_do_not_pile_up() -> None:
    model = oncue.Sequential([layers.Input((3,)), layers.Dense(2), layers.Dense(1)])
    model.compile("sgd", "mse")
    found = []

    class Regularize(oncue.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            model.layers[0].activity_regularizer = oncue.regularizers.L2(0.1)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            found.append(len(model.losses))

    model.fit(X, Y, batch_size=16, epochs=2, verbose=0, callbacks=Regularize())
    # The step took them.
    assert found == [0] * 8


def test_a_layer_that_is_called_twice_in_a_step_adds_both_losses() -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = AddsOne()
            self.head = torch.nn.Linear(3, 1)

        def forward(self, inputs: torch.Tensor) -> Any:
            return self.head(self.shared(self.shared(inputs)) * 0)

    model = oncue.Model(Twice())
    model.compile(oncue.optimizers.SGD(0.0), "mse", jit_compile=False)
    torch.nn.init.zeros_(model.module.head.bias)
    assert model.fit(X, 0 * Y, epochs=2, verbose=0).history["loss"] == [2.0, 2.0]
    assert model.evaluate(X, 0 * Y, verbose=0) == 2.0
    shared = model.module.shared
    for _ in range(3):
        shared(tensor(X))
        assert added(shared) == [1.0]
