"""Names from older versions of Keras, all translated here, with one table for each kind of name.

- `arguments`: `ARGUMENTS` and `IGNORED`, arguments of layers, optimizers, callbacks and methods
- `methods`: `fit_generator` and the like
- `names`: `NAMES`, other names of losses, metrics, initializers, layers
- `params`: `PARAMS`, what callbacks were told of a run
- `log_keys`: `LOG_KEYS`, what logs are asked for
- `modules`: `MODULES`, `SILENT_MODULES`, `PARTS` and `ATTRIBUTES`, where things were imported from; `REFUSED` and
  `METHODS_REFUSED`, what can't be honoured
- `preprocessing_names`: `PREPROCESSING`, data helpers
- `backend_names`: `BACKEND` and `TENSORFLOW_NAMES`, functions of the backend, and of TensorFlow beside Keras

What is imported only when somebody asks for an old name: `modules`, `backend_names`, `preprocessing_names`,
`backend_functions`, `tensorflow_functions`, `layers`, `preprocessing`, `tf_data`.
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
from oncue.legacy.lookup import backend_function, call_as, is_backend_function, no_method, old_attribute
from oncue.legacy.methods import old_property
from oncue.legacy.names import NAMES, layer_of_keras_1
from oncue.legacy.params import HeldOut, RunParams
from oncue.legacy.warning import warn_once

__all__ = [
    "NAMES",
    "HeldOut",
    "RunParams",
    "accepts_old_arguments",
    "backend_function",
    "call_as",
    "first_layer_shape",
    "in_order_of_keras_1",
    "is_backend_function",
    "layer_of_keras_1",
    "log_names",
    "no_method",
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
