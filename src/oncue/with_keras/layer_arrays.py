"""What layers of Keras save besides their variables: those whose class overrides `save_own_variables`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oncue.with_keras import keras_private


def own_arrays(model: Any) -> dict[str, dict[str, NDArray[Any]]]:
    """Return copies of what the layers of a model save besides their variables.

    Args:
        model: A built model of Keras.

    Returns:
        Arrays by name, by the layer's place among the layers.
    """
    found = {}
    for place, layer in _layers(model):
        variables = _identities(layer)
        store = _store_of(layer)
        rest = {name: _array(value) for name, value in store.items() if id(value) not in variables}
        if rest:
            found[str(place)] = rest
    return found


def put_own_arrays(model: Any, arrays: Mapping[str, Mapping[str, Any]]) -> None:
    """Let layers load what `own_arrays` returned, together with the variables that they have now.

    Args:
        model: A model of the same layers.
        arrays: What it returned.
    """
    for place, layer in _layers(model):
        rest = arrays.get(str(place))
        if rest is not None:
            now = {name: _array(value) for name, value in _store_of(layer).items()}
            # The layer may keep what it gets.
            layer.load_own_variables({**now, **{name: np.array(value) for name, value in rest.items()}})
    keras_private.refresh(model)


def _layers(model: Any) -> Iterator[tuple[int, Any]]:
    for place, layer in enumerate(keras_private.layers_of(model)):
        if keras_private.overrides(layer, "save_own_variables"):
            yield place, layer


def _store_of(layer: Any) -> dict[str, Any]:
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    return store


def _identities(layer: Any) -> set[int]:
    return {id(one) for variable in layer.variables for one in (variable, variable.value)}


def _array(value: Any) -> NDArray[Any]:
    import keras

    return np.array(keras.ops.convert_to_numpy(value))
