"""`clone_model`: the same architecture with weights of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from oncue.layers.foreign_layer import ForeignLayer
from oncue.layers.input_layer import InputLayer
from oncue.layers.keras_tensor import KerasTensor
from oncue.layers.layer import Layer
from oncue.layers.operation import Operation
from oncue.layers.real_keras import adopted, clone_keras_model, is_keras_model
from oncue.models.model import Model
from oncue.models.sequential import Sequential
from oncue.nested import flatten, map_leaves


def clone_model(model: Any, input_tensors: Any = None, clone_function: Callable[[Any], Any] | None = None) -> Any:
    """Make a model of the same architecture, with new layers and newly initialized weights; it is not compiled.

    Args:
        model: A `Sequential`, a functional model, a `Model` around a torch module or around a model of Keras.
        input_tensors: Symbolic inputs for the new model, nested as those of `model`; new ones by default.
        clone_function: Takes a layer and returns the one to use in its place (not called for inputs); by default a new
            layer of the same configuration.

    Returns:
        The new model.

    Raises:
        ValueError: For a subclassed model, whose architecture can't be read from it, or inputs that don't match.

    Example:
        >>> from oncue import layers
        >>> model = Sequential([layers.Input((2,)), layers.Dense(3)])
        >>> clone_model(model).count_params()
        9
    """
    if clone_function is not None and not callable(clone_function):
        raise ValueError(f"`clone_function` must be a function of a layer; got {clone_function!r}.")
    clone = _fresh if clone_function is None else clone_function
    inner = vars(model).get("keras_model") if isinstance(model, Model) else model
    if is_keras_model(inner):
        return Model(clone_keras_model(inner, input_tensors, clone_function))
    if isinstance(model, Sequential):
        return _sequential(model, input_tensors, clone)
    if isinstance(model, Model) and model._graph is not None:
        return _functional(model, input_tensors, clone)
    if isinstance(model, Model) and model.module is not None and type(model) is Model:
        return Model(_reset(copy.deepcopy(model.module)), name=model.name)
    raise ValueError(
        "`clone_model` takes a Sequential, a functional model, or a Model around a torch module; got "
        f"{model!r} of type {type(model).__name__}. To clone a subclassed model, call its constructor again."
    )


def _fresh(layer: Any) -> Any:
    if isinstance(layer, Sequential) or (isinstance(layer, Model) and type(layer) is Model):
        return clone_model(layer)
    if isinstance(layer, ForeignLayer):
        return layer.again()
    if not isinstance(layer, Layer):
        return _reset(copy.deepcopy(layer))
    return type(layer).from_config(layer.get_config())


def _reset(module: torch.nn.Module) -> torch.nn.Module:
    for part in module.modules():
        reset: Any = getattr(part, "reset_parameters", None)
        if reset is not None:
            reset()
    return module


def _sequential(model: Sequential, input_tensors: Any, clone_layer: Callable[[Any], Any]) -> Sequential:
    clone = Sequential(name=model.name, trainable=model.trainable)
    given = flatten(input_tensors) if input_tensors is not None else []
    if len(given) > 1 or not all(isinstance(tensor, KerasTensor) for tensor in given):
        raise ValueError(f"`input_tensors` of a Sequential must be one symbolic tensor; got {input_tensors!r}.")
    if given:
        clone.add(given[0])
    elif model._input is not None:
        clone.add(_input_like(model._input).output)
    for layer in model.layers:
        clone.add(clone_layer(layer))
    if not clone.built and model._tensors:
        clone.build(model.input_shape)
    return clone


def _functional(model: Model, input_tensors: Any, clone_layer: Callable[[Any], Any]) -> Model:
    graph = model._graph
    if input_tensors is None:
        structure = map_leaves(lambda tensor: _input_like(tensor).output, graph.input_structure)
    else:
        structure = input_tensors
    sources = flatten(structure)
    if len(sources) != len(graph.inputs) or not all(isinstance(tensor, KerasTensor) for tensor in sources):
        raise ValueError(
            f"`input_tensors` must be {len(graph.inputs)} symbolic tensors, one for each input of the model; got "
            f"{input_tensors!r}."
        )
    made = {(id(graph.order.call_of(old)), 0): new for old, new in zip(graph.inputs, sources, strict=True)}
    clones: dict[int, Any] = {}

    def new(leaf: Any) -> Any:
        return made[id(graph.order.call_of(leaf)), leaf.output_index] if isinstance(leaf, KerasTensor) else leaf

    inputs = {id(graph.order.call_of(tensor)) for tensor in graph.inputs}
    for call in graph.order.calls:
        if id(call) in inputs:
            continue
        key = id(call.layer)
        if key not in clones:
            own = isinstance(call.layer, Operation)
            clones[key] = call.layer.again() if own else adopted(clone_layer(call.layer))
        results = clones[key](*map_leaves(new, call.args), **map_leaves(new, call.kwargs))
        for index, tensor in enumerate(flatten(results)):
            made[id(call), index] = tensor
    return Model(structure, map_leaves(new, graph.output_structure), name=model.name)


def _input_like(tensor: KerasTensor) -> InputLayer:
    optional = getattr(getattr(tensor, "input_layer", None), "optional", False)
    return InputLayer(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name, optional=optional)
