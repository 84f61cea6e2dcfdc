"""Gradient accumulation: k small batches are one large one, in every optimizer and with everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from helpers import normal
from oncue.callbacks import Callback, ModelCheckpoint, TensorBoard
from oncue.optimizers import SGD, Adam, AdamW, LossScaleOptimizer, RMSprop, TorchOptimizer
from oncue.optimizers.schedules import PiecewiseConstantDecay

X = normal(96, 4)
Y = (X**2).sum(1, keepdims=True)
W = np.random.default_rng(1).uniform(size=96).astype("float32")
K = 3

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: SGD(0.05, momentum=0.9),
    "adam": lambda: Adam(0.02),
    "clipped": lambda: SGD(0.05, clipnorm=0.5),
    "clipped together": lambda: Adam(0.02, global_clipnorm=0.5),
    "decayed": lambda: AdamW(0.02, weight_decay=0.1),
    "scheduled": lambda: RMSprop(PiecewiseConstantDecay([2, 3], [0.05, 0.02, 0.01])),
    "scaled": lambda: LossScaleOptimizer(Adam(0.02)),
    "torch.optim.Adam": lambda: lambda parameters: torch.optim.Adam(parameters, lr=0.02),
    "torch.optim.SGD": lambda: lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True),
    "torch.optim.Adadelta": lambda: torch.optim.Adadelta,
}


def model() -> Any:
    oncue.utils.set_random_seed(0)
    return oncue.Model(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)))


def weights(made: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([weight.ravel() for weight in made.get_weights()])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_k_batches_are_one(name: str, weighted: bool) -> None:
    small, large = model(), model()
    small.compile(OPTIMIZERS[name](), "mse", gradient_accumulation_steps=K)
    large.compile(OPTIMIZERS[name](), "mse")
    arguments: dict[str, Any] = {"epochs": 2, "shuffle": False, "verbose": 0, "sample_weight": W if weighted else None}
    small.fit(X, Y, batch_size=8, **arguments)
    large.fit(X, Y, batch_size=8 * K, **arguments)
    assert small.optimizer.iterations == large.optimizer.iterations == 8
    assert small.optimizer.learning_rate == large.optimizer.learning_rate
    np.testing.assert_allclose(weights(small), weights(large), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "torch.optim.Adam"])
def test_train_on_batch(name: str) -> None:
    small, large = model(), model()
    small.compile(OPTIMIZERS[name](), "mse", gradient_accumulation_steps=K)
    large.compile(OPTIMIZERS[name](), "mse")
    before = weights(small)
    for start in range(0, 96, 8):
        small.train_on_batch(X[start : start + 8], Y[start : start + 8])
        if start == 8:
            np.testing.assert_array_equal(weights(small), before)
    for start in range(0, 96, 24):
        large.train_on_batch(X[start : start + 24], Y[start : start + 24])
    np.testing.assert_allclose(weights(small), weights(large), rtol=0, atol=1e-6)


def test_what_is_left_of_an_epoch_counts_in_the_next() -> None:
    """Four batches an epoch, three to an update: after three epochs there were four updates."""
    made, by_hand = model(), model()
    made.compile(SGD(0.05), "mse", gradient_accumulation_steps=K)
    counts = []

    class Count(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            counts.append(int(self.model.optimizer.iterations))

    made.fit(X[:32], Y[:32], batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=[Count()])
    assert counts == [1, 2, 4]
    by_hand.compile(SGD(0.05), "mse")
    starts = [0, 8, 16, 24] * 3
    for group in range(4):
        rows = np.concatenate([np.arange(start, start + 8) for start in starts[group * 3 : group * 3 + 3]])
        by_hand.train_on_batch(X[rows], Y[rows])
    np.testing.assert_allclose(weights(made), weights(by_hand), rtol=0, atol=1e-6)


def test_a_schedule_moves_with_updates() -> None:
    made = model()
    made.compile(SGD(PiecewiseConstantDecay([1, 2], [0.5, 0.25, 0.125])), "mse", gradient_accumulation_steps=K)
    rates = []

    class Rates(Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            rates.append(float(self.model.optimizer.learning_rate))

    made.fit(X, Y, batch_size=8, verbose=0, callbacks=[Rates()])
    assert rates == [0.5] * 2 * K + [0.25] * K + [0.125] * K


def test_with_float16_a_skipped_batch_counts_for_nothing() -> None:
    made = model()
    made.compile(LossScaleOptimizer(Adam(0.01), initial_scale=1.0), "mse", gradient_accumulation_steps=2)
    made.train_on_batch(X[:8], Y[:8])
    made.train_on_batch(X[:8] * np.inf, Y[:8])
    assert made.optimizer.iterations == 0 and made.optimizer.dynamic_scale == 0.5
    made.train_on_batch(X[8:16], Y[8:16])
    assert made.optimizer.iterations == 1
    whole = model()
    whole.compile(Adam(0.01), "mse")
    whole.train_on_batch(X[:16], Y[:16])
    np.testing.assert_allclose(weights(made), weights(whole), rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_with_precision(precision: str) -> None:
    small, large = model(), model()
    optimizers: list[Any] = [SGD(0.05), SGD(0.05)]
    if precision == "fp16":
        # From a scale at which no step is skipped.
        optimizers = [LossScaleOptimizer(optimizer, initial_scale=256.0) for optimizer in optimizers]
    small.compile(optimizers[0], "mse", precision=precision, gradient_accumulation_steps=K)
    large.compile(optimizers[1], "mse", precision=precision)
    small.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    large.fit(X, Y, batch_size=8 * K, epochs=2, shuffle=False, verbose=0)
    assert small.optimizer.iterations == large.optimizer.iterations == 8
    # Sums of 16 bits differ with the batch.
    np.testing.assert_allclose(weights(small), weights(large), rtol=0, atol=0.02)


def test_both_places_and_the_same_number() -> None:
    made = model()
    made.compile(Adam(gradient_accumulation_steps=4), "mse", gradient_accumulation_steps=4)
    assert made.optimizer.gradient_accumulation_steps == 4


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, LossScaleOptimizer])
def test_both_places_and_other_numbers(wrap: Any) -> None:
    with pytest.raises(
        ValueError, match=r"`gradient_accumulation_steps` is 4 in `compile`, and 2 in the optimizer Adam"
    ):
        model().compile(wrap(Adam(gradient_accumulation_steps=2)), "mse", gradient_accumulation_steps=4)
    with pytest.raises(ValueError, match="is 1 in `compile`, and 2"):
        model().compile(wrap(Adam(gradient_accumulation_steps=2)), "mse", gradient_accumulation_steps=1)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "4"])
def test_bad_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match=r"`gradient_accumulation_steps` must be a whole number.*got"):
        model().compile("adam", "mse", gradient_accumulation_steps=value)


def test_one_is_none() -> None:
    made = model()
    made.compile("adam", "mse", gradient_accumulation_steps=1)
    made.train_on_batch(X, Y)
    assert made.optimizer.iterations == 1 and made.optimizer.gradient_accumulation_steps is None


@pytest.mark.parametrize("kind", ["adam", "torch"])
def test_an_optimizer_that_has_trained_already(kind: str) -> None:
    """Compiled again with accumulation, it continues with its count and its state."""
    small, large = model(), model()
    for made in (small, large):
        optimizer: Any = Adam(0.02)
        if kind == "torch":
            optimizer = TorchOptimizer(torch.optim.Adam(made.module.parameters(), lr=0.02))
        made.compile(optimizer, "mse")
        made.fit(X, Y, batch_size=24, shuffle=False, verbose=0)
    small.compile(small.optimizer, "mse", gradient_accumulation_steps=K)
    assert small.optimizer.iterations == 4
    small.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    large.fit(X, Y, batch_size=24, shuffle=False, verbose=0)
    assert small.optimizer.iterations == large.optimizer.iterations == 8
    np.testing.assert_allclose(weights(small), weights(large), rtol=0, atol=1e-6)


def test_a_file_keeps_it(tmp_path: Any) -> None:
    made = oncue.Sequential([oncue.layers.Input((4,)), oncue.layers.Dense(1)])
    made.compile("adam", "mse", gradient_accumulation_steps=K)
    made.fit(X[:32], Y[:32], batch_size=8, verbose=0)
    made.save(tmp_path / "m.keras")
    loaded = oncue.models.load_model(tmp_path / "m.keras")
    for one in (made, loaded):
        one.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
        assert one.optimizer.iterations == 5
    np.testing.assert_array_equal(weights(loaded), weights(made))


def test_what_counts_updates_and_what_counts_batches(tmp_path: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = model()
    made.compile("adam", "mse", gradient_accumulation_steps=K)
    batches = []

    class Batches(Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            batches.append(batch)

    callbacks = [
        TensorBoard(tmp_path / "logs", update_freq=6),
        Batches(),
        ModelCheckpoint(tmp_path / "{batch}.weights.h5", save_weights_only=True, every="6 steps"),
    ]
    made.fit(X, Y, batch_size=8, epochs=2, verbose=0, validation_data=(X, Y), callbacks=callbacks)
    assert batches == [*range(12), *range(12)]
    assert {path.name for path in tmp_path.glob("*.weights.h5")} == {"6.weights.h5", "12.weights.h5"}

    def steps(part: str, tag: str) -> list[int]:
        events = EventAccumulator(str(tmp_path / "logs" / part), size_guidance={"tensors": 0})
        events.Reload()
        return [event.step for event in events.Tensors(tag)]

    assert steps("train", "batch_loss") == [6, 12, 18, 24]
    assert steps("validation", "evaluation_loss_vs_iterations") == [4, 8]
