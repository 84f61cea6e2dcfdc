"""`.weights.h5`: Keras 3's file of weights, which is also the third member of a `.keras` archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from oncue.core.warn import warn
from oncue.layers.layer import Layer
from oncue.layers.own_arrays import load_all_or_nothing
from oncue.optimizers import LossScaleOptimizer
from oncue.saving import guard
from oncue.saving.optimizer_arrays import (
    optimizer_shapes,
    optimizer_tensors,
    optimizer_values,
    set_optimizer_values,
    warn_of_count,
)
from oncue.saving.places import Place, places_of
from oncue.saving.tree import Stored, Tree
from oncue.saving.values import Values, read_values, set_values, stored
from oncue.variable import Variable

_OPTIMIZER = "optimizer"
NOT_WEIGHTS = {"seed_generator", "_seed_generator", "_metrics", "_loss_tracker"}
"""Groups that Keras writes besides weights on some backends: random states, which torch stores elsewhere."""


def weights_tree(model: Any, with_optimizer: bool = True, skipped: Sequence[Any] = ()) -> Tree:
    """Return a model's weights and its optimizer's state in the layout of the file.

    Args:
        model: The model, built.
        with_optimizer: Whether to take the optimizer's state, if there is one.
        skipped: Layers that are left out.

    Returns:
        The model's own tensors, in their places.
    """
    content = Tree()
    for place in places_of(model, skipped):
        group = content.create_group(place.group)
        group.attrs["name"] = place.name
        if place.owner is not None:
            _take_own(place.owner, group)
            continue
        for index, variable in enumerate(place.variables):
            group[str(index)] = stored(variable)
    if with_optimizer and model.optimizer is not None:
        group = content.create_group(f"{_OPTIMIZER}/vars")
        group.attrs["name"] = model.optimizer.name
        tensors = optimizer_tensors(model)
        for index, one in enumerate(tensors):
            group[str(index)] = one
        if isinstance(model.optimizer, LossScaleOptimizer):
            # Keras writes the inner optimizer's state twice, and reads both.
            inner = content.create_group(f"{_OPTIMIZER}/inner_optimizer/vars")
            inner.attrs["name"] = model.optimizer.inner_optimizer.name
            for index, one in enumerate(tensors[len(model.optimizer.own_variables()) :]):
                inner[str(index)] = one
    return content


def read_weights(
    content: guard.Arrays, model: Any, source: Any, skip_mismatch: bool = False, skipped: Sequence[Any] = ()
) -> None:
    """Set a model's weights, and its optimizer's state if it is there, from the arrays of open HDF5 files.

    Nothing is set unless everything was read and fits.

    Args:
        content: The arrays.
        model: The model, built.
        source: The path, for messages.
        skip_mismatch: Whether layers that don't fit are left as they are, with a warning.
        skipped: Layers that are left as they are; also the optimizer, for its state.

    Raises:
        ValueError: When weights are missing, unknown, or of another shape.
    """
    problems: list[str] = []
    values: Values = []
    places = places_of(model, skipped)
    own: list[tuple[Layer, dict[str, Any]]] = []
    for place in places:
        if place.owner is not None:
            datasets = {name: content.dataset(f"{place.group}/{name}") for name in content.names(place.group)}
            own.append((place.owner, {name: guard.read_array(dataset) for name, dataset in datasets.items()}))
        elif not place.ignored:
            values += _read_place(content, place, problems)
    known = {place.group for place in (places_of(model) if skipped else places)}
    ignored = tuple(f"{place.path}/" for place in places if place.ignored)
    for path in content.paths:
        parts = path.split("/")
        if parts[0] == _OPTIMIZER or NOT_WEIGHTS & set(parts) or path.startswith(ignored or "\0"):
            continue
        if "/".join(parts[:-1]) not in known:
            problems.append(f"{path}: the model has no such weight")
    settle(problems, source, skip_mismatch)
    with_state = all(one is not model.optimizer for one in skipped)
    apply_state = _optimizer_state(content, model, source) if with_state else lambda: None
    # What the user's code refuses is found before the first value is set.
    load_all_or_nothing(own)
    apply_state()
    set_values(values)


def _take_own(layer: Layer, group: Tree) -> None:
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    for name, value in store.items():
        if not isinstance(name, str) or "/" in name or name in ("", "."):
            raise ValueError(
                f"`{type(layer).__name__}.save_own_variables` must save under names without '/'; got {name!r}."
            )
        if isinstance(value, Variable):
            value = value.value
        tensor = value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))
        group[name] = Stored(tensor, name=f"{layer.name}/{name}")


def settle(problems: list[str], source: Any, skip_mismatch: bool) -> None:
    """Raise an error that lists what doesn't fit, or only warn if the user asked for that."""
    if not problems:
        return
    named = [guard.printable(problem)[:500] for problem in problems[:20]]
    shown = "\n  ".join([*named, f"and {len(problems) - 20} more"] if len(problems) > 20 else named)
    if not skip_mismatch:
        raise ValueError(
            f"The weights in {str(source)!r} don't fit the model; nothing was loaded:\n  {shown}\nBuild the same "
            "architecture, or pass `skip_mismatch=True` to load the layers that fit."
        )
    warn(f"Not all weights of {str(source)!r} were loaded:\n  {shown}")


def _read_place(content: guard.Arrays, place: Place, problems: list[str]) -> Values:
    saved = len(content.names(place.group))
    label = f"{place.group} (layer '{place.name}')"
    if saved != len(place.variables):
        shapes = ", ".join(f"{variable.name} {variable.shape}" for variable in place.variables) or "none"
        problems.append(f"{label}: the file has {saved} weights, the layer {len(place.variables)} ({shapes})")
        return []
    datasets = [content.dataset(f"{place.group}/{index}") for index in range(saved)]
    return read_values(list(zip(place.variables, datasets, strict=True)), label, problems)


def _optimizer_state(content: guard.Arrays, model: Any, source: Any) -> Callable[[], None]:
    """Read the optimizer's state; return a function that sets it."""
    group = f"{_OPTIMIZER}/vars"
    count = len(content.names(group))
    if model.optimizer is None or count == 0:
        return lambda: None
    shapes = optimizer_shapes(model)
    if count != len(shapes):
        if count <= (4 if isinstance(model.optimizer, LossScaleOptimizer) else 2) and model.optimizer.iterations == 0:
            # It was saved before its first step, and has only a count and a rate; those are in the configuration.
            return lambda: None
        warn_of_count(model.optimizer, len(shapes), count)
        return lambda: None
    datasets = [content.dataset(f"{group}/{index}") for index in range(len(shapes))]
    found = [None if dataset is None else tuple(dataset.shape) for dataset in datasets]
    if found != shapes:
        raise ValueError(
            f"The optimizer's state in {str(source)!r} doesn't fit; nothing was loaded: it has arrays of the shapes "
            f"{found[:8]}, the optimizer of {shapes[:8]}. Compile the model with the same optimizer."
        )
    values = optimizer_values(model, datasets, source)
    return lambda: set_optimizer_values(model, values)
