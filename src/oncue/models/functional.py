"""Graph: the layers of a functional model, and the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oncue.layers.input_layer import InputLayer
from oncue.layers.keras_tensor import KerasTensor
from oncue.layers.operation import Operation
from oncue.models.feed import Feed
from oncue.models.graph_order import Order
from oncue.nested import flatten, map_leaves


@dataclass(frozen=True, slots=True)
class _Reference:
    """Stands for a symbolic tensor in a pickled or copied graph."""

    call: int
    output: int


# Reads an argument from the slots: a single slot, several, or a nested structure with slots in it.
_Read = Callable[[list[Any]], Any]


class Graph:
    """The calls between symbolic inputs and outputs, as a plan of steps that read and write numbered slots.

    Args:
        inputs: Outputs of `Input`, or intermediate tensors of another model; nested in lists, tuples and dicts.
        outputs: Outputs of layers, nested.

    Raises:
        ValueError: If anything else is among them, an input is missing or appears twice, or two layers share a name.

    Example:
        >>> from oncue import layers
        >>> import torch
        >>> x = layers.Input((2,), name="x")
        >>> graph = Graph(x, [x, layers.Activation("relu")(x)])
        >>> graph(-torch.ones(1, 2))
        [tensor([[-1., -1.]]), tensor([[0., 0.]])]
    """

    def __init__(self, inputs: Any, outputs: Any) -> None:
        self._trace(inputs, outputs)

    def _trace(self, inputs: Any, outputs: Any) -> None:
        self.input_structure, self.output_structure = inputs, outputs
        # As in Keras, a single output in a list is returned without the list.
        alone = isinstance(outputs, (list, tuple)) and len(outputs) == 1
        self.result_structure = outputs[0] if alone else outputs
        self.inputs, self.outputs = _symbolic("inputs", inputs), _symbolic("outputs", outputs)
        if len({id(tensor) for tensor in self.inputs}) != len(self.inputs):
            raise ValueError(f"`inputs` has the same tensor twice: {self.inputs!r}. List each input once.")
        self.order = Order(self.inputs, self.outputs)
        self.operations = self.order.layers
        self.all_layers = [layer for layer in self.operations if not isinstance(layer, Operation)]
        self.layers = [layer for layer in self.all_layers if not isinstance(layer, InputLayer)]
        self.output_names = [self.order.call_of(tensor).layer.name for tensor in self.outputs]
        self._plan()

    def _plan(self) -> None:
        slots = {(id(self.order.call_of(tensor)), 0): slot for slot, tensor in enumerate(self.inputs)}
        used: dict[int, set[int]] = {}
        for tensor in [*self.outputs, *(source for call in self.order.calls for source in call.sources)]:
            used.setdefault(id(self.order.call_of(tensor)), set()).add(tensor.output_index)
        self._steps: list[tuple[Any, list[_Read] | int, dict[str, _Read], Any]] = []
        inputs = {id(self.order.call_of(tensor)) for tensor in self.inputs}
        for call in self.order.calls:
            if id(call) in inputs:
                continue
            args, kwargs = [self._reader(arg, slots) for arg in call.args], {}
            for name, value in call.kwargs.items():
                kwargs[name] = self._reader(value, slots)
            wanted = sorted(used[id(call)])
            for index in wanted:
                slots[id(call), index] = len(slots)
            writes = [(index, slots[id(call), index]) for index in wanted]
            run = call.layer.call if isinstance(call.layer, Operation) else call.layer
            if call.gives_one and not kwargs and len(args) == 1 and isinstance(args[0], _Slot):
                self._steps.append((run, args[0].slot, {}, writes[0][1]))
            else:
                self._steps.append((run, args, kwargs, writes[0][1] if call.gives_one else writes))
        self._size = len(slots)
        self._result = self._reader(self.result_structure, slots)
        optional = frozenset(
            tensor.name for tensor in self.inputs if getattr(self.order.call_of(tensor).layer, "optional", False)
        )
        self._feed = Feed(self.input_structure, optional)

    def _reader(self, arg: Any, slots: dict[tuple[int, int], int]) -> _Read:
        def slot_of(tensor: KerasTensor) -> int:
            return slots[id(self.order.call_of(tensor)), tensor.output_index]

        if isinstance(arg, KerasTensor):
            return _Slot(slot_of(arg))
        # A named tuple keeps its names.
        if type(arg) in (list, tuple) and arg and all(isinstance(item, KerasTensor) for item in arg):
            return _Slots([slot_of(item) for item in arg], isinstance(arg, tuple))
        return _Nested(map_leaves(lambda leaf: _Slot(slot_of(leaf)) if isinstance(leaf, KerasTensor) else leaf, arg))

    def __call__(self, inputs: Any) -> Any:
        """Run the layers.

        Args:
            inputs: A tensor, tensors nested like the model's inputs, or a dict by input name.

        Returns:
            The outputs, nested as the model's author nested them.

        Raises:
            ValueError: If an input is missing or its shape doesn't match the model's.
        """
        slots = self._feed(inputs)
        slots += [None] * (self._size - len(slots))
        for run, args, kwargs, writes in self._steps:
            if isinstance(args, int):
                # The fast path for nearly all calls: one tensor in, one tensor out.
                slots[writes] = run(slots[args])
                continue
            outputs = run(*[read(slots) for read in args], **{name: read(slots) for name, read in kwargs.items()})
            if isinstance(writes, int):
                slots[writes] = outputs
            else:
                flat = flatten(outputs)
                for index, slot in writes:
                    slots[slot] = flat[index]
        return self._result(slots)

    def __getstate__(self) -> dict[str, Any]:
        # Symbolic tensors refer back from call to call, so copying them directly would recurse as deep as the model.
        number = {id(call): index for index, call in enumerate(self.order.calls)}
        tensors: dict[_Reference, tuple[Any, ...]] = {}

        def reference(leaf: Any) -> Any:
            if not isinstance(leaf, KerasTensor):
                return leaf
            key = _Reference(number[id(self.order.call_of(leaf))], leaf.output_index)
            tensors[key] = (leaf.shape, leaf.dtype, leaf.name, leaf.serial, leaf.is_alone)
            return key

        def without_tensors(value: Any) -> Any:
            return map_leaves(reference, value)

        return {
            "inputs": without_tensors(self.input_structure),
            "outputs": without_tensors(self.output_structure),
            "calls": [
                (call.layer, without_tensors(list(call.args)), without_tensors(call.kwargs))
                for call in self.order.calls
            ],
            "tensors": tensors,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        inputs = {leaf.call for leaf in flatten(state["inputs"])}
        made: dict[_Reference, KerasTensor] = {}

        outputs_of: dict[int, list[_Reference]] = {}
        for key in sorted(state["tensors"], key=lambda key: (key.call, key.output)):
            outputs_of.setdefault(key.call, []).append(key)

        def tensor(leaf: Any) -> Any:
            return made[leaf] if isinstance(leaf, _Reference) else leaf

        for index, (layer, args, kwargs) in enumerate(state["calls"]):
            mine = outputs_of.get(index, [])
            if index in inputs:
                made.update(dict.fromkeys(mine, layer.output))
                continue
            args = tuple(map_leaves(tensor, args))
            history = (layer, args, map_leaves(tensor, kwargs))
            for key in mine:
                shape, dtype, name, serial, is_alone = state["tensors"][key]
                made[key] = KerasTensor(shape, dtype, name, history)
                made[key].output_index, made[key].is_alone, made[key].serial = key.output, is_alone, serial
            outputs = [made[key] for key in mine]
            layer.__dict__["_symbolic"] = (
                args[0] if len(args) == 1 else list(args),
                outputs[0] if outputs[0].is_alone else outputs,
            )
        self._trace(map_leaves(tensor, state["inputs"]), map_leaves(tensor, state["outputs"]))

    @property
    def input_shape(self) -> Any:
        """The shape of the input, or a list of shapes."""
        return _shapes(self.inputs)

    @property
    def output_shape(self) -> Any:
        """The shape of the output, or a list of shapes."""
        return _shapes(self.outputs)


class _Slot:
    """Reads one slot."""

    __slots__ = ("slot",)

    def __init__(self, slot: int) -> None:
        self.slot = slot

    def __call__(self, slots: list[Any]) -> Any:
        return slots[self.slot]


class _Slots:
    """Reads several slots into a list or a tuple."""

    __slots__ = ("as_tuple", "slots")

    def __init__(self, slots: list[int], as_tuple: bool) -> None:
        self.slots, self.as_tuple = slots, as_tuple

    def __call__(self, slots: list[Any]) -> Any:
        values = [slots[slot] for slot in self.slots]
        return tuple(values) if self.as_tuple else values


class _Nested:
    """Reads a constant, or a nested structure that contains slots."""

    __slots__ = ("constant", "structure")

    def __init__(self, structure: Any) -> None:
        self.structure = structure
        self.constant = not any(isinstance(leaf, _Slot) for leaf in flatten(structure))

    def __call__(self, slots: list[Any]) -> Any:
        if self.constant:
            return self.structure
        return map_leaves(lambda leaf: slots[leaf.slot] if isinstance(leaf, _Slot) else leaf, self.structure)


def _symbolic(name: str, value: Any) -> list[KerasTensor]:
    leaves = flatten(value)
    wrong = next((leaf for leaf in leaves if not isinstance(leaf, KerasTensor)), None)
    if wrong is not None or not leaves:
        raise ValueError(
            f"`{name}` of a functional model must be outputs of `Input(shape)` or of layers, in lists, tuples or dicts; "
            f"got {value!r}."
        )
    return leaves


def _shapes(tensors: list[KerasTensor]) -> Any:
    return tensors[0].shape if len(tensors) == 1 else [tensor.shape for tensor in tensors]
