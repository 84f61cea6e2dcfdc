"""Modules under the names that other generations of Keras gave them: the same objects, never copies."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

from oncue.legacy.warning import warn_once

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder

    class _Base(MetaPathFinder, Loader):
        pass

else:
    # The real bases bring nothing but 20 ms of imports.
    _Base = object

_ROOTS = ("oncue.keras", "oncue.python.keras")
"""Where TensorFlow has Keras: there is no other module of these names."""


def home(name: str) -> str | None:
    """Return the name that the module of an alias really has, or None when it is no alias.

    `oncue.keras` is `oncue` itself, for code that writes `tensorflow.keras`, or `import oncue as tf`.

    Example:
        >>> home("oncue.keras.callbacks"), home("oncue.utils.np_utils"), home("oncue.layers")
        ('oncue.callbacks', 'oncue.utils', None)
    """
    from oncue.legacy.modules import MODULES, SILENT_MODULES

    plain = plain_name(name)
    plain = (MODULES[plain].new or "oncue") if plain in MODULES else SILENT_MODULES.get(plain, plain)
    return None if plain == name else plain


def plain_name(name: str) -> str:
    """Return the name that a module has without `tensorflow` around it.

    Example:
        >>> plain_name("oncue.keras.callbacks")
        'oncue.callbacks'
    """
    plain = name
    while root := next((root for root in _ROOTS if plain == root or plain.startswith(f"{root}.")), None):
        plain = f"oncue{plain[len(root) :]}"
    return plain


class Aliases(_Base):
    """Imports an alias by importing the module that it stands for, and fills modules that are a part of another.

    Example:
        >>> import oncue, oncue.keras.callbacks
        >>> oncue.keras.callbacks is oncue.callbacks
        True
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answer for aliases, parts and old names only.

        Raises:
            ImportError: For a name that can't be honoured, with what to do today.
        """
        if not fullname.startswith("oncue."):
            return None
        # Modules of today are most, and need no tables.
        today = PathFinder.find_spec(fullname, path) if plain_name(fullname) == fullname else None
        if today is not None and today.origin is not None:
            return None
        from oncue.legacy.modules import PARTS, SPACES, refusal

        refused = refusal(plain_name(fullname))
        if refused is not None:
            raise ImportError(refused, name=fullname)
        known = home(fullname) is not None or fullname in PARTS or fullname in SPACES
        return ModuleSpec(fullname, self) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return the module that the alias stands for; None for a part, which Python makes a module of its own for."""
        from oncue.legacy.modules import MODULES, PARTS, SPACES

        if spec.name in PARTS or spec.name in SPACES:
            return None
        name = home(spec.name)
        assert name is not None
        old = plain_name(spec.name)
        if old in MODULES:
            warn_once(old, name)
        module = importlib.import_module(name)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is, with the spec of its own name: it has been run already. Fill one that is a part."""
        from oncue.legacy.modules import PARTS, SPACES, fill

        assert module.__spec__ is not None
        if module.__spec__.name in SPACES:
            fill(module)
            return
        names = PARTS.get(module.__spec__.name)
        if names is not None:
            whole = importlib.import_module(module.__name__.rpartition(".")[0])

            def part(name: str) -> Any:
                if name not in names:
                    raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
                return getattr(whole, name)

            own = [name for name in names if name in whole.__all__]
            vars(module).update(__getattr__=part, __all__=own, __dir__=lambda: list(names))
            return
        module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Let `import` know the aliases; once for the process, before Python looks into folders."""
    if not any(isinstance(finder, Aliases) for finder in sys.meta_path):
        sys.meta_path.insert(0, Aliases())
