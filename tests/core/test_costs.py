"""The clock of callbacks, with a clock that only callbacks move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import Clock, small_model
from oncue.callbacks import (
    BackupAndRestore,
    Callback,
    CallbackList,
    History,
    TerminateOnNaN,
    callback_list,
    listeners,
)
from oncue.core.costs import UNTOLD, HookClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(listeners, "perf_counter", made)
    monkeypatch.setattr(callback_list, "perf_counter", made)
    return made


class Takes(Callback):
    """Takes `usual` seconds for a batch, and `slow` for each `period`-th."""

    def __init__(self, clock: Clock, usual: float, slow: float = 0.0, period: int = 1, offset: int = -1) -> None:
        super().__init__()
        self.clock = clock
        self.usual, self.slow, self.period, self.offset = usual, slow, period, offset % period
        self.took = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        slow = self.slow and batch % self.period == self.offset
        seconds = self.slow if slow else self.usual
        self.clock.now += seconds
        self.took += seconds


class Cheap(Takes):
    pass


class Other(Takes):
    pass


def train(clock: Clock, callbacks: list[Callback], batches: int, step: float = 1e-3) -> dict[str, dict[str, float]]:
    made = CallbackList(callbacks)
    with made.run():
        made.on_train_begin()
        made.on_epoch_begin(0)
        for batch in range(batches):
            clock.now += step
            made.on_train_batch_end(batch, {})
        made.on_epoch_end(0)
        made.on_train_end()
    return made.costs()


@pytest.mark.parametrize("batches", [300, 1000, 5000])
@pytest.mark.parametrize("slow", [1e-3, 0.02, 1.0])
@pytest.mark.parametrize("offset", [-1, 0, 37])
@pytest.mark.parametrize("period", [2, 31, 32, 64, 100, 128])
def test_a_periodic_slow_callback_is_found_and_a_cheap_one_not_charged(
    clock: Clock, period: int, offset: int, slow: float, batches: int
) -> None:
    callbacks = [Cheap(clock, 1e-6), Takes(clock, 1e-7, slow, period, offset), Other(clock, 2e-6)]
    costs = train(clock, callbacks, batches)
    for callback in callbacks:
        assert costs[type(callback).__name__]["on_train_batch_end"] == pytest.approx(callback.took, rel=0.3)
    assert UNTOLD not in costs
    assert next(iter(costs)) == "Takes"


def test_two_that_alternate_are_distinguished(clock: Clock) -> None:
    callbacks = [Takes(clock, 1e-6, 0.01, 100, 25), Cheap(clock, 1e-6), Other(clock, 1e-6, 0.03, 100, 75)]
    costs = train(clock, callbacks, 20_000)
    for callback in callbacks:
        assert costs[type(callback).__name__]["on_train_batch_end"] == pytest.approx(callback.took, rel=0.3)


def test_a_single_late_call_is_charged_to_its_callback_only(clock: Clock) -> None:
    callbacks = [Cheap(clock, 1e-6), Takes(clock, 1e-6, 5.0, 10_000, 2999), Other(clock, 1e-6)]
    costs = train(clock, callbacks, 3000)
    assert costs["Cheap"]["on_train_batch_end"] == pytest.approx(callbacks[0].took, rel=0.3)
    blamed = costs["Takes"]["on_train_batch_end"] + costs.get(UNTOLD, {}).get("on_train_batch_end", 0.0)
    assert blamed == pytest.approx(5.0, rel=0.01)


def test_a_single_callback_is_always_charged(clock: Clock) -> None:
    alone = Takes(clock, 1e-6, 5.0, 3000)
    costs = train(clock, [alone], 3000)
    assert costs == {"Takes": {"on_train_batch_end": pytest.approx(alone.took, rel=1e-6)}}


def test_cheap_hooks_read_the_clock_twice_a_batch(clock: Clock) -> None:
    callbacks = CallbackList([Cheap(clock, 1e-7), Other(clock, 1e-7), Takes(clock, 1e-7)])
    for batch in range(256):
        callbacks.on_train_batch_end(batch, {})
    clock.reads = 0
    for batch in range(10_000):
        callbacks.on_train_batch_end(batch, {})
    assert clock.reads < 2.2 * 10_000


def test_every_hook_of_a_run_is_timed(clock: Clock) -> None:
    class Slow(Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            clock.now += 1.0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            clock.now += 2.0

        def close(self) -> None:
            clock.now += 4.0

    class Twin(Slow):
        pass

    costs = train(clock, [Slow(), Twin(), Slow()], 0)
    assert costs == {
        "Slow": {"on_train_begin": 2.0, "on_epoch_end": 4.0, "close": 8.0},
        "Twin": {"on_train_begin": 1.0, "on_epoch_end": 2.0, "close": 4.0},
    }


def test_on_exception_is_timed(clock: Clock) -> None:
    class Slow(Callback):
        def on_exception(self, exception: BaseException) -> None:
            clock.now += 3.0

    made = CallbackList([Slow()])
    with pytest.raises(RuntimeError, match="boom"), made.run():
        raise RuntimeError("boom")
    assert made.costs() == {"Slow": {"on_exception": 3.0}}


def test_a_list_used_again_counts_one_run(clock: Clock) -> None:
    class Slow(Callback):
        def on_train_end(self, logs: Any = None) -> None:
            clock.now += 1.0

    made = CallbackList([Slow()])
    for _ in range(2):
        with made.run():
            made.on_train_begin()
            made.on_train_end()
        assert made.costs() == {"Slow": {"on_train_end": 1.0}}


@pytest.mark.parametrize(
    ("seconds", "slow", "verbose", "said"),
    [
        (20.0, 1.01, 1, True),
        (20.0, 1.01, 2, True),
        (20.0, 0.9, 1, False),
        (20.0, 1.01, 0, False),
        (9.0, 8.0, 1, False),
        (10.5, 8.0, 1, True),
    ],
)
def test_one_line_when_callbacks_were_expensive(
    clock: Clock, capsys: pytest.CaptureFixture[str], seconds: float, slow: float, verbose: int, said: bool
) -> None:
    class Slow(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            clock.now += slow

        def on_train_end(self, logs: Any = None) -> None:
            clock.now += 0.001

    class Small(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            clock.now += 0.002

    callbacks = CallbackList([Small(), Slow()], verbose=verbose)
    with callbacks.run():
        callbacks.on_train_begin()
        clock.now += seconds - slow - 0.003
        callbacks.on_epoch_end(0, {})
        callbacks.on_train_end()
    lines = [line for line in capsys.readouterr().out.splitlines() if "Callbacks took" in line]
    share = f"{(slow + 0.003) / seconds:.1%}"
    line = f"Callbacks took {slow:.1f} s, {share} of the run; most of it Slow in on_epoch_end ({slow:.1f} s)."
    assert lines == ([line] if said else [])


def test_no_line_after_an_error(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    class Slow(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            clock.now += 50.0

    callbacks = CallbackList([Slow()], verbose=1)
    with pytest.raises(RuntimeError), callbacks.run():
        callbacks.on_epoch_end(0, {})
        raise RuntimeError("boom")
    assert "Callbacks took" not in capsys.readouterr().out


def test_history_has_the_costs(clock: Clock) -> None:
    history = History()
    assert history.costs == {}
    train(clock, [history, Takes(clock, 0.5)], 4)
    assert list(history.costs) == ["Takes", "History"]
    assert history.costs["Takes"] == {"on_train_batch_end": pytest.approx(2.0)}


class Everywhere(Callback):
    """Takes a second in each hook of a run."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def on_train_begin(self, logs: Any = None) -> None:
        self.clock.now += 1.0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.clock.now += 1.0

    def on_test_end(self, logs: Any = None) -> None:
        self.clock.now += 1.0

    def close(self) -> None:
        self.clock.now += 1.0


def total(costs: dict[str, dict[str, float]]) -> float:
    return sum(seconds for hooks in costs.values() for seconds in hooks.values())


def data() -> tuple[Any, Any]:
    return np.ones((4, 2), "float32"), np.ones((4, 1), "float32")


@pytest.mark.parametrize("order", [1, -1])
def test_shares_are_shares(clock: Clock, order: int) -> None:
    history = History()
    # Nothing else moves the clock, so that callbacks took the whole run.
    small_model().fit(*data(), epochs=2, verbose=0, callbacks=[Everywhere(clock), history][::order])
    assert history.seconds == total(history.costs) == 4.0
    assert "4.0 s, 100.0% of the run" in history.explain()


def test_an_evaluation_inside_a_hook_counts_once(clock: Clock) -> None:
    class Evaluates(Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            clock.now += 1.0
            self.model.evaluate(*data(), verbose=0, callbacks=[Everywhere(clock)])

    history = small_model().fit(*data(), verbose=0, callbacks=[Evaluates(), Everywhere(clock)])
    # The hook's own second, and two of the evaluation inside it.
    assert history.costs["Evaluates"] == {"on_epoch_end": 3.0}
    assert history.seconds == total(history.costs) == 6.0


def test_a_run_in_two_parts_adds_up(clock: Clock, tmp_path: Path) -> None:
    class Cut(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            clock.now += 10.0
            if epoch == 1 and cut:
                raise ConnectionError

    def run() -> Any:
        backup = BackupAndRestore(tmp_path / "b")
        return small_model().fit(*data(), epochs=2, verbose=0, callbacks=[Everywhere(clock), backup, Cut()])

    cut = True
    with pytest.raises(ConnectionError):
        run()
    cut = False
    history = run()
    # What came after the state was saved is lost: 1 + 10 + 1 seconds until then, and 1 + 10 + 1 + 1 in the other part. The
    # costs of the hook in which it was saved were not known yet.
    assert history.seconds == 25.0 and total(history.costs) == 24.0
    assert history.costs["Everywhere"] == {"on_train_begin": 2.0, "on_epoch_end": 1.0, "close": 1.0}
    assert history.costs["Cut"] == {"on_epoch_begin": 20.0}


def test_going_back_does_not_turn_back_the_clock(clock: Clock) -> None:
    class Spoil(Callback):
        spoilt = False

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            clock.now += 1.0
            if epoch == 1 and not self.spoilt:
                self.spoilt = True
                self.model.set_weights([weight * np.nan for weight in self.model.get_weights()])

    model = small_model()
    history = model.fit(*data(), epochs=3, verbose=0, callbacks=[Spoil(), TerminateOnNaN(action="rollback")])
    # Three epochs, one of them twice.
    assert history.seconds == total(history.costs) == 4.0


def test_listeners_that_were_never_called_cost_nothing() -> None:
    assert HookClock(["A"], every=True).seconds() == {}
