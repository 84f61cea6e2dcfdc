"""What layers save besides weights: those whose class overrides `save_own_variables`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oncue.layers.layer import Layer
from oncue.variable import Variable, numpy_kind


def saves_by_itself(layer: Layer) -> bool:
    """Return whether a layer's class overrides what is saved of it, or loaded."""
    cls = type(layer)
    return (
        cls.save_own_variables is not Layer.save_own_variables or cls.load_own_variables is not Layer.load_own_variables
    )


def own_arrays(model: torch.nn.Module) -> dict[str, dict[str, NDArray[Any]]]:
    """Return copies of what the layers of a model save besides weights and buffers.

    Args:
        model: A built model.

    Returns:
        Arrays by name, by the layer's place among the modules.

    Example:
        >>> class Counts(Layer):
        ...     seen = 3
        ...     def save_own_variables(self, store):
        ...         store["seen"] = self.seen
        >>> own_arrays(torch.nn.Sequential(Counts()))
        {'1': {'seen': array(3)}}
    """
    found = {}
    for place, module in enumerate(model.modules()):
        if isinstance(module, Layer) and saves_by_itself(module):
            rest = {name: _array(value, name) for name, value in besides_weights(module).items()}
            if rest:
                found[str(place)] = rest
    return found


def put_own_arrays(model: torch.nn.Module, arrays: Mapping[str, Mapping[str, Any]]) -> None:
    """Let layers load what `own_arrays` returned, together with the weights that they have now.

    Args:
        model: A model of the same layers.
        arrays: What it returned.
    """
    modules = list(model.modules()) if arrays else []
    for place, rest in arrays.items():
        layer = modules[int(place)]
        if isinstance(layer, Layer):
            store = _store_of(layer)
            weights = {name: _array(store[name], name) for name in store.keys() - _besides_weights(layer, store).keys()}
            with torch.no_grad():
                # The layer may keep what it gets.
                layer.load_own_variables({**weights, **{name: np.array(value) for name, value in rest.items()}})


def load_all_or_nothing(found: Sequence[tuple[Layer, Mapping[str, Any]]]) -> None:
    """Let layers load what was found for them in a file; when one refuses it, all are as they were.

    Args:
        found: Layers whose class says itself what is loaded, each with its arrays by name.
    """
    before: list[tuple[Layer, dict[str, NDArray[Any]]]] = []
    try:
        for layer, arrays in found:
            before.append((layer, {name: _array(value, name) for name, value in _store_of(layer).items()}))
            layer.load_own_variables(dict(arrays))
    except BaseException:
        with torch.no_grad():
            for layer, own in before:
                layer.load_own_variables(own)
        raise


def besides_weights(layer: Layer) -> dict[str, Any]:
    """Return what a layer saves that is none of its weights and buffers."""
    return _besides_weights(layer, _store_of(layer))


def _besides_weights(layer: Layer, store: Mapping[str, Any]) -> dict[str, Any]:
    weights = {id(tensor) for tensor in (*layer.parameters(), *layer.buffers())}
    return {
        name: value
        for name, value in store.items()
        if id(value.stored if isinstance(value, Variable) else value) not in weights
    }


def _store_of(layer: Layer) -> dict[str, Any]:
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    return store


def _array(value: Any, name: str) -> NDArray[Any]:
    if isinstance(value, Variable):
        return value.numpy()
    if isinstance(value, torch.Tensor):
        value = value.detach().to(numpy_kind(value.dtype, name)).cpu().numpy()
    return np.array(value)
