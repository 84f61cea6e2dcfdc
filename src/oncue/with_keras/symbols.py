"""The graph behind a symbolic tensor of Keras, as a graph of oncue."""

from __future__ import annotations

from typing import Any

from oncue.keras_names import check_backend
from oncue.layers.input_layer import InputLayer
from oncue.layers.keras_tensor import KerasTensor
from oncue.nested import map_leaves
from oncue.with_keras import keras_private
from oncue.with_keras.layer import KerasLayer, KerasOperation

_OURS = "_of_oncue"
"""The attribute at which a symbolic tensor of Keras has that of oncue, so that it is the same one each time."""


def translated(tensor: Any) -> KerasTensor:
    """Return the symbolic tensor of oncue that stands for one of Keras, with the calls that lead to it.

    Args:
        tensor: A symbolic tensor of Keras, whose graph may begin with inputs of Keras or of oncue.

    Raises:
        ValueError: When Keras isn't on torch.
    """
    check_backend()
    # Without recursion, since a deep model would exceed Python's limit.
    waiting = [tensor]
    while waiting:
        last = waiting[-1]
        if _OURS in vars(last):
            waiting.pop()
            continue
        node = keras_private.node_of(last)
        before = [] if node is None else [one for one in _sources(node) if type(one) is not KerasTensor]
        missing = [one for one in before if _OURS not in vars(one)]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        _take(node, last)
    found: KerasTensor = vars(tensor)[_OURS]
    return found


def _sources(node: Any) -> list[Any]:
    """Return the symbolic tensors that a call was given, without masks that Keras has noted with it."""
    args, kwargs = _given(node)
    return [leaf for leaf in keras_private.flattened([args, kwargs]) if keras_private.is_symbolic(leaf)]


def _given(node: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    args, kwargs = node.arguments.args, node.arguments.kwargs
    # A mask that came with a tensor comes with its values, too.
    masks = {id(keras_private.mask_of(leaf)) for leaf in keras_private.flattened([args, kwargs])}

    def is_noted(name: str, value: Any) -> bool:
        parts = keras_private.flattened(value) if value is not None else []
        return name.endswith("mask") and all(part is None or id(part) in masks for part in parts)

    return args, {name: value for name, value in kwargs.items() if not is_noted(name, value)}


def _take(node: Any, tensor: Any) -> None:
    """Make the tensors of a call whose sources are known, or that of an input."""
    if node is None or node.is_input:
        layer = InputLayer(batch_shape=tuple(tensor.shape), dtype=tensor.dtype, name=tensor.name)
        layer.optional = bool(getattr(None if node is None else node.operation, "optional", False))
        vars(tensor)[_OURS] = layer.output
        return
    args, kwargs = _given(node)

    def ours(leaf: Any) -> Any:
        return vars(leaf)[_OURS] if type(leaf) is not KerasTensor and keras_private.is_symbolic(leaf) else leaf

    operation = node.operation
    made = KerasLayer.of(operation) if keras_private.is_layer(operation) else KerasOperation.of(operation)
    own_args = tuple(map_leaves(ours, arg) for arg in args)
    own_kwargs = {
        name: map_leaves(ours, value) for name, value in kwargs.items() if not (name == "training" and value is None)
    }
    history = (made, own_args, own_kwargs)
    outputs = []
    for index, output in enumerate(node.outputs):
        found = KerasTensor(tuple(output.shape), output.dtype, history=history)
        found.output_index, found.is_alone = index, len(node.outputs) == 1
        mask = keras_private.mask_of(output)
        found.mask_ndim = None if mask is None else len(mask.shape)
        vars(output)[_OURS] = found
        outputs.append(found)
    made.note_ends(own_args, outputs)
