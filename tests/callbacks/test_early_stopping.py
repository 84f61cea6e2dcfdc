"""EarlyStopping: when it stops, and whose weights the model has in the end."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import oncue
from oncue.callbacks import Callback, CallbackList, EarlyStopping, LambdaCallback

X = np.ones((4, 2), dtype="float32")
Y = np.zeros((4, 1), dtype="float32")
NAN = float("nan")
DOWN_AND_UP = [5.0, 4.0, 3.0, 3.5, 3.6, 3.7, 3.8]


class Script(Callback):
    """Puts given values into the logs, and keeps the weights that each epoch ended with."""

    def __init__(
        self, values: list[Any], name: str = "val_loss", breaks: dict[int, BaseException] | None = None
    ) -> None:
        super().__init__()
        self.values = values
        self.name = name
        self.breaks = breaks or {}
        self.weights: list[list[np.ndarray]] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch in self.breaks:
            raise self.breaks[epoch]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights.append(self.model.get_weights())
        if epoch < len(self.values) and self.values[epoch] is not None:
            logs[self.name] = self.values[epoch]


def model(metrics: Any = None) -> Any:
    made = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    made.compile(oncue.optimizers.SGD(0.05), loss="mse", metrics=metrics)
    return made


def epoch_of(weights: list[np.ndarray], script: Script) -> list[int]:
    return [
        epoch
        for epoch, kept in enumerate(script.weights)
        if all(np.array_equal(one, other) for one, other in zip(weights, kept, strict=True))
    ]


def run(values: list[Any], epochs: int | None = None, **arguments: Any) -> tuple[EarlyStopping, Script, Any]:
    script, stop, made = Script(values), EarlyStopping(**arguments), model()
    made.fit(X, Y, epochs=epochs or len(values), verbose=0, callbacks=[script, stop])
    return stop, script, made


@pytest.mark.parametrize(
    ("values", "arguments", "ran"),
    [
        (DOWN_AND_UP, {"patience": 0}, 4),
        (DOWN_AND_UP, {"patience": 2}, 5),
        (DOWN_AND_UP, {"patience": 9}, 7),
        ([1.0] * 6, {"patience": 2}, 3),
        ([1.0, 0.9, 0.8, 0.7], {"patience": 2, "min_delta": 0.5}, 3),
        ([1.0, 0.9, 0.8, 0.7], {"patience": 2, "min_delta": -0.5}, 3),
        ([0.1, 0.2, 0.3, 0.2, 0.2], {"patience": 1, "mode": "max"}, 4),
        ([9, 9, 9, 9, 9, 9], {"patience": 1, "start_from_epoch": 3}, 5),
        ([5, 5, 5, 5, 5], {"patience": 2, "baseline": 1.0}, 2),
        ([0.0, 0.0, -1.0, 0.0, 0.0], {"patience": 2}, 5),
    ],
)
def test_when_it_stops(values: list[float], arguments: dict[str, Any], ran: int) -> None:
    stop, script, made = run(values, **arguments)
    assert len(script.weights) == ran
    assert made.stop_training is (stop.stopped_epoch == ran - 1 and stop.stopped_epoch > 0)
    assert (stop.stopped_epoch > 0) == (ran < len(values) or stop.wait >= stop.patience)


def test_a_value_that_is_not_finite_is_never_best() -> None:
    for bad in (NAN, float("-inf")):
        stop, script, made = run([bad, 3.0, 2.0, bad, 1.0, bad], patience=3, restore_best_weights=True)
        assert (stop.best, stop.best_epoch, stop.wait, stop.stopped_epoch) == (1.0, 4, 1, 0)
        assert epoch_of(made.get_weights(), script) == [4]


def test_values_that_are_never_finite_stop_it_and_leave_the_weights_alone() -> None:
    stop, script, made = run([NAN] * 5, patience=2, restore_best_weights=True)
    assert stop.stopped_epoch == 1
    assert stop.best is None
    assert epoch_of(made.get_weights(), script) == [1]


def test_epochs_without_a_value_count_neither_way() -> None:
    stop, made = EarlyStopping(patience=2), model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = made.fit(
            X, Y, validation_data=(X, Y), validation_freq=3, epochs=30, verbose=0, callbacks=[constant(2.0), stop]
        )
    # Values in epochs 3, 6 and 9 (counted from 1): two of them no improvement.
    assert len(history.epoch) == 9


def constant(value: float) -> Callback:
    def put(epoch: int, logs: Any) -> None:
        if "val_loss" in logs:
            logs["val_loss"] = value

    return LambdaCallback(on_epoch_end=put)


ENDS = {
    "stop": (9, {}, None),
    "natural": (5, {}, None),
    "error": (9, {4: RuntimeError("broke")}, RuntimeError),
    "interrupt": (9, {4: KeyboardInterrupt()}, KeyboardInterrupt),
}


@pytest.mark.parametrize("restore", [True, False])
@pytest.mark.parametrize("end", list(ENDS))
def test_whose_weights_are_in_the_model_at_every_end(end: str, restore: bool) -> None:
    epochs, breaks, error = ENDS[end]
    script = Script(DOWN_AND_UP, breaks=breaks)
    stop = EarlyStopping(patience=2 if end == "stop" else 9, restore_best_weights=restore)
    made = model()

    def fit() -> None:
        made.fit(X, Y, epochs=epochs, verbose=0, callbacks=[script, stop])

    if error is None:
        fit()
    else:
        with pytest.raises(error):
            fit()
    assert epoch_of(made.get_weights(), script) == [2 if restore else len(script.weights) - 1]


def test_an_error_in_evaluate_leaves_the_weights_alone() -> None:
    stop, _, made = run(DOWN_AND_UP, patience=2, restore_best_weights=True)
    fresh = [weight + 1 for weight in made.get_weights()]
    made.set_weights(fresh)

    def fail(batch: int, logs: Any) -> None:
        raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"):
        made.evaluate(X, Y, verbose=0, callbacks=[stop, LambdaCallback(on_test_batch_end=fail)])
    assert all(np.array_equal(one, other) for one, other in zip(made.get_weights(), fresh, strict=True))


def test_there_are_never_two_copies_of_the_weights() -> None:
    class Copies(list):  # type: ignore[type-arg]  # a plain list that knows how many of it there are
        alive = 0
        most = 0

        def __init__(self, items: Any) -> None:
            super().__init__(items)
            Copies.alive += 1
            Copies.most = max(Copies.most, Copies.alive)

        def __del__(self) -> None:
            Copies.alive -= 1

    made = model()
    original = made.get_weights
    made.get_weights = lambda: Copies(original())
    stop = EarlyStopping(patience=9, restore_best_weights=True)
    improving = Script([5.0, 4.0, 3.0, 2.0, 1.0])
    improving.on_epoch_end = lambda epoch, logs=None: logs.update(val_loss=improving.values[epoch])  # type: ignore[method-assign]  # keeps no weights
    made.fit(X, Y, epochs=5, verbose=0, callbacks=[improving, stop])
    assert stop.best_epoch == 4
    assert Copies.most == 1


def test_a_second_fit_starts_again() -> None:
    stop, made = EarlyStopping(patience=1, restore_best_weights=True), model()
    made.fit(X, Y, epochs=5, verbose=0, callbacks=[Script([1, 2, 3]), stop])
    assert stop.stopped_epoch == 1
    script = Script([9, 8, 7, 6, 5])
    made.fit(X, Y, epochs=5, verbose=0, callbacks=[script, stop])
    assert (stop.stopped_epoch, stop.best, stop.best_epoch) == (0, 5.0, 4)
    assert epoch_of(made.get_weights(), script) == [4]


def test_messages_and_journal(capsys: pytest.CaptureFixture[str]) -> None:
    stop, made = EarlyStopping(patience=2, verbose=1, restore_best_weights=True), model()
    callbacks = CallbackList([Script(DOWN_AND_UP), stop], model=made, epochs=9, verbose=0)
    made.fit(X, Y, epochs=9, verbose=0, callbacks=callbacks)
    assert capsys.readouterr().out.splitlines() == [
        "Epoch 5: early stopping",
        "Restoring model weights from the end of the best epoch: 3.",
    ]
    stopped = callbacks.journal.of("stop")
    assert [entry.epoch for entry in stopped] == [4]
    assert "val_loss 3.6" in stopped[0].text and "patience 2" in stopped[0].text
    assert stopped[0].data == {
        "monitor": "val_loss",
        "value": 3.6,
        "best": 3.0,
        "wait": 2,
        "patience": 2,
        "min_delta": 0.0,
        "baseline": None,
    }
    assert [entry.data["value"] for entry in callbacks.journal.of("best") if entry.data] == [5.0, 4.0, 3.0]
    assert len(callbacks.journal.of("restore")) == 1


def test_a_subclass_may_make_the_value() -> None:
    class Sum(EarlyStopping):
        def get_monitor_value(self, logs: Any) -> float | None:
            return None if logs is None else float(logs["loss"]) * 0 + float(logs["extra"])

    stop, made = Sum(monitor="loss", patience=1), model()
    made.fit(X, Y, epochs=5, verbose=0, callbacks=[Script([1, 2, 3], name="extra"), stop])
    assert stop.stopped_epoch == 1


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"patience": -1}, ["patience", "-1", "0 or more"]),
        ({"patience": 2.5}, ["patience", "2.5", "float"]),
        ({"patience": None}, ["patience", "None"]),
        ({"start_from_epoch": -1}, ["start_from_epoch", "-1"]),
        ({"baseline": NAN}, ["baseline", "nan"]),
        ({"baseline": "0.5"}, ["baseline", "'0.5'", "str"]),
        ({"min_delta": NAN}, ["min_delta", "nan"]),
        ({"monitor": ["loss"]}, ["monitor", "['loss']"]),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        EarlyStopping(**arguments)
    assert all(name in str(caught.value) for name in [*names, "EarlyStopping"])


def test_an_unknown_mode_warns() -> None:
    with pytest.warns(UserWarning, match="EarlyStopping: mode 'upwards' is unknown"):
        assert EarlyStopping(mode="upwards").mode == "auto"


def test_a_model_whose_weights_are_no_list() -> None:
    class Model:
        stop_training = False
        weights: Any = 0

        def get_weights(self) -> Any:
            return self.weights

        def set_weights(self, weights: Any) -> None:
            self.weights = weights

    stopping = EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    stopping.set_model(Model())
    stopping.on_train_begin()
    for epoch, loss in enumerate([1.0, 0.5, 0.7]):
        stopping.model.weights = epoch
        stopping.on_epoch_end(epoch, {"val_loss": loss})
    stopping.on_train_end()
    assert stopping.model.weights == 1
