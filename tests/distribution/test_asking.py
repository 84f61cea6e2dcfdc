"""Questions that may never be answered: whoever asks gives up, and the process waits for what still asks."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from oncue.distribution.asking import Asking


def fails() -> None:
    raise RuntimeError("it is gone")


def test_all_is_asked_in_one_thread_and_errors_come_back() -> None:
    asking = Asking()
    found = {asking.ask(threading.get_ident, seconds=5.0) for _ in range(3)}
    assert len(found) == 1 and threading.get_ident() not in found
    with pytest.raises(RuntimeError, match="it is gone"):
        asking.ask(fails, seconds=5.0)
    assert asking.ask(max, 1, 2, seconds=5.0) == 2
    assert asking.end(5.0) and asking.end(5.0)
    # Another thread, when there is something more.
    assert asking.ask(max, 1, 3, seconds=5.0) == 3 and asking.end(5.0)


def test_one_gives_up_and_its_thread_is_waited_for() -> None:
    asking, answers = Asking(), threading.Event()
    threads: list[Any] = []

    def question() -> None:
        threads.append(threading.current_thread())
        answers.wait(30.0)

    with pytest.raises(TimeoutError, match="no answer within 0.05 s"):
        asking.ask(question, seconds=0.05)
    assert not asking.end(0.05) and threads[0].is_alive()
    answers.set()
    assert asking.end(5.0) and not threads[0].is_alive()
