"""The forward passes of Keras models: by a graph of built-in layers where that is all, or with quicker layers among others.

`Layer.__call__` converts, checks, names and notes, which takes longer than many a layer computes. Where a model is a graph of
Keras's own layers that all work in float32 and know no masks, none of that has an effect after the first batch of a shape.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from oncue.nested import flatten
from oncue.with_keras import keras_private
from oncue.with_keras.quick_layers import quick_call

Call = Callable[..., Any]


class GraphForward:
    """Runs a Keras model by the calls of its layers, one after another.

    Inputs of a shape that wasn't seen before, and all that is not a plain tensor, go through the model's own call, which
    refuses what doesn't fit.

    Args:
        model: A built model, of which `is_plain` is true.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._graphs = model, _graphs_in(model)
        self._run = _run_of(model)
        self._quick = _quick_parts(keras_private.layers_of(model))
        self._inputs = keras_private.graph_of(model).inputs
        self._dtypes = [keras_private.torch_dtype(tensor.dtype) for tensor in self._inputs]
        self._seen: set[Any] = set()

    def is_current(self) -> bool:
        """Return whether the model is still what it was, and may still be run so."""
        return (
            is_plain(self._model)
            and all(one is other for one, other in zip(self._graphs, _graphs_in(self._model), strict=True))
            and _same_parts(self._quick, _quick_parts(keras_private.layers_of(self._model)))
        )

    def __call__(self, x: Any, training: bool) -> Any:
        """Return the outputs.

        Args:
            x: The inputs, as the model takes them.
            training: Whether it is trained.
        """
        if isinstance(x, torch.Tensor) and x.shape[1:] in self._seen and x.dtype is self._dtypes[0]:
            return self._run([x], training)
        return self._checked(x, training)

    def _checked(self, x: Any, training: bool) -> Any:
        tensors = [x] if isinstance(x, torch.Tensor) else x
        if isinstance(x, dict):
            tensors = [x.get(tensor.name) for tensor in self._inputs]
        if (
            type(tensors) in (list, tuple)
            and all(isinstance(tensor, torch.Tensor) for tensor in tensors)
            and [tensor.ndim for tensor in tensors] == [len(tensor.shape) for tensor in self._inputs]
            and all(keras_private.mask_of(tensor) is None for tensor in tensors)
        ):
            shapes: Any = tuple([tensor.shape[1:] for tensor in tensors])
            if isinstance(x, torch.Tensor):
                shapes = shapes[0]
            if shapes in self._seen:
                cast = [tensor.to(dtype) for tensor, dtype in zip(tensors, self._dtypes, strict=True)]
                return self._run(cast, training)
            self._seen.add(shapes)
        # By the same arithmetic, to the bit, as what follows.
        with _quicker(self._quick):
            return self._model(x, training=training)


class LayerForward:
    """Runs a Keras model by its own call, in which some of its layers are quicker.

    Args:
        model: A built model.
        told: Whether its call takes `training`.
    """

    def __init__(self, model: Any, told: bool) -> None:
        self._model, self._told = model, told
        self._layers = keras_private.layers_of(model)
        self._quick = _quick_parts(self._layers)

    def is_current(self) -> bool:
        """Return whether the model still has the same layers, and they may still be quick."""
        layers = keras_private.layers_of(self._model)
        return _same_parts(self._quick, _quick_parts(layers)) and list(map(id, layers)) == list(map(id, self._layers))

    def __call__(self, x: Any, training: bool) -> Any:
        """Return the outputs.

        Args:
            x: The inputs, as the model takes them.
            training: Whether it is trained.
        """
        with _quicker(self._quick):
            return self._model(x, training=training) if self._told else self._model(x)


Parts = list[tuple[dict[str, Any], Call]]
"""The attributes of layers, with quicker calls of them."""


def _quick_parts(layers: list[Any]) -> Parts:
    found = [(vars(layer), quick_call(layer)) for layer in layers if _may_be_quick(layer)]
    return [(state, call) for state, call in found if call is not None]


def _same_parts(one: Parts, other: Parts) -> bool:
    return [id(state) for state, _ in one] == [id(state) for state, _ in other]


@contextmanager
def _quicker(parts: Parts) -> Iterator[None]:
    """Let layers have their quicker calls while the block runs."""
    try:
        for state, call in parts:
            state["call"] = call
        yield
    finally:
        for state, _ in parts:
            state.pop("call", None)


def _may_be_quick(layer: Any) -> bool:
    return (
        type(layer) in keras_private.own_layers()
        and layer.compute_dtype == layer.variable_dtype == "float32"
        and keras_private.is_called_plainly(layer)
    )


def is_plain(model: Any) -> bool:
    """Return whether a model is a graph of Keras's own layers, in float32 and without masks, hooks and added losses.

    Args:
        model: A built Keras model.
    """
    if keras_private.graph_of(model) is None or keras_private.is_distributed():
        return False
    makers = keras_private.makers_of_masks()
    return all(
        _may_be_quick(layer)
        and not isinstance(layer, makers)
        and not getattr(layer, "mask_zero", False)
        and layer.activity_regularizer is None
        for layer in keras_private.layers_of(model)
    )


def _graphs_in(model: Any) -> list[Any]:
    layers = keras_private.layers_of(model)
    return [graph for graph in map(keras_private.graph_of, layers) if graph is not None]


def _run_of(model: Any) -> Callable[[list[Any], bool], Any]:
    """Return the function from a list of inputs and `training` to the outputs of a model."""
    graph = keras_private.graph_of(model)
    places = {id(tensor): place for place, tensor in enumerate(graph.inputs)}
    steps = []
    for node in keras_private.nodes_of(graph):
        call, trains = _call_of(node.operation)
        arguments = _arguments(node, places, trains)
        ends = [places.setdefault(id(tensor), len(places)) for tensor in node.outputs]
        steps.append((call, trains, arguments, ends))
    outputs = [places[id(tensor)] for tensor in graph.outputs]
    pack = keras_private.packer(graph)
    count = len(places)

    def run(inputs: list[Any], training: bool) -> Any:
        values: list[Any] = [*inputs, *[None] * (count - len(inputs))]
        for call, trains, arguments, ends in steps:
            if type(arguments) is int:
                result = call(values[arguments], training=training) if trains else call(values[arguments])
            else:
                args, kwargs = arguments(values)
                if trains:
                    kwargs["training"] = training
                result = call(*args, **kwargs)
            found = [result] if isinstance(result, torch.Tensor) else keras_private.flattened(result)
            for place, value in zip(ends, found, strict=True):
                values[place] = value
        if pack is None:
            return values[outputs[0]]
        return pack([values[place] for place in outputs])

    return run


def _call_of(operation: Any) -> tuple[Call, bool]:
    if keras_private.graph_of(operation) is not None:
        run = _run_of(operation)
        return lambda x, training: run(list(keras_private.flattened(x)), training), True
    if not keras_private.is_layer(operation):
        return operation.call, False
    quick = quick_call(operation)
    trains = "training" in inspect.signature(quick or type(operation).call).parameters
    if quick is not None:
        return quick, trains
    if keras_private.is_alone(operation):
        return operation.call, trains
    parts = _quick_parts(keras_private.layers_of(operation))

    def call(*args: Any, **kwargs: Any) -> Any:
        # Layers inside others are told whether they are trained by the call of the layer around them.
        with _quicker(parts):
            return operation(*args, **kwargs)

    return call, trains


def _arguments(node: Any, places: dict[int, int], trains: bool) -> Any:
    """Return the place of a node's one tensor, or a function from all values to its arguments and keywords."""
    args, kwargs = node.arguments.args, node.arguments.kwargs
    # Keras notes masks that aren't there, and hands its own `training` on in place of one that is noted.
    idle = [name for name in kwargs if name.endswith("mask") and set(flatten(kwargs[name])) == {None}]
    kwargs = {name: kwargs[name] for name in kwargs if name not in (*idle, *["training"] * trains)}
    if len(args) == 1 and not kwargs and id(args[0]) in places:
        return places[id(args[0])]

    def filled(value: Any, values: list[Any]) -> Any:
        if id(value) in places and keras_private.is_symbolic(value):
            return values[places[id(value)]]
        if type(value) in (list, tuple):
            return type(value)([filled(item, values) for item in value])
        if type(value) is dict:
            return {key: filled(item, values) for key, item in value.items()}
        return value

    return lambda values: (filled(args, values), filled(kwargs, values))
