"""The paths of layers in Keras's weight files, made of attribute and class names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from oncue import torch_private
from oncue.layers.foreign_layer import ForeignLayer
from oncue.layers.layer import Layer
from oncue.layers.own_arrays import besides_weights, saves_by_itself
from oncue.metrics.metric import Metric
from oncue.models import Model, Sequential
from oncue.naming import to_snake_case
from oncue.variable import Variable


@dataclass(frozen=True)
class Place:
    """One layer's own weights.

    Args:
        path: The group in the file; "" for the model itself.
        name: The layer's name, for messages.
        variables: The layer's weights, without those of nested layers.
        ignored: Whether the group may contain arrays that are not read.
        owner: The layer, if its class says itself what is saved; else None.
        keeper: The layer, if it keeps files beside its weights; else None.
    """

    path: str
    name: str
    variables: list[Variable]
    ignored: bool = False
    owner: Any = None
    keeper: Any = None

    @property
    def group(self) -> str:
        """The group of the arrays."""
        return f"{self.path}/vars" if self.path else "vars"


def places_of(model: torch.nn.Module, skipped: Iterable[Any] = ()) -> list[Place]:
    """Return the path of each layer of a model, as in Keras.

    Keras reaches the layers of a Sequential and of a functional model through `layers`, all others through the
    attributes of their owners in alphabetical order, private ones last; in a list or dict a layer is named by its class,
    numbered from the second one. Torch modules, which Keras doesn't know, are stored under their attributes likewise.

    Args:
        model: The model.
        skipped: Layers that are left out, with what is in them alone.

    Returns:
        The places, each layer once.

    Example:
        >>> from oncue import Sequential, layers
        >>> model = Sequential([layers.Input((2,)), layers.Dense(3), layers.Dense(1)])
        >>> [place.path for place in places_of(model)]
        ['', 'layers/dense', 'layers/dense_1']
    """
    return list(_walk(model, "", {id(one) for one in skipped}, set()))


def _walk(module: Any, path: str, modules: set[int], tensors: set[int]) -> Iterator[Place]:
    if id(module) in modules:
        return
    modules.add(id(module))
    if isinstance(module, ForeignLayer):
        if id(module.inside) in modules:
            return
        for part in module.saved_parts():
            below = "/".join(filter(None, (path, part.path)))
            yield Place(below, part.name, part.variables, owner=part.owner, keeper=part.keeper)
        return
    owner = module if isinstance(module, Layer) and saves_by_itself(module) else None
    keeper = module if isinstance(module, Layer) and type(module).save_assets is not Layer.save_assets else None
    label = str(getattr(module, "name", type(module).__name__))
    yield Place(path, label, _own(module, tensors), owner=owner, keeper=keeper)
    for name, child in _children(module):
        below = f"{path}/{name}" if path else name
        if isinstance(child, torch.nn.Module):
            yield from _walk(child, below, modules, tensors)
        elif isinstance(child, Metric):
            yield Place(below, child.name, [], ignored=True)
        else:
            yield from _container(child, below, modules, tensors)


def refuse_own_arrays(module: torch.nn.Module, ending: str) -> None:
    """Refuse a module whose layers save more than weights, for a format that holds only these.

    Args:
        module: Any torch module.
        ending: That of the format's files.

    Raises:
        ValueError: When there is such a layer.
    """
    for part in module.modules():
        own = besides_weights(part) if isinstance(part, Layer) and saves_by_itself(part) else {}
        if own:
            raise ValueError(
                f"'{part.name}' can't be kept in a {ending} file, which holds only weights: "
                f"`{type(part).__name__}.save_own_variables` also saves {', '.join(map(repr, own))}. Name the file "
                "'model.weights.h5', or, for a whole model, 'model.keras'."
            )


def _container(items: Any, path: str, modules: set[int], tensors: set[int]) -> Iterator[Place]:
    used: dict[str, int] = {}

    def unique(name: str) -> str:
        used[name] = used.get(name, -1) + 1
        return f"{path}/{name}_{used[name]}" if used[name] else f"{path}/{name}"

    for item in items.values() if isinstance(items, dict) else items:
        if isinstance(item, torch.nn.Module):
            yield from _walk(item, unique(_class_name(item)), modules, tensors)
        elif isinstance(item, (list, tuple, dict)):
            yield from _container(item, unique("container"), modules, tensors)


def _class_name(module: torch.nn.Module) -> str:
    name = module.kind if isinstance(module, ForeignLayer) else type(module).__name__
    if name == "Model" and isinstance(module, Model) and module._graph is not None:
        name = "Functional"
    return to_snake_case(name)


def _children(module: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(module, Layer):
        yield from module.named_children()
        return
    if isinstance(module, Sequential) or (isinstance(module, Model) and module._graph is not None):
        yield "layers", module.layers
    found: dict[str, Any] = dict(torch_private.children_of(module))
    for name, value in module.__dict__.items():
        if name not in _INTERNAL and (isinstance(value, Metric) or _holds_modules(value)):
            found[name] = value
    # "~" sorts after all letters, so private attributes come last.
    for name in sorted(found, key=lambda name: f"~{name}" if name.startswith("_") else name):
        if found[name] is not None:
            yield name, found[name]


_INTERNAL = {"_made_with", "_modules", "_parameters", "_buffers", "_variables", "_tensors", "_symbolic", "_graph"}


def _holds_modules(value: Any, depth: int = 0) -> bool:
    if not isinstance(value, (list, tuple, dict)) or depth > 8:
        return False
    items = value.values() if isinstance(value, dict) else value
    return any(isinstance(item, torch.nn.Module) or _holds_modules(item, depth + 1) for item in items)


def _own(module: torch.nn.Module, tensors: set[int]) -> list[Variable]:
    """Return the weights of a module itself, trainable ones first, in the order of their creation."""
    table: dict[str, Variable] = module._variables if isinstance(module, Layer) else {}
    own: list[Variable] = []
    for attribute in torch_private.own_tensors(module):
        tensor = getattr(module, attribute)
        if isinstance(tensor, Variable):
            tensor = tensor.stored
        if tensor is None or id(tensor) in tensors:
            continue
        tensors.add(id(tensor))
        own.append(table[attribute] if attribute in table else Variable.of(module, attribute))
    return own
