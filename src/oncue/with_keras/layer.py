"""KerasLayer: a layer of the real Keras in a model of oncue's layers."""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from oncue import naming
from oncue.core.allowance import count_numbers, numbers_left
from oncue.core.builtin import builtin
from oncue.keras_names import check_backend, names_of_keras
from oncue.layers.foreign_layer import ForeignLayer, SavedPart
from oncue.layers.keras_tensor import has_symbolic
from oncue.layers.layer import Layer
from oncue.layers.operation import Operation
from oncue.layers.real_keras import own_symbols
from oncue.nested import first_leaf
from oncue.saving.custom_objects import get_custom_objects
from oncue.seeded_mask import is_shared
from oncue.training.graph.replaced import being_traced
from oncue.variable import Variable
from oncue.with_keras import keras_private
from oncue.with_keras.safe_config import Allowance
from oncue.with_keras.tracing import draws_of_process, traceable

_known: weakref.WeakValueDictionary[int, KerasLayer] = weakref.WeakValueDictionary()
"""The layers by the `id` of the layer of Keras inside, which they hold."""

_operations: weakref.WeakValueDictionary[int, KerasOperation] = weakref.WeakValueDictionary()
"""The same of operations."""

_OWN = frozenset(("built", "training", "keras_layer", "input", "output"))


def _read(name: str) -> Any:
    return property(lambda layer: getattr(layer.keras_layer, name), doc=f"`{name}` of the layer of Keras.")


def _shared(name: str) -> Any:
    def read(layer: KerasLayer) -> Any:
        return getattr(layer.keras_layer, name)

    def assign(layer: KerasLayer, value: Any) -> None:
        setattr(layer.keras_layer, name, value)

    return property(read, assign, doc=f"`{name}` of the layer of Keras.")


@builtin
class KerasLayer(ForeignLayer):
    """A layer or a model of the real Keras as a layer of oncue's models.

    It is called as Keras calls it, and trained as Keras trains it: it is told whether it is trained, its losses are added,
    its regularizers and constraints count. Its weights are Keras's variables, whose tensors it shows as parameters. All
    that oncue's layers have no attribute for is asked of the layer inside.

    A layer of Keras has one such object; `of` gives it.

    Args:
        keras_layer: The layer of Keras.

    Raises:
        ValueError: When Keras has another backend than torch.
    """

    can_be_sharded = False
    _holds_layers = True
    _takes_several = True
    _ready = False

    name = _shared("name")
    dtype = _read("dtype")
    compute_dtype = _read("compute_dtype")
    variable_dtype = _read("variable_dtype")
    supports_masking = _read("supports_masking")

    @classmethod
    def of(cls, keras_layer: Any) -> KerasLayer:
        """Return the layer of oncue's for a layer of Keras: the one that it has, or a new one."""
        return _known.get(id(keras_layer)) or cls(keras_layer)

    def __init__(self, keras_layer: Any) -> None:
        check_backend()
        self.__dict__["keras_layer"] = keras_layer
        super().__init__()
        # Those are Keras's.
        del self.__dict__["autocast"], self.__dict__["activity_regularizer"]
        self.__dict__["_ready"] = True
        self._not_weights: frozenset[str] = frozenset()
        _known[id(keras_layer)] = self
        if keras_private.is_built(keras_layer):
            self._take_weights()

    # Weights ---------------------------------------------------------------------------------------------------------

    def _take_weights(self) -> None:
        """Keep the tensors of Keras's variables as parameters, so that all that asks for a module's finds them."""
        layer = self.keras_layer
        own = {id(variable) for variable in layer.weights}
        self._parameters.clear()
        self._variables.clear()
        self._regularizers.clear()
        rest = set()
        for variable in (*layer.variables, *keras_private.states_of_layers(layer)):
            name = variable.path.removeprefix(f"{layer.path}/").replace("/", ".")
            name = re.sub(r"(?<=\.variable)_\d+$", "", name)
            name = name if name not in self._parameters else f"{name}#{len(self._parameters)}"
            self._parameters[name] = variable.value
            if id(variable) not in own:
                rest.add(name)
                continue
            shown = Variable.of(self, name, name=name.replace(".", "/"))
            self._variables[name] = shown
            if variable.regularizer is not None:
                self._regularizers[name] = _penalty(variable)
            self._constrain(shown, variable.constraint)
        self._not_weights = frozenset(rest)
        self.built = True
        self._see_losses()
        self._note_device()

    def not_weights(self) -> frozenset[str]:
        """Return the names of the parameters that are counts of draws and the like."""
        return self._not_weights

    def freeze(self, value: bool) -> None:
        """Set whether the weights are trained, and leave those alone that never are."""
        self.keras_layer.trainable = not value

    @property
    def _trainable(self) -> bool:
        trainable: bool = self.keras_layer.trainable
        return trainable

    @_trainable.setter
    def _trainable(self, value: bool) -> None:
        # Layers of oncue are made trainable, and one of Keras's is what it was.
        return

    def build(self, input_shape: Any) -> None:
        """Make the weights, for inputs of Keras's default type."""
        with self._building():
            keras_private.build_layer(self.keras_layer, input_shape)
        self._take_weights()

    # Calling ---------------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer of Keras on tensors, arrays, or symbolic tensors."""
        if has_symbolic(args) or has_symbolic(kwargs):
            return self.symbolic_call(*args, **kwargs)
        if self._may_add_losses and not self._in_pass:
            return self._call_alone(args, kwargs)
        return torch.nn.Module.__call__(self, *args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer of Keras, in the mode that this one is in."""
        layer = self.keras_layer
        if kwargs.get("training") is None:
            kwargs["training"] = self.training
        losses = self._may_add_losses or not self.built
        if losses:
            keras_private.clear_losses(layer)
        traced = being_traced(first_leaf([args, kwargs]))
        with traceable() if traced else draws_of_process() if is_shared() else nullcontext():
            outputs = layer(*args, **kwargs)
        if not self.built:
            self._take_weights()
        if losses:
            for loss in keras_private.added_losses(layer):
                self.add_loss(loss.sum())
        return outputs

    def symbolic_call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the layer of Keras on symbolic tensors, and return those of oncue."""
        with self._building():
            outputs = own_symbols(self.keras_layer(*args, **kwargs))
        self._take_weights()
        return outputs

    @contextmanager
    def _building(self) -> Iterator[None]:
        """Refuse weights that a file doesn't account for, before and after there is memory for them."""
        left = numbers_left()
        if left is None or self.built:
            yield
            return
        with Allowance(left, "the file"):
            yield
        for variable in self.keras_layer.weights:
            count_numbers(tuple(variable.shape))

    def note_ends(self, args: tuple[Any, ...], outputs: list[Any]) -> None:
        """Note the symbolic tensors of a call, for `input` and `output`."""
        self.__dict__["_symbolic"] = (
            args[0] if len(args) == 1 else list(args),
            outputs[0] if len(outputs) == 1 else outputs,
        )
        if not self.built:
            self._take_weights()

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the output for an input of a given shape."""
        return self.keras_layer.compute_output_shape(input_shape)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return the mask of the output."""
        return self.keras_layer.compute_mask(inputs, previous_mask)

    # Copies, configuration and files -----------------------------------------------------------------------------------

    @property  # type: ignore[misc]  # what `isinstance` asks besides the type
    def __class__(self) -> type:
        return type(self.keras_layer)

    @property
    def inside(self) -> Any:
        """The layer of Keras."""
        return self.keras_layer

    @property
    def kind(self) -> str:
        """The name of the class of Keras."""
        return type(self.keras_layer).__name__

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate the layer of Keras."""
        config: dict[str, Any] = _in_terms_of_keras(self.keras_layer.get_config())
        return config

    def written(self) -> dict[str, Any]:
        """Return what Keras writes of the layer, with the names that functions of the user's are registered under."""
        import keras

        for label, thing in get_custom_objects().items():
            package, _, name = label.rpartition(">")
            if package and inspect.isfunction(thing) and keras.saving.get_registered_name(thing) != label:
                keras.saving.register_keras_serializable(package, name)(thing)
        config: dict[str, Any] = _in_terms_of_keras(keras.saving.serialize_keras_object(self.keras_layer))
        return config

    def again(self) -> KerasLayer:
        """Return a new layer of the same configuration."""
        return KerasLayer.of(type(self.keras_layer).from_config(self.keras_layer.get_config()))

    def saved_parts(self) -> Iterator[SavedPart]:
        """Yield the layer of Keras, and those inside."""
        table = {id(self._parameters[name]): variable for name, variable in self._variables.items()}
        for path, part in keras_private.saved_parts(self.keras_layer):
            store: dict[str, Any] = {}
            part.save_own_variables(store)
            values = [table.get(id(getattr(value, "value", None))) for value in store.values()]
            known = [variable for variable in values if variable is not None]
            plain = len(known) == len(values) and list(store) == [str(index) for index in range(len(values))]
            keeper = part if keras_private.has_assets(part) else None
            yield SavedPart(path, part.name, known, owner=None if plain else OwnStore(part), keeper=keeper)

    def parts_with_settings(self) -> Iterator[tuple[str, Any]]:
        """Yield the layer of Keras and those inside, then their variables."""
        for layer in keras_private.layers_of(self.keras_layer):
            yield (layer.path or layer.name).replace("/", "."), layer
        # After the layers, whose `trainable` changes that of their variables.
        for variable in self.keras_layer.variables:
            yield variable.path.replace("/", "."), variable

    def __reduce__(self) -> tuple[Any, ...]:
        return KerasLayer.of, (self.keras_layer,)

    # Attributes --------------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__" or "keras_layer" not in self.__dict__:
            return super().__getattr__(name)
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.keras_layer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute: of the layer of Keras, where oncue's layers have none of that name."""
        if not self._ready or name[:1] == "_" or name in _OWN or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            setattr(self.keras_layer, name, value)
            self._see_losses()

    def train(self, mode: bool = True) -> KerasLayer:
        """Put the layer in training or inference mode, and see whether it may add losses by now."""
        super().train(mode)
        self._see_losses()
        return self

    def _see_losses(self) -> None:
        if self.built and not self._may_add_losses and keras_private.may_add_losses(self.keras_layer):
            self.__dict__["_may_add_losses"] = True


def _in_terms_of_keras(config: Any) -> Any:
    """Return a configuration with oncue's initializers, regularizers and the like as Keras's of the same names."""
    if isinstance(config, (list, tuple)):
        return type(config)(map(_in_terms_of_keras, config))
    if not isinstance(config, dict):
        return config
    config = {key: _in_terms_of_keras(value) for key, value in config.items()}
    package, *rooms = str(config.get("module")).split(".")
    if package == "oncue" and rooms and config.get("class_name") in names_of_keras(f"oncue.{rooms[0]}"):
        config = {**config, "module": f"keras.{rooms[0]}", "registered_name": None}
    return config


class OwnStore:
    """A layer of Keras that saves more than its weights, or saves them under names of its own.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self.name: str = layer.name

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Put what the layer saves into a store, as tensors and arrays."""
        found: dict[str, Any] = {}
        self._layer.save_own_variables(found)
        store.update({name: getattr(value, "value", value) for name, value in found.items()})

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Let the layer load what it has saved."""
        self._layer.load_own_variables(store)
        keras_private.refresh(self._layer)


def _penalty(variable: Any) -> Any:
    def penalty(tensor: torch.Tensor) -> torch.Tensor:
        if not variable.trainable:
            return torch.zeros((), device=tensor.device)
        found: torch.Tensor = variable.regularizer(tensor)
        return found

    return penalty


@builtin
class KerasOperation(Operation):
    """A function of `keras.ops`, as a step of a model.

    Args:
        operation: The operation that Keras has noted.
    """

    operation: Any

    def __init__(self, operation: Any) -> None:
        Layer.__init__(self, name=naming.auto_name(naming.to_snake_case(type(operation).__name__)))
        self.kind = type(operation).__name__
        self.autocast = False
        self.built = True
        self.__dict__["operation"] = operation
        _operations[id(operation)] = self

    @classmethod
    def of(cls, operation: Any) -> KerasOperation:
        """Return the step for an operation of Keras: the one that it has, or a new one."""
        return _operations.get(id(operation)) or cls(operation)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result."""
        return self.operation.call(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result of tensors, or note the step for symbolic ones."""
        if has_symbolic(args) or has_symbolic(kwargs):
            return self.symbolic_call(*args, **kwargs)
        return self.call(*args, **kwargs)

    def symbolic_call(self, *args: Any, **kwargs: Any) -> Any:
        """Note the step, and return the symbolic results."""
        return own_symbols(self.operation.symbolic_call(*args, **kwargs))

    def note_ends(self, args: tuple[Any, ...], outputs: list[Any]) -> None:
        """Note the symbolic tensors of a call."""
        self.__dict__["_symbolic"] = (args[0] if len(args) == 1 else list(args), outputs[0])

    def written(self) -> dict[str, Any]:
        """Return the configuration that makes it again, in Keras's form."""
        import keras

        config: dict[str, Any] = keras.saving.serialize_keras_object(self.operation)
        return {**config, "config": {**config["config"], "name": self.name}}

    def again(self) -> KerasOperation:
        """Return a new operation of the same configuration."""
        made = KerasOperation(type(self.operation).from_config(self.operation.get_config()))
        made.name = self.name
        return made

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate the operation."""
        config: dict[str, Any] = self.operation.get_config()
        return config
