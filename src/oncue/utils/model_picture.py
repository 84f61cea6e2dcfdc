"""`plot_model`: a picture of a model's layers and of what goes where."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oncue.core.suggest import unknown
from oncue.layers.keras_tensor import KerasTensor
from oncue.layers.layer import Layer
from oncue.nested import flatten

_DIRECTIONS = ("TB", "LR", "BT", "RL")


@dataclass
class Box:
    """A layer in the picture.

    Args:
        lines: What is written in it.
        sources: Which boxes it gets its input from.
    """

    lines: list[str]
    sources: list[int] = field(default_factory=list)


class Dot:
    """The picture as text of Graphviz's language, which its program `dot` draws.

    Args:
        boxes: The layers.
        rankdir: The direction: "TB" from top to bottom, "LR" from left to right.
        dpi: Dots of an inch.

    Example:
        >>> print(Dot([Box(["a"]), Box(["b"], [0])]).to_string())
        digraph model {
          graph [rankdir=TB, dpi=200];
          node [shape=box, fontname=Helvetica];
          0 [label="a"];
          1 [label="b"];
          0 -> 1;
        }
    """

    def __init__(self, boxes: list[Box], rankdir: str = "TB", dpi: int | None = 200) -> None:
        self.boxes, self.rankdir, self.dpi = boxes, rankdir, dpi

    def to_string(self) -> str:
        """Return the text."""
        size = "" if self.dpi is None else f", dpi={int(self.dpi)}"
        lines = [f"graph [rankdir={self.rankdir}{size}];", "node [shape=box, fontname=Helvetica];"]
        for number, box in enumerate(self.boxes):
            label = "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in box.lines)
            lines.append(f'{number} [label="{label}"];')
        lines += [f"{source} -> {number};" for number, box in enumerate(self.boxes) for source in box.sources]
        return "\n".join(["digraph model {", *(f"  {line}" for line in lines), "}"])

    def create(self, prog: str = "dot", format: str = "png") -> bytes:
        """Return the picture as Graphviz draws it.

        Args:
            prog: The program.
            format: "png", "svg", "pdf".

        Raises:
            ImportError: Without Graphviz.
        """
        program = shutil.which(prog)
        if program is None:
            raise ImportError(
                f"Graphviz's program `{prog}` is not installed; run `apt-get install graphviz`, or `brew install graphviz`. "
                "`plot_model` draws by matplotlib without it."
            )
        drawn = subprocess.run(
            [program, f"-T{format}"], input=self.to_string().encode(), capture_output=True, check=False
        )
        if drawn.returncode != 0:
            raise ValueError(
                f"Graphviz could not draw the model as {format!r}: {drawn.stderr.decode(errors='replace')}"
            )
        return drawn.stdout


def model_to_dot(
    model: Any,
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int | None = 200,
    subgraph: bool = False,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: str = "ortho",
    **kwargs: Any,
) -> Dot:
    """Return a model's layers in the language of Graphviz.

    Args:
        model: The model.
        show_shapes: Whether to write the shapes of inputs and outputs.
        show_dtype: Whether to write their types.
        show_layer_names: Whether to write the names of layers.
        rankdir: The direction: "TB" from top to bottom, "LR" from left to right, "BT", "RL".
        expand_nested: Whether to list the layers of models inside.
        dpi: Dots of an inch.
        subgraph: Not needed.
        show_layer_activations: Whether to write activations.
        show_trainable: Whether to write what is trained.
        splines: Not needed.
        **kwargs: `layer_range`, which is not here.

    Returns:
        The text, which can be drawn.

    Raises:
        ValueError: For a model that isn't built, or another direction.

    Example:
        >>> from oncue import Sequential, layers
        >>> model = Sequential([layers.Input((2,)), layers.Dense(3, name="d")])
        >>> [box.lines for box in model_to_dot(model, show_shapes=True).boxes][-1]
        ['d (Dense)', '(None, 2) -> (None, 3)']
    """
    if rankdir not in _DIRECTIONS:
        raise unknown("`rankdir`", rankdir, _DIRECTIONS)
    if kwargs.get("layer_range") is not None:
        raise ValueError("`layer_range` is not here: the picture is of the whole model. `model.summary` takes it.")
    if not isinstance(model, Layer):
        raise ValueError(f"`plot_model` draws models; got {model!r} of type {type(model).__name__}.")
    if not model.built:
        raise ValueError(
            f"'{model.name}' isn't built, so that nothing is known of its shapes. Call it on data, or "
            "`model.build(input_shape)`."
        )

    def box(layer: Any, name: str, shapes: tuple[Any, Any] | None) -> list[str]:
        kind = getattr(layer, "kind", type(layer).__name__)
        lines = [f"{name} ({kind})" if show_layer_names else kind]
        activation = getattr(getattr(layer, "activation", None), "__name__", None)
        if show_layer_activations and activation is not None:
            lines[0] += f": {activation}"
        if show_shapes and shapes is not None:
            lines.append(
                f"{_written(shapes[0])} -> {_written(shapes[1])}" if shapes[0] is not None else _written(shapes[1])
            )
        if show_dtype:
            lines.append(str(getattr(layer, "compute_dtype", "")) or "?")
        if show_trainable:
            lines.append("trained" if getattr(layer, "trainable", True) else "not trained")
        if expand_nested:
            lines += [f"- {inner.name} ({type(inner).__name__})" for inner in getattr(layer, "layers", ())]
        return lines

    ends: list[Any] = list(getattr(model, "outputs", ()))
    if not ends:
        held: list[Any] = list(getattr(model, "layers", ())) or [model]
        return Dot(
            [Box(box(layer, getattr(layer, "name", type(layer).__name__), None)) for layer in held], rankdir, dpi
        )
    boxes: list[Box] = []
    places: dict[int, int] = {}
    for call in _calls(ends):
        places[call.key] = len(boxes)
        sources = list(dict.fromkeys(places[_key(tensor)] for tensor in call.sources))
        given = [tensor.shape for tensor in call.sources]
        made = [call.outputs[index].shape for index in sorted(call.outputs)]
        boxes.append(Box(box(call.layer, call.name, (_one(given), _one(made))), sources))
    return Dot(boxes, rankdir, dpi)


@dataclass
class _Call:
    """A call of a layer on symbolic tensors; of nothing for an input."""

    key: int
    layer: Any
    name: str
    sources: list[KerasTensor]
    outputs: dict[int, KerasTensor] = field(default_factory=dict)


def _key(tensor: KerasTensor) -> int:
    return id(tensor if tensor.history is None else tensor.history)


def _calls(ends: list[KerasTensor]) -> list[_Call]:
    """Return the calls that lead to some outputs, each behind those that it gets its input from."""
    found: dict[int, _Call] = {}
    waiting = [(tensor, False) for tensor in reversed(ends)]
    while waiting:
        tensor, sources_done = waiting.pop()
        key = _key(tensor)
        if key in found:
            found[key].outputs[tensor.output_index] = tensor
            continue
        history = tensor.history
        sources: list[KerasTensor] = []
        if history is not None:
            leaves = flatten([list(history[1]), history[2]])
            sources = [leaf for leaf in leaves if isinstance(leaf, KerasTensor)]
        if sources_done or not sources:
            layer: Any = _Input() if history is None else history[0]
            name = tensor.name if history is None else layer.name
            found[key] = _Call(key, layer, name, sources, {tensor.output_index: tensor})
        else:
            waiting += [(tensor, True), *((source, False) for source in reversed(sources))]
    return list(found.values())


class _Input:
    kind = "InputLayer"
    trainable = True


def plot_model(
    model: Any,
    to_file: str | os.PathLike[str] | None = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = True,
    rankdir: str = "TB",
    expand_nested: bool = False,
    dpi: int | None = 200,
    show_layer_activations: bool = False,
    show_trainable: bool = False,
    splines: str = "ortho",
    **kwargs: Any,
) -> Any:
    """Draw a model: by Graphviz where its program `dot` is installed, else by matplotlib.

    Args:
        model: The model.
        to_file: The picture's file; its ending chooses the format: ".png", ".svg", ".pdf", or ".dot" for the text.
        show_shapes: Whether to write the shapes of inputs and outputs.
        show_dtype: Whether to write their types.
        show_layer_names: Whether to write the names of layers.
        rankdir: The direction: "TB" from top to bottom, "LR" from left to right, "BT", "RL".
        expand_nested: Whether to list the layers of models inside.
        dpi: Dots of an inch.
        show_layer_activations: Whether to write activations.
        show_trainable: Whether to write what is trained.
        splines: Not needed.
        **kwargs: Arguments of older versions of Keras, which are not needed.

    Returns:
        The picture, in a notebook; else None.

    Raises:
        ImportError: With neither Graphviz nor matplotlib.
        ValueError: For a model that isn't built, or another direction.
    """
    dot = model_to_dot(
        model, show_shapes, show_dtype, show_layer_names, rankdir, expand_nested, dpi,
        show_layer_activations=show_layer_activations, show_trainable=show_trainable, **kwargs,
    )  # fmt: skip
    if to_file is None:
        return None
    path = Path(os.fspath(to_file))
    kind = path.suffix.removeprefix(".") or "png"
    path = path if path.suffix else path.with_suffix(".png")
    if kind == "dot":
        path.write_text(dot.to_string(), encoding="utf-8")
    elif shutil.which("dot") is not None:
        path.write_bytes(dot.create(format=kind))
    else:
        _drawn(dot).savefig(path, dpi=dpi or 200, bbox_inches="tight")
    notebook = sys.modules.get("IPython")
    if notebook is not None and notebook.get_ipython() is not None and kind in ("png", "jpg", "jpeg"):
        from IPython.display import Image

        return Image(filename=os.fspath(path))
    return None


def _one(shapes: list[Any]) -> Any:
    return None if not shapes else shapes[0] if len(shapes) == 1 else shapes


def _written(shapes: Any) -> str:
    return ", ".join(map(str, shapes)) if isinstance(shapes, list) else str(shapes)


def _drawn(dot: Dot) -> Any:
    """Draw the boxes by matplotlib: each below those that it gets its input from."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`plot_model` needs Graphviz's program `dot`, or matplotlib; run `pip install 'oncue[plot]'`."
        ) from error
    ranks: list[int] = []
    for number, box in enumerate(dot.boxes):
        # Without sources known, they stand below each other in their order.
        after = [ranks[source] + 1 for source in box.sources]
        alone = not any(one.sources for one in dot.boxes)
        ranks.append(max(after, default=number if alone else 0))
    rows: dict[int, list[int]] = {}
    for number, rank in enumerate(ranks):
        rows.setdefault(rank, []).append(number)
    widest = max(map(len, rows.values()))
    letters = max(len(line) for box in dot.boxes for line in box.lines)
    places = {number: (at - (len(row) - 1) / 2, -rank) for rank, row in rows.items() for at, number in enumerate(row)}
    across = dot.rankdir in ("LR", "RL")
    turned = -1 if dot.rankdir in ("BT", "RL") else 1
    width, height = max(2.0, letters * 0.11), 0.35 * max(len(box.lines) for box in dot.boxes) + 0.5
    size = (len(rows) * width, widest * height) if across else (widest * width, len(rows) * height)
    figure = Figure(figsize=(max(size[0], 2.0), max(size[1], 1.0)))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()

    def place(number: int) -> tuple[float, float]:
        x, y = places[number]
        return (-y * turned, x) if across else (x, y * turned)

    frame = {"boxstyle": "round", "facecolor": "white"}
    texts = [
        axes.text(*place(number), "\n".join(box.lines), ha="center", va="center", bbox=frame)
        for number, box in enumerate(dot.boxes)
    ]
    for number, box in enumerate(dot.boxes):
        for source in box.sources:
            ends = {"patchA": texts[source].get_bbox_patch(), "patchB": texts[number].get_bbox_patch()}
            axes.annotate("", place(number), place(source), arrowprops={"arrowstyle": "->", **ends})
    axes.set_xlim(*_margins([place(number)[0] for number in range(len(dot.boxes))]))
    axes.set_ylim(*_margins([place(number)[1] for number in range(len(dot.boxes))]))
    return figure


def _margins(values: list[float]) -> tuple[float, float]:
    return min(values) - 0.5, max(values) + 0.5
