"""Listeners: the callbacks that override one hook, called in order and timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from oncue.core.costs import HookClock
from oncue.core.hooks import HOOKS
from oncue.core.logs import Logs

Method = Callable[..., Any]


class Listeners:
    """The callbacks that override a hook, in the order in which they are called.

    Args:
        hook: The hook.
        pairs: Each callback and its method for the hook.

    Example:
        >>> heard = []
        >>> listeners = Listeners("on_epoch_end", [("me", lambda epoch, logs: heard.append(epoch))])
        >>> listeners.call(3, {})
        >>> heard
        [3]
    """

    __slots__ = ("clock", "hook", "pairs")

    def __init__(self, hook: str, pairs: Sequence[tuple[Any, Method]]) -> None:
        self.hook = hook
        self.pairs = tuple(pairs)
        self.clock = HookClock([type(callback).__name__ for callback, _ in self.pairs], every="_batch_" not in hook)

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def call(self, *arguments: Any) -> None:
        """Call every listener; an error says in a note who raised it, and goes on to the caller."""
        clock = self.clock
        clock.calls += 1
        callback: Any = None
        start = perf_counter()
        try:
            if clock.in_parts or clock.calls & 31 == 1:
                parts, before = [], start
                for callback, method in self.pairs:  # noqa: B007  # the error's note names it
                    method(*arguments)
                    now = perf_counter()
                    parts.append(now - before)
                    before = now
                clock.add(parts)
            else:
                for callback, method in self.pairs:  # noqa: B007  # as above
                    method(*arguments)
                clock.whole += perf_counter() - start
        except BaseException as error:
            given = arguments[-1]
            if isinstance(given, Logs):
                given.own()
            noted(error, callback, self.hook, arguments[0] if len(arguments) == 2 else None)
            raise

    def call_each(
        self, failure: BaseException | None, *arguments: Any, backwards: bool = False
    ) -> BaseException | None:
        """Call every listener whatever the others raise.

        Args:
            failure: The error that is under way, if any.
            *arguments: The hook's arguments.
            backwards: Whether to begin with the last.

        Returns:
            The error to raise in the end: the first one, with later ones as notes.
        """
        for callback, method in reversed(self.pairs) if backwards else self.pairs:
            try:
                method(*arguments)
            except BaseException as error:
                if failure is None:
                    failure = noted(error, callback, self.hook)
                elif error is not failure:
                    failure.add_note(
                        f"then {type(callback).__name__}.{self.hook} raised {type(error).__name__}: {error}"
                    )
        return failure


def noted(error: BaseException, callback: Any, hook: str, index: int | None = None) -> BaseException:
    """Return an error with a note that says which callback raised it, in which hook."""
    where = "" if index is None else f" ({HOOKS[hook][0]} {index})"
    note = f"raised in {type(callback).__name__}.{hook}{where}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error
