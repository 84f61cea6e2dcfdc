"""Sequential: layers one after another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from oncue import naming
from oncue.core.builtin import builtin
from oncue.layers.embedding import Embedding
from oncue.layers.input_layer import InputLayer
from oncue.layers.keras_tensor import KerasTensor, symbols
from oncue.layers.layer import Layer
from oncue.layers.real_keras import adopted, own_symbols
from oncue.models.feed import Feed, in_kind
from oncue.models.graph_config import layer_config, layer_from_config
from oncue.models.model import Model
from oncue.models.module_call import check_module
from oncue.nested import first_leaf, flatten, is_nested, map_leaves
from oncue.variable import torch_dtype


@builtin
class Sequential(Model):
    """A model of layers one after another; oncue's layers and plain `torch.nn` modules may be mixed.

    Weights are created at once if the input shape is known (from a leading `Input(shape)`, or `input_shape=` or
    `input_dim=` of the first layer), otherwise on the first data.

    Args:
        layers: The layers.
        trainable: Whether the weights are updated in training.
        name: The model's name.
        **kwargs: `device` and `dtype`, as for `Model`.

    Raises:
        TypeError: If something isn't a layer.
        ValueError: If two layers have the same name.

    Example:
        >>> from oncue import layers
        >>> model = Sequential([layers.Input((4,)), torch.nn.Linear(4, 3), layers.Dense(2)])
        >>> model.output_shape, model.count_params()
        ((None, 2), 23)
    """

    def __init__(
        self,
        layers: Iterable[Any] | None = None,
        trainable: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, trainable=trainable, **kwargs)
        self._names: list[str] = []
        self._input: KerasTensor | None = None
        # The symbolic input, then the output of each layer; empty until the input shape is known.
        self._tensors: list[Any] = []
        self._know_input()
        if layers is not None:
            if isinstance(layers, torch.nn.Module) or not isinstance(layers, Iterable):
                layers = [layers]
            for layer in layers:
                self.add(layer)

    def add(self, layer: Any) -> None:
        """Add a layer at the end.

        Args:
            layer: An oncue layer, a torch module, or an `Input` (only first).

        Raises:
            TypeError: If it isn't a layer.
            ValueError: If there is a layer of the same name already, or for an `Input` that doesn't come first.
        """
        layer = adopted(own_symbols(layer))
        source = _input_of(layer)
        if source is not None:
            if self._names or self._input is not None:
                raise ValueError("An `Input` must come first in a Sequential model.")
            self._input, self._tensors = source, [source]
            self._know_input()
            return
        if not isinstance(layer, torch.nn.Module):
            what = (
                f"the class {layer.__name__}; use `{layer.__name__}(...)`" if isinstance(layer, type) else repr(layer)
            )
            raise TypeError(f"A Sequential model takes layers and torch modules; got {what}.")
        check_module(layer, "Sequential")
        name = layer.name if isinstance(layer, Layer) else naming.auto_name(naming.to_snake_case(type(layer).__name__))
        if name in self._names:
            raise ValueError(f"All layers of a model need unique names; there are two called '{name}'.")
        if not self._names and self._input is None and isinstance(layer, Layer) and layer._input_shape_arg is not None:
            kind = "int32" if isinstance(layer, Embedding) else self.dtype
            self._input = InputLayer(batch_shape=layer._input_shape_arg, dtype=kind).output
            self._tensors = [self._input]
            self._know_input()
        if not self._names and self._input is None and isinstance(layer, Model) and len(layer._known_inputs()) == 1:
            known = layer._known_inputs()[0]
            self._input = InputLayer(batch_shape=known.shape, dtype=known.dtype).output
            self._tensors = [self._input]
            self._know_input()
        self._register(name, layer)
        self._names.append(name)
        if self._tensors:
            self._extend(layer)
        else:
            self.built = False

    def pop(self, rebuild: bool = True) -> Any:
        """Remove the last layer and return it.

        Raises:
            ValueError: If there is none.
        """
        if not self._names:
            raise ValueError("There is no layer to remove.")
        self._names.pop()
        _, layer = self._modules.popitem()
        self._layer_losses = None
        if self._tensors:
            self._tensors.pop()
            self.built = bool(self._names)
        return layer

    def build(self, input_shape: Any = None) -> None:
        """Create the weights for inputs of a given shape.

        Args:
            input_shape: The shape, including the batch axis (None); shapes in a list or a dict where the first layer takes
                several inputs.
        """
        if input_shape is None or self._tensors:
            self.built = bool(self._tensors)
            return
        first = next(iter(self._stack()), None)
        kind = "int32" if isinstance(first, Embedding) else self.dtype
        self._tensors = [_symbolic_inputs(input_shape, kind)]
        self._know_input()
        try:
            for layer in self._stack():
                self._extend(layer)
        except NotImplementedError:
            # A layer of the user's own doesn't say what it gives: it is built on the data.
            self._tensors = []
            self._know_input()
        self.built = True

    def _extend(self, layer: torch.nn.Module) -> None:
        before = self._tensors[-1]
        self._tensors.append(self._as_layer(layer).symbolic_call(before))
        self.built = True

    def _build_on(self, x: Any) -> None:
        if self._input is not None:
            # Check the first batch here: an error from a layer further down would be hard to understand.
            self._fitted(x, self._input)
        super()._build_on(x)

    def _only_input(self, inputs: Any) -> Any:
        """Return the tensor of a list of one, or of a dict by the input's name; what the first layer takes whole, as it is."""
        one = bool(self._tensors) and isinstance(self._tensors[0], KerasTensor)
        return self._fitted(inputs, self._tensors[0]) if one and is_nested(inputs) else inputs

    def _know_input(self) -> None:
        """Keep what each call looks at: the rank of an `Input`, and the type of a single input."""
        first = self._tensors[0] if self._tensors else None
        self._rank = None if self._input is None else len(self._input.shape)
        self._kind = torch_dtype(first.dtype) if isinstance(first, KerasTensor) else None

    @staticmethod
    def _fitted(inputs: Any, expected: KerasTensor) -> torch.Tensor:
        tensor: torch.Tensor = Feed(expected, frozenset())(inputs)[0]
        return tensor

    def __getstate__(self) -> dict[str, Any]:
        # Symbolic tensors refer back from layer to layer, so copying them directly would recurse as deep as the model.
        parts = [(map_leaves(lambda leaf: leaf.shape, tensor), first_leaf(tensor).dtype) for tensor in self._tensors]
        return {**super().__getstate__(), "_tensors": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's, without types
        parts, self._tensors = self._tensors, []
        if not parts:
            return
        shape, dtype = parts[0]
        self._tensors = [_symbolic_inputs(shape, dtype) if self._input is None else self._input]
        for layer, (shape, dtype) in zip(self._stack(), parts[1:], strict=True):
            before, known = self._tensors[-1], self._as_layer(layer)
            self._tensors.append(symbols(shape, dtype, (known, (before,), {})))
            known.__dict__["_symbolic"] = (before, self._tensors[-1])

    def _stack(self) -> list[torch.nn.Module]:
        return [module for module in self._modules.values() if module is not None]

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Run the layers one after another."""
        if type(inputs) is not torch.Tensor:
            inputs = self._only_input(inputs)
        elif self._rank is not None and inputs.dim() != self._rank:
            inputs = self._fitted(inputs, self._tensors[0])
        if self._kind is not None and inputs.dtype is not self._kind:
            inputs = in_kind(inputs, self._kind)
        for layer in self._modules.values():
            inputs = layer(inputs)  # type: ignore[misc]  # no layer of the stack is None
        return inputs

    @property
    def layers(self) -> list[Any]:
        """The layers, without the `Input`."""
        return self._stack()

    @layers.setter
    def layers(self, value: Any) -> None:
        raise AttributeError(
            "`Sequential.layers` attribute is reserved: it lists the layers that the model has. Use `add()` and `pop()` to "
            "change them."
        )

    def _layer_name(self, layer: torch.nn.Module) -> str:
        return next(name for name, module in zip(self._names, self._stack(), strict=True) if module is layer)

    def _as_layer(self, module: torch.nn.Module) -> Layer:
        """Return a torch module of the stack as a layer that can be called on symbolic tensors."""
        if isinstance(module, Layer):
            return module
        modes = [(part, part.training) for part in module.modules()]
        layer = Model(module, name=self._layer_name(module))
        layer.training = module.training
        for part, mode in modes:
            part.training = mode
        return layer

    @property
    def inputs(self) -> list[Any]:
        """The symbolic input.

        Raises:
            AttributeError: When its shape isn't known yet.
        """
        self._require_shape("inputs")
        return self._known_inputs()

    @property
    def outputs(self) -> list[Any]:
        """The symbolic outputs.

        Raises:
            AttributeError: When the input's shape isn't known yet.
        """
        self._require_shape("outputs")
        return flatten(self._tensors[-1:])

    def _known_inputs(self) -> list[Any]:
        return flatten(self._tensors[:1])

    def _require_shape(self, name: str) -> None:
        if not self._tensors:
            raise AttributeError(
                f"'{self.name}' has no `{name}` yet: the shape of its input isn't known. Begin with `Input(shape)`, or call "
                "`build(input_shape)`."
            )

    def _symbolic_end(self, name: str) -> Any:
        if self._tensors:
            return self._tensors[0 if name == "input" else -1]
        return super()._symbolic_end(name)

    @property
    def input_shape(self) -> Any:
        """The shape of the input, including the batch axis (None)."""
        if not self._tensors:
            raise AttributeError(f"'{self.name}' has not been built yet, so its input shape is unknown.")
        return map_leaves(lambda tensor: tensor.shape, self._tensors[0])

    @property
    def output_shape(self) -> Any:
        """The shape of the output, including the batch axis (None)."""
        if not self._tensors:
            raise AttributeError(f"'{self.name}' has not been built yet, so its output shape is unknown.")
        return map_leaves(lambda tensor: tensor.shape, self._tensors[-1])

    @property
    def output_names(self) -> list[str] | None:
        """The name of the last layer, which Keras gives to the output too."""
        return self._names[-1:] or None

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the output for an input of a given shape."""
        if self._tensors and input_shape in (self.input_shape, list(self.input_shape)):
            return self.output_shape
        shape = input_shape
        for layer in self._stack():
            shape = self._as_layer(layer).compute_output_shape(shape)
        return shape

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of this model, in Keras's format."""
        config: dict[str, Any] = {**Layer.get_config(self), "layers": []}
        if self._input is not None:
            config["layers"].append(layer_config(self._input_layer()))
        config["layers"] += [layer_config(self._as_layer(layer)) for layer in self._stack()]
        if self._tensors:
            config["build_input_shape"] = self.input_shape
        return config

    def _input_layer(self) -> InputLayer:
        assert self._input is not None
        layer: InputLayer = self._input.input_layer
        return layer

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Sequential:
        """Make a model from what `get_config` returned.

        Args:
            config: The configuration.
            custom_objects: Your own layers, by class name.

        Returns:
            A model with newly initialized weights.
        """
        model = cls(name=config.get("name"), trainable=config.get("trainable", True), dtype=config.get("dtype"))
        for layer in config["layers"]:
            model.add(layer_from_config(layer, custom_objects))
        if config.get("build_input_shape") is not None and not model.built:
            model.build(config["build_input_shape"])
        return model


def _symbolic_inputs(shape: Any, dtype: str) -> Any:
    if isinstance(shape, dict):
        return {name: _symbolic_inputs(part, dtype) for name, part in shape.items()}
    if any(is_nested(part) for part in shape):
        return [_symbolic_inputs(part, dtype) for part in shape]
    return InputLayer(batch_shape=tuple(shape), dtype=dtype).output


def _input_of(layer: Any) -> KerasTensor | None:
    if isinstance(layer, KerasTensor):
        if layer.history is not None:
            raise ValueError("An `Input` can be added to a Sequential model, but not the output of a layer.")
        return layer
    return layer.output if isinstance(layer, InputLayer) else None
