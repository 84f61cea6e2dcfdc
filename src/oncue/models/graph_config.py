"""Functional models as configurations in Keras 3's form, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from oncue.core.builtin import kind_of
from oncue.layers.foreign_layer import ForeignLayer
from oncue.layers.keras_tensor import KerasTensor
from oncue.layers.layer import Layer
from oncue.layers.operation import Operation, is_known
from oncue.layers.real_keras import adopted
from oncue.models.graph_order import Call, Order
from oncue.nested import flatten

_made: ContextVar[dict[int, Any] | None] = ContextVar("made", default=None)


@contextmanager
def shared_layers() -> Iterator[None]:
    """Inside the `with` block, make a layer only once if a configuration marks it as shared."""
    token = _made.set({})
    try:
        yield
    finally:
        _made.reset(token)


def layer_config(layer: Layer) -> dict[str, Any]:
    """Return the configuration that Keras writes for a layer, a nested model or an operation.

    Args:
        layer: The layer.

    Returns:
        A dict with the keys module, class_name, config and registered_name.

    Example:
        >>> layer_config(Operation("Add", name="plus"))["config"]
        {'name': 'plus'}
    """
    from oncue.layers import serialize
    from oncue.models.model import Model

    if kind_of(layer) is Model and layer.module is not None:
        raise ValueError(
            f"'{layer.name}' is a torch module, which has no configuration. Save its weights with `save_weights`, or "
            "wrap it in a custom layer that has `get_config`."
        )
    if isinstance(layer, (ForeignLayer, Operation)):
        return layer.written()
    written = serialize(layer)
    if kind_of(layer) is Model and layer._graph is not None:
        written |= {
            "module": "keras.src.models.functional",
            "class_name": "Functional",
            "registered_name": "Functional",
        }
    elif written["class_name"] == "Sequential" and written["registered_name"] is None:
        written["module"] = "keras"
    build_config = layer.get_build_config()
    return written if build_config is None else {**written, "build_config": build_config}


def layer_from_config(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
    """Return the layer, nested model or operation that `layer_config` wrote.

    Args:
        config: The configuration.
        custom_objects: Your own layers, by class name.

    Returns:
        The layer.

    Raises:
        ValueError: For an unknown class.

    Example:
        >>> layer_from_config(layer_config(Operation("Add", name="plus"))).name
        'plus'
    """
    from oncue.layers import deserialize

    if str(config.get("module", "")).startswith("keras.src.ops"):
        if is_known(config["class_name"]):
            return Operation(config["class_name"], name=config["config"].get("name"))
        from oncue.with_keras.configs import operation_from

        return operation_from(config)
    made, key = _made.get(), config.get("shared_object_id")
    if made is None or not isinstance(key, int):
        return _built(adopted(deserialize(config, custom_objects=custom_objects)), config)
    if key not in made:
        made[key] = _built(adopted(deserialize(config, custom_objects=custom_objects)), config)
    return made[key]


def _built(layer: Any, config: dict[str, Any]) -> Any:
    """Return a layer; one whose class says itself how it is built from a file is built."""
    from oncue.layers.layer import Layer

    build_config = config.get("build_config")
    own = isinstance(layer, Layer) and type(layer).build_from_config is not Layer.build_from_config
    if own and build_config and not layer.built:
        layer.build_from_config(build_config)
        layer.built = True
    return layer


def graph_to_config(order: Order, inputs: Any, outputs: Any) -> dict[str, Any]:
    """Return the layers, their calls, and the positions of inputs and outputs, as Keras writes them.

    Args:
        order: The calls between the inputs and the outputs.
        inputs: The symbolic inputs, nested.
        outputs: The symbolic outputs, nested.

    Returns:
        A dict with the keys layers, input_layers and output_layers.
    """

    def history(tensor: KerasTensor) -> list[Any]:
        call = order.call_of(tensor)
        return [call.layer.name, call.index, tensor.output_index]

    def end(value: Any) -> Any:
        if isinstance(value, KerasTensor):
            name, index, output = history(value)
            # Keras counts the calls of a functional model from 1 here, and from 0 everywhere else.
            return [name, index + _first_call(order.call_of(value).layer), output]
        if isinstance(value, dict):
            return {key: end(item) for key, item in value.items()}
        return _like(value, [end(item) for item in value])

    def argument(value: Any) -> Any:
        if isinstance(value, KerasTensor):
            place = {"shape": value.shape, "dtype": value.dtype, "keras_history": history(value)}
            return {"class_name": "__keras_tensor__", "config": place}
        if isinstance(value, slice):
            parts = {"start": value.start, "stop": value.stop, "step": value.step}
            return {"class_name": "__slice__", "config": parts}
        if value is Ellipsis:
            return {"class_name": "__ellipsis__", "config": {}}
        if isinstance(value, dict):
            return {key: argument(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [argument(item) for item in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise ValueError(
            f"The model can't be written as a configuration: a layer is called with {value!r} of type "
            f"{type(value).__name__}. Pass numbers instead, or store the value in a layer."
        )

    def call_config(call: Call) -> dict[str, Any]:
        return {"args": argument(list(call.args)), "kwargs": argument(call.kwargs)}

    calls: dict[int, list[Call]] = {}
    for call in sorted(order.calls, key=lambda call: call.index):
        calls.setdefault(id(call.layer), []).append(call)
    layers = [
        {
            **layer_config(layer),
            "name": layer.name,
            "inbound_nodes": [call_config(call) for call in calls[id(layer)] if call.sources],
        }
        for layer in order.layers
    ]
    return {"layers": layers, "input_layers": end(inputs), "output_layers": end(outputs)}


def graph_from_config(config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """Recreate the layers, and call them as recorded.

    Args:
        config: What `graph_to_config` returned, or Keras wrote.
        custom_objects: Your own layers, by class name.

    Returns:
        The symbolic inputs and outputs, nested as they were.

    Raises:
        ValueError: If calls depend on layers that are not in the configuration.
    """
    layers = {entry["name"]: layer_from_config(entry, custom_objects) for entry in config["layers"]}
    results: dict[str, list[Any]] = {name: [] for name in layers}
    waiting = {entry["name"]: list(entry["inbound_nodes"]) for entry in config["layers"]}
    for name, nodes in waiting.items():
        if not nodes:
            results[name].append(layers[name].output)

    def tensor(name: str, index: int, output: int) -> Any:
        return flatten(results[name][index])[output]

    def end(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: end(item) for key, item in value.items()}
        if len(value) == 3 and isinstance(value[0], str):
            return tensor(value[0], value[1] - _first_call(layers[value[0]]), value[2])
        return _like(value, [end(item) for item in value])

    while any(waiting.values()):
        moved = False
        for name, nodes in waiting.items():
            while nodes and _is_ready(nodes[0], results):
                args, kwargs = _arguments(nodes.pop(0), tensor)
                if isinstance(layers[name], Operation) and layers[name].kind == "GetItem" and isinstance(args[1], list):
                    args[1] = tuple(args[1])
                results[name].append(layers[name](*args, **kwargs))
                moved = True
        if not moved:
            stuck = ", ".join(name for name, nodes in waiting.items() if nodes)
            raise ValueError(f"The configuration has a loop, or calls of layers that are not in it: {stuck}.")
    return end(config["input_layers"]), end(config["output_layers"])


def _like(value: Any, parts: list[Any]) -> Any:
    return tuple(parts) if isinstance(value, tuple) else parts


def _first_call(layer: Any) -> int:
    return int(getattr(layer, "_graph", None) is not None)


def _arguments(node: Any, tensor: Any) -> tuple[list[Any], dict[str, Any]]:
    if isinstance(node, list):
        # Files of Keras 1 and 2 have a list of [layer, call, output, keyword arguments].
        tensors = [tensor(*item[:3]) for item in node]
        return [tensors[0] if len(tensors) == 1 else tensors], dict(node[0][3]) if len(node[0]) > 3 else {}

    def read(value: Any) -> Any:
        if isinstance(value, dict):
            kind, parts = value.get("class_name"), value.get("config", {})
            if kind == "__keras_tensor__":
                return tensor(*parts["keras_history"])
            if kind == "__slice__":
                return slice(parts["start"], parts["stop"], parts["step"])
            if kind == "__ellipsis__":
                return Ellipsis
            if kind == "__tuple__":
                return tuple(read(item) for item in value["config"])
            return {key: read(item) for key, item in value.items()}
        return [read(item) for item in value] if isinstance(value, (list, tuple)) else value

    kwargs = read(node["kwargs"])
    return read(node["args"]), {key: value for key, value in kwargs.items() if key != "mask" or value is not None}


def _is_ready(node: Any, results: dict[str, list[Any]]) -> bool:
    found: list[bool] = []

    def look(name: str, index: int, output: int) -> None:
        found.append(name in results and index < len(results[name]))

    _arguments(node, look)
    return all(found)
