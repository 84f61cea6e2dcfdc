"""The weights in the `.h5` files of Keras 1 and 2: one group for each layer, arrays by the paths of their weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from oncue.layers.layer import Layer, variables_of
from oncue.saving import guard
from oncue.saving.places import refuse_own_arrays
from oncue.saving.tree import Stored, Tree
from oncue.saving.values import Values, read_values, set_values, stored
from oncue.saving.weights_h5 import settle
from oncue.variable import Variable

KERAS_VERSION = "3.15.1"
"""The version of Keras whose formats are written; Keras only shows it."""

# HDF5 keeps at most 64 KiB in an attribute; longer lists are cut into name0, name1, ...
_ATTRIBUTE_BYTES = 64512
_TOP = "top_level_model_weights"


def write_weights(group: Tree, model: Any) -> None:
    """Put a model's weights into a tree, one group for each layer.

    Raises:
        ValueError: For a layer that saves more than its weights.
    """
    refuse_own_arrays(model, ".h5")
    layers, paths = _layers(model), _paths(model)
    _write_names(group, "layer_names", [name for name, _ in layers])
    group.attrs["backend"] = b"torch"
    group.attrs["keras_version"] = KERAS_VERSION.encode()
    for name, weights in [*layers, (_TOP, _top_weights(model, layers))]:
        write_arrays(
            group.create_group(name),
            [(paths[id(weight.stored)], stored(weight)) for weight in weights],
        )


def _paths(model: Any) -> dict[int, str]:
    # Keras names the paths of weights from the outermost model on; a functional model gives its name to none.
    prefix = "" if model._graph is not None else model.name
    return {id(weight.stored): weight.path for weight in variables_of(model, prefix)}


def _layers(model: Any) -> list[tuple[str, list[Variable]]]:
    """Return the layers' names and weights, trainable ones first."""
    found = []
    for layer in model.layers:
        known = isinstance(layer, Layer)
        weights = list(layer.weights if known else variables_of(layer))
        ordered = [weight for weight in weights if weight.trainable] + [w for w in weights if not w.trainable]
        found.append((layer.name if known else model._layer_name(layer), ordered))
    return found


def _top_weights(model: Any, layers: list[tuple[str, list[Variable]]]) -> list[Variable]:
    inside = {id(weight.stored) for _, weights in layers for weight in weights}
    return [weight for weight in model.weights if id(weight.stored) not in inside]


def write_arrays(group: Tree, arrays: list[tuple[str, Stored]]) -> None:
    """Put named arrays into a group, and their names, in order, into its attribute `weight_names`."""
    _write_names(group, "weight_names", [name for name, _ in arrays])
    for name, array in arrays:
        group[name] = array


def _write_names(group: Tree, attribute: str, names: list[str]) -> None:
    data = np.array([name.encode("utf-8") for name in names]) if names else np.array([], dtype=np.float64)
    pieces = 1
    while any(part.nbytes > _ATTRIBUTE_BYTES for part in np.array_split(data, pieces)):
        pieces += 1
    for index, part in enumerate(np.array_split(data, pieces)):
        group.attrs[attribute if pieces == 1 else f"{attribute}{index}"] = part


def read_names(group: Any, attribute: str, source: Any) -> list[str]:
    """Return the names in an attribute of a group, put together where Keras has cut it."""
    found: list[Any] = []
    if attribute in group.attrs:
        found = list(np.ravel(group.attrs[attribute]))
    index = 0
    while attribute not in group.attrs and f"{attribute}{index}" in group.attrs:
        found += list(np.ravel(group.attrs[f"{attribute}{index}"]))
        index += 1
        if index > guard.MAX_ENTRIES:
            guard.refuse(source, f"its attribute {attribute} has no end.")
    names = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in found]
    if len(set(names)) != len(names):
        guard.refuse(source, f"a name comes twice in its attribute {attribute}.")
    return names


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
    values: Values = []
    for group_name, label, weights in pairs:
        values += _read_layer(content, group_name, label, weights, source, problems)
    settle(problems, source, skip_mismatch)
    set_values(values)


def _matched(
    content: Any, layers: list[tuple[str, list[Variable]]], source: Any, by_name: bool, problems: list[str]
) -> list[tuple[str, str, list[Variable]]]:
    """Return the groups in the file with the weights they are for."""
    names = read_names(content, "layer_names", source)
    if by_name:
        own = dict(layers)
        return [(name, f"layer '{name}'", own[name]) for name in names if name in own]
    filled = []
    for name in names:
        group = guard.group_at(content, name, source)
        if group is None:
            guard.refuse(source, f"it names a layer {name[:100]!r} that it doesn't have.")
        if read_names(group, "weight_names", source):
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
) -> Values:
    group = guard.group_at(content, group_name, source)
    if group is None:
        guard.refuse(source, f"it names a layer {group_name[:100]!r} that it doesn't have.")
    names = read_names(group, "weight_names", source)
    if len(names) != len(weights):
        shapes = ", ".join(f"{weight.name} {weight.shape}" for weight in weights) or "none"
        problems.append(f"{label}: the file has {len(names)} weights, the layer {len(weights)} ({shapes})")
        return []
    datasets = [guard.dataset_at(group, name, source) for name in names]
    return read_values(list(zip(weights, datasets, strict=True)), label, problems)
