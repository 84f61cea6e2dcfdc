"""Layers by Keras's names, each imported when first used."""

from __future__ import annotations

import importlib
from typing import Any

from oncue import objects
from oncue.keras_names import beside, elsewhere, names_of_keras
from oncue.legacy import NAMES

_HOME: dict[str, str] = {
    **dict.fromkeys(("Activation", "ELU", "LeakyReLU", "ReLU", "Softmax"), "activation"),
    **dict.fromkeys(("Dropout", "GaussianNoise"), "dropout"),
    **dict.fromkeys(("Flatten", "Permute", "RepeatVector", "Reshape"), "reshaping"),
    **dict.fromkeys(("Input", "InputLayer"), "input_layer"),
    **dict.fromkeys(("Conv1D", "Conv2D"), "conv"),
    **dict.fromkeys(("AveragePooling1D", "AveragePooling2D", "MaxPooling1D", "MaxPooling2D"), "pooling"),
    **dict.fromkeys(
        ("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D"),
        "global_pooling",
    ),
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D"), "padding"),
    **dict.fromkeys(("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"), "merge"),
    **dict.fromkeys(("add", "average", "concatenate", "maximum", "minimum", "multiply", "subtract"), "merge"),
    **dict.fromkeys(("SimpleRNN", "SimpleRNNCell"), "simple_rnn"),
    **dict.fromkeys(("LSTM", "LSTMCell"), "lstm"),
    **dict.fromkeys(("GRU", "GRUCell"), "gru"),
    "BatchNormalization": "batch_normalization",
    "Bidirectional": "bidirectional",
    "Dense": "dense",
    "Embedding": "embedding",
    "InputSpec": "input_spec",
    "Layer": "layer",
    "LayerNormalization": "layer_normalization",
    "Masking": "masking",
    "Normalization": "normalization",
    "PReLU": "prelu",
    "RNN": "rnn",
    "Rescaling": "rescaling",
    "TimeDistributed": "time_distributed",
}
# Classes by a name of Keras 1 whose arguments had another order there.
_OF_KERAS_1 = dict.fromkeys(("Convolution1D", "Convolution2D"), "conv")
_ALIASES = NAMES["layer"]

_ADVICE = (
    "Give classes of your own in `custom_objects`. A file of a model of the real Keras, of a class of your own, is loaded by "
    "`oncue.with_keras.load_model`."
)

__all__ = sorted({*_HOME, *_OF_KERAS_1, *_ALIASES, "deserialize", "serialize"})
__all__ += beside("oncue.layers", __all__)


def __getattr__(name: str) -> Any:
    target = _ALIASES.get(name, name)
    home = _HOME.get(target) or _OF_KERAS_1.get(target)
    if home is None:
        return elsewhere("oncue.layers", name)
    found = getattr(importlib.import_module(f"oncue.layers.{home}"), target)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__


def serialize(layer: Any) -> dict[str, Any]:
    """Return the configuration of a layer as Keras's saving format spells it.

    Args:
        layer: A layer.

    Returns:
        A dict with the keys module, class_name, config and registered_name.

    Example:
        >>> serialize(__getattr__("Flatten")())["class_name"]
        'Flatten'
    """
    from oncue.layers.foreign_layer import ForeignLayer

    return layer.written() if isinstance(layer, ForeignLayer) else objects.to_config(layer, "keras.layers")


def deserialize(config: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """Make a layer from its configuration. Only layers named here and your own are made.

    Args:
        config: What `serialize` returned.
        custom_objects: Your own classes by name.

    Returns:
        The layer; one of the real Keras for a configuration of it.

    Raises:
        ValueError: For the name of a class that is not known.

    Example:
        >>> deserialize({"class_name": "Dropout", "config": {"rate": 0.5}}).rate
        0.5
    """
    name = config.get("class_name") if isinstance(config, dict) else config
    known: dict[str, Any] = dict.fromkeys([*_HOME, *_OF_KERAS_1, *_ALIASES])
    if name in known:
        known[name] = __getattr__(name)
    elif name in ("Sequential", "Functional", "Model"):
        known[name] = getattr(importlib.import_module("oncue.models"), "Model" if name == "Functional" else name)
    own = {**objects.custom, **(custom_objects or {})}
    if isinstance(config, dict) and name not in known and not {name, config.get("registered_name")} & own.keys():
        if name in names_of_keras("oncue.layers"):
            from oncue.with_keras.configs import layer_from

            return layer_from(config, own)
    return objects.resolve("layer", config, known, custom_objects, _ADVICE)
