"""Throughput: how fast an epoch was trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers import Clock, cpu_only, small_model
from oncue.callbacks import LambdaCallback, Throughput
from oncue.training.loop import BatchLogs

X = np.ones((10, 2), "float32")
Y = np.ones((10, 1), "float32")


def fit(clock: Clock, throughput: Throughput, **options: Any) -> Any:
    def pass_time(seconds: float) -> Any:
        def passed(*_: Any) -> None:
            clock.now += seconds

        return passed

    # Two seconds a batch, and much more where it doesn't count.
    work = LambdaCallback(
        on_train_batch_begin=pass_time(2.0),
        on_test_batch_begin=pass_time(50.0),
        on_epoch_begin=pass_time(70.0),
        on_epoch_end=pass_time(90.0),
    )
    options = {"batch_size": 4, "epochs": 2, "verbose": 0, **options}
    return small_model().fit(X, Y, callbacks=[throughput, work], **options)


@cpu_only("on an accelerator the logs have its memory too")
@pytest.mark.parametrize(
    "options", [{}, {"validation_data": (X, Y)}, {"validation_data": (X, Y), "validation_freq": "1 step"}]
)
def test_only_training_counts(options: Any) -> None:
    clock = Clock()
    found = Throughput(3, flops_per_sample=60.0, peak_flops=1000.0, clock=clock)
    history = fit(clock, found, **options).history
    assert history["steps_per_second"] == pytest.approx([0.5, 0.5])
    assert history["samples_per_second"] == pytest.approx([10 / 6] * 2)
    assert history["tokens_per_second"] == pytest.approx([5.0] * 2)
    assert history["mfu"] == pytest.approx([0.1] * 2)
    assert "peak_memory_gib" not in history


def test_the_time_that_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    found = Throughput(verbose=1, clock=clock)
    left: list[float | None] = []
    small_model().fit(
        X,
        Y,
        batch_size=4,
        epochs=3,
        verbose=0,
        callbacks=[
            found,
            LambdaCallback(on_train_batch_begin=lambda batch, logs: setattr(clock, "now", clock.now + 1.0)),
            LambdaCallback(on_epoch_end=lambda epoch, logs: left.append(found.seconds_left)),
        ],
    )
    assert left == [6.0, 3.0, 0.0]
    assert "Epoch 1: steps per second 1, samples per second 3.333, 6 s of training left" in capsys.readouterr().out


def test_several_steps_between_hooks() -> None:
    clock, model = Clock(), small_model()
    model.compile("sgd", "mse", steps_per_execution=2)
    tick = LambdaCallback(on_train_batch_begin=lambda batch, logs: setattr(clock, "now", clock.now + 1.0))
    history = model.fit(X[:8], Y[:8], batch_size=2, verbose=0, callbacks=[Throughput(clock=clock), tick]).history
    assert history["steps_per_second"] == [2.0]
    assert history["samples_per_second"] == [4.0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"tokens_per_sample": 0}, "`tokens_per_sample` of Throughput must be a number above 0"),
        ({"flops_per_sample": "many", "peak_flops": 1.0}, "`flops_per_sample` of Throughput must be a number above 0"),
        ({"flops_per_sample": 1.0}, "needs `flops_per_sample` and `peak_flops` together"),
    ],
)
def test_mistakes(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Throughput(**arguments)


def test_it_waits_for_no_values() -> None:
    logs = BatchLogs(0, (np.ones((3, 2)), None, None), source=Unreadable())
    found = Throughput()
    found.on_epoch_begin(0)
    found.on_train_batch_begin(0)
    found.on_train_batch_end(0, logs)
    assert not logs.fetched and found._samples == 3


class Unreadable:
    """Values that nobody may wait for."""

    names = ("loss",)

    def read(self) -> list[float]:
        raise AssertionError("it was read")

    def snapshot(self) -> Unreadable:
        return self
