"""Outside: whether Python code reads or writes files, the terminal, the network, other processes or the clock."""

from __future__ import annotations

import inspect
import io
import os
import socket
import sys
import time
from datetime import date
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import Any, Self

from oncue.training.graph.refusal import is_the_users, line_of

_HARMLESS = frozenset({os.fspath, os.getpid, os.getcwd, os.cpu_count, os.strerror})


def _functions_of(module: ModuleType) -> dict[Any, str]:
    found = {thing: f"{module.__name__}.{name}" for name, thing in vars(module).items() if type(thing) is type(print)}
    return {function: name for function, name in found.items() if function not in _HARMLESS}


_CLOCK = _functions_of(time)
_FUNCTIONS = {print: "print", input: "input", io.open_code: "open_code", open: "open", **_functions_of(os), **_CLOCK}
_NOW = frozenset({"now", "utcnow", "today"})
# They say where something went wrong, or load code, and nothing that a step could compute with.
_ASIDE = (
    "<frozen importlib",
    *[str(Path(io.__file__).with_name(f"{name}.py")) for name in ("warnings", "linecache", "traceback")],
)


class Outside:
    """Sees what the code of a block does, in this thread, that is neither in Python's values nor in tensors.

    Where another profile function is set, as by a profiler of Python, nothing is seen.

    Example:
        >>> with Outside() as outside:
        ...     _ = sorted([2, 1])
        ...     print("a step")
        a step
        >>> outside.seen.partition(", which")[0]
        'each step calls `print`'
    """

    def __init__(self) -> None:
        self.seen: str | None = None
        """The first thing that was done, as a reason to refuse a step; None when there was none."""

    def __enter__(self) -> Self:
        """Begin to look."""
        frame = inspect.currentframe()
        self._block = None if frame is None else frame.f_back
        self._looks = sys.getprofile() is None
        if self._looks:
            sys.setprofile(self._called)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Look no more."""
        if self._looks:
            sys.setprofile(None)

    def _called(self, frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and self.seen is None and _reaches_outside(function, frame):
            self._note(function, frame)

    def _note(self, function: Any, frame: FrameType) -> None:
        caller: FrameType | None = frame
        line = None
        while caller is not None and caller is not self._block:
            if caller.f_code.co_filename.startswith(_ASIDE):
                return
            line = line or line_of(caller.f_code.co_filename, caller.f_lineno)
            caller = caller.f_back
        called = _FUNCTIONS.get(function, function.__qualname__)
        self.seen = f"each step calls `{called}`, which a graph would not do again (do it in a callback)"
        if line:
            self.seen += f", at {line}"


def _reaches_outside(function: Any, frame: FrameType) -> bool:
    owner = getattr(function, "__self__", None)
    if isinstance(owner, ModuleType):
        # Libraries measure times without computing with them.
        return function in _FUNCTIONS and (function not in _CLOCK or is_the_users(frame.f_code.co_filename))
    if isinstance(owner, type):
        return issubclass(owner, date) and function.__name__ in _NOW and is_the_users(frame.f_code.co_filename)
    return isinstance(owner, (io.IOBase, socket.socket)) and not isinstance(owner, (io.StringIO, io.BytesIO))
