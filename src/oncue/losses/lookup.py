"""Losses by name, class or config."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from oncue.core.suggest import unknown
from oncue.losses import crossentropy, divergence, focal, hinge, overlap, regression
from oncue.losses.loss import Loss, LossFunction, LossFunctionWrapper
from oncue.losses.torch_loss import TorchLoss

CLASSES: dict[str, type[Loss]] = {
    found.__name__: found
    for module in (crossentropy, divergence, focal, hinge, overlap, regression)
    for found in vars(module).values()
    if inspect.isclass(found) and issubclass(found, Loss) and found is not LossFunctionWrapper
}

FUNCTIONS: dict[str, LossFunction] = {
    "binary_crossentropy": crossentropy.binary_crossentropy,
    "binary_focal_crossentropy": focal.binary_focal_crossentropy,
    "categorical_crossentropy": crossentropy.categorical_crossentropy,
    "categorical_focal_crossentropy": focal.categorical_focal_crossentropy,
    "sparse_categorical_crossentropy": crossentropy.sparse_categorical_crossentropy,
    "kl_divergence": divergence.kl_divergence,
    "poisson": divergence.poisson,
    "mean_squared_error": regression.mean_squared_error,
    "mean_absolute_error": regression.mean_absolute_error,
    "mean_absolute_percentage_error": regression.mean_absolute_percentage_error,
    "mean_squared_logarithmic_error": regression.mean_squared_logarithmic_error,
    "cosine_similarity": regression.cosine_similarity,
    "log_cosh": regression.log_cosh,
    "huber": regression.huber,
    "hinge": hinge.hinge,
    "squared_hinge": hinge.squared_hinge,
    "categorical_hinge": hinge.categorical_hinge,
    "dice": overlap.dice,
    "tversky": overlap.tversky,
}

# Short names, and the names of Keras 1 and 2.
ALIASES: dict[str, str] = {
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
    "kullback_leibler_divergence": "kl_divergence",
    "mse": "mean_squared_error",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "msle": "mean_squared_logarithmic_error",
    "cosine": "cosine_similarity",
    "cosine_proximity": "cosine_similarity",
    "logcosh": "log_cosh",
    "huber_loss": "huber",
}

FUNCTIONS.update({alias: FUNCTIONS[name] for alias, name in ALIASES.items()})
FUNCTIONS.update({alias.upper(): FUNCTIONS[alias] for alias in ("bce", "kld", "mse", "mae", "mape", "msle")})


def describe(thing: Any, module: str, known: set[str]) -> dict[str, Any] | str:
    """Return Keras's description of an object with a config, or of a function.

    Args:
        thing: A loss, a metric or a function.
        module: The module that Keras knows it under, such as "keras.losses".
        known: The names of the classes of that module; others are described by their own module.

    Returns:
        A dict that Keras's own `deserialize` reads too.

    Raises:
        TypeError: When it has no config and no name.

    Example:
        >>> describe(len, "keras.losses", set())
        {'module': 'builtins', 'class_name': 'function', 'config': 'len', 'registered_name': 'function'}
    """
    if hasattr(thing, "get_config"):
        name = type(thing).__name__
        own = name in known
        return {
            "module": module if own else type(thing).__module__,
            "class_name": name,
            "config": thing.get_config(),
            "registered_name": None if own else name,
        }
    name = getattr(thing, "__name__", None)
    if not isinstance(name, str):
        raise TypeError(f"{thing!r} of type {type(thing).__name__} can't be written down: it has no `get_config()`.")
    return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}


def serialize(loss: Any) -> dict[str, Any] | str:
    """Return the description of a loss that `deserialize` and Keras read.

    Args:
        loss: A `Loss`, or a loss function.

    Returns:
        A dict with "module", "class_name", "config" and "registered_name".

    Example:
        >>> serialize(crossentropy.BinaryCrossentropy())["class_name"]
        'BinaryCrossentropy'
    """
    return describe(loss, "keras.losses", set(CLASSES))


def deserialize(name: Any, custom_objects: dict[str, Any] | None = None) -> Any:
    """Make a loss from its description.

    Args:
        name: What `serialize` returned, a dict with "class_name" and "config", or a name.
        custom_objects: Your own classes and functions by name.

    Returns:
        A `Loss` or a loss function.

    Raises:
        ValueError: When the description names no known loss.

    Example:
        >>> deserialize({"class_name": "Huber", "config": {"delta": 2.0}}).delta
        2.0
    """
    if not isinstance(name, dict):
        return _named(str(name), custom_objects)
    class_name = name.get("class_name")
    if class_name == "function":
        return _named(name["config"], custom_objects)
    found = {**CLASSES, **(custom_objects or {})}.get(str(class_name))
    if found is None:
        raise unknown("loss", class_name, {**CLASSES, **(custom_objects or {})})
    return found.from_config(dict(name.get("config") or {}))


def _named(name: str, custom_objects: dict[str, Any] | None = None) -> Any:
    known: dict[str, Any] = {**FUNCTIONS, **CLASSES, **(custom_objects or {})}
    if name not in known:
        raise unknown("loss", name, known)
    return known[name]


def get(identifier: Any) -> Loss | Callable[..., Any] | None:
    """Return the loss that is meant.

    Args:
        identifier: None, a name such as "mse" or "MeanSquaredError", a `Loss` or its class, a function
            `loss(y_true, y_pred)`, a module or class of `torch.nn` (wrapped in `TorchLoss`), or a description.

    Returns:
        A loss function or a `Loss`; None for None.

    Raises:
        ValueError: For a name that is not known; the nearest known name is given.
        TypeError: For something that is no loss.

    Example:
        >>> get("mse").__name__
        'mean_squared_error'
        >>> get("meen_squared_error")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: Unknown loss: 'meen_squared_error'. Did you mean 'mean_squared_error'? ...
    """
    if identifier is None:
        return None
    found = deserialize(identifier) if isinstance(identifier, (str, dict)) else identifier
    if inspect.isclass(found):
        found = found()
    if isinstance(found, nn.Module):
        return TorchLoss(found)
    if not callable(found):
        raise TypeError(
            f"`loss` must be a name such as 'mse', a function (y_true, y_pred), a keras.losses.Loss or a torch.nn loss; "
            f"got {found!r} of type {type(found).__name__}."
        )
    return found  # type: ignore[no-any-return]  # whatever is callable
