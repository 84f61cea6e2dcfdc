"""The same callbacks in other loops: a loop of yours, Accelerate, Keras, Lightning, transformers.

Each adapter is in a file of its own and imports its library only when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from oncue.hosts.keras import Keras as Keras
from oncue.hosts.loop import loop as loop

if TYPE_CHECKING:
    from oncue.hosts.lightning import Lightning as Lightning
    from oncue.hosts.transformers import Transformers as Transformers

__all__ = ["Keras", "Lightning", "Transformers", "loop"]

_OF_LIBRARIES = {"Lightning": "lightning", "Transformers": "transformers"}


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
