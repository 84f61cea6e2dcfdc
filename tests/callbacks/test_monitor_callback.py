"""What is watched: found out before the first step, said once, never guessed."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest

import oncue
from oncue.callbacks import Callback, EarlyStopping, LambdaCallback, ReduceLROnPlateau
from oncue.core.monitor import MonitorError

X = np.linspace(-1, 1, 16, dtype="float32").reshape(8, 2)
Y = (X[:, :1] > 0).astype("float32")
WATCHERS = [EarlyStopping, ReduceLROnPlateau]


def model(metrics: Any = ("accuracy",), **options: Any) -> Any:
    made = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1, activation="sigmoid")])
    made.compile(oncue.optimizers.SGD(0.1), loss="binary_crossentropy", metrics=list(metrics), **options)
    return made


def fit(callback: Any, made: Any = None, validate: bool = True, **options: Any) -> Any:
    made = model() if made is None else made
    if validate:
        options["validation_data"] = (X, Y)
    return made.fit(X, Y, verbose=0, callbacks=callback, **options)


@pytest.mark.parametrize("watcher", WATCHERS)
@pytest.mark.parametrize(("typed", "meant"), [("val_losss", "val_loss"), ("acuracy", "accuracy")])
def test_a_misspelt_name_is_refused_before_the_first_step(watcher: Any, typed: str, meant: str) -> None:
    made = model()
    before = made.get_weights()
    with pytest.raises(MonitorError) as caught:
        fit(watcher(monitor=typed, mode="min"), made, epochs=3)
    message = str(caught.value)
    assert f"Did you mean `{meant}`?" in message
    assert all(name in message for name in (watcher.__name__, typed, "loss", "val_accuracy"))
    assert all(np.array_equal(one, other) for one, other in zip(made.get_weights(), before, strict=True))


def test_old_names_stand_for_new_ones() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for typed in ("val_acc", "acc", "val_accuracy"):
            stop = EarlyStopping(monitor=typed, patience=9)
            history = fit(stop, epochs=2)
            name = typed if typed in history.history else typed + "uracy"
            assert stop.best == max(history.history[name])


def test_missing_validation_data_is_reported_once_and_the_run_continues() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = fit(EarlyStopping(), validate=False, epochs=4)
    assert len(history.epoch) == 4
    (warning,) = caught
    assert "validation_data" in str(warning.message) and "monitor='loss'" in str(warning.message)


@pytest.mark.parametrize("watcher", WATCHERS)
def test_a_value_that_the_users_own_callback_adds(watcher: Any) -> None:
    values = iter([0.1, 0.3, 0.2])
    put = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(f1=next(values)))
    watching = watcher(monitor="f1", mode="max", patience=9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit([put, watching], epochs=3)
    assert watching.best == 0.3


def test_an_unknown_metric_needs_a_direction() -> None:
    put = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(val_los=1.0))
    made = model()
    before = made.get_weights()
    with pytest.raises(ValueError, match=r"val_los`.*Did you mean `val_loss`.*mode='min'"):
        fit([put, EarlyStopping(monitor="val_los")], made)
    assert all(np.array_equal(one, other) for one, other in zip(made.get_weights(), before, strict=True))


def test_a_value_that_is_never_logged_is_reported_once() -> None:
    idle = LambdaCallback(on_epoch_end=lambda epoch, logs: None)
    with pytest.warns(UserWarning, match="EarlyStopping watches `f1`, which is not available.*loss") as caught:
        fit([idle, EarlyStopping(monitor="f1", mode="max")], epochs=5)
    assert len(caught) == 1


def test_the_metric_says_which_way_is_better() -> None:
    found = {}
    for name in ("loss", "val_loss", "accuracy", "auc", "mae", "val_precision"):
        stop = EarlyStopping(monitor=name, patience=9)
        fit(stop, model(["accuracy", oncue.metrics.AUC(name="auc"), "mae", oncue.metrics.Precision(name="precision")]))
        found[name] = stop.watch.direction
    assert found == {
        "loss": "down", "val_loss": "down", "accuracy": "up", "auc": "up", "mae": "down", "val_precision": "up"
    }  # fmt: skip


def test_a_metric_that_does_not_say_needs_a_mode() -> None:
    def mystery(y_true: Any, y_pred: Any) -> Any:
        return (y_true - y_pred).mean(dim=-1)

    with pytest.raises(ValueError, match=r"EarlyStopping.*mystery.*mode='max'"):
        fit(EarlyStopping(monitor="mystery"), model([mystery]))
    stop = EarlyStopping(monitor="mystery", mode="max", patience=9)
    fit(stop, model([mystery]))
    assert stop.best is not None


def test_a_second_model_is_looked_at_again() -> None:
    stop = EarlyStopping(monitor="val_accuracy", patience=9)
    fit(stop)
    with pytest.raises(MonitorError, match="It will log: loss, val_loss"):
        fit(EarlyStopping(monitor="val_los"), model([]))
    with pytest.raises(MonitorError, match="val_accuracy"):
        fit(stop, model([]))


SAVER = partial(oncue.callbacks.ModelCheckpoint, save_best_only=True)


@pytest.mark.parametrize("watcher", [*WATCHERS, partial(SAVER, "m.keras")])
@pytest.mark.parametrize("others", [(), (LambdaCallback(on_epoch_end=lambda epoch, logs: None),)])
def test_a_name_that_nothing_logs_is_refused_where_no_direction_is_known(watcher: Any, others: Any) -> None:
    made = model()
    before = made.get_weights()
    with pytest.raises(MonitorError, match=r"watches `f1`, which this run doesn't log.* It will log: accuracy, loss"):
        fit([watcher(monitor="f1"), *others], made)
    assert all(np.array_equal(one, other) for one, other in zip(made.get_weights(), before, strict=True))


@pytest.mark.parametrize("watcher", WATCHERS)
def test_with_a_mode_it_is_a_warning_as_in_keras(watcher: Any) -> None:
    with pytest.warns(UserWarning, match="watches `f1`, which this run doesn't log, so it will never act") as caught:
        assert len(fit(watcher(monitor="f1", mode="max"), epochs=2).epoch) == 2
    assert len(caught) == 1


@pytest.mark.parametrize("watcher", WATCHERS)
def test_a_user_s_callback_hides_no_missing_validation(watcher: Any) -> None:
    other = LambdaCallback(on_epoch_end=lambda epoch, logs: None)
    with pytest.warns(UserWarning, match="watches `val_loss`, which is not available") as caught:
        fit([watcher(), other], validate=False, epochs=3)
    assert len(caught) == 1


def test_a_loop_that_announces_nothing_is_no_reason_to_guess_a_direction() -> None:
    stop = EarlyStopping("f1")
    run = oncue.callbacks.CallbackList([stop], model=model())
    run.on_train_begin()
    with pytest.raises(MonitorError, match=r"`f1`, which is not available; this epoch logged: loss.*mode='min'"):
        run.on_epoch_end(0, {"loss": 1.0})


def test_a_run_that_can_not_tell_the_best_is_saved_all_the_same(tmp_path: Any) -> None:
    path = tmp_path / "{epoch}.weights.h5"
    options: dict[str, Any] = {"save_best_only": True, "save_weights_only": True}
    add = LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(f1=epoch))

    def saved(monitor: str, *, first: Any = (), then: Any = (), **more: Any) -> list[str]:
        saver = oncue.callbacks.ModelCheckpoint(path, monitor, **options)
        fit([*first, saver, *then], epochs=3, **more)
        found = sorted(one.name[0] for one in tmp_path.iterdir())
        for one in tmp_path.iterdir():
            one.unlink()
        return found

    with pytest.warns(
        UserWarning, match="`val_loss`, but this run has no validation data, so it can't tell the best, and saves"
    ):
        assert saved("val_loss", validate=False) == ["1", "2", "3"]
    options["mode"] = "max"
    with pytest.warns(UserWarning, match="A callback that adds it must stand before ModelCheckpoint in the list"):
        assert saved("f1", then=[add]) == ["1", "2", "3"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert saved("f1", first=[add]) == ["1", "2", "3"]
        options["mode"] = "min"
        assert saved("f1", first=[add]) == ["1"]
        assert saved("val_loss", validation_freq=2) == ["2"]
    with pytest.warns(UserWarning, match="`validation_freq`=9 was never due in 3 epochs"):
        assert saved("val_loss", validation_freq=9) == ["3"], "the last epoch, when none was measured"
    options["initial_value_threshold"] = 5.0
    with pytest.warns(UserWarning, match="no validation data"):
        assert saved("val_loss", validate=False) == [], "a file that is there may be better"


def test_a_train_step_of_ones_own_is_watched_by_what_it_logs() -> None:
    class Own(oncue.Sequential):
        def train_step(self, data: Any) -> dict[str, float]:
            return {"energy": 2.0}

    made = Own([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
    made.compile(oncue.optimizers.SGD(0.1), loss="mse")
    stop = EarlyStopping(monitor="energy", mode="min", patience=2)
    history = made.fit(X, Y, epochs=9, verbose=0, callbacks=stop)
    assert len(history.epoch) == 3
    stop = EarlyStopping()
    for _ in range(2):
        with pytest.warns(UserWarning, match="EarlyStopping watches `val_loss`") as caught:
            made.fit(X, Y, epochs=3, verbose=0, callbacks=stop)
        assert len(caught) == 1


@pytest.mark.parametrize("watcher", WATCHERS)
def test_it_works_outside_a_run(watcher: Any) -> None:
    class Host:
        stop_training = False

        class optimizer:
            learning_rate = 1.0

    watching: Callback = watcher(monitor="loss", patience=1)
    watching.set_model(Host())
    watching.on_train_begin()
    for epoch, value in enumerate([1.0, 1.0, 1.0]):
        watching.on_epoch_end(epoch, {"loss": value})
    assert Host.stop_training or watching.model.stop_training or watching.model.optimizer.learning_rate < 1
