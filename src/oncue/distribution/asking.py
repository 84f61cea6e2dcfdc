"""Asking: questions to a store that may never answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class Asking:
    """Asks questions in a thread of its own, one after another, so that whoever asks can give up.

    The process that keeps a store may be stopped, and not all questions to it give up by themselves. What asks is in C++ then,
    and must not come back from there while the interpreter ends: before Python 3.14 that ends the process by a signal. So
    whoever ends the process waits a while for it.

    Example:
        >>> asking = Asking()
        >>> asking.ask(max, 1, 2, seconds=5.0)
        2
        >>> asking.end(seconds=5.0)
        True
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._lock = threading.RLock()

    def ask(self, question: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
        """Return the answer to a question; may be called by several threads.

        Args:
            question: Asks it.
            *arguments: Its arguments.
            seconds: How long to wait for the answer.

        Raises:
            TimeoutError: When there is none.
            Exception: Whatever the question raises.
        """
        asked = _Question(question, arguments)
        with self._lock:
            if self._thread is None:
                self._questions = SimpleQueue()
                self._thread = threading.Thread(
                    target=_answer, args=(self._questions,), name="oncue-asking", daemon=True
                )
                self._thread.start()
            self._questions.put(asked)
        if not asked.is_answered.wait(seconds):
            raise TimeoutError(f"no answer within {seconds:g} s")
        if asked.error is not None:
            raise asked.error
        return asked.answer

    def end(self, seconds: float) -> bool:
        """Wait until what was asked is answered, and end the thread; return whether it has ended.

        Args:
            seconds: How long to wait.
        """
        with self._lock:
            thread = self._thread
            if thread is None:
                return True
            self._questions.put(None)
            thread.join(seconds)
            if thread.is_alive():
                return False
            self._thread = None
            return True


def _answer(questions: SimpleQueue[_Question | None]) -> None:
    while (asked := questions.get()) is not None:
        asked.put()


class _Question:
    def __init__(self, question: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._question, self._arguments = question, arguments
        self.answer: Any = None
        self.error: Exception | None = None
        self.is_answered = threading.Event()

    def put(self) -> None:
        try:
            self.answer = self._question(*self._arguments)
        except Exception as error:
            self.error = error
        finally:
            self.is_answered.set()
