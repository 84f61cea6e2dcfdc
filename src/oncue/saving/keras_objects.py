"""Any object as a configuration of plain values in Keras's form, and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from oncue import (
    activations,
    constraints,
    dtype_policies,
    initializers,
    layers,
    losses,
    metrics,
    objects,
    optimizers,
    random,
    regularizers,
)
from oncue.core.suggest import unknown
from oncue.keras_names import keras_if_loaded
from oncue.layers.foreign_layer import ForeignLayer
from oncue.layers.keras_tensor import KerasTensor
from oncue.models import Model
from oncue.models.graph_config import layer_config, layer_from_config
from oncue.optimizers import schedules
from oncue.saving import guard
from oncue.saving.custom_objects import CustomObjectScope
from oncue.variable import Variable, torch_dtype

_Deserialize = Callable[[Any, dict[str, Any] | None], Any]

# What runs code that is written in the configuration, or reads other files.
REFUSED = frozenset(
    ("Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "__lambda__", "__typespec__")
)

# By the kind of an object: how it is written. The first that fits counts.
_WRITERS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (layers.Layer, layer_config),
    (losses.Loss, losses.serialize),
    (metrics.Metric, metrics.serialize),
    (optimizers.Optimizer, optimizers.serialize),
    (schedules.LearningRateSchedule, schedules.serialize),
    (dtype_policies.DTypePolicy, dtype_policies.serialize),
    (initializers.Initializer, initializers.serialize),
    (regularizers.Regularizer, regularizers.serialize),
    (constraints.Constraint, constraints.serialize),
    (random.SeedGenerator, lambda seed: objects.to_config(seed, "keras.random")),
)

# By the public module of Keras: who makes its objects.
_READERS: dict[str, _Deserialize] = {
    "keras.layers": layer_from_config,
    "keras.activations": activations.deserialize,
    "keras.constraints": constraints.deserialize,
    "keras.dtype_policies": dtype_policies.deserialize,
    "keras.initializers": initializers.deserialize,
    "keras.losses": losses.deserialize,
    "keras.metrics": metrics.deserialize,
    "keras.optimizers": optimizers.deserialize,
    "keras.optimizers.schedules": schedules.deserialize,
    "keras.regularizers": regularizers.deserialize,
}


def serialize_keras_object(obj: Any) -> Any:
    """Return an object as plain values, from which `deserialize_keras_object` makes it again.

    Args:
        obj: A layer, a model, a loss, or anything else that has `get_config()`; a function; a tensor, an array or a number;
            or lists, tuples and dicts of such.

    Returns:
        The value itself if it is plain; lists, tuples and dicts with their parts written; else a dict with the keys
        class_name and config, and for objects module and registered_name.

    Raises:
        TypeError: For an object without `get_config`.
        ValueError: For a lambda, which can't be found again by its name.

    Example:
        >>> serialize_keras_object(regularizers.L2(0.5))["config"]
        {'l2': 0.5}
    """
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return obj
    if isinstance(obj, (list, tuple)):
        parts = [serialize_keras_object(part) for part in obj]
        return tuple(parts) if isinstance(obj, tuple) else parts
    if isinstance(obj, Mapping):
        return {key: serialize_keras_object(part) for key, part in obj.items()}
    special = _special(obj)
    if special is not None:
        return special
    if isinstance(obj, type):
        raise TypeError(f"The class {obj.__name__} can't be written as a configuration; an object of it can.")
    if inspect.isfunction(obj) or inspect.isbuiltin(obj):
        return _function(obj)
    return _object(obj)


def _special(obj: Any) -> Any:
    """Return what has a form of its own; None for anything else."""
    if isinstance(obj, np.generic):
        return obj.item()
    if isinstance(obj, torch.dtype):
        return str(obj).removeprefix("torch.")
    if isinstance(obj, np.ndarray):
        return _made("__numpy__", value=obj.tolist(), dtype=str(obj.dtype)) if obj.ndim else obj.item()
    if isinstance(obj, torch.Tensor):
        return _made("__tensor__", value=obj.tolist(), dtype=str(obj.dtype).removeprefix("torch."))
    if isinstance(obj, Variable):
        return _made("__tensor__", value=obj.numpy().tolist(), dtype=str(obj.dtype))
    if isinstance(obj, bytes):
        return _made("__bytes__", value=obj.decode("utf-8"))
    if isinstance(obj, slice):
        ends = {name: serialize_keras_object(getattr(obj, name)) for name in ("start", "stop", "step")}
        return _made("__slice__", **ends)
    if obj is Ellipsis:
        return _made("__ellipsis__")
    if isinstance(obj, KerasTensor):
        return _made("__keras_tensor__", shape=list(obj.shape), dtype=obj.dtype, keras_history=None)
    return None


def _made(name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": name, "config": config}


def _function(function: Any) -> dict[str, Any]:
    name = objects.name_of(function)
    if name == "<lambda>":
        raise ValueError(
            "A lambda can't be written into a configuration: it has no name to be found by, and oncue runs no code from a "
            "file. Write a function with `def`, and register it with `@keras.saving.register_keras_serializable()`."
        )
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}


def _object(obj: Any) -> Any:
    keras = keras_if_loaded()
    if keras is not None and isinstance(obj, keras.Operation | keras.Loss | keras.Metric | keras.Optimizer):
        return keras.saving.serialize_keras_object(obj)
    if not hasattr(obj, "get_config"):
        raise TypeError(
            f"{obj!r} of type {type(obj).__name__} can't be written as a configuration: its class must define "
            "`get_config(self)`."
        )
    write = next((write for kind, write in _WRITERS if isinstance(obj, kind)), None)
    written = objects.to_config(obj, "keras") if write is None else write(obj)
    if isinstance(obj, Model) and obj.get_compile_config() is not None:
        written = {**written, "compile_config": obj.get_compile_config()}
    return {key: serialize_keras_object(value) for key, value in written.items()}


def deserialize_keras_object(
    config: Any, custom_objects: Mapping[str, Any] | None = None, safe_mode: bool = True, **kwargs: Any
) -> Any:
    """Make an object from what `serialize_keras_object` returned.

    Nothing is ever imported by a name in a configuration: classes are found among oncue's, those that you registered with
    `register_keras_serializable`, and those in `custom_objects`.

    Args:
        config: The configuration.
        custom_objects: Your own classes and functions by name.
        safe_mode: For compatibility with Keras. Code that is written in a configuration is refused in either case.
        **kwargs: `module_objects`, older Keras's table of classes and functions by name, searched last.

    Returns:
        The object; plain values, and dicts that aren't configurations, with their parts made.

    Raises:
        ValueError: For a class or function that isn't known, or a configuration that holds code.
        TypeError: When a part of the configuration isn't of the form that Keras writes.

    Example:
        >>> deserialize_keras_object(serialize_keras_object(regularizers.L2(0.5))).l2
        0.5
    """
    own = {**(kwargs.pop("module_objects", None) or {}), **(custom_objects or {})}
    kwargs.pop("printable_module_name", None)
    if kwargs:
        raise TypeError(f"`deserialize_keras_object` has no argument `{next(iter(kwargs))}`.")
    with CustomObjectScope(own) if own else nullcontext():
        return _read(config)


def _read(config: Any) -> Any:
    if isinstance(config, str):
        return objects.custom.get(config, config)
    if isinstance(config, (list, tuple)):
        parts = [_read(part) for part in config]
        return tuple(parts) if isinstance(config, tuple) else parts
    if not isinstance(config, Mapping):
        return config
    if "class_name" not in config or "config" not in config:
        return {key: _read(part) for key, part in config.items()}
    name, inner = config["class_name"], config["config"]
    if name == "Lambda":
        guard.check_lambda(inner, "the configuration")
    elif isinstance(name, str) and (name in REFUSED or name.rpartition(">")[2] in REFUSED):
        raise ValueError(
            f"The configuration has a {name}, which allows arbitrary code execution or reads other files, and is refused "
            "whatever `safe_mode` says. Make the object by its own code."
        )
    if isinstance(name, str) and name.startswith("__"):
        return _read_special(name, inner)
    if name == "function":
        return _read_function(inner, config.get("registered_name"))
    if not isinstance(name, str) or not isinstance(inner, (Mapping, str)):
        raise TypeError(f"Expected 'config' to be a dict in the configuration of {name!r}; got {inner!r}.")
    return _read_object(dict(config))


def _read_special(name: str, inner: Any) -> Any:
    if name == "__ellipsis__":
        return Ellipsis
    if not isinstance(inner, Mapping):
        raise TypeError(f"Expected 'config' to be a dict in the configuration of {name!r}; got {inner!r}.")
    if name in ("__numpy__", "__tensor__"):
        tensor = torch.tensor(inner["value"], dtype=torch_dtype(str(inner["dtype"])))
        return tensor.numpy() if name == "__numpy__" else tensor
    if name == "__bytes__":
        return str(inner["value"]).encode("utf-8")
    if name == "__slice__":
        return slice(*(_read(inner[end]) for end in ("start", "stop", "step")))
    if name == "__keras_tensor__":
        return KerasTensor(inner["shape"], dtype=inner["dtype"])
    raise unknown("class", name, ("__numpy__", "__tensor__", "__bytes__", "__slice__", "__ellipsis__"))


def _check_registered(config: Mapping[str, Any], names: tuple[Any, ...]) -> None:
    """Refuse a configuration that says one class to whoever checks it and makes another."""
    registered = config.get("registered_name")
    if registered and registered not in names:
        raise ValueError(
            f"The configuration of {config['class_name']!r} resolved to a Keras built-in, yet has the registered name "
            f"{registered!r}. It was changed since it was written; if that name is a class of yours, register it with "
            "`@keras.saving.register_keras_serializable()`, or give it in `custom_objects`."
        )


def _read_function(name: Any, registered_name: Any) -> Any:
    if not isinstance(name, str):
        raise TypeError(f"Expected 'config' to be a non-null str, the name of a function; got {name!r}.")
    if name in objects.custom:
        return objects.custom[name]
    # Keras 3.6 wrote a registered function without its package.
    registered = [found for key, found in objects.custom.items() if key.rpartition(">")[2] == name]
    if len(registered) == 1:
        return registered[0]
    written = {"class_name": "function", "config": name}
    for read in (activations.deserialize, losses.deserialize, metrics.deserialize):
        try:
            found = read(written, None)
        except ValueError:
            continue
        _check_registered({"class_name": name, "registered_name": registered_name}, ("function", name))
        return found
    raise ValueError(
        f"The function {name!r} isn't known. Give it in `custom_objects={{{name!r}: ...}}`, or register it with "
        "`@keras.saving.register_keras_serializable()`."
    )


def _read_object(config: dict[str, Any]) -> Any:
    found = _registered(config)
    if found is not None and not (inspect.isclass(found) and issubclass(found, layers.Layer)):
        if not inspect.isclass(found):
            return found
        make = getattr(found, "from_config", None)
        return found(**config["config"]) if make is None else make(config["config"])
    module = str(config.get("module") or "")
    if found is None and module.startswith("keras."):
        _check_registered(config, (config["class_name"],))
    if config["class_name"] == "DTypePolicy":
        return dtype_policies.deserialize(config)
    if config["class_name"] == "SeedGenerator" and module == "keras.random":
        return random.SeedGenerator(**config["config"])
    read = layer_from_config if found is not None else _READERS.get(module)
    if module.startswith("keras.src.backend.torch.optimizers"):
        # Keras has classes of its own for torch, which it doesn't make public.
        read = optimizers.deserialize
    made = (read or layer_from_config)(config, None)
    if isinstance(made, ForeignLayer):
        # In a model it is one of oncue's; by itself it is what Keras would have made.
        made = made.inside
    if isinstance(made, Model) and config.get("compile_config"):
        made.compile_from_config(config["compile_config"])
    elif isinstance(made, layers.Layer) and not made.built and config.get("build_config"):
        made.build_from_config(config["build_config"])
    return made


def _registered(config: Mapping[str, Any]) -> Any:
    """Return the user's own class or function that a configuration names; None where it names one of ours."""
    for name in (config.get("registered_name"), config["class_name"]):
        if isinstance(name, str) and name in objects.custom:
            return objects.custom[name]
    return None
