"""The same callbacks in other loops: a loop of yours, Accelerate, Ignite, Keras, Lightning, Poutyne, skorch, transformers.

Each adapter is in a file of its own and imports its library only when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from oncue.hosts.keras import Keras as Keras
from oncue.hosts.loop import loop as loop

if TYPE_CHECKING:
    from oncue.hosts.ignite import Ignite as Ignite
    from oncue.hosts.lightning import Lightning as Lightning
    from oncue.hosts.poutyne import Poutyne as Poutyne
    from oncue.hosts.skorch import Skorch as Skorch
    from oncue.hosts.transformers import Transformers as Transformers

__all__ = ["Ignite", "Keras", "Lightning", "Poutyne", "Skorch", "Transformers", "loop"]

_OF_LIBRARIES = {name: name.lower() for name in ("Ignite", "Lightning", "Poutyne", "Skorch", "Transformers")}


def __getattr__(name: str) -> Any:
    library = _OF_LIBRARIES.get(name)
    if library is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}.")
    try:
        return getattr(importlib.import_module(f"oncue.hosts.{library}"), name)
    except ImportError as error:
        raise ImportError(
            f"`oncue.hosts.{name}` needs the package {library}: `pip install 'oncue[{library}]'`. ({error})"
        ) from error
