"""Losses by name, class or config."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from oncue import objects
from oncue.keras_names import found_in_keras
from oncue.legacy import NAMES
from oncue.losses import crossentropy, divergence, focal, fused, hinges, overlap, regression, similarity
from oncue.losses.loss import Loss, LossFunction, LossFunctionWrapper
from oncue.losses.torch_loss import TorchLoss

CLASSES: dict[str, type[Loss]] = {
    found.__name__: found
    for module in (crossentropy, divergence, focal, hinges, overlap, regression, similarity)
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
    "cosine_similarity": similarity.cosine_similarity,
    "log_cosh": regression.log_cosh,
    "huber": regression.huber,
    "hinge": hinges.hinge,
    "squared_hinge": hinges.squared_hinge,
    "categorical_hinge": hinges.categorical_hinge,
    "dice": overlap.dice,
    "tversky": overlap.tversky,
}
FUNCTIONS.update({other: FUNCTIONS[name] for other, name in NAMES["loss"].items()})

# By the function, what computes its mean over a batch in fewer operations.
FUSED: dict[LossFunction, fused.MeanLoss] = {
    crossentropy.binary_crossentropy: fused.binary_crossentropy,
    crossentropy.categorical_crossentropy: fused.categorical_crossentropy,
    crossentropy.sparse_categorical_crossentropy: fused.sparse_categorical_crossentropy,
    regression.huber: fused.huber,
    regression.mean_absolute_error: fused.mean_absolute_error,
    regression.mean_squared_error: fused.mean_squared_error,
}


def serialize(loss: Any) -> dict[str, Any]:
    """Return the description of a loss that `deserialize` and Keras read.

    Args:
        loss: A `Loss`, or a loss function.

    Returns:
        A dict with "module", "class_name", "config" and "registered_name".

    Raises:
        ValueError: When the loss has no `get_config()`.

    Example:
        >>> serialize(crossentropy.BinaryCrossentropy())["class_name"]
        'BinaryCrossentropy'
    """
    return objects.to_config(loss, "keras.losses")


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
    others = partial(found_in_keras, "oncue.losses")
    return objects.resolve("loss", name, {**FUNCTIONS, **CLASSES}, custom_objects, others=others)


def get(identifier: Any) -> Loss | Callable[..., Any] | None:
    """Return the loss that is meant.

    Args:
        identifier: None, a name such as "mse" or "MeanSquaredError", a `Loss` or its class, a function
            `loss(y_true, y_pred)`, a module or class of `torch.nn` (wrapped in `TorchLoss`), or a description.

    Returns:
        A loss function or a `Loss`; None for None.

    Raises:
        ValueError: For a name that is not known; the nearest known name is given.
        TypeError: For something that isn't a loss.

    Example:
        >>> get("mse").__name__
        'mean_squared_error'
        >>> get("meen_squared_error")
        Traceback (most recent call last):
        ...
        ValueError: Unknown loss: 'meen_squared_error'. Did you mean 'mean_squared_error'? ...
    """
    if identifier is None:
        return None
    found = deserialize(identifier) if isinstance(identifier, (str, dict, type)) else identifier
    if isinstance(found, nn.Module):
        return TorchLoss(found)
    if not callable(found):
        raise TypeError(
            f"`loss` must be a name such as 'mse', a function (y_true, y_pred), a keras.losses.Loss or a torch.nn "
            f"loss; "
            f"got {found!r} of type {type(found).__name__}."
        )
    return found  # type: ignore[no-any-return]  # anything callable
