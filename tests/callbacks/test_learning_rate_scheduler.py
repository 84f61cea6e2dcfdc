"""LearningRateScheduler: what it sets, what it logs, what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import oncue
from oncue.callbacks import CallbackList, LambdaCallback, LearningRateScheduler

X = np.ones((4, 2), dtype="float32")
Y = np.zeros((4, 1), dtype="float32")


def model(rate: Any = 0.5) -> Any:
    made = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    made.compile(oncue.optimizers.SGD(rate), loss="mse")
    return made


def logged(schedule: Any, epochs: int = 3, **options: Any) -> list[float]:
    history = model().fit(X, Y, epochs=epochs, verbose=0, callbacks=[LearningRateScheduler(schedule)], **options)
    return history.history["learning_rate"]


def test_schedules_of_one_and_of_two_arguments() -> None:
    assert logged(lambda epoch: 0.25 / (1 + epoch)) == [0.25, 0.125, 0.25 / 3]
    assert logged(lambda epoch, rate: rate / 2) == [0.25, 0.125, 0.0625]
    assert logged(lambda epoch, rate=None: 0.25 * (epoch + 1)) == [0.25, 0.5, 0.75]
    assert logged(lambda epoch: 0.25 * epoch, initial_epoch=1) == [0.25, 0.5]


def test_a_type_error_inside_the_schedule_is_not_taken_for_a_wrong_call() -> None:
    calls = []

    def schedule(epoch: int, rate: float = 0.0) -> float:
        calls.append(epoch)
        return rate + "oops"  # type: ignore[operator]  # the mistake under test

    with pytest.raises(TypeError):
        logged(schedule)
    assert calls == [0]


@pytest.mark.parametrize("answer", [np.float32(0.25), np.float64(0.25), np.array(0.25), torch.tensor(0.25)])
def test_floats_of_any_library_will_do(answer: Any) -> None:
    assert logged(lambda epoch: answer, epochs=1) == [0.25]


@pytest.mark.parametrize(
    "answer", [None, "0.1", 1, True, np.array([0.1, 0.2]), math.nan, math.inf, -0.1, np.int64(1), [0.1]]
)
def test_a_bad_rate_is_refused_with_the_epoch(answer: Any) -> None:
    made = model()
    before = made.get_weights()
    schedule = LearningRateScheduler(lambda epoch: answer if epoch == 1 else 0.0)
    with pytest.raises(ValueError, match=r"float.*epoch 1"):
        made.fit(X, Y, epochs=3, verbose=0, callbacks=[schedule])
    assert float(made.optimizer.learning_rate) == 0.0
    assert all(np.array_equal(one, other) for one, other in zip(before, made.get_weights(), strict=True))


def test_a_schedule_that_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match=r"schedule.*0\.1.*float"):
        LearningRateScheduler(0.1)  # type: ignore[arg-type]  # the mistake under test


def test_an_optimizer_with_a_schedule_of_its_own_is_refused() -> None:
    made = model(oncue.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9))
    with pytest.raises(TypeError, match="LearningRateSchedule"):
        made.fit(X, Y, verbose=0, callbacks=[LearningRateScheduler(lambda epoch: 0.1)])


def test_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    model().fit(X, Y, epochs=2, verbose=0, callbacks=[LearningRateScheduler(lambda epoch: 0.1, verbose=1)])
    assert capsys.readouterr().out == (
        "\nEpoch 1: LearningRateScheduler setting learning rate to 0.1.\n"
        "\nEpoch 2: LearningRateScheduler setting learning rate to 0.1.\n"
    )


def test_the_journal_has_each_change_and_what_was_overwritten() -> None:
    made = model(0.5)

    def meddle(epoch: int, logs: Any) -> None:
        if epoch == 1:
            made.optimizer.learning_rate = 0.01

    schedule = LearningRateScheduler(lambda epoch: 0.25)
    callbacks = CallbackList([schedule, LambdaCallback(on_epoch_end=meddle)], model=made, epochs=4, verbose=0)
    made.fit(X, Y, epochs=4, verbose=0, callbacks=callbacks)
    texts = [(entry.epoch, entry.text) for entry in callbacks.journal.of("learning_rate")]
    assert texts[0] == (0, "learning rate 0.5 to 0.25: by the schedule")
    assert [epoch for epoch, _ in texts] == [0, 2]
    assert "overwrites 0.01" in texts[1][1] and "0.25" in texts[1][1]
