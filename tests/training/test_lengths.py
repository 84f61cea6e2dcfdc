"""Sequences of other lengths and images of other sizes than those of the first batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from torch import nn

import oncue
from oncue import layers

DRAWN = np.random.default_rng(0)


def sequences(count: int, steps: int) -> tuple[Any, Any]:
    return DRAWN.normal(size=(count, steps, 2)).astype("float32"), DRAWN.normal(size=(count, steps, 1)).astype(
        "float32"
    )


def labelled(count: int, steps: int) -> tuple[Any, Any]:
    return sequences(count, steps)[0], DRAWN.integers(0, 3, (count, steps))


def images(count: int, size: int) -> tuple[Any, Any]:
    return tuple(DRAWN.normal(size=(count, size, size + 1, channels)).astype("float32") for channels in (3, 1))


def signals(count: int, steps: int) -> tuple[Any, Any]:
    return tuple(part.transpose(0, 2, 1).copy() for part in sequences(count, steps))


class Subclass(oncue.Model):
    def __init__(self) -> None:
        super().__init__()
        self.window = layers.Conv1D(1, 3, padding="same")

    def call(self, inputs: Any) -> Any:
        return self.window(inputs)


def functional() -> Any:
    inputs = layers.Input((None, None, 3))
    return oncue.Model(inputs, layers.Conv2D(1, 3, padding="same")(inputs))


@pytest.mark.parametrize(
    ("make", "data", "loss"),
    [
        (
            lambda: oncue.Sequential([layers.Input((None, 2)), layers.GRU(3, return_sequences=True), layers.Dense(1)]),
            sequences,
            "mse",
        ),
        (
            lambda: oncue.Sequential([layers.LSTM(3, return_sequences=True), layers.Dense(3, "softmax")]),
            labelled,
            "sparse_categorical_crossentropy",
        ),
        (functional, images, "mse"),
        (Subclass, sequences, "mae"),
        (lambda: oncue.Model(nn.Conv1d(2, 1, 3, padding=1)), signals, "mse"),
    ],
    ids=["Sequential", "built later", "images", "subclass", "torch"],
)
def test_every_method_takes_other_lengths(make: Any, data: Any, loss: str) -> None:
    model = make()
    model.compile("sgd", loss)
    model.fit(*data(8, 5), batch_size=4, verbose=0)
    assert np.isfinite(model.evaluate(*data(4, 7), verbose=0))
    assert np.isfinite(model.train_on_batch(*data(4, 9)))
    assert np.isfinite(model.test_on_batch(*data(4, 3)))
    inputs, targets = data(4, 6)
    assert model.predict(inputs, verbose=0).shape[:2] in (targets.shape[:2], inputs.shape[:2])
    history = model.fit(*data(8, 4), batch_size=4, verbose=0, validation_data=data(4, 8)).history
    assert np.isfinite(history["val_loss"][0])

    def padded() -> Iterator[Any]:
        for steps in (3, 6, 4):
            yield data(4, steps)

    model.fit(padded(), steps_per_epoch=3, verbose=0)


def test_targets_of_the_wrong_length_are_refused() -> None:
    model = oncue.Sequential([layers.Input((None, 2)), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(*sequences(4, 5), verbose=0)
    inputs, targets = sequences(4, 7)
    for method in (model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match=r"shape \(4, 5, 1\) and `y_pred` \(4, 7, 1\)"):
            method(inputs, targets[:, :5])


def test_a_length_that_was_seen_costs_no_second_run() -> None:
    calls = []

    class Line(nn.Linear):
        def forward(self, input: Any) -> Any:
            calls.append(input.shape)
            return super().forward(input)

    model = oncue.Model(Line(2, 1))
    model.compile("sgd", "mse")
    for steps in (5, 7, 5, 7):
        model.train_on_batch(*sequences(4, steps))
    assert len(calls) == 4 + 2


def test_the_limits_of_a_script_that_is_tried_out() -> None:
    model = oncue.Sequential([oncue.Input((2,)), oncue.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = np.ones((20, 2)), np.ones((20, 1))
    oncue.config.set_max_epochs(2)
    oncue.config.set_max_steps_per_epoch(3)
    try:
        with pytest.warns(UserWarning, match="limits"):
            history = model.fit(x, y, batch_size=4, epochs=5, verbose=0)
        assert len(history.epoch) == 2 and int(model.optimizer.iterations) == 6
        assert len(model.predict(x[:8], batch_size=4, verbose=0)) == 8
    finally:
        oncue.config.set_max_epochs(None)
        oncue.config.set_max_steps_per_epoch(None)
    assert len(model.fit(x, y, epochs=3, verbose=0).epoch) == 3
    with pytest.raises(ValueError, match="`max_epochs`"):
        oncue.config.set_max_epochs(0)
