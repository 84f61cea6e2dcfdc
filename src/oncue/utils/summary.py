"""`print_summary`: a model's layers as a table that looks like Keras's."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from oncue.core import console
from oncue.layers.foreign_layer import ForeignLayer
from oncue.layers.input_layer import InputLayer
from oncue.layers.layer import Layer, variables_of
from oncue.layers.operation import Operation
from oncue.nested import map_leaves

# Keras's maximum widths, and its column ends as fractions of the width.
_Look = tuple[int, tuple[float, ...], tuple[str, ...]]
_PLAIN: _Look = (88, (0.45, 0.80, 1.0), ("Layer (type)", "Output Shape", "Param #"))
_GRAPH: _Look = (108, (0.3, 0.56, 0.74, 1.0), ("Layer (type)", "Output Shape", "Param #", "Connected to"))
_TRAINABLE_WIDTH = 12
_LEAST_COLUMN = 4


def print_summary(
    model: Any,
    line_length: int | None = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> None:
    """Print a table of a model's layers, their output shapes and parameter counts.

    Args:
        model: An oncue model.
        line_length: The width of the table in characters. Default: 88 (108 unless the model is a chain of layers; 12
            more with `show_trainable`), limited to the terminal's width; 76 if stdout is not a terminal.
        print_fn: A function that is called with the whole text; None (default) prints to stdout.
        expand_nested: Whether to list nested layers too.
        show_trainable: Whether to add a column that says if a layer is trained.
        layer_range: The names of the first and the last layer to list; regular expressions that match from the start.

    Raises:
        ValueError: If `layer_range` is not a pair of names or matches no layer, or `line_length` is too small.

    Example:
        >>> from oncue import Sequential, layers
        >>> model = Sequential([layers.Input((2,)), layers.Dense(3, name="d")], name="small")
        >>> print_summary(model, print_fn=lambda text: print(text.splitlines()[-3]))
         Total params: 9 (36.00 B)
    """
    rows = _Rows(model, expand_nested, show_trainable, plain=print_fn is None and not console.can_encode("┏└…"))
    width, ends, header = _PLAIN if rows.connections is None else _GRAPH
    if show_trainable:
        width += _TRAINABLE_WIDTH
        ends, header = (*(end * 0.9 for end in ends), 1.0), (*header, "Trainable")
    room = console.columns() if print_fn is None and console.can_redraw() else 80
    width = min(width, room - 4) if line_length is None else line_length
    table = Table(
        *_columns(header, ends, width, fold=rows.plain),
        width=width,
        show_lines=True,
        box=box.ASCII_DOUBLE_HEAD if rows.plain else box.HEAVY_HEAD,
    )
    layers = rows.top()
    first, last = _range([name for name, _ in layers], layer_range)
    for name, layer in layers[first:last]:
        for row in rows.of(name, layer):
            table.add_row(*row)

    colour = print_fn is None and console.has_colour()
    screen = Console(
        file=io.StringIO(),
        width=max(width, 80),
        highlight=False,
        force_terminal=colour,
        color_system="256" if colour else None,
        force_jupyter=False,
        legacy_windows=False,
    )
    screen.print(f'[bold]Model: "{escape(model.name)}"[/]', soft_wrap=True)
    screen.print(table)
    for line in _totals(model):
        screen.print(line, soft_wrap=True)
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    if print_fn is None:
        console.print_message(text, line_break=False)
    else:
        print_fn(text)


class _Rows:
    """The cells of the table, with rich's colour markup."""

    def __init__(self, model: Any, expand_nested: bool, show_trainable: bool, plain: bool) -> None:
        self.model, self.expand_nested, self.show_trainable, self.plain = model, expand_nested, show_trainable, plain
        graph = model._graph
        self.connections = None if graph is None or graph.order.is_chain else _connections(graph)

    def top(self) -> list[tuple[str, Any]]:
        if self.model._graph is not None:
            return [(layer.name, layer) for layer in self.model._graph.operations]
        found = list(_inside(self.model))
        module = self.model.module
        return found if found or module is None else [(type(module).__name__.lower(), module)]

    def of(self, name: str, layer: Any, level: int = 0) -> Iterator[list[str]]:
        prefix = "   " * level + ("- " if self.plain else "└ ") if level else ""
        kind = _kind(layer)
        cells = [f"{escape(prefix + name)} ([color(33)]{escape(kind)}[/])", self._shape(layer), _parameters(layer)]
        if self.connections is not None:
            cells.append(self.connections.get(id(layer)) or "-")
        if self.show_trainable:
            cells.append(_trained(layer))
        yield cells
        if self.expand_nested:
            for inner_name, inner in _inside(layer):
                yield from self.of(inner_name, inner, level + 1)

    def _shape(self, layer: Any) -> str:
        symbols = _symbolic_output(self.model, layer)
        if symbols is not None:
            return _written(map_leaves(lambda tensor: tensor.shape, symbols))
        if not isinstance(layer, Layer) or not layer.built:
            return "?"
        try:
            if hasattr(layer, "output_shape"):
                return _written(layer.output_shape)
            shape = layer.__dict__.get("_built_for")
            # A layer that doesn't define its output shape would have to be run to know it.
            if shape is not None and type(layer).compute_output_shape is not Layer.compute_output_shape:
                return _written(layer.compute_output_shape(shape))
        except (NotImplementedError, TypeError, ValueError, IndexError):
            pass
        return "?"


def _kind(layer: Any) -> str:
    if isinstance(layer, (ForeignLayer, Operation)):
        return layer.kind
    name = type(layer).__name__
    # Keras's name for a model made of symbolic tensors, though the user writes `Model`.
    return "Functional" if name == "Model" and getattr(layer, "_graph", None) is not None else name


def _symbolic_output(model: Any, layer: Any) -> Any:
    ends = layer.__dict__.get("_symbolic")
    if ends is not None:
        return ends[1]
    if isinstance(layer, InputLayer):
        return layer.output
    for tensor in model.__dict__.get("_tensors", [])[1:]:
        history = getattr(tensor, "history", None)
        if history is not None and getattr(history[0], "module", None) is layer:
            return tensor
    return None


def _inside(layer: Any) -> list[tuple[str, Any]]:
    """Return the layers inside a model or a torch module, with their names."""
    if isinstance(layer, Layer) and hasattr(layer, "layers"):
        name_of = getattr(layer, "_layer_name", lambda inner: inner.name)
        held: Any = layer.layers
        return [(name_of(inner), inner) for inner in held]
    return [] if isinstance(layer, Layer) else list(layer.named_children())


def _connections(graph: Any) -> dict[int, str]:
    """Return what each layer reads: the other layer's name, and the indices of its call and output."""
    found: dict[int, list[str]] = {}
    for call in sorted(graph.order.calls, key=lambda call: call.index):
        for tensor in call.sources:
            source = graph.order.call_of(tensor)
            text = f"{escape(source.layer.name)}\\[{_number(source.index)}]\\[{_number(tensor.output_index)}]"
            found.setdefault(id(call.layer), []).append(text)
    return {key: ", ".join(texts) for key, texts in found.items()}


def _number(value: Any) -> str:
    return f"[color({45 if value is None else 34})]{value}[/]"


def _written(shapes: Any) -> str:
    if isinstance(shapes, dict):
        return "{" + ", ".join(f"{escape(str(key))}: {_written(shape)}" for key, shape in shapes.items()) + "}"
    if isinstance(shapes, tuple) and all(size is None or isinstance(size, int) for size in shapes):
        return f"({', '.join(map(_number, shapes))})"
    return "\\[" + ", ".join(map(_written, shapes)) + "]"


def _parameters(layer: Any) -> str:
    if isinstance(layer, Layer) and not layer.built:
        return f"{_number(0)} (unbuilt)"
    tensors = _tensors(layer)
    if any(isinstance(tensor, (UninitializedParameter, UninitializedBuffer)) for tensor in tensors):
        return f"{_number(0)} (unbuilt)"
    return _number(f"{sum(tensor.numel() for tensor in tensors):,}")


def _tensors(layer: Any) -> list[torch.Tensor]:
    return [variable.stored for variable in (layer.weights if isinstance(layer, Layer) else variables_of(layer))]


def _trained(layer: Any) -> str:
    tensors = _tensors(layer)
    if not tensors:
        return "[bold]-[/]"
    trained = layer.trainable if isinstance(layer, Layer) else any(tensor.requires_grad for tensor in tensors)
    return "[bold][color(34)]Y[/][/]" if trained else "[bold][color(9)]N[/][/]"


def _columns(header: Sequence[str], ends: Sequence[float], width: int, fold: bool) -> Iterator[Column]:
    start = 0
    for name, end in zip(header, ends, strict=True):
        size = int(end * width) - start
        if size < _LEAST_COLUMN:
            raise ValueError(f"`line_length` of {width} leaves no room for the column {name!r}; use 60 or more.")
        start += size
        side = {"Param #": "right", "Trainable": "center"}.get(name, "left")
        # rich marks truncated text with a character that is not ASCII.
        yield Column(name, justify=side, width=size, overflow="fold" if fold else "ellipsis")  # type: ignore[arg-type]  # one of rich's words


def _range(names: Sequence[str], given: Sequence[str] | None) -> tuple[int, int]:
    if given is None:
        return 0, len(names)
    if isinstance(given, str) or len(given) != 2 or not all(isinstance(name, str) for name in given):
        raise ValueError(f"`layer_range` must be the names of the first and the last layer to list; got {given!r}.")
    found = []
    for pattern in given:
        indices = [index for index, name in enumerate(names) if re.match(pattern, name)]
        if not indices:
            raise ValueError(f"`layer_range`: no layer matches {pattern!r}. The layers are: {', '.join(names)}.")
        found.append(indices)
    starts, stops = found
    if min(starts) > max(stops):
        starts, stops = stops, starts
    return min(starts), max(stops) + 1


def _totals(model: Any) -> Iterator[str]:
    trained, fixed = (
        [weight.stored for weight in part] for part in (model.trainable_weights, model.non_trainable_weights)
    )
    kept: list[torch.Tensor] = []
    optimizer = model.optimizer
    has_state = model.compiled and optimizer is not None and getattr(optimizer, "built", False)
    if has_state:
        kept = [getattr(variable, "value", variable) for variable in optimizer.variables]
    yield _total("Total", [*trained, *fixed, *kept])
    yield _total("Trainable", trained)
    yield _total("Non-trainable", fixed)
    if has_state:
        yield _total("Optimizer", kept)


def _total(word: str, tensors: Sequence[torch.Tensor]) -> str:
    ready = [tensor for tensor in tensors if not isinstance(tensor, (UninitializedParameter, UninitializedBuffer))]
    numbers = sum(tensor.numel() for tensor in ready)
    size = float(sum(tensor.numel() * tensor.element_size() for tensor in ready))
    units = iter(("B", "KB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 1024:
        size, unit = size / 1024, next(units, "PB")
    return f"[bold] {word} params: [/]{_number(f'{numbers:,}')} ({size:.2f} {unit})"
