"""The `.h5` files of Keras 1 and 2, which Keras 3 still reads and writes: weights layer by layer, and whole models."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncue import losses, optimizers
from oncue.layers.layer import Layer, variables_of
from oncue.saving import guard
from oncue.saving.compile_config import compile_config, compile_from_config
from oncue.saving.hdf5_file import hdf5_replacing
from oncue.saving.model_config import check_describable, model_config, model_from_written, to_json
from oncue.saving.optimizer_arrays import optimizer_arrays, optimizer_shapes, set_optimizer_arrays
from oncue.saving.weights_h5 import mismatch, settle
from oncue.variable import Variable

# HDF5 keeps at most 64 KiB in an attribute; longer lists are cut into name0, name1, ...
_ATTRIBUTE_BYTES = 64512
_TOP = "top_level_model_weights"


# Weights ---------------------------------------------------------------------------------------------------------


def write_weights(group: Any, model: Any) -> None:
    """Write a model's weights into an open HDF5 file or group, one group for each layer."""
    from oncue.saving.keras_archive import KERAS_VERSION

    layers, paths = _layers(model), _paths(model)
    _write_names(group, "layer_names", [name for name, _ in layers])
    group.attrs["backend"] = b"torch"
    group.attrs["keras_version"] = KERAS_VERSION.encode()
    for name, weights in [*layers, (_TOP, _top_weights(model, layers))]:
        _write_arrays(group.create_group(name), [(paths[id(weight.value)], weight.numpy()) for weight in weights])


def _paths(model: Any) -> dict[int, str]:
    # Keras names the paths of weights from the outermost model on; a functional model gives its name to none.
    prefix = "" if model._graph is not None else model.name
    return {id(weight.value): weight.path for weight in variables_of(model, prefix)}


def _layers(model: Any) -> list[tuple[str, list[Variable]]]:
    """Return the layers' names and weights, those that are trained first."""
    found = []
    for layer in model.layers:
        known = isinstance(layer, Layer)
        weights = list(layer.weights if known else variables_of(layer))
        ordered = [weight for weight in weights if weight.trainable] + [w for w in weights if not w.trainable]
        found.append((layer.name if known else model._layer_name(layer), ordered))
    return found


def _top_weights(model: Any, layers: list[tuple[str, list[Variable]]]) -> list[Variable]:
    inside = {id(weight.value) for _, weights in layers for weight in weights}
    return [weight for weight in model.weights if id(weight.value) not in inside]


def _write_arrays(group: Any, arrays: list[tuple[str, NDArray[Any]]]) -> None:
    _write_names(group, "weight_names", [name for name, _ in arrays])
    for name, array in arrays:
        group.create_dataset(name, data=array)


def _write_names(group: Any, attribute: str, names: list[str]) -> None:
    data = np.array([name.encode("utf-8") for name in names]) if names else np.array([], dtype=np.float64)
    pieces = 1
    while any(part.nbytes > _ATTRIBUTE_BYTES for part in np.array_split(data, pieces)):
        pieces += 1
    for index, part in enumerate(np.array_split(data, pieces)):
        group.attrs[attribute if pieces == 1 else f"{attribute}{index}"] = part


def _read_names(group: Any, attribute: str, source: Any) -> list[str]:
    found: list[Any] = []
    if attribute in group.attrs:
        found = list(np.ravel(group.attrs[attribute]))
    index = 0
    while attribute not in group.attrs and f"{attribute}{index}" in group.attrs:
        found += list(np.ravel(group.attrs[f"{attribute}{index}"]))
        index += 1
        if index > guard.MAX_ENTRIES:
            guard.refuse(source, f"its attribute {attribute} has no end.")
    return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in found]


def read_weights(content: Any, model: Any, source: Any, skip_mismatch: bool = False, by_name: bool = False) -> None:
    """Set a model's weights from an open file in the old layout; nothing is set unless everything fits.

    Args:
        content: The file, or the group that has the weights.
        model: The model, built.
        source: The path, for messages.
        skip_mismatch: Whether layers that don't fit are left as they are, with a warning.
        by_name: Whether layers are matched by their names, and those without a counterpart left alone; otherwise the
            layers with weights are matched in their order.

    Raises:
        ValueError: When layers or weights don't fit.
    """
    problems: list[str] = []
    layers = _layers(model)
    pairs = _matched(content, layers, source, by_name, problems)
    if guard.group_at(content, _TOP, source) is not None:
        pairs.append((_TOP, f"the weights of '{model.name}' itself", _top_weights(model, layers)))
    values: list[tuple[Variable, NDArray[Any]]] = []
    for group_name, label, weights in pairs:
        values += _read_layer(content, group_name, label, weights, source, problems)
    settle(problems, source, skip_mismatch)
    for variable, array in values:
        variable.assign(array)


def _matched(
    content: Any, layers: list[tuple[str, list[Variable]]], source: Any, by_name: bool, problems: list[str]
) -> list[tuple[str, str, list[Variable]]]:
    """Return the groups in the file with the weights they are for."""
    names = _read_names(content, "layer_names", source)
    if by_name:
        own = dict(layers)
        return [(name, f"layer '{name}'", own[name]) for name in names if name in own]
    filled = []
    for name in names:
        group = guard.group_at(content, name, source)
        if group is None:
            guard.refuse(source, f"it names a layer {name[:100]!r} that it doesn't have.")
        if _read_names(group, "weight_names", source):
            filled.append(name)
    wanted = [(name, weights) for name, weights in layers if weights]
    if len(filled) != len(wanted):
        problems.append(
            f"the file has {len(filled)} layers with weights ({', '.join(filled[:20])}), the model {len(wanted)} "
            f"({', '.join(name for name, _ in wanted[:20])})"
        )
        return []
    return [
        (saved, f"layer {index} (named '{name}', '{saved}' in the file)", weights)
        for index, (saved, (name, weights)) in enumerate(zip(filled, wanted, strict=True))
    ]


def _read_layer(
    content: Any, group_name: str, label: str, weights: list[Variable], source: Any, problems: list[str]
) -> list[tuple[Variable, NDArray[Any]]]:
    group = guard.group_at(content, group_name, source)
    if group is None:
        guard.refuse(source, f"it names a layer {group_name[:100]!r} that it doesn't have.")
    names = _read_names(group, "weight_names", source)
    if len(names) != len(weights):
        shapes = ", ".join(f"{weight.name} {weight.shape}" for weight in weights) or "none"
        problems.append(f"{label}: the file has {len(names)} weights, the layer {len(weights)} ({shapes})")
        return []
    found = []
    for name, variable in zip(names, weights, strict=True):
        dataset = guard.dataset_at(group, name, source)
        wrong = f"the file lacks {name[:100]!r}" if dataset is None else mismatch(variable, dataset)
        if wrong is not None:
            problems.append(f"{label}: {wrong}")
            return []
        found.append((variable, dataset))
    return [(variable, guard.read_array(dataset)) for variable, dataset in found]


# Whole models ----------------------------------------------------------------------------------------------------


def write_model(model: Any, path: Path, include_optimizer: bool = True) -> None:
    """Write a whole model into an `.h5` file.

    Args:
        model: The model.
        path: The file.
        include_optimizer: Whether to keep what `compile` was told and the optimizer's state.

    Raises:
        ValueError: For a model that a configuration can't describe.
        OSError: When the file can't be written; the old one is untouched then.
    """
    from oncue.saving.keras_archive import KERAS_VERSION

    check_describable(model)
    config = _old_form(model_config(model))
    compiled = compile_config(model) if include_optimizer and model.optimizer is not None else None
    with hdf5_replacing(path) as content:
        content.attrs["keras_version"] = KERAS_VERSION
        content.attrs["backend"] = "torch"
        content.attrs["model_config"] = to_json(config, model).encode("utf-8")
        if compiled is not None:
            content.attrs["training_config"] = to_json(_old_training(compiled), model).encode("utf-8")
        write_weights(content.create_group("model_weights"), model)
        arrays = optimizer_arrays(model) if compiled is not None else []
        if arrays:
            name = model.optimizer.name
            labels = ["iteration", "learning_rate"] if len(arrays) > 1 else ["iteration"]
            names = [f"{name}/{labels[i] if i < len(labels) else f'variable_{i}'}" for i in range(len(arrays))]
            _write_arrays(content.create_group("optimizer_weights"), list(zip(names, arrays, strict=True)))


def _old_form(config: dict[str, Any]) -> dict[str, Any]:
    """Return a model's or a layer's configuration with the keys that Keras 2 knows."""
    known = ("class_name", "config", "name", "inbound_nodes", "shared_object_id")
    kept = {key: value for key, value in config.items() if key in known}
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
    # Keras reads only the long names of losses back from this file.
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
    """Make the model that an `.h5` file holds.

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
            guard.refuse(path, "it has no model in it, only weights: make the model and type `model.load_weights`.")
        weights = guard.group_at(content, "model_weights", path)
        if weights is None:
            guard.refuse(path, "it has no group 'model_weights'.")
        numbers = guard.count_of_numbers(weights, path)
        model = model_from_written(written, path, custom_objects, numbers)
        training = _json_attribute(content, "training_config", path) if compile else None
        state: Callable[[], None] | None = None
        if training is not None:
            compile_from_config(model, {**training, "optimizer": training.get("optimizer_config")}, custom_objects)
            state = _optimizer_state(content, model, path)
        read_weights(weights, model, path)
        if state is not None:
            state()
    return model


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
    names = _read_names(group, "weight_names", source)
    shapes = optimizer_shapes(model)
    datasets = [guard.dataset_at(group, name, source) for name in names[: len(shapes)]]
    found = [None if dataset is None else tuple(dataset.shape) for dataset in datasets]
    if len(names) <= 2 < len(shapes):
        # It was saved before its first step.
        return None
    if found != shapes or len(names) != len(shapes):
        warnings.warn(
            f"The optimizer's state in {str(source)!r} doesn't fit and was left out; the optimizer starts anew.",
            stacklevel=4,
        )
        return None
    arrays = [guard.read_array(dataset) for dataset in datasets]
    return lambda: set_optimizer_arrays(model, arrays)
