"""Optimizers by name, class, config or torch optimizer."""

from __future__ import annotations

from typing import Any

import torch

from oncue.core.suggest import unknown
from oncue.keras_names import found_in_keras, is_of_keras
from oncue.optimizers.adadelta import Adadelta
from oncue.optimizers.adagrad import Adagrad
from oncue.optimizers.adam import Adam
from oncue.optimizers.adamax import Adamax
from oncue.optimizers.adamw import AdamW
from oncue.optimizers.loss_scale_optimizer import LossScaleOptimizer
from oncue.optimizers.nadam import Nadam
from oncue.optimizers.optimizer import Optimizer
from oncue.optimizers.rmsprop import RMSprop
from oncue.optimizers.sgd import SGD
from oncue.optimizers.torch_optimizer import TorchOptimizer

KNOWN: tuple[type[Optimizer], ...] = (Adadelta, Adagrad, Adam, AdamW, Adamax, Nadam, RMSprop, SGD)
"""Those of Keras that oncue has."""

_KNOWN = {cls.__name__.lower(): cls for cls in KNOWN}


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimizer's arguments as Keras writes them down.

    Args:
        optimizer: The optimizer.

    Returns:
        A dict that goes into JSON and, for Keras's optimizers, that Keras reads too.

    Example:
        >>> serialize(SGD(0.5))["class_name"]
        'SGD'
    """
    written = optimizer.written()
    if written is not None:
        return written
    cls = type(optimizer)
    known = cls is LossScaleOptimizer or _KNOWN.get(cls.__name__.lower()) is cls
    return {
        "module": "keras.optimizers" if known else cls.__module__,
        "class_name": cls.__name__,
        "config": optimizer.get_config(),
        "registered_name": None if known else cls.__name__,
    }


def deserialize(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Optimizer:
    """Make an optimizer from what `serialize` returned.

    Args:
        config: A dict with "class_name" (in any case) and "config".
        custom_objects: Classes of your own by name.

    Returns:
        A new optimizer, not built.

    Raises:
        ValueError: When the class is not known.

    Example:
        >>> deserialize({"class_name": "adam", "config": {"learning_rate": 0.5}}).learning_rate
        0.5
    """
    name = config.get("class_name")
    wrapping = {"torchoptimizer": TorchOptimizer, "lossscaleoptimizer": LossScaleOptimizer}
    classes = {**_KNOWN, **wrapping, **(custom_objects or {})}
    cls: Any = classes.get(str(name), classes.get(str(name).lower())) or found_in_keras("oncue.optimizers", str(name))
    if cls is None:
        raise unknown("optimizer", name, [known.__name__ for known in classes.values()])
    if not issubclass(cls, Optimizer):
        return _taken(cls.from_config(dict(config.get("config") or {})))
    optimizer: Optimizer = cls.from_config(dict(config.get("config") or {}), custom_objects=custom_objects)
    return optimizer


def _taken(optimizer: Any) -> Optimizer:
    """Return an optimizer of Keras as one of oncue's; one of oncue's as it is."""
    if isinstance(optimizer, Optimizer):
        return optimizer
    from oncue.with_keras.optimizers import TakenOptimizer

    return TakenOptimizer(optimizer)


def get(identifier: Any) -> Optimizer | None:
    """Return the optimizer that `identifier` stands for.

    Args:
        identifier: A name such as "adam" (in any case), an optimizer or a class of one, a config dict with "class_name"
            and "config", a torch optimizer, a class of one, or a function that makes one from a list of parameters; or
            None.

    Returns:
        An optimizer: the same if one was given, else a new one; None for None.

    Raises:
        ValueError: When it stands for nothing known.

    Example:
        >>> get("sgd").get_config()["learning_rate"]
        0.01
        >>> get({"class_name": "Adam", "config": {"learning_rate": 0.5}}).learning_rate
        0.5
    """
    if identifier is None or isinstance(identifier, Optimizer):
        return identifier
    if is_of_keras(identifier, "Optimizer"):
        return _taken(identifier)
    if isinstance(identifier, str):
        cls: Any = _KNOWN.get(identifier.lower()) or found_in_keras("oncue.optimizers", identifier)
        if not isinstance(cls, type):
            raise unknown("optimizer", identifier, _KNOWN)
        return _taken(cls())
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        made: Optimizer = identifier(**{})
        return made
    if isinstance(identifier, torch.optim.Optimizer) or callable(identifier):
        return TorchOptimizer(identifier)
    raise ValueError(
        "`optimizer` must be a name, an optimizer, a config dict, a torch optimizer or a function that makes one; got "
        f"{identifier!r} of type {type(identifier).__name__}."
    )
