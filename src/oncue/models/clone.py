"""`clone_model`: the same architecture with weights of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from oncue.core.builtin import kind_of
from oncue.layers.foreign_layer import ForeignLayer
from oncue.layers.input_layer import InputLayer
from oncue.layers.keras_tensor import KerasTensor
from oncue.layers.layer import Layer
from oncue.layers.operation import Operation
from oncue.layers.real_keras import adopted, clone_keras_model, is_keras_model
from oncue.models.model import Model
from oncue.models.sequential import Sequential
from oncue.nested import flatten, map_leaves


def clone_model(
    model: Any,
    input_tensors: Any = None,
    clone_function: Callable[[Any], Any] | None = None,
    call_function: Callable[..., Any] | None = None,
    recursive: bool = False,
    **kwargs: Any,
) -> Any:
    """Make a model of the same architecture, with new layers and newly initialized weights.

    A Sequential that is compiled gives one that is compiled alike, with an optimizer of its own; other models aren't
    compiled.

    Args:
        model: A `Sequential`, a functional model, a `Model` around a torch module or around a model of Keras, or one of your
            own class with a configuration.
        input_tensors: Symbolic inputs for the new model, nested as those of `model`; new ones by default.
        clone_function: Takes a layer and returns the one to use in its place (not called for inputs); by default a new
            layer of the same configuration.
        call_function: For functional models: called as `call_function(layer, *args, **kwargs)` in place of each layer, and
            returns its outputs.
        recursive: Whether `clone_function` and `call_function` get the layers of models inside the model, rather than these
            models.
        **kwargs: None is known.

    Returns:
        The new model.

    Raises:
        ValueError: For an argument that this kind of model doesn't take, or inputs that don't match.

    Example:
        >>> from oncue import layers
        >>> model = Sequential([layers.Input((2,)), layers.Dense(3)])
        >>> clone_model(model).count_params()
        9
    """
    if kwargs:
        raise TypeError(f"`clone_model` has no argument `{next(iter(kwargs))}`.")
    for name, given in (("clone_function", clone_function), ("call_function", call_function)):
        if given is not None and not callable(given):
            raise ValueError(f"`{name}` must be a function of a layer; got {given!r}.")
    inner = vars(model).get("keras_model") if isinstance(model, Model) else model
    if is_keras_model(inner):
        return Model(clone_keras_model(inner, input_tensors, clone_function))
    return _Cloning(clone_function, call_function, recursive).model(model, input_tensors)


class _Cloning:
    """One call of `clone_model`: what is done with each layer, and what was made of it."""

    def __init__(
        self, clone_function: Callable[[Any], Any] | None, call_function: Callable[..., Any] | None, recursive: bool
    ) -> None:
        self._clone = clone_function
        self._call = call_function
        self._recursive = recursive
        self._clones: dict[int, Any] = {}

    def model(self, model: Any, input_tensors: Any = None) -> Any:
        if isinstance(model, Sequential):
            self._refuse(model, call_function=self._call)
            return _sequential(model, input_tensors, self.layer)
        if isinstance(model, Model) and model._graph is not None:
            return _functional(model, input_tensors, self.layer, self._call)
        self._refuse(model, clone_function=self._clone, call_function=self._call, input_tensors=input_tensors)
        if isinstance(model, Model) and model.module is not None and kind_of(model) is Model:
            return Model(_reset(copy.deepcopy(model.module)), name=model.name)
        if not isinstance(model, Model):
            raise ValueError(f"`clone_model` takes a model; got {model!r} of type {type(model).__name__}.")
        return type(model).from_config(model.get_config())

    def _refuse(self, model: Any, **arguments: Any) -> None:
        for name, given in arguments.items():
            if given is not None:
                kinds = "functional models" if name == "call_function" else "Sequential and functional models"
                raise ValueError(f"`{name}` is for {kinds}; {model.name!r} is a {type(model).__name__}. Leave it out.")

    def layer(self, layer: Any) -> Any:
        """Return what stands in a layer's place: the same wherever it is shared."""
        if id(layer) not in self._clones:
            self._clones[id(layer)] = self._made(layer)
        return self._clones[id(layer)]

    def _made(self, layer: Any) -> Any:
        is_model = isinstance(layer, Sequential) or (isinstance(layer, Model) and layer._graph is not None)
        if is_model and (self._recursive or (self._clone is None and kind_of(layer) in (Sequential, Model))):
            inside = _Cloning(self._clone, None if isinstance(layer, Sequential) else self._call, self._recursive)
            inside._clones = self._clones
            return inside.model(layer)
        if self._clone is not None:
            return self._clone(layer)
        if isinstance(layer, Model) and kind_of(layer) is Model:
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
    config = model.get_compile_config() if model.compiled else None
    if config is not None:
        clone.compile_from_config(config)
    return clone


def _functional(
    model: Model, input_tensors: Any, clone_layer: Callable[[Any], Any], call_function: Callable[..., Any] | None
) -> Model:
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
    if _form(structure) != _form(graph.input_structure):
        raise ValueError(
            f"`input_tensors` must have the same structure as model.input, {graph.input_structure!r}; got {structure!r}."
        )
    made = {(id(graph.order.call_of(old)), 0): new for old, new in zip(graph.inputs, sources, strict=True)}
    operations: dict[int, Any] = {}

    def new(leaf: Any) -> Any:
        return made[id(graph.order.call_of(leaf)), leaf.output_index] if isinstance(leaf, KerasTensor) else leaf

    inputs = {id(graph.order.call_of(tensor)) for tensor in graph.inputs}
    for call in graph.order.calls:
        if id(call) in inputs:
            continue
        if isinstance(call.layer, Operation):
            if id(call.layer) not in operations:
                operations[id(call.layer)] = call.layer.again()
            layer = operations[id(call.layer)]
        else:
            layer = adopted(clone_layer(call.layer))
        args, kwargs = map_leaves(new, call.args), map_leaves(new, call.kwargs)
        results = layer(*args, **kwargs) if call_function is None else call_function(layer, *args, **kwargs)
        for index, tensor in enumerate(flatten(results)):
            made[id(call), index] = tensor
    return Model(structure, map_leaves(new, graph.output_structure), name=model.name)


def _input_like(tensor: KerasTensor) -> InputLayer:
    optional = getattr(getattr(tensor, "input_layer", None), "optional", False)
    return InputLayer(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name, optional=optional)


def _form(structure: Any) -> Any:
    """Return how tensors are nested; lists and tuples are the same."""
    if isinstance(structure, dict):
        return {key: _form(part) for key, part in structure.items()}
    return [_form(part) for part in structure] if isinstance(structure, (list, tuple)) else None
