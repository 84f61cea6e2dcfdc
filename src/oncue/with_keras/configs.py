"""Layers and operations of Keras from configurations, for models of oncue."""

from __future__ import annotations

from typing import Any

from oncue.keras_names import load_keras
from oncue.with_keras.layer import KerasOperation
from oncue.with_keras.safe_config import check_config


def layer_from(config: dict[str, Any], custom_objects: dict[str, Any]) -> Any:
    """Return the layer of Keras that a configuration describes.

    Args:
        config: What Keras has written, or `KerasLayer.written`.
        custom_objects: The user's own classes and functions by name.

    Raises:
        ValueError: For code in the configuration, and names that are none of Keras's and none of the user's.
        ImportError: Without Keras.
    """
    return _made(config, custom_objects)


def operation_from(config: dict[str, Any]) -> KerasOperation:
    """Return the function of `keras.ops` that a configuration describes, as a step of a model.

    Raises:
        ValueError: As `layer_from`.
        ImportError: Without Keras.
    """
    made = KerasOperation.of(_made(config, {}))
    made.name = config["config"].get("name", made.name)
    return made


def _made(config: dict[str, Any], custom_objects: dict[str, Any]) -> Any:
    keras = load_keras(f"oncue.layers.{config.get('class_name')}")
    check_config(config, "the configuration", custom_objects)
    if "module" not in config:
        # Keras 1 and 2 wrote the class alone.
        config = {"module": "keras.layers", "registered_name": None, **config}
    return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects, safe_mode=True)
