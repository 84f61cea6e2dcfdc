"""Whole models in the `.h5` files of Keras 1 and 2, which Keras 3 still reads and writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from oncue import losses, optimizers
from oncue.core.warn import warn
from oncue.objects import custom
from oncue.saving import guard
from oncue.saving.assets import refuse_assets
from oncue.saving.compile_config import compile_config, compile_from_config
from oncue.saving.legacy_weights import KERAS_VERSION, read_names, read_weights, write_arrays, write_weights
from oncue.saving.model_config import check_describable, model_config, model_from_written, to_json, warn_of_code
from oncue.saving.optimizer_arrays import (
    optimizer_shapes,
    optimizer_tensors,
    optimizer_values,
    set_optimizer_values,
)
from oncue.saving.tree import Tree


def model_tree(model: Any, include_optimizer: bool = True) -> Tree:
    """Return a whole model as an `.h5` file has it.

    Args:
        model: The model.
        include_optimizer: Whether to keep the arguments of `compile` and the optimizer's state.

    Returns:
        The texts that describe it, and the model's own tensors.

    Raises:
        ValueError: For a model that a configuration can't describe.
    """
    check_describable(model)
    refuse_assets(model, ".h5")
    config = _old_form(model_config(model))
    compiled = compile_config(model) if include_optimizer and model.optimizer is not None else None
    content = Tree()
    content.attrs["keras_version"] = KERAS_VERSION
    content.attrs["backend"] = "torch"
    description = to_json(config, model)
    warn_of_code(model, description)
    content.attrs["model_config"] = description.encode("utf-8")
    if compiled is not None:
        training = _old_training(compiled)
        if model._plan.precision is not None:
            training["precision"] = model._plan.precision.name
        content.attrs["training_config"] = to_json(training, model).encode("utf-8")
    write_weights(content.create_group("model_weights"), model)
    tensors = optimizer_tensors(model) if compiled is not None else []
    if tensors:
        name = model.optimizer.name
        labels = ["iteration", "learning_rate"] if len(tensors) > 1 else ["iteration"]
        names = [f"{name}/{labels[i] if i < len(labels) else f'variable_{i}'}" for i in range(len(tensors))]
        write_arrays(content.create_group("optimizer_weights"), list(zip(names, tensors, strict=True)))
    return content


def _old_form(config: dict[str, Any]) -> dict[str, Any]:
    """Return a model's or a layer's configuration with the keys that Keras 2 knows."""
    known = ("class_name", "config", "name", "inbound_nodes", "shared_object_id")
    kept = {key: value for key, value in config.items() if key in known}
    registered = config.get("registered_name")
    if registered in custom:
        # Keras 2 has one name for a class of the user's: that under which it is registered.
        kept["class_name"] = registered
    inner = dict(kept["config"])
    if isinstance(inner.get("layers"), list):
        inner["layers"] = [
            entry if str(entry.get("module", "")).startswith("keras.src.ops") else _old_form(entry)
            for entry in inner["layers"]
        ]
    for key in ("layer", "backward_layer", "cell"):
        if isinstance(inner.get(key), dict):
            inner[key] = {name: value for name, value in inner[key].items() if name != "build_config"}
    return {**kept, "config": inner}


def _old_training(compiled: dict[str, Any]) -> dict[str, Any]:
    training = {key: value for key, value in compiled.items() if key != "optimizer"}
    optimizer = compiled["optimizer"]
    training["optimizer_config"] = {"class_name": optimizer["class_name"], "config": optimizer["config"]}
    # From this format, Keras only reads the long names of losses.
    training["loss"] = _long_names(training["loss"])
    return training


def _long_names(loss: Any) -> Any:
    if isinstance(loss, str):
        return getattr(losses.get(loss), "__name__", loss)
    if isinstance(loss, list):
        return [_long_names(part) for part in loss]
    if isinstance(loss, dict) and "class_name" not in loss:
        return {key: _long_names(part) for key, part in loss.items()}
    return loss


def read_model(path: Path, custom_objects: dict[str, Any] | None = None, compile: bool = True) -> Any:
    """Make the model in an `.h5` file.

    Args:
        path: The file.
        custom_objects: Your own classes and functions by name.
        compile: Whether to compile it as it was, with its optimizer's state where that fits.

    Returns:
        The model.

    Raises:
        ValueError: For a file that breaks a rule of `guard`, has no configuration, or names what is not known.
    """
    with guard.opened(path) as file, guard.opened_hdf5(file, path) as content:
        written = _json_attribute(content, "model_config", path)
        if written is None:
            guard.refuse(path, "it has no model in it, only weights: make the model and call `model.load_weights`.")
        weights = guard.group_at(content, "model_weights", path)
        if weights is None:
            guard.refuse(path, "it has no group 'model_weights'.")
        if isinstance(written.get("config"), list):
            # Keras 1 wrote only the layers of a Sequential.
            written["config"] = {"layers": written["config"]}
        numbers = guard.count_of_numbers(weights, path)
        model = model_from_written(written, path, custom_objects, numbers)
        training = _json_attribute(content, "training_config", path) if compile else None
        state: Callable[[], None] | None = None
        if training is not None:
            compile_from_config(model, _new_training(training), custom_objects, training.get("precision"))
            state = _optimizer_state(content, model, path)
        read_weights(weights, model, path)
        if state is not None:
            state()
    return model


def _new_training(training: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in training.items() if key != "optimizer_config"}
    for key in ("metrics", "weighted_metrics"):
        kept[key] = _new_metric(kept.get(key))
    return {**kept, "optimizer": training.get("optimizer_config")}


def _new_metric(value: Any) -> Any:
    """Return the metrics of Keras 2, which wraps functions by name, as names."""
    if isinstance(value, list):
        return [_new_metric(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value:
        return {key: _new_metric(item) for key, item in value.items()}
    config = value.get("config")
    if (
        value["class_name"] != "MeanMetricWrapper"
        or not isinstance(config, dict)
        or not isinstance(config.get("fn"), str)
    ):
        return value
    return config["name"] if config.get("name") in ("accuracy", "acc", "crossentropy", "ce") else config["fn"]


def _json_attribute(content: Any, name: str, source: Any) -> dict[str, Any] | None:
    value = content.attrs.get(name)
    if value is None:
        return None
    if not isinstance(value, (bytes, str)):
        guard.refuse(source, f"its attribute {name} is no text.")
    return guard.read_json(value, source)


def _optimizer_state(content: Any, model: Any, source: Any) -> Callable[[], None] | None:
    group = guard.group_at(content, "optimizer_weights", source)
    if group is None or not isinstance(model.optimizer, optimizers.Optimizer):
        return None
    names = read_names(group, "weight_names", source)
    shapes = optimizer_shapes(model)
    datasets = [guard.dataset_at(group, name, source) for name in names[: len(shapes)]]
    found = [None if dataset is None else tuple(dataset.shape) for dataset in datasets]
    if len(names) <= 2 < len(shapes):
        # It was saved before its first step.
        return None
    if found != shapes or len(names) != len(shapes):
        warn(
            f"The optimizer's state in {str(source)!r} doesn't fit and was left out; the optimizer starts from scratch."
        )
        return None
    values = optimizer_values(model, datasets, source)
    return lambda: set_optimizer_values(model, values)
