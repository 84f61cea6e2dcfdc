"""Names from older versions of Keras, all translated here, with one table for each kind of name.

- `arguments`: `ARGUMENTS` and `IGNORED`, arguments of layers, optimizers, callbacks and methods
- `methods`: `fit_generator` and the like
- `names`: `NAMES`, other names of losses, metrics, initializers, layers
- `log_keys`: `LOG_KEYS`, what logs are asked for
- `modules`: `MODULES`, `SILENT_MODULES`, `PARTS` and `ATTRIBUTES`, where things were imported from

The old names of hooks are in the table of all hooks, `oncue.core.hooks.ALIASES`.
"""

from __future__ import annotations

import importlib
from typing import Any

from oncue.legacy.arguments import (
    accepts_old_arguments,
    first_layer_shape,
    in_order_of_keras_1,
    renamed,
    sequence_length,
    take_ignored,
    take_old_arguments,
    translate_optimizer_arguments,
)
from oncue.legacy.log_keys import log_names, old_log_names
from oncue.legacy.methods import old_property
from oncue.legacy.modules import old_attribute
from oncue.legacy.names import NAMES
from oncue.legacy.warning import warn_once

__all__ = [
    "NAMES",
    "accepts_old_arguments",
    "first_layer_shape",
    "in_order_of_keras_1",
    "log_names",
    "old_attribute",
    "old_log_names",
    "old_property",
    "renamed",
    "sequence_length",
    "take_ignored",
    "take_old_arguments",
    "translate_optimizer_arguments",
    "warn_once",
]


def __getattr__(name: str) -> Any:
    if name == "saving":
        # Keras's own, which has a module of this name too.
        return importlib.import_module("oncue.legacy.saving")
    raise AttributeError(f"module 'oncue.legacy' has no attribute {name!r}")
