"""The arguments of `compile` as Keras writes them, and back."""

from __future__ import annotations

import inspect
from typing import Any

from oncue import losses, metrics, optimizers
from oncue.core.allowance import allowance
from oncue.core.warn import warn
from oncue.saving.custom_objects import CustomObjectScope, get_custom_objects

_NUMBERS = 1 << 22
"""So many numbers metrics may have: the confusion matrix of 2048 classes."""


def compile_config(model: Any) -> dict[str, Any] | None:
    """Return the arguments of `compile` as a dict that goes into JSON.

    Args:
        model: The model.

    Returns:
        The dict; None for a model that is not compiled, or whose optimizer, loss or metrics can't be written down, of
        which a warning says.

    Example:
        >>> from oncue import Sequential, layers
        >>> model = Sequential([layers.Input((2,)), layers.Dense(3)])
        >>> model.compile("adam", "mse", metrics=["mae"])
        >>> compile_config(model)["metrics"]
        ['mae']
    """
    if not model.compiled:
        return None
    measured, summed = model._plan.metrics, model._plan.losses
    try:
        return {
            "optimizer": None if model.optimizer is None else optimizers.serialize(model.optimizer),
            "loss": _written(model.loss, losses),
            "loss_weights": None if summed is None else summed.loss_weights,
            "metrics": None if measured is None else _written(measured._user_metrics, metrics),
            "weighted_metrics": None if measured is None else _written(measured._user_weighted, metrics),
            "run_eagerly": model.run_eagerly,
            "steps_per_execution": model.steps_per_execution,
            "jit_compile": model.jit_compile is True,
        }
    except (ValueError, NotImplementedError) as error:
        # Something has no `get_config`, or no usable one; the weights are still worth saving.
        warn(
            f"'{model.name}' is saved without the arguments of `compile`, because they can't be written down: {error} "
            "Compile it again after loading."
        )
        return None


def _written(value: Any, kind: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict) and "class_name" not in value:
        return {key: _written(item, kind) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_written(item, kind) for item in value]
    if isinstance(value, dict):
        return value
    written: dict[str, Any] = kind.serialize(kind.get(value))
    if str(written["module"]).startswith("keras."):
        # What wraps a torch loss or a torchmetrics object can't be made again from a name; better to say so now than then.
        kind.deserialize(written)
    return written


def compile_from_config(
    model: Any, config: dict[str, Any], custom_objects: dict[str, Any] | None = None, precision: str | None = None
) -> None:
    """Compile a model as described in a file, and create the optimizer's state if the model is built.

    Args:
        model: The model.
        config: What `compile_config` returned, or Keras wrote.
        custom_objects: Your own classes and functions by name.
        precision: The `precision` of `compile`, which Keras's configuration has no place for.

    Raises:
        ValueError: For a name that is not known.
    """
    names = {**get_custom_objects(), **(custom_objects or {})}
    with CustomObjectScope(names), allowance(_NUMBERS, "what is compiled may have before training"):
        try:
            arguments = {
                "optimizer": optimizer_from(config.get("optimizer"), names),
                "loss": _read(config.get("loss"), losses, names),
                "loss_weights": config.get("loss_weights"),
                "metrics": _read(config.get("metrics"), metrics, names),
                "weighted_metrics": _read(config.get("weighted_metrics"), metrics, names),
                "run_eagerly": bool(config.get("run_eagerly", False)),
                "steps_per_execution": config.get("steps_per_execution") or 1,
                # Keras's setting is about its own backend, and says nothing about whether compilation pays off here.
                "jit_compile": "auto",
                "precision": precision,
            }
            model.compile(**arguments)
            if model.built and model.optimizer is not None:
                model._place()
                model.optimizer.build(model.trainable_variables)
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise ValueError(
                f"The model can't be compiled as the file says: {error} Give your own classes and functions in "
                "`custom_objects`, or load it with `compile=False`."
            ) from error


def optimizer_from(config: Any, names: dict[str, Any]) -> Any:
    """Return the optimizer of a configuration; a name stands for itself."""
    if not isinstance(config, dict):
        return config
    registered = names.get(str(config.get("registered_name")))
    if registered is not None:
        names = {**names, str(config.get("class_name")): registered}
    classes = {name: cls for name, cls in names.items() if isinstance(cls, type)}
    optimizer = optimizers.deserialize(config, classes)
    if registered is None:
        _check_types(optimizer, config.get("config"))
    return optimizer


def _check_types(optimizer: Any, config: Any) -> None:
    """Refuse a value of another type than the optimizer's own default, which would only fail during training."""
    for name, parameter in inspect.signature(type(optimizer).__init__).parameters.items():
        value = config.get(name) if isinstance(config, dict) else None
        if value is None or (name == "learning_rate" and isinstance(value, dict)):
            continue
        kinds = (bool,) if isinstance(parameter.default, bool) else (int, float)
        if isinstance(parameter.default, (bool, float)) and not isinstance(value, kinds):
            raise ValueError(
                f"`{name}` of {type(optimizer).__name__} must be of type {kinds[-1].__name__}; got {value!r}."
            )


def _read(value: Any, kind: Any, names: dict[str, Any]) -> Any:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict):
        if "class_name" in value:
            return kind.deserialize(value, names)
        return {key: _read(item, kind, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_read(item, kind, names) for item in value]
    raise ValueError(f"A loss or metric was written as {value!r}.")
