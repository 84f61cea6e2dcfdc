"""StopAtThreshold: a run that is good enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oncue
from helpers import ScriptedLosses, small_model
from oncue.callbacks import Callback, StopAtThreshold

X = np.ones((8, 2), "float32")
Y = np.ones((8, 1), "float32")


def stopped(stop: StopAtThreshold, *values: float, **options: Any) -> list[int]:
    history = small_model().fit(
        X,
        Y,
        epochs=len(values),
        verbose=0,
        validation_data=(X, Y),
        callbacks=[ScriptedLosses(*values), stop],
        **options,
    )
    return list(history.epoch)


@pytest.mark.parametrize(
    ("arguments", "values", "epochs"),
    [
        ({"threshold": 1.0}, (3, 2, 1, 0), 3),
        ({"threshold": 1.0}, (3, 2, 1.001, 1.1), 4),
        ({"threshold": 2.0, "mode": "max"}, (1, 3, 0), 2),
        ({"threshold": 1.0, "times": 2}, (1, 2, 0.5, 1.0, 0), 4),
        ({"threshold": 1.0}, (float("nan"), float("inf"), 2), 3),
        # The first epoch is as good as another.
        ({"threshold": 1.0}, (0.5, 0.1), 1),
    ],
)
def test_when_it_stops(arguments: Any, values: Any, epochs: int) -> None:
    stop = StopAtThreshold(**arguments)
    assert stopped(stop, *values) == list(range(epochs))
    assert stop.stopped_epoch == (epochs - 1 if epochs < len(values) or stop.reached else None)


def test_a_metric_says_its_direction() -> None:
    model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1, activation="sigmoid")])
    model.compile(oncue.optimizers.SGD(1.0), "binary_crossentropy", metrics=["accuracy"])
    history = model.fit(X, Y, epochs=50, verbose=0, callbacks=[StopAtThreshold("accuracy", 1.0)])
    assert history.history["accuracy"][-1] == 1.0
    assert len(history.epoch) < 50
    assert "accuracy 1 has reached 1" in history.explain()


def test_amid_an_epoch() -> None:
    class Scripted(Callback):
        def on_validation_end(self, batch: int, logs: Any = None) -> None:
            logs["val_loss"] = 5.0 - batch

    stop = StopAtThreshold(threshold=3.0)
    model = small_model()
    history = model.fit(
        X,
        Y,
        batch_size=1,
        epochs=3,
        verbose=0,
        validation_data=(X, Y),
        validation_freq="1 step",
        callbacks=[Scripted(), stop],
    )
    assert [(one.epoch, one.batch) for one in history.journal.of("stop")] == [(0, 2)]
    assert (history.epoch, stop.stopped_epoch) == ([0], 0)


def test_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    stopped(StopAtThreshold(threshold=1.0, verbose=1), 2, 1)
    assert "Epoch 2: stopped: val_loss 1 has reached 1" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "value"), [("threshold", "high"), ("threshold", float("nan")), ("times", 0)])
def test_mistakes(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}` of StopAtThreshold must be"):
        StopAtThreshold("loss", **{name: value})


def test_its_state() -> None:
    stop = StopAtThreshold(threshold=1.0, times=3)
    stopped(stop, 0.5, 0.5)
    other = StopAtThreshold(threshold=1.0, times=3)
    other.load_state_dict(stop.state_dict())
    assert other.reached == 2
