"""Keras's `config`: the float type, epsilon and the dtype policy."""

from __future__ import annotations

from typing import Any

from oncue.backend import (
    backend,
    epsilon,
    floatx,
    image_data_format,
    max_data_on_device,
    max_epochs,
    max_steps_per_epoch,
    set_epsilon,
    set_floatx,
    set_image_data_format,
    set_max_data_on_device,
    set_max_epochs,
    set_max_steps_per_epoch,
)
from oncue.dtype_policies import dtype_policy, set_dtype_policy
from oncue.keras_names import elsewhere

__all__ = [
    "backend",
    "dtype_policy",
    "epsilon",
    "floatx",
    "image_data_format",
    "max_data_on_device",
    "max_epochs",
    "max_steps_per_epoch",
    "set_dtype_policy",
    "set_epsilon",
    "set_floatx",
    "set_image_data_format",
    "set_max_data_on_device",
    "set_max_epochs",
    "set_max_steps_per_epoch",
]


def __getattr__(name: str) -> Any:
    return elsewhere("oncue.config", name)
