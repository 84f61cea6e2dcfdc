"""Listeners: the callbacks that override one hook, called in order and timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from oncue.core.costs import SLOW_CALL, HookClock
from oncue.core.hooks import HOOKS
from oncue.core.interrupts import Interrupts
from oncue.core.logs import Logs, as_logs
from oncue.core.progress import Progress

Method = Callable[..., Any]


class Listeners:
    """The callbacks that override a hook, in the order in which they are called.

    Args:
        hook: The hook.
        pairs: Each callback and its method for the hook.
        foreign: Whether any of the methods isn't oncue's own code.

    Example:
        >>> heard = []
        >>> listeners = Listeners("on_epoch_end", [("me", lambda epoch, logs: heard.append(epoch))])
        >>> listeners.call(3, {})
        >>> heard
        [3]
    """

    __slots__ = ("clock", "foreign", "hook", "pairs")

    def __init__(self, hook: str, pairs: Sequence[tuple[Any, Method]], foreign: bool = False) -> None:
        self.hook = hook
        self.pairs = tuple(pairs)
        self.foreign = foreign
        self.clock = HookClock([type(callback).__name__ for callback, _ in self.pairs], every="_batch_" not in hook)

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def call(self, *arguments: Any) -> None:
        """Call every listener; an error gets a note that names the one that raised it, and is passed on."""
        callback, parts = None, []
        before = perf_counter()
        try:
            for callback, method in self.pairs:  # noqa: B007  # the error's note names it
                method(*arguments)
                now = perf_counter()
                parts.append(now - before)
                before = now
        except BaseException as error:
            self._failed(error, callback, arguments)
            raise
        self.clock.add(parts)

    def of_batch(self, progress: Progress) -> Callable[..., None]:
        """Return a function of (batch, logs) that does what `call` does, as quickly as Python can.

        Args:
            progress: Where the batch's index is kept.
        """
        methods = tuple(method for _, method in self.pairs)
        if not methods:
            return _no_listener
        clock, in_parts, failed = self.clock, self.call, self._failed
        whole, left = 0.0, 1
        began: float | None = None

        def call(batch: int, logs: Any = None) -> None:
            nonlocal whole, left, began
            progress.batch = batch
            if not isinstance(logs, Logs):
                logs = as_logs(logs)
            left -= 1
            if not left:
                if began is None:
                    began = perf_counter()
                in_parts(batch, logs)
                left = clock.until_next(perf_counter() - began)
                return
            method = None
            start = perf_counter()
            try:
                for method in methods:
                    method(batch, logs)
            except BaseException as error:
                failed(error, self._owner(method), (batch, logs))
                raise
            took = perf_counter() - start
            if took < SLOW_CALL:
                whole += took
            else:
                clock.add_whole(took)
                left = clock.until_next(start + took - (began or 0.0))

        clock.rest = lambda: whole
        return call

    def _owner(self, raising: Method | None) -> Any:
        return next((callback for callback, method in self.pairs if method is raising), None)

    def _failed(self, error: BaseException, callback: Any, arguments: tuple[Any, ...]) -> None:
        # The traceback keeps the logs alive, and the next step would change what they show.
        if isinstance(arguments[-1], Logs):
            arguments[-1].own()
        noted(error, callback, self.hook, arguments[0] if len(arguments) == 2 else None)

    def call_each(
        self,
        failure: BaseException | None,
        *arguments: Any,
        backwards: bool = False,
        interrupts: Interrupts | None = None,
    ) -> BaseException | None:
        """Call every listener whatever the others raise.

        Args:
            failure: The error that is being handled, if any.
            *arguments: The hook's arguments.
            backwards: Whether to begin with the last.
            interrupts: Lets Ctrl-C end the listener that is running; between two of them it is held back.

        Returns:
            The error to raise in the end: the first one, with later ones as notes. At a second Ctrl-C the listener that is
            running ends at once; those that are left are only called in `close`, so that nothing stays open.
        """
        parts = [0.0] * len(self.pairs)
        places = range(len(self.pairs))
        interrupts = interrupts or Interrupts()
        for place in reversed(places) if backwards else places:
            callback, method = self.pairs[place]
            before = perf_counter()
            try:
                interrupts.let_through()
                method(*arguments)
                interrupts.hold()
            except BaseException as error:
                interrupts.hold()
                if isinstance(error, KeyboardInterrupt) and isinstance(failure, KeyboardInterrupt):
                    # A user who interrupts twice doesn't want to wait for the rest.
                    failure.add_note(f"interrupted again in {type(callback).__name__}.{self.hook}")
                    if self.hook == "on_exception":
                        break
                elif failure is None:
                    failure = noted(error, callback, self.hook)
                elif error is not failure:
                    failure.add_note(
                        f"then {type(callback).__name__}.{self.hook} raised {type(error).__name__}: {error}"
                    )
            parts[place] = perf_counter() - before
        self.clock.add(parts)
        return failure


def _no_listener(batch: int, logs: Any = None) -> None:
    """Stand in for a hook that no callback has."""


def noted(error: BaseException, callback: Any, hook: str, index: int | None = None) -> BaseException:
    """Return an error with a note of the callback and the hook that raised it."""
    where = "" if index is None else f" ({HOOKS[hook][0]} {index})"
    note = f"raised in {type(callback).__name__}.{hook}{where}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error
