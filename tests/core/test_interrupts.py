"""Interrupts: Ctrl-C ends what runs once, and then lets it be tidied up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from oncue.core.interrupts import Interrupts, undivided


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def handler() -> Iterator[Any]:
    before = signal.getsignal(signal.SIGINT)
    yield before
    after = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    assert after is before


def test_the_first_one_ends_the_block_and_further_ones_let_it_be_tidied_up() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), Interrupts():
        try:
            interrupt()
            done.append("never")
        finally:
            for _ in range(3):
                interrupt()
            done.append("finally")
            try:
                interrupt()
            finally:
                done.append("inside")
    assert done == ["finally", "inside"]


def test_one_that_the_program_has_handled_is_over() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts():
        with suppress(KeyboardInterrupt):
            interrupt()
        interrupt()
        pytest.fail("the second did nothing")


def test_what_is_not_to_be_divided_comes_to_its_end() -> None:
    done = []

    @undivided
    def inner() -> None:
        interrupt()
        done.append("inner")

    @undivided
    def outer() -> None:
        inner()
        done.append("outer")

    with pytest.raises(KeyboardInterrupt), Interrupts():
        outer()
        done.append("never")
    assert done == ["inner", "outer"]
    inner_alone = []

    @undivided
    def alone() -> None:
        interrupt()
        inner_alone.append("never")

    with pytest.raises(KeyboardInterrupt):
        alone()
    assert not inner_alone


def test_what_was_entered_is_left_whatever_comes_meanwhile() -> None:
    done = []

    @contextmanager
    def slow(name: str) -> Iterator[None]:
        try:
            yield
        finally:
            interrupt()
            done.append(name)

    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        interrupts.enter(slow("first"))
        interrupts.enter(slow("second"))
    assert done == ["second", "first"]
    with pytest.raises(ValueError, match="mine"), Interrupts() as interrupts:
        interrupts.enter(slow("third"))
        raise ValueError("mine")
    assert done[2:] == ["third"]


def test_windows_in_which_it_is_let_through() -> None:
    done = []

    @undivided
    def close() -> None:
        interrupts.hold()
        for name in ("a", "b"):
            try:
                interrupts.let_through()
                interrupt()
                done.append("never")
            except KeyboardInterrupt:
                interrupts.hold()
                interrupt()
                done.append(name)

    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        close()
    assert done == ["a", "b"]


def test_blocks_inside_one_another() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts() as outer:
        with suppress(KeyboardInterrupt), Interrupts():
            interrupt()
        outer.hold()
        with Interrupts():
            interrupt()
        outer.let_through()
        outer.hold()
    with Interrupts(), Interrupts():
        pass


def test_a_handler_of_the_users_is_called_each_time(handler: Any) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    mine = signal.getsignal(signal.SIGINT)

    @undivided
    def twice() -> None:
        interrupt()
        assert len(heard) == 2

    with Interrupts():
        interrupt()
        interrupt()
        twice()
        assert len(heard) == 3
    assert signal.getsignal(signal.SIGINT) is mine
    signal.signal(signal.SIGINT, handler)


def test_one_that_was_installed_inside_stays_and_may_call_what_it_has_found(handler: Any) -> None:
    with Interrupts():
        found: Any = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, lambda number, frame: found(number, frame))
    assert signal.getsignal(signal.SIGINT) is not handler
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    signal.signal(signal.SIGINT, handler)


def test_ignored_signals_stay_ignored(handler: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        interrupts.hold()
        interrupts.let_through()
    signal.signal(signal.SIGINT, handler)


def test_other_threads_are_left_alone(handler: Any) -> None:
    found: list[Any] = []

    def run() -> None:
        with Interrupts() as interrupts:
            found.append(signal.getsignal(signal.SIGINT))
            interrupts.hold()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [handler]
