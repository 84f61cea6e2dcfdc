"""Files of models and weights, and a registry of custom classes and functions. Names in a file are never imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncue.keras_names import elsewhere
from oncue.saving.custom_objects import (
    CustomObjectScope,
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)

if TYPE_CHECKING:
    from oncue.saving.formats import load_model, load_weights, prepare_save, save_model, save_weights, size_of_save
    from oncue.saving.keras_objects import deserialize_keras_object, serialize_keras_object

__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "load_model",
    "load_weights",
    "prepare_save",
    "register_keras_serializable",
    "save_model",
    "save_weights",
    "serialize_keras_object",
    "size_of_save",
]


def __getattr__(name: str) -> Any:
    # h5py and safetensors are imported when the first file is read or written.
    if name in ("load_model", "load_weights", "prepare_save", "save_model", "save_weights", "size_of_save"):
        from oncue.saving import formats

        return getattr(formats, name)
    if name in ("deserialize_keras_object", "serialize_keras_object"):
        from oncue.saving import keras_objects

        return getattr(keras_objects, name)
    return elsewhere("oncue.saving", name)


def __dir__() -> list[str]:
    return __all__
