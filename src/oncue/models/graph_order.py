"""The calls of layers between symbolic inputs and outputs, in the order in which Keras lists and runs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from oncue.layers.input_layer import InputLayer
from oncue.layers.keras_tensor import KerasTensor
from oncue.nested import flatten


class Call:
    """One call of a layer on symbolic tensors; for an input, its InputLayer in the place of a call.

    Args:
        layer: The layer.
        args: The positional arguments, including symbolic tensors.
        kwargs: The keyword arguments.
        serial: A number that increases from call to call.
        gives_one: Whether the result is one tensor rather than a list or dict of several.

    Example:
        >>> Call(None, (), {}, 0).sources
        []
    """

    def __init__(
        self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], serial: int, gives_one: bool = True
    ) -> None:
        self.layer = layer
        self.gives_one = gives_one
        self.args = args
        self.kwargs = kwargs
        self.serial = serial
        self.index = 0
        self.sources = [leaf for leaf in flatten([list(args), kwargs]) if isinstance(leaf, KerasTensor)]


class Order:
    """Finds the calls that lead from inputs to outputs.

    Depths are counted from the outputs, as in Keras, so that layers and their weights come in the same order.

    Args:
        inputs: The symbolic inputs.
        outputs: The symbolic outputs.

    Raises:
        ValueError: If an output depends on an input that is not among the inputs, or two layers share a name.

    Example:
        >>> from oncue import layers
        >>> x = layers.Input((2,))
        >>> [type(layer).__name__ for layer in Order([x], [layers.Dense(1)(x)]).layers]
        ['InputLayer', 'Dense']
    """

    def __init__(self, inputs: Sequence[KerasTensor], outputs: Sequence[KerasTensor]) -> None:
        self._inputs = {id(tensor): Call(_input_layer(tensor), (), {}, tensor.serial) for tensor in inputs}
        self._calls: dict[int, Call] = {}
        self._met: dict[int, int] = {}
        self._finished: list[Call] = []
        for tensor in outputs:
            self._visit(tensor)
        self._sort(inputs)
        self._number_calls()
        repeated = [name for name, times in Counter(layer.name for layer in self.layers).items() if times > 1]
        if repeated:
            raise ValueError(
                f"All layers of a model need unique names; there is more than one called '{repeated[0]}'. Rename one "
                "with `name=`."
            )

    def call_of(self, tensor: KerasTensor) -> Call:
        """Return the call that produced a tensor."""
        known = self._inputs.get(id(tensor))
        return self._calls[id(tensor.history)] if known is None else known

    def _call_or_new(self, tensor: KerasTensor, wanted_by: Call | None) -> Call:
        known = self._inputs.get(id(tensor))
        if known is not None:
            return known
        if tensor.history is None:
            reader = "an output" if wanted_by is None else f"the layer '{wanted_by.layer.name}'"
            given = ", ".join(f"'{call.layer.name}'" for call in self._inputs.values())
            raise ValueError(
                f"The graph is disconnected: {reader} needs the input '{tensor.name}' of shape {tensor.shape}, which "
                f"is not among `inputs` ({given}). Add it to `inputs`."
            )
        key = id(tensor.history)
        if key not in self._calls:
            self._calls[key] = Call(*tensor.history, serial=tensor.serial, gives_one=tensor.is_alone)
        return self._calls[key]

    def _visit(self, output: KerasTensor) -> None:
        """Walk back from an output without recursion, since a deep model would exceed Python's recursion limit."""
        start = self._call_or_new(output, None)
        done = {id(call) for call in self._finished}
        if id(start) in done:
            return
        self._meet(start)
        stack = [(start, iter(start.sources))]
        while stack:
            call, sources = stack[-1]
            for tensor in sources:
                before = self._call_or_new(tensor, call)
                if id(before) not in done:
                    self._meet(before)
                    stack.append((before, iter(before.sources)))
                    break
            else:
                stack.pop()
                done.add(id(call))
                self._finished.append(call)

    def _meet(self, call: Call) -> None:
        self._met.setdefault(id(call.layer), len(self._met))

    def _sort(self, inputs: Sequence[KerasTensor]) -> None:
        call_depth: dict[int, int] = {}
        layer_depth: dict[int, int] = {}
        calls = {id(call): call for call in self._finished}
        layers: dict[int, Any] = {}
        for call in reversed(self._finished):
            depth = max(call_depth.get(id(call), 0), layer_depth.get(id(call.layer), 0))
            call_depth[id(call)] = layer_depth[id(call.layer)] = depth
            layers[id(call.layer)] = call.layer
            for tensor in call.sources:
                before = id(self.call_of(tensor))
                call_depth[before] = max(depth + 1, call_depth.get(before, 0))
        for tensor in inputs:
            call = self._inputs[id(tensor)]
            if id(call.layer) not in layers:
                layers[id(call.layer)] = call.layer
                calls[id(call)] = call
                call_depth[id(call)] = layer_depth[id(call.layer)] = 0
                self._met[id(call.layer)] = -1
        self.depths = sorted(call_depth.values(), reverse=True)
        self.calls = [calls[key] for key in sorted(call_depth, key=lambda key: -call_depth[key])]
        self.layers = [layers[key] for key in sorted(layers, key=lambda key: (-layer_depth[key], self._met[key]))]

    def _number_calls(self) -> None:
        counts: Counter[int] = Counter()
        for call in sorted(self.calls, key=lambda call: call.serial):
            call.index = counts[id(call.layer)]
            counts[id(call.layer)] += 1

    @property
    def is_chain(self) -> bool:
        """Whether every layer is called once, on the single output of the layer before it."""
        return (
            len(set(self.depths)) == len(self.depths)
            and all(len(call.sources) <= 1 for call in self.calls)
            and all(call.index == 0 for call in self.calls)
        )


def _input_layer(tensor: KerasTensor) -> InputLayer:
    known: InputLayer | None = getattr(tensor, "input_layer", None)
    if known is not None:
        return known
    # A model made of the later part of another one begins with an intermediate tensor.
    return InputLayer(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
