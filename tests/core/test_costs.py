"""The clock of callbacks, with a clock that only callbacks move."""

from __future__ import annotations

from typing import Any

import pytest

from helpers import Clock
from oncue.callbacks import Callback, CallbackList, History, callback_list, listeners
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


def test_listeners_that_were_never_called_cost_nothing() -> None:
    assert HookClock(["A"], every=True).seconds() == {}
