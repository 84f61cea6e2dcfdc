"""Callbacks continue where they were: a run in two parts decides as one run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import oncue
from oncue.callbacks import BackupAndRestore, Callback, EarlyStopping, LearningRateScheduler, ReduceLROnPlateau
from oncue.checkpoints.training_state import TrainingState

X = np.ones((2, 1), dtype="float32")
Y = np.zeros((2, 1), dtype="float32")


class Script(Callback):
    """Puts scripted values into the logs, keeps what was decided, and stops after an epoch."""

    def __init__(self, values: list[float], watchers: list[Any], last: int | None = None) -> None:
        super().__init__()
        self.values = values
        self.watchers = watchers
        self.last = last
        self.rates: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["val_loss"] = self.values[epoch]
        self.rates.append(float(self.model.optimizer.learning_rate))
        if epoch == self.last:
            self.model.stop_training = True


class Restore(Callback):
    """Gives the state back after the others have reset themselves, as a resume does."""

    def __init__(self, watchers: list[Any], states: list[Any], rate: float, weights: Any) -> None:
        super().__init__()
        self.watchers = watchers
        self.states = states
        self.rate = rate
        self.weights = weights

    def on_train_begin(self, logs: Any = None) -> None:
        self.model.set_weights(self.weights)
        self.model.optimizer.learning_rate = self.rate
        for watcher, state in zip(self.watchers, self.states, strict=True):
            watcher.load_state_dict(state)


class Snapshot(Callback):
    """Keeps the state of the others as it is when an epoch has ended."""

    runs_last = True

    def __init__(self, watchers: list[Any], epoch: int) -> None:
        super().__init__()
        self.watchers = watchers
        self.epoch = epoch
        self.states: list[Any] = []
        self.rate = 0.0
        self.weights: Any = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == self.epoch:
            self.states = [watcher.state_dict() for watcher in self.watchers]
            self.rate = float(self.model.optimizer.learning_rate)
            self.weights = self.model.get_weights()


def model() -> Any:
    made = oncue.Sequential([oncue.layers.Input((1,)), oncue.layers.Dense(1)])
    made.set_weights([np.ones((1, 1)), np.zeros(1)])
    made.compile(oncue.optimizers.SGD(0.5), loss="mse")
    return made


def watchers(arguments: dict[str, Any]) -> list[Any]:
    return [
        EarlyStopping(patience=arguments["stop"], restore_best_weights=True, baseline=arguments["baseline"]),
        ReduceLROnPlateau(patience=arguments["reduce"], factor=0.5, cooldown=arguments["cooldown"], min_delta=0.5),
        LearningRateScheduler(lambda epoch, rate: rate * 0.9 if epoch % 3 == 2 else rate),
    ]


def outcome(made: Any, script: Script, three: list[Any], history: Any) -> dict[str, Any]:
    stop, reduce, _ = three
    return {
        "ran": history.epoch[-1],
        "stopped": (stop.stopped_epoch, stop.best, stop.best_epoch, stop.wait),
        "reduced": (reduce.best, reduce.wait, reduce.cooldown_counter),
        "rate": float(made.optimizer.learning_rate),
        "weights": [weight.tolist() for weight in made.get_weights()],
    }


@pytest.mark.filterwarnings("ignore:LearningRateScheduler and ReduceLROnPlateau both set")
@settings(max_examples=25)
@given(
    values=st.lists(st.integers(0, 9).map(float) | st.just(float("nan")), min_size=3, max_size=9),
    arguments=st.fixed_dictionaries(
        {
            "stop": st.integers(0, 4),
            "baseline": st.none() | st.integers(0, 9).map(float),
            "reduce": st.integers(0, 3),
            "cooldown": st.integers(0, 2),
        }
    ),
    data=st.data(),
)
def test_a_run_in_two_parts_decides_as_one_run(values: list[float], arguments: dict[str, Any], data: Any) -> None:
    epochs = len(values)
    three, made = watchers(arguments), model()
    script = Script(values, three)
    history = made.fit(X, Y, epochs=epochs, verbose=0, callbacks=[script, *three])
    expected, rates = outcome(made, script, three, history), script.rates
    ran = len(history.epoch)
    if ran < 2:
        return
    cut = data.draw(st.integers(0, ran - 2), label="the epoch after which it is killed")

    first, broken = watchers(arguments), model()
    snapshot = Snapshot(first, cut)
    part = Script(values, first, last=cut)
    broken.fit(X, Y, epochs=epochs, verbose=0, callbacks=[part, *first, snapshot])

    again, resumed = watchers(arguments), model()
    rest = Script(values, again)
    restore = Restore(again, snapshot.states, snapshot.rate, snapshot.weights)
    history = resumed.fit(X, Y, epochs=epochs, initial_epoch=cut + 1, verbose=0, callbacks=[rest, *again, restore])
    assert outcome(resumed, rest, again, history) == expected
    assert part.rates + rest.rates == rates


@pytest.mark.parametrize("callback", [EarlyStopping(), ReduceLROnPlateau(), LearningRateScheduler(lambda epoch: 0.1)])
def test_a_state_with_other_fields_is_refused(callback: Any) -> None:
    state = callback.state_dict()
    callback.load_state_dict(state)
    with pytest.raises(ValueError, match="Unknown: extra"):
        callback.load_state_dict({**state, "extra": 1})
    for name in callback.state_fields:
        with pytest.raises(ValueError, match=f"Missing: {name}"):
            callback.load_state_dict({key: value for key, value in state.items() if key != name})
    # States that are older than a field don't have it.
    callback.load_state_dict({name: state[name] for name in callback.state_fields})


class DeclaresLate(Callback):
    """Says only when training begins what it wants back."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.state_fields = ("seen",)  # type: ignore[misc]  # of the class otherwise
        self.seen = 0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen += 1


def test_fields_declared_when_training_begins_are_saved_and_not_lost_silently(tmp_path: Path) -> None:
    class Dies(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise ConnectionError

    def fit(*callbacks: Any) -> Any:
        backup = BackupAndRestore(tmp_path / "backup")
        return model().fit(np.ones((4, 1)), np.ones((4, 1)), epochs=3, verbose=0, callbacks=[backup, *callbacks])

    with pytest.raises(ConnectionError):
        fit(DeclaresLate(), Dies())
    newest = sorted((tmp_path / "backup").glob("*.safetensors"))[-1]
    assert TrainingState.read(newest).parts["callbacks"]["DeclaresLate"] == {"seen": 2}
    late = DeclaresLate()
    fit(late)
    assert late.seen == 3
