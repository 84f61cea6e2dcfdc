"""Layer: a torch module with Keras's life: named, built on first data, configured, with weights in Keras's order."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import torch

from oncue import backend, dtype_policies, naming
from oncue.core.suggest import nearest
from oncue.layers.keras_tensor import has_symbolic
from oncue.layers.policy_scope import run_in_policy
from oncue.layers.symbolic_module import Shape, SymbolicModule
from oncue.layers.weighted_module import variables_of
from oncue.nested import first_leaf, flatten, map_leaves
from oncue.variable import Variable


class Layer(SymbolicModule):
    """A building block of a model: weights and a computation, with Keras's arguments and methods.

    It is a `torch.nn.Module`, so it can stand inside any torch code; `forward` builds the weights from the first input,
    then runs `call`. A subclass overrides `build(input_shape)` (which calls `add_weight`) and `call(inputs)`, or simply
    `forward`. Called outside `fit`, a layer is in inference mode, as in Keras, until `training=True` or `.train()`.

    Args:
        activity_regularizer: A function from the output to a penalty that is added to the loss.
        trainable: Whether the weights are updated in training.
        dtype: The type of the weights and computations, or a policy of both such as "mixed_float16"; that of
            `config.dtype_policy()` (float32) by default.
        name: The layer's name; made from the class's name by default.
        **kwargs: `input_shape` (without the batch axis), `input_dim` or `batch_input_shape` of the first layer, as
            Keras 1 and 2 spell it; `autocast=False` to cast neither inputs nor operations under a mixed policy.

    Raises:
        ValueError: For an argument that no layer has.

    Example:
        >>> class Scale(Layer):
        ...     def build(self, input_shape):
        ...         self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones")
        ...     def call(self, inputs):
        ...         return inputs * self.factor
        >>> Scale()(torch.ones(1, 2)).shape
        torch.Size([1, 2])
    """

    supports_masking: bool = False
    _accepts_training: ClassVar[bool] = False
    _accepts_mask: ClassVar[bool] = False
    # Becomes True in a process that has made a mask (Embedding(mask_zero=True), Masking), so that others pay nothing.
    masks_in_use: ClassVar[bool] = False
    # Becomes True in a process where a layer has added a loss in its call.
    losses_in_use: ClassVar[bool] = False
    # Becomes True in a process that has made a layer with a mixed policy of number types.
    policies_in_use: ClassVar[bool] = False
    # Whether the layer is a model, which leaves casting to the layers in it.
    _holds_layers: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        build = cls.__dict__.get("build")
        if build is not None:
            cls.build = _marks_built(build)  # type: ignore[method-assign]  # so that a build by hand is not repeated
        parameters = inspect.signature(cls.call).parameters
        cls._accepts_training = "training" in parameters
        cls._accepts_mask = "mask" in parameters

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.training = False
        self.built = False
        self._name = naming.auto_name(naming.to_snake_case(type(self).__name__)) if name is None else str(name)
        self._trainable = bool(trainable)
        self._take_policy(dtype)
        self._variables: dict[str, Variable] = {}
        self._regularizers: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
        self._added_losses: list[torch.Tensor] = []
        self._input_shape_arg = _input_shape_argument(kwargs)
        self.autocast = bool(kwargs.pop("autocast", True))
        if activity_regularizer is not None:
            from oncue import regularizers

            activity_regularizer = regularizers.get(activity_regularizer)
        self.activity_regularizer = activity_regularizer
        if kwargs:
            name_given = next(iter(kwargs))
            known = _constructor_arguments(type(self))
            guess = nearest(name_given, known)
            hint = f" Did you mean `{guess}`?" if guess is not None else f" It takes: {', '.join(known)}."
            raise ValueError(f"{type(self).__name__} has no argument `{name_given}`.{hint}")

    # Building ----------------------------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Make the weights. A subclass that has any overrides this and calls `add_weight`.

        Args:
            input_shape: The shape of the input, the batch axis (None) first; nested as the inputs are.
        """
        self.built = True

    def ensure_built(self, input_shape: Any) -> None:
        """Build once, on the device where the layer is to work."""
        if not self.built:
            self.build(input_shape)
            self.built = True
            self._built_for = input_shape
            self._track_containers()

    def __getattr__(self, name: str) -> torch.Tensor | torch.nn.Module:
        state = self.__dict__
        for held in ("_parameters", "_buffers", "_modules"):
            table = state.get(held)
            if table is not None and name in table:
                found: torch.Tensor | torch.nn.Module = table[name]
                return found
        hidden = getattr(type(self), name, None)
        if isinstance(hidden, property) and hidden.fget is not None:
            # Python comes here when a property raises AttributeError, and would lose what it said.
            return hidden.fget(self)  # type: ignore[no-any-return]  # a property of any kind
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    # Calling -----------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer on tensors, arrays, or the symbolic tensors of a functional model."""
        if self.built and not kwargs and len(args) == 1 and type(args[0]) is torch.Tensor and not Layer.masks_in_use:
            if Layer.policies_in_use:
                return run_in_policy(self, super().__call__, args, kwargs)
            return super().__call__(args[0])
        return self._call_carefully(args, kwargs)

    def _call_carefully(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if has_symbolic(args) or has_symbolic(kwargs):
            return self.symbolic_call(*args, **kwargs)
        training = kwargs.pop("training", None) if not self._forward_takes("training") else kwargs.get("training")
        args = tuple(map_leaves(self._as_tensor, arg) for arg in args)
        if not self.built:
            self.ensure_built(_shapes(args[0] if args else first_leaf(kwargs)))
        mask = None
        if Layer.masks_in_use and args:
            mask = getattr(first_leaf(args), "_keras_mask", None)
            if mask is not None and self._accepts_mask and kwargs.get("mask") is None:
                kwargs["mask"] = mask
        if training is None or bool(training) == self.training:
            outputs = self._run_in_policy(super().__call__, args, kwargs)
        else:
            before = [(module, module.training) for module in self.modules()]
            self.train(bool(training))
            try:
                outputs = self._run_in_policy(super().__call__, args, kwargs)
            finally:
                for module, mode in before:
                    module.training = mode
        if Layer.masks_in_use:
            self._pass_mask_on(args, outputs, mask)
        return outputs

    def _run_in_policy(self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return run_in_policy(self, run, args, kwargs) if Layer.policies_in_use else run(*args, **kwargs)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch's, without types
        # In a new process no layer has said yet that it has a policy.
        self._take_policy(self._dtype_policy)

    def _take_policy(self, value: Any) -> None:
        super()._take_policy(value)
        if self.compute_dtype != self.variable_dtype:
            Layer.policies_in_use = True

    def _pass_mask_on(self, args: tuple[Any, ...], outputs: Any, mask: torch.Tensor | None) -> None:
        new = self.compute_mask(args[0] if args else None, mask)
        for leaf, part in zip(flatten(outputs), flatten(new), strict=False):
            if part is not None and isinstance(leaf, torch.Tensor) and getattr(leaf, "_keras_mask", None) is None:
                leaf._keras_mask = part  # type: ignore[attr-defined]  # travels with the tensor, as in Keras

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """Return the mask that goes on with the output: the same one where the layer supports masking, else None."""
        return previous_mask if self.supports_masking else None

    def _as_tensor(self, value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            tensor = torch.as_tensor(np.asarray(value))
            if tensor.is_floating_point():
                tensor = tensor.to(self._dtype)
            return tensor.to(self._placed() or backend.device())
        return value

    @classmethod
    def _forward_takes(cls, argument: str) -> bool:
        return cls.forward is not Layer.forward and argument in inspect.signature(cls.forward).parameters

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run `call` in the mode that the module is in; torch's entry point."""
        if self._accepts_training:
            kwargs["training"] = self.training
        outputs = self.call(*args, **kwargs)
        if self.activity_regularizer is not None:
            for leaf in flatten(outputs):
                self.add_loss(self.activity_regularizer(leaf) / max(leaf.shape[0], 1))
        return outputs

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output. A subclass overrides this, or `forward`.

        Raises:
            NotImplementedError: When neither is overridden.
        """
        raise NotImplementedError(f"{type(self).__name__} must define `call(self, inputs)` or `forward(self, inputs)`.")

    # Losses and configuration ------------------------------------------------------------------------------------

    def add_loss(self, loss: Any) -> None:
        """Add a term to the loss of the step that is being computed (call it inside `call`)."""
        Layer.losses_in_use = True
        self._added_losses.extend(flatten(loss))

    @property
    def losses(self) -> list[torch.Tensor]:
        """The terms besides the compiled loss: weight penalties, and what `add_loss` added in the last call."""
        terms: list[torch.Tensor] = []
        for module in self.modules():
            if isinstance(module, Layer):
                terms += module._added_losses
                if module._trainable:
                    for attribute, regularizer in module._regularizers.items():
                        variable = module._variables[attribute]
                        terms.append(regularizer(variable.to_keras(variable.value)))
        return terms

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        policy = dtype_policies.serialize(self.dtype_policy)
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": policy}
        if self.activity_regularizer is not None:
            from oncue import regularizers

            config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a layer from what `get_config` returned."""
        return cls(**config)

    def extra_repr(self) -> str:
        """Show the name in torch's printout of modules."""
        return f"name={self.name}"


def _marks_built(build: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def marked(self: Layer, *args: Any, **kwargs: Any) -> Any:
        result = build(self, *args, **kwargs)
        self.built = True
        return result

    return marked


def _shapes(value: Any) -> Any:
    def shape(leaf: Any) -> Any:
        return (None, *leaf.shape[1:]) if isinstance(leaf, torch.Tensor) else leaf

    return map_leaves(shape, value)


def _input_shape_argument(kwargs: dict[str, Any]) -> Shape | None:
    batch_shape = kwargs.pop("batch_input_shape", kwargs.pop("batch_shape", None))
    shape, dim = kwargs.pop("input_shape", None), kwargs.pop("input_dim", None)
    length = kwargs.pop("input_length", None)
    if batch_shape is not None:
        return tuple(batch_shape)
    if shape is not None:
        return (None, *((shape,) if isinstance(shape, int) else shape))
    if dim is not None:
        return (None, dim) if length is None else (None, length, dim)
    return None


def _constructor_arguments(cls: type) -> list[str]:
    names: list[str] = []
    for parent in cls.__mro__:
        init = parent.__dict__.get("__init__")
        if init is not None and issubclass(parent, Layer):
            for name, parameter in inspect.signature(init).parameters.items():
                if name != "self" and parameter.kind is not parameter.VAR_KEYWORD and name not in names:
                    names.append(name)
    return names


__all__ = ["Layer", "Shape", "variables_of"]
