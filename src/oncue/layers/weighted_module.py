"""WeightedModule: a torch module whose weights have Keras's names, order, shapes and methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oncue import backend, dtype_policies
from oncue.layers.allowance import spend
from oncue.nested import flatten
from oncue.variable import Variable, torch_dtype


class WeightedModule(torch.nn.Module):
    """What a layer knows about its weights: how they are made, listed, read and set.

    Example:
        >>> from oncue.layers import Dense
        >>> layer = Dense(2)
        >>> layer.build((None, 3))
        >>> [weight.shape for weight in layer.weights]
        [(3, 2), (2,)]
    """

    built: bool
    _name: str
    _trainable: bool
    _dtype: torch.dtype
    _dtype_policy: dtype_policies.DTypePolicy
    _variables: dict[str, Variable]
    _regularizers: dict[str, Callable[[torch.Tensor], torch.Tensor]]

    @property
    def name(self) -> str:
        """The layer's name, unique in its model."""
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        self._name = value

    @property
    def dtype(self) -> str:
        """The type of the weights, such as "float32"."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def variable_dtype(self) -> str:
        """The type of the weights, the same as `dtype`."""
        return self.dtype

    @property
    def compute_dtype(self) -> str:
        """The type of the computations, to which inputs are cast; under a mixed policy not that of the weights."""
        return self._dtype_policy.compute_dtype

    @property
    def dtype_policy(self) -> dtype_policies.DTypePolicy:
        """The policy that says both types. Weights that are there already keep their type when it is set."""
        return self._dtype_policy

    @dtype_policy.setter
    def dtype_policy(self, value: Any) -> None:
        self._take_policy(value)

    def _take_policy(self, value: Any) -> None:
        self._dtype_policy = dtype_policies.get(value)
        self._dtype = torch_dtype(self._dtype_policy.variable_dtype)

    @property
    def trainable(self) -> bool:
        """Whether the weights are updated in training. Setting it sets it for every layer inside."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        value = bool(value)
        for module in self.modules():
            if isinstance(module, WeightedModule):
                module._trainable = value
        for parameter in self.parameters():
            parameter.requires_grad_(value)

    # Making weights ------------------------------------------------------------------------------------------------

    def add_weight(
        self,
        shape: Sequence[int] | int | None = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        name: str | None = None,
        *,
        axes: tuple[int, ...] | None = None,
    ) -> torch.Tensor:
        """Make a weight: a `torch.nn.Parameter` when trainable, else a buffer.

        Args:
            shape: The shape in Keras's order of axes; () by default.
            initializer: A name, an initializer, or a function of (shape, dtype); "glorot_uniform" by default.
            dtype: The type of the numbers; the layer's by default.
            trainable: Whether the optimizer updates it.
            regularizer: A penalty on the weight, added to the loss.
            constraint: A projection applied after each update.
            name: The attribute under which the layer keeps it.
            axes: When the stored tensor has another order of axes than Keras's: the permutation that turns the stored
                one into Keras's.

        Returns:
            The stored tensor.
        """
        from oncue import constraints, initializers, regularizers

        shape = () if shape is None else (shape,) if isinstance(shape, int) else tuple(int(size) for size in shape)
        spend(shape)
        attribute = self._free_attribute(name or "weight")
        kind = self._dtype if dtype is None else torch_dtype(dtype_policies.get(dtype).variable_dtype)
        start = initializers.get("glorot_uniform" if initializer is None else initializer)(shape, dtype=kind)
        value = torch.as_tensor(start, dtype=kind).to(backend.device() if not self._placed() else self._placed())
        if axes is not None:
            value = value.permute(sorted(range(len(axes)), key=axes.__getitem__))
        value = value.detach().contiguous()
        tensor: torch.Tensor
        if trainable:
            tensor = torch.nn.Parameter(value, requires_grad=self._trainable and value.is_floating_point())
            self.register_parameter(attribute, tensor)
        else:
            tensor = value
            self.register_buffer(attribute, tensor)
        variable = Variable(self, attribute, axes=axes, name=name or attribute)
        self._variables[attribute] = variable
        if regularizer is not None:
            self._regularizers[attribute] = regularizers.get(regularizer)
        if constraint is not None:
            project = constraints.get(constraint)
            variable.constraint = lambda stored: variable.from_keras(project(variable.to_keras(stored)))
        if not type(self).__module__.startswith("oncue."):
            # Layers written for Keras call these on what add_weight returned.
            tensor.assign = variable.assign  # type: ignore[attr-defined]  # instance attributes of one tensor
            tensor.assign_add = variable.assign_add  # type: ignore[attr-defined]  # as above
            tensor.assign_sub = variable.assign_sub  # type: ignore[attr-defined]  # as above
        return tensor

    def _placed(self) -> torch.device | None:
        tensor: torch.Tensor | None = next(iter(self.parameters()), None)
        if tensor is None:
            tensor = next(iter(self.buffers()), None)
        return self._device_hint if tensor is None else tensor.device

    @property
    def _device_hint(self) -> torch.device | None:
        hint: torch.device | None = self.__dict__.get("_device")
        return hint

    def _free_attribute(self, name: str) -> str:
        attribute = name.replace("/", "_").replace(".", "_")
        if self.__dict__.get(attribute, self) is None:
            # `self.bias = None` in __init__ announces a weight; torch wants the name free.
            del self.__dict__[attribute]
        number = 0
        while hasattr(self, attribute) and (attribute in self._parameters or attribute in self._buffers or number):
            number += 1
            attribute = f"{name}_{number}"
        return attribute

    def __setattr__(self, name: str, value: Any) -> None:
        # `self.w = self.add_weight(...)` moves the weight to the attribute that the author chose.
        if isinstance(value, torch.Tensor):
            for held in (self.__dict__.get("_parameters", {}), self.__dict__.get("_buffers", {})):
                old = next((key for key, tensor in held.items() if tensor is value), None)
                if old is not None:
                    if old != name and old in self._variables:
                        self.__dict__.pop(name, None)
                        held[name] = held.pop(old)
                        variable = self._variables.pop(old)
                        variable._attribute = name
                        if variable.name == "weight":
                            variable.name = variable.path = name
                        self._variables[name] = variable
                        if old in self._regularizers:
                            self._regularizers[name] = self._regularizers.pop(old)
                    return
        super().__setattr__(name, value)
        if (
            isinstance(value, torch.nn.Module)
            and not isinstance(value, WeightedModule)
            and value.training != self.training
        ):
            # Torch's modules begin in training mode; inside a layer they work in the layer's mode.
            value.train(self.training)

    def _track_containers(self) -> None:
        """Register layers kept in plain lists, tuples and dicts, which Keras tracks and torch doesn't."""
        known = {id(module) for module in self.modules()}
        for attribute, value in list(self.__dict__.items()):
            if attribute.startswith("_") or not isinstance(value, (list, tuple, dict)):
                continue
            for index, leaf in enumerate(flatten(value)):
                if isinstance(leaf, torch.nn.Module) and id(leaf) not in known:
                    self.add_module(f"{attribute}_{index}", leaf)
                    leaf.train(self.training)
                    known.update(id(module) for module in leaf.modules())

    # Weights -----------------------------------------------------------------------------------------------------

    @property
    def weights(self) -> list[Variable]:
        """All weights: the layer's own in order of making, trainable ones first, then those of the layers inside."""
        return list(variables_of(self))

    @property
    def variables(self) -> list[Variable]:
        """The same as `weights`."""
        return self.weights

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that the optimizer updates."""
        return [weight for weight in self.weights if weight.trainable]

    @property
    def trainable_variables(self) -> list[Variable]:
        """The same as `trainable_weights`."""
        return self.trainable_weights

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The weights that the optimizer leaves alone."""
        return [weight for weight in self.weights if not weight.trainable]

    @property
    def non_trainable_variables(self) -> list[Variable]:
        """The same as `non_trainable_weights`."""
        return self.non_trainable_weights

    def get_weights(self) -> list[NDArray[Any]]:
        """Return copies of all weights as NumPy arrays, in Keras's order and shapes."""
        return [weight.numpy() for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all weights.

        Args:
            weights: Arrays in the order and shapes of `get_weights`.

        Raises:
            ValueError: When the number or a shape differs; nothing is changed then.
        """
        own = self.weights
        if len(own) != len(weights):
            raise ValueError(
                f"`weights` for '{self.name}' must be a list of {len(own)} arrays, one for each of its weights; got "
                f"{len(weights)}."
            )
        for variable, value in zip(own, weights, strict=True):
            if tuple(np.shape(value)) != variable.shape:
                raise ValueError(
                    f"`weights` for '{self.name}': the weight '{variable.path}' has the shape {variable.shape}, the "
                    f"array given for it {tuple(np.shape(value))}."
                )
        for variable, value in zip(own, weights, strict=True):
            variable.assign(value)

    def count_params(self) -> int:
        """Return how many numbers the weights hold.

        Raises:
            ValueError: When the layer has no weights yet because it was not built.
        """
        if not self.built:
            raise ValueError(
                f"'{self.name}' has no weights yet. Call it on data, or build it with an `Input(shape)` first."
            )
        return sum(weight.value.numel() for weight in self.weights)


def variables_of(module: torch.nn.Module, prefix: str = "", seen: set[int] | None = None) -> Iterator[Variable]:
    """Yield the weights of any torch module in Keras's order: own parameters, own buffers, then the modules inside.

    Args:
        module: A layer, a model or a plain `torch.nn.Module`.
        prefix: The path of the module in its model.
        seen: Tensors already given, so that shared ones come once.

    Yields:
        One Variable for each parameter and each buffer that belongs to the state dict.
    """
    seen = set() if seen is None else seen
    table: dict[str, Variable] = module._variables if isinstance(module, WeightedModule) else {}
    hidden = module._non_persistent_buffers_set
    attributes = [*module._parameters, *(key for key in module._buffers if key not in hidden)]
    for attribute in attributes:
        tensor = getattr(module, attribute)
        if tensor is None or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        variable = table.get(attribute)
        if variable is None:
            variable = Variable(module, attribute)
            if isinstance(module, WeightedModule):
                table[attribute] = variable
        variable.path = f"{prefix}/{variable.name}" if prefix else variable.name
        yield variable
    for child_name, child in module.named_children():
        label = child.name if isinstance(child, WeightedModule) else child_name
        yield from variables_of(child, f"{prefix}/{label}" if prefix else label, seen)
