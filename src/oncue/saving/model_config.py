"""A model's architecture as JSON in Keras's form, and back; classes are only found among ours and the user's."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any, NoReturn

import torch

from oncue.core.allowance import allowance
from oncue.core.builtin import kind_of
from oncue.core.warn import warn
from oncue.layers.layer import Layer
from oncue.models import Model, Sequential
from oncue.models.graph_config import layer_config, layer_from_config, shared_layers
from oncue.saving import guard
from oncue.saving.custom_objects import CustomObjectScope
from oncue.saving.keras_objects import REFUSED, serialize_keras_object
from oncue.variable import torch_dtype

_SPARE_NUMBERS = 1 << 20


def model_config(model: Any) -> dict[str, Any]:
    """Return a model's architecture as Keras writes it into `config.json`.

    Args:
        model: A Sequential or functional model of layers that have configurations, or one of your own class with
            `get_config`.

    Returns:
        A dict of plain values with the keys module, class_name, config, registered_name and, where known, build_config.

    Raises:
        ValueError: For a model, or a part of one, that has no configuration.

    Example:
        >>> from oncue import Sequential, layers
        >>> model_config(Sequential([layers.Input((2,)), layers.Dense(3)]))["class_name"]
        'Sequential'
    """
    check_describable(model)
    config = layer_config(model)
    if isinstance(model, Sequential):
        shape = config["config"].get("build_input_shape")
        if shape is not None:
            config["build_config"] = {"input_shape": shape}
    _share(model, config)
    plain: dict[str, Any] = json.loads(to_json(config, model))
    return plain


def to_json(config: Any, model: Any = None) -> str:
    """Return a configuration as JSON; arrays and types in it as Keras writes them."""

    def plain(value: Any) -> Any:
        try:
            return serialize_keras_object(value)
        except TypeError:
            raise ValueError(
                f"{getattr(model, 'name', 'The model')!r} can't be written as a configuration: it holds {value!r} of type "
                f"{type(value).__name__}. Return numbers, strings, lists and dicts from `get_config`."
            ) from None

    return json.dumps(config, default=plain)


def warn_of_code(model: Any, description: str) -> None:
    """Warn of a lambda in a model that is saved.

    Args:
        model: The model.
        description: Its configuration as JSON.
    """
    if '"__lambda__"' in description:
        warn(
            f"'{model.name}' has a lambda in it, which the file has as code. Keras opens it with `safe_mode=False` only, and "
            "oncue doesn't. Use a function with a name and `@keras.saving.register_keras_serializable()`, or a layer of your "
            "own."
        )


def check_describable(model: Any) -> None:
    """Refuse a model that a configuration can't describe, and say which files can hold it.

    Raises:
        ValueError: For a torch module, a model with torch modules inside, or an object whose arguments can't be written down
            and whose class has no `get_config`.
    """
    own = type(model).get_config not in (Model.get_config, Sequential.get_config, Layer.get_config)
    if not isinstance(model, Model):
        _no_configuration(f"a {type(model).__name__}")
    if getattr(model, "module", None) is not None and not own:
        _no_configuration(f"a Model around the torch module {type(model.module).__name__}")
    if isinstance(model, Sequential) or model._graph is not None:
        for layer in model.layers:
            if not isinstance(layer, Layer) or getattr(layer, "module", None) is not None:
                inner = getattr(layer, "module", None)
                kind = type(layer if inner is None else inner).__name__
                _no_configuration(f"'{model.name}' with the torch module {kind} inside")
            if isinstance(layer, Model):
                check_describable(layer)
    elif kind_of(model) is Model:
        _no_configuration(f"'{model.name}', which has no layers,")
    elif not own:
        try:
            model.get_config()
        except NotImplementedError as error:
            raise ValueError(
                f"{error} Or save its weights alone, with `model.save_weights('name.safetensors')` or "
                "`model.save_weights('name.weights.h5')`."
            ) from error


def _no_configuration(what: str) -> NoReturn:
    raise ValueError(
        f"{what[0].upper()}{what[1:]} can't be described by a .keras or .h5 file. Save its weights with "
        "`model.save_weights('name.safetensors')` or `model.save_weights('name.weights.h5')`, create the model by its "
        "own code, and load them with `model.load_weights`."
    )


def _share(model: Any, config: dict[str, Any]) -> None:
    """Mark shared layers as Keras does, so that each is made once."""
    seen: dict[int, list[dict[str, Any]]] = {}

    def visit(layer: Any, written: dict[str, Any]) -> None:
        seen.setdefault(id(layer), []).append(written)
        entries = written["config"].get("layers") if isinstance(written.get("config"), dict) else None
        if not isinstance(entries, list):
            return
        layers = {inner.name: inner for inner in getattr(layer, "layers", [])}
        for entry in entries:
            inner = layers.get(entry.get("config", {}).get("name"))
            if inner is not None:
                visit(inner, entry)

    visit(model, config)
    for key, places in seen.items():
        if len(places) > 1:
            for place in places:
                place["shared_object_id"] = key


def model_from_written(
    config: dict[str, Any], source: Any, custom_objects: dict[str, Any] | None = None, numbers: int | None = None
) -> Any:
    """Make a model from the configuration in a file.

    Args:
        config: What `guard.read_json` gave.
        source: The file, for messages.
        custom_objects: Your own classes and functions by name.
        numbers: The number of weight elements in the file; the model may not have more.

    Returns:
        The model, built where the file says for what shape, and not compiled.

    Raises:
        ValueError: For a class that is not known, or one that runs code or reads other files.
    """
    guard.check_layers(config, source)
    config = decoded(config, source)
    if not isinstance(config.get("class_name"), str) or not isinstance(config.get("config"), (dict, list)):
        guard.refuse(source, "its configuration must have the keys 'class_name' and 'config'.")
    # A few more than the file has, so that the error for a model which only lacks a small weight names that.
    limited = nullcontext() if numbers is None else allowance(numbers + _SPARE_NUMBERS, replaced=True)
    with CustomObjectScope(custom_objects or {}), shared_layers(), limited:
        try:
            model = layer_from_config(config, custom_objects)
            if not isinstance(model, Model):
                guard.refuse(source, f"it describes a {type(model).__name__}, which isn't a model.")
            build_shape(model, config.get("build_config"))
        except (LookupError, TypeError, AttributeError, RuntimeError, OverflowError) as error:
            raise ValueError(
                f"{str(source)!r} was not loaded: its configuration can't be carried out ({error!r})."
            ) from error
    return model


def build_shape(model: Any, build_config: Any) -> None:
    """Create the weights of a custom model by running it on zeros of the shape it was built for."""
    shape = build_config.get("input_shape") if isinstance(build_config, dict) else None
    if model._all_built() or shape is None or isinstance(model, Sequential) or model._graph is not None:
        return

    def zeros(sizes: list[Any]) -> torch.Tensor:
        return torch.zeros(
            [1 if size is None else size for size in sizes], dtype=torch_dtype(None), device=model.device
        )

    nested = bool(shape) and isinstance(shape[0], list)
    model._build_on([zeros(part) for part in shape] if nested else zeros(shape))


def decoded(value: Any, source: Any) -> Any:
    """Return a configuration with its arrays as arrays; refuse what runs code or reads other files."""
    if isinstance(value, list):
        return [decoded(item, source) for item in value]
    if not isinstance(value, dict):
        return value
    name, config = value.get("class_name"), value.get("config")
    if name == "Lambda":
        guard.check_lambda(config, source)
    elif isinstance(name, str) and (name in REFUSED or name.rpartition(">")[2] in REFUSED):
        guard.refuse(
            source,
            f"it has a {name}, which runs code from the file or reads other files, and is refused whatever `safe_mode` "
            "says. Make the model by its own code and load its weights.",
        )
    if name in ("__numpy__", "__tensor__") and isinstance(config, dict):
        dtype = torch_dtype(str(config.get("dtype")))
        tensor = torch.tensor(config.get("value"), dtype=dtype)
        return tensor.numpy() if name == "__numpy__" else tensor
    for key, item in value.items():
        guard.check_entry(key, item, source)
    return {key: decoded(item, source) for key, item in value.items()}
