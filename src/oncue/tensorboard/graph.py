"""A model's graph as the Graphs dashboard reads it: the JSON configuration of a functional Keras model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tensorboard.plugins.graph.keras_util import keras_model_to_graph_def
from torch import fx


@dataclass(frozen=True)
class Node:
    """A box of the graph.

    Args:
        name: Its name; slashes make it part of a larger box.
        kind: What it does, such as "Linear".
        sources: The names of the boxes whose results it takes.
        dtype: The type of its weights, such as "float32".
    """

    name: str
    kind: str
    sources: Sequence[str] = ()
    dtype: str | None = None


def graph_config(model: Any) -> str | None:
    """Return the graph of a model as JSON.

    A model that knows its own configuration (`to_json`, with layers) is shown by it; another torch module as `torch.fx`
    traces it, or as the tree of its modules, without arrows, when its `forward` can't be traced.

    Args:
        model: The model.

    Returns:
        The JSON text, or None when nothing is known of the model's inside.

    Example:
        >>> config = json.loads(graph_config(torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.ReLU())))
        >>> [layer["class_name"] for layer in config["config"]["layers"]]
        ['Placeholder', 'Linear', 'ReLU', 'Output']
    """
    own = _own_config(model)
    if own is not None:
        return own
    inside = getattr(model, "module", None)
    module = inside if isinstance(inside, torch.nn.Module) else model
    if not isinstance(module, torch.nn.Module):
        return None
    nodes = _of_fx(module) or _of_tree(module)
    return None if not nodes else _as_keras(str(getattr(model, "name", type(module).__name__)), nodes)


def graph_def(config: str) -> bytes | None:
    """Return the graph of a configuration as the dashboard's "op graph", which it shows first.

    Args:
        config: What `graph_config` returned.

    Returns:
        A serialized GraphDef, or None for a configuration that TensorBoard can't read.

    Example:
        >>> b"Linear" in graph_def(graph_config(torch.nn.Sequential(torch.nn.Linear(2, 1))))
        True
    """
    try:
        read = json.loads(config)
        graph = keras_model_to_graph_def(read)
        # Without a box around the whole model the page opens on its layers.
        around = f"{read['config']['name']}/"
    except Exception:  # TensorBoard's reader knows the usual models only
        return None
    for node in graph.node:
        node.op = node.attr["keras_class"].s.decode()
        node.name = node.name.removeprefix(around)
        node.input[:] = [source.removeprefix(around) for source in node.input]
    serialized: bytes = graph.SerializeToString()
    return serialized


def _own_config(model: Any) -> str | None:
    try:
        config = json.loads(model.to_json())
        return json.dumps(config) if config["config"]["layers"] else None
    except Exception:  # a user's layer may fail in any way here, and the graph is only a picture
        return None


def _as_keras(name: str, nodes: Sequence[Node]) -> str:
    layers = [
        {
            "class_name": node.kind,
            "config": {"name": node.name} | ({} if node.dtype is None else {"dtype": node.dtype}),
            "inbound_nodes": [{"args": [[_history(source) for source in node.sources]], "kwargs": {}}]
            if node.sources
            else [],
        }
        for node in nodes
    ]
    return json.dumps({"class_name": "Functional", "config": {"name": name, "layers": layers}})


def _history(source: str) -> dict[str, Any]:
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [source, 0, 0]}}


# By torch.fx ---------------------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: torch.nn.Module, module_qualified_name: str) -> bool:
        return not list(m.children()) or super().is_leaf_module(m, module_qualified_name)


def _of_fx(module: torch.nn.Module) -> list[Node] | None:
    try:
        with _put_back(module), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = _Tracer().trace(module)
    except Exception:  # whatever a `forward` does with values that it can't look at
        return None
    modules = dict(module.named_modules())
    names: dict[fx.Node, str] = {}
    called: set[str] = set()
    nodes: list[Node] = []
    for node in graph.nodes:
        owner = modules.get(str(node.target)) if node.op == "call_module" else None
        if owner is not None:
            path = str(node.target).replace(".", "/")
            # A module that is called twice has two boxes.
            name = path if path not in called else f"{path}/{node.name}"
            called.add(path)
            kind, dtype = type(owner).__name__, _dtype(owner)
        else:
            scope = _scope(node)
            name = f"{scope}/{node.name}" if scope else node.name
            kind, dtype = _kind(node), None
        names[node] = name
        nodes.append(Node(name, kind, [names[source] for source in node.all_input_nodes], dtype))
    return nodes


def _kind(node: fx.Node) -> str:
    if node.op in ("call_function", "call_method"):
        return getattr(node.target, "__name__", str(node.target))
    return {"placeholder": "Placeholder", "output": "Output", "get_attr": "Parameter"}.get(node.op, node.op)


def _scope(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values()]
    return str(paths[-1]).replace(".", "/") if paths else ""


@contextmanager
def _put_back(module: torch.nn.Module) -> Iterator[None]:
    """Undo what a traced `forward` leaves behind in its modules: states, lists of losses, counters."""
    kept = []
    for part in module.modules():
        inside = {
            key: type(value)(value)
            for key, value in part.__dict__.items()
            if isinstance(value, (list, dict, set)) and type(value) in (list, dict, set)
        }
        kept.append((part, dict(part.__dict__), inside))
    try:
        yield
    finally:
        for part, attributes, inside in kept:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            for key, copy in inside.items():
                held: Any = attributes[key]
                held.clear()
                if isinstance(held, list):
                    held.extend(copy)
                else:
                    held.update(copy)


# By modules ----------------------------------------------------------------------------------------------------------


def _of_tree(module: torch.nn.Module) -> list[Node]:
    return [
        Node(name.replace(".", "/") or type(module).__name__, type(part).__name__, (), _dtype(part))
        for name, part in module.named_modules()
        if not list(part.children())
    ]


def _dtype(module: torch.nn.Module) -> str | None:
    parameter = next(module.parameters(), None)
    return None if parameter is None else str(parameter.dtype).removeprefix("torch.")
