"""ReduceLROnPlateau: when the learning rate falls, and to what."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import oncue
from oncue.callbacks import Callback, CallbackList, LambdaCallback, LearningRateScheduler, ReduceLROnPlateau

X = np.ones((4, 2), dtype="float32")
Y = np.zeros((4, 1), dtype="float32")
NAN = float("nan")


def model(rate: Any = 1.0) -> Any:
    made = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    made.compile(oncue.optimizers.SGD(rate), loss="mse")
    return made


def script(values: list[Any]) -> Callback:
    def put(epoch: int, logs: Any) -> None:
        if values[epoch] is not None:
            logs["val_loss"] = values[epoch]

    return LambdaCallback(on_epoch_end=put)


def rates(values: list[Any], rate: float = 1.0, **arguments: Any) -> list[float]:
    """Return the rate that each epoch trained with, then the one that is left."""
    made = model(rate)
    found: list[float] = []
    look = LambdaCallback(on_epoch_begin=lambda epoch, logs: found.append(float(made.optimizer.learning_rate)))
    reduce = ReduceLROnPlateau(**arguments)
    history = made.fit(X, Y, epochs=len(values), verbose=0, callbacks=[look, script(values), reduce])
    assert history.history["learning_rate"] == found
    return [*found, float(made.optimizer.learning_rate)]


@pytest.mark.parametrize(
    ("values", "arguments", "expected"),
    [
        ([1.0] * 4, {"factor": 0.5, "patience": 1}, [1, 1, 0.5, 0.25, 0.125]),
        ([1.0] * 4, {"factor": 0.5, "patience": 2}, [1, 1, 1, 0.5, 0.5]),
        ([1.0] * 6, {"factor": 0.5, "patience": 1, "cooldown": 2}, [1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]),
        ([1.0] * 5, {"factor": 0.5, "patience": 1, "min_lr": 0.3}, [1, 1, 0.5, 0.3, 0.3, 0.3]),
        ([4.0, 3.0, 2.0, 1.0], {"factor": 0.5, "patience": 1}, [1] * 5),
        ([1.0, 2.0, 3.0, 4.0], {"factor": 0.5, "patience": 1, "mode": "max"}, [1] * 5),
        ([NAN, 3.0, 2.0, NAN], {"factor": 0.5, "patience": 2}, [1] * 5),
        ([NAN, NAN, 2.0, 1.0], {"factor": 0.5, "patience": 2}, [1, 1, 0.5, 0.5, 0.5]),
        ([1.0, None, None, None], {"factor": 0.5, "patience": 2}, [1] * 5),
    ],
)
@pytest.mark.filterwarnings("ignore:ReduceLROnPlateau watches")
def test_the_rates(values: list[Any], arguments: dict[str, Any], expected: list[float]) -> None:
    assert rates(values, **arguments) == pytest.approx(expected)


def test_the_rounded_smallest_rate_of_keras_counts_as_the_smallest() -> None:
    reduce = ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=1, min_lr=0.1)
    made = model(float(np.float32(0.1)))
    made.fit(X, Y, epochs=4, verbose=0, callbacks=[script([1.0] * 4), reduce])
    assert float(made.optimizer.learning_rate) == float(np.float32(0.1))


def test_epochs_between_validations_count_neither_way() -> None:
    made = model(0.0)
    reduce = ReduceLROnPlateau(factor=0.5, patience=2)
    made.optimizer.learning_rate = 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.fit(X, Y, validation_data=(X, Y), validation_freq=2, epochs=5, verbose=0, callbacks=[reduce])
    assert (reduce.wait, float(made.optimizer.learning_rate)) == (1, 1e-9)


@pytest.mark.parametrize("first", [True, False])
def test_the_log_has_the_rate_of_the_epoch_in_either_order(first: bool) -> None:
    reduce = ReduceLROnPlateau(factor=0.5, patience=1)
    schedule = LearningRateScheduler(lambda epoch, rate: rate)
    both = [reduce, schedule] if first else [schedule, reduce]
    with pytest.warns(UserWarning, match="LearningRateScheduler and ReduceLROnPlateau both set") as caught:
        made = model()
        history = made.fit(X, Y, epochs=4, verbose=0, callbacks=[script([1.0] * 4), *both])
    assert len(caught) == 1
    assert history.history["learning_rate"] == [1.0, 1.0, 0.5, 0.25]


def test_a_value_that_another_callback_logged_stays() -> None:
    put = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(val_loss=1.0, learning_rate=7.0))
    history = model().fit(X, Y, epochs=2, verbose=0, callbacks=[put, ReduceLROnPlateau()])
    assert history.history["learning_rate"] == [7.0, 7.0]


def test_message_and_journal(capsys: pytest.CaptureFixture[str]) -> None:
    made = model(0.001)
    reduce = ReduceLROnPlateau(factor=0.5, patience=1, verbose=1)
    callbacks = CallbackList([script([0.3098, 0.3121]), reduce], model=made, epochs=2, verbose=0)
    made.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
    assert capsys.readouterr().out == "\nEpoch 2: ReduceLROnPlateau reducing learning rate to 0.0005.\n"
    (entry,) = callbacks.journal.of("learning_rate")
    assert entry.text == (
        "learning rate 0.001 to 0.0005: val_loss 0.3121 has not fallen below 0.3098 by more than 0.0001 for 1 epoch"
    )
    assert entry.epoch == 1
    assert entry.data == {
        "optimizer": "",
        "before": 0.001,
        "after": 0.0005,
        "monitor": "val_loss",
        "value": 0.3121,
        "best": 0.3098,
        "wait": 1,
        "direction": "down",
        "min_delta": 1e-4,
    }


def test_a_second_fit_starts_again() -> None:
    reduce = ReduceLROnPlateau(factor=0.5, patience=2, cooldown=3)
    model().fit(X, Y, epochs=4, verbose=0, callbacks=[script([1.0] * 4), reduce])
    assert reduce.in_cooldown()
    made = model()
    made.fit(X, Y, epochs=2, verbose=0, callbacks=[script([8.0, 8.0]), reduce])
    assert (reduce.best, reduce.wait, reduce.in_cooldown()) == (8.0, 1, False)


def test_the_old_name_epsilon() -> None:
    with pytest.warns(DeprecationWarning, match="min_delta") as caught:
        assert ReduceLROnPlateau(epsilon=0.25).min_delta == 0.25
        assert ReduceLROnPlateau(epsilon=0.5).min_delta == 0.5
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"factor": 1.5}, ["factor", "1.5"]),
        ({"factor": 1}, ["factor", "got 1"]),
        ({"factor": 0.0}, ["factor", "0.0"]),
        ({"factor": NAN}, ["factor", "nan"]),
        ({"factor": "half"}, ["factor", "'half'"]),
        ({"patience": -1}, ["patience", "-1"]),
        ({"cooldown": 0.5}, ["cooldown", "0.5"]),
        ({"min_lr": -1e-3}, ["min_lr", "-0.001"]),
        ({"min_lr": float("inf")}, ["min_lr", "inf"]),
        ({"patince": 3}, ["'patince'", "Did you mean 'patience'"]),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        ReduceLROnPlateau(**arguments)
    assert all(name in str(caught.value) for name in [*names, "ReduceLROnPlateau"])


def test_an_optimizer_with_a_schedule_refuses_the_reduction() -> None:
    made = model(oncue.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9))
    with pytest.raises(
        TypeError, match="ReduceLROnPlateau sets the learning rate, but a LearningRateSchedule sets that"
    ):
        made.fit(X, Y, epochs=3, verbose=0, callbacks=[script([1.0] * 3), ReduceLROnPlateau(factor=0.5, patience=1)])
    assert int(made.optimizer.iterations) == 0
