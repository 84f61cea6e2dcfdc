"""All variables of a model as nested dicts by their paths, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_FORMATS = ("backend_tensor", "numpy_array")


def state_tree(model: Any, value_format: str) -> dict[str, Any]:
    """Return the values of a model's variables, as `Model.get_state_tree` does."""
    if value_format not in _FORMATS:
        raise ValueError(f"`value_format` must be one of {_FORMATS}; got {value_format!r}.")
    return {
        name: _nested(_values(variables, value_format == "numpy_array")) for name, variables in _kinds(model).items()
    }


def set_state_tree(model: Any, tree: Mapping[str, Any]) -> None:
    """Set variables, as `Model.set_state_tree` does."""
    kinds = _kinds(model)
    pairs = []
    for name, part in tree.items():
        if name not in kinds:
            raise ValueError(f"`state_tree` has the key {name!r}; it takes {', '.join(map(repr, kinds))}.")
        known = {variable.path: variable for variable in kinds[name]}
        for path, value in _flat(part):
            if path not in known:
                raise ValueError(
                    f"`state_tree` has {path!r} in {name!r}, and the model has {', '.join(known) or 'none'}."
                )
            pairs.append((known[path], value))
    for variable, value in pairs:
        variable.assign(value if isinstance(value, (int, float)) and not variable.shape else np.asarray(value))


def _kinds(model: Any) -> dict[str, list[Any]]:
    return {
        "trainable_variables": model.trainable_variables,
        "non_trainable_variables": model.non_trainable_variables,
        "optimizer_variables": [] if model.optimizer is None else model.optimizer.variables,
        "metrics_variables": model.metrics_variables,
    }


def _values(variables: Iterable[Any], as_arrays: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable in variables:
        if variable.path in found:
            raise ValueError(
                f"The following variable path is found twice in the model: {variable.path!r}. Give the layers, metrics and "
                "optimizers different names."
            )
        found[variable.path] = np.array(variable.value.detach().cpu()) if as_arrays else variable.value
    return found


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *parts, last = path.split("/")
        inner = tree
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return tree


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, Any]]:
    for key, part in tree.items():
        if isinstance(part, Mapping):
            yield from _flat(part, f"{before}{key}/")
        else:
            yield f"{before}{key}", part
