"""What a function's code refers to: names, those that it reads, and modules that it imports when it is called."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from types import CodeType, FunctionType, ModuleType
from typing import Any

_IMPORT = dis.opmap["IMPORT_NAME"]
_READS = frozenset(
    {"LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "IMPORT_FROM"}
)


def names_in(code: CodeType) -> set[str]:
    """Return the names of globals and attributes in a code and in the functions inside.

    Args:
        code: The code of a function.

    Example:
        >>> sorted(names_in((lambda x: len(x.shape)).__code__))
        ['len', 'shape']
    """
    return {name for one in codes(code) for name in one.co_names}


def names_read(code: CodeType) -> set[str]:
    """Return the names that a code reads, and not only sets, and the strings in it, which may be names.

    Args:
        code: The code of a function.

    Example:
        >>> def function(x):
        ...     x.one = x.two
        >>> sorted(names_read(function.__code__) & {"one", "two"})
        ['two']
    """
    found: set[str] = set()
    for one in codes(code):
        found |= {step.argval for step in dis.get_instructions(one) if step.opname in _READS}
        for constant in one.co_consts:
            found |= {text for text in _items(constant) if isinstance(text, str)}
    return found


def modules_imported(function: FunctionType) -> list[ModuleType]:
    """Return the modules that a function, or one inside it, imports when it is called, as far as they are there already.

    Args:
        function: The function.

    Example:
        >>> def function():
        ...     import os.path as path
        ...     return path
        >>> [module.__name__ for module in modules_imported(function)]
        ['os', 'posixpath']
    """
    space = function.__globals__
    package = space.get("__package__") or str(space.get("__name__")).rpartition(".")[0]
    found: dict[str, ModuleType | None] = {}
    for code in codes(function.__code__):
        if _IMPORT not in code.co_code[::2]:
            continue
        steps = [step for step in dis.get_instructions(code) if step.opname not in ("EXTENDED_ARG", "CACHE")]
        for place, step in enumerate(steps):
            if step.opname == "IMPORT_NAME":
                # It is called with what the two operations before it load: how far up a relative name begins, and a list.
                level = steps[place - 2].argval
                relative = "." * level if isinstance(level, int) else ""
                if relative and not package:
                    continue
                name = resolve_name(relative + step.argval, package)
                found |= {part: sys.modules.get(part) for part in (name.partition(".")[0], name)}
    return [module for module in found.values() if module is not None]


def codes(code: CodeType) -> Iterator[CodeType]:
    """Give the code of a function, and of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def _items(constant: Any) -> Iterator[Any]:
    if isinstance(constant, (tuple, frozenset)):
        for item in constant:
            yield from _items(item)
    else:
        yield constant
