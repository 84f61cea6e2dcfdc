"""Interrupts: Ctrl-C ends what runs, and leaves nothing half done that tidies up."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from types import FrameType, TracebackType
from typing import Any, ParamSpec, Self, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def undivided(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return a function that Ctrl-C doesn't cut short; what came meanwhile is raised at its end.

    That holds inside a block of `Interrupts`, in the main thread, where Python handles signals. The function should not
    take long.

    Example:
        >>> @undivided
        ... def both(names):
        ...     names.append("first")
        ...     signal.raise_signal(signal.SIGINT)
        ...     names.append("second")
        >>> names = []
        >>> try:
        ...     with Interrupts():
        ...         both(names)
        ... except KeyboardInterrupt:
        ...     print(names)
        ['first', 'second']
    """

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        finally:
            handler = _installed()
            if handler is not None:
                handler.deliver()

    return call


@undivided
def _nothing() -> None:
    """Have the code of what `undivided` returns, which all of its functions share."""


_UNDIVIDED = _nothing.__code__


class Interrupts:
    """A block in which Ctrl-C, however often it comes, ends what runs once, and then lets it be tidied up.

    The first one raises KeyboardInterrupt wherever it finds the program, as always, or does what an earlier handler does.
    While that error is on its way, further ones do nothing, so that every `finally` and every `__exit__` on the way comes to
    its end. An error that the program has handled, to go on, is no longer on its way.

    Blocks may be inside one another. Outside the main thread a block does nothing, as no signal is handled there.

    Example:
        >>> try:
        ...     with Interrupts():
        ...         try:
        ...             signal.raise_signal(signal.SIGINT)
        ...         finally:
        ...             signal.raise_signal(signal.SIGINT)
        ...             print("tidied up")
        ... except KeyboardInterrupt:
        ...     print("interrupted")
        tidied up
        interrupted
    """

    def __init__(self) -> None:
        self._handler: _Handler | None = None
        self._is_outermost = False
        self._held_before = False
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        found = signal.getsignal(signal.SIGINT) if _in_main_thread() else None
        if isinstance(found, _Handler):
            self._handler, self._held_before = found, found.held
        elif callable(found):
            handler = _Handler(found)
            # Until the block has begun, nobody would put back what was there.
            handler.held = True
            signal.signal(signal.SIGINT, handler)
            if handler.came:
                signal.signal(signal.SIGINT, found)
                found(signal.SIGINT, None)
            self._handler, self._is_outermost = handler, True
            handler.held = False
        return self

    @undivided
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        handler = self._handler
        self.hold()
        try:
            self._entered.__exit__(kind, error, trace)
        except BaseException as failure:
            error = failure
            raise
        finally:
            if handler is not None:
                if error is not None:
                    # The block has ended early as it is.
                    handler.came = False
                if self._is_outermost:
                    handler.end()
                else:
                    handler.held = self._held_before
        if handler is not None and self._is_outermost and handler.came:
            handler.before(signal.SIGINT, None)

    @undivided
    def enter(self, block: AbstractContextManager[_T]) -> _T:
        """Enter another block, which is left when this one is, however it ends.

        Args:
            block: The block.

        Returns:
            What its `__enter__` gives.
        """
        return self._entered.enter_context(block)

    @undivided
    def hold(self) -> None:
        """Hold back from now on, until `let_through` or the end of the block."""
        if self._handler is not None:
            self._handler.held = True
            self._handler.window = None

    def let_through(self) -> None:
        """Raise from now on what comes while the caller calls others, even where it is inside an undivided function itself.

        One that was held back stays so.
        """
        handler = self._handler
        if handler is not None:
            handler.token = object()
            handler.window = sys._getframe(1)
            handler.held = False


class _Handler:
    """What Python calls at a Ctrl-C.

    Args:
        before: The handler that was there.

    Attributes:
        held: Whether all are held back.
        came: Whether one was held back and is still to be passed on.
        window: What this frame calls may be cut short, though an undivided function has called it.
        token: By this an error is known that one has raised since `let_through`.
    """

    def __init__(self, before: Callable[[int, FrameType | None], Any]) -> None:
        self.before = before
        self.held = self.came = self._is_over = False
        self.window: FrameType | None = None
        self.token = object()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._is_over:
            self.before(number, frame)
        elif self.held or self._is_inside(frame):
            self.came = True
        elif not self._is_on_its_way():
            self._pass_on(frame)

    def deliver(self) -> None:
        """Pass on what was held back, at the end of an undivided function, unless that is inside another."""
        # A frame that keeps itself in a variable lives, with all that its callers hold, until the garbage is collected.
        above = sys._getframe(2)
        if self.came and not self.held and not self._is_inside(above):
            self.came = False
            if not self._is_on_its_way():
                self._pass_on(above)

    def end(self) -> None:
        """Put back the handler that was there; one that was installed since stays, and may call this one."""
        self.window, before = None, self.before
        try:
            if signal.getsignal(signal.SIGINT) is self:
                signal.signal(signal.SIGINT, before)
        finally:
            self._is_over = True

    def _pass_on(self, frame: FrameType | None) -> None:
        try:
            self.before(signal.SIGINT, frame)
        except BaseException as error:
            # A reference would keep all that the frames of its traceback have.
            vars(error)["_interrupt"] = self.token
            raise

    def _is_on_its_way(self) -> bool:
        error = sys.exception()
        while error is not None and vars(error).get("_interrupt") is not self.token:
            error = error.__context__
        return error is not None

    def _is_inside(self, frame: FrameType | None) -> bool:
        """Return whether an undivided function is under way in a frame, or in one of those that called it."""
        while frame is not None and frame is not self.window:
            if frame.f_code is _UNDIVIDED:
                return True
            frame = frame.f_back
        return False


def _in_main_thread() -> bool:
    # To ask for the current thread would list those that Python didn't start.
    return threading.get_ident() == threading.main_thread().ident


def _installed() -> _Handler | None:
    found = signal.getsignal(signal.SIGINT) if _in_main_thread() else None
    return found if isinstance(found, _Handler) else None
