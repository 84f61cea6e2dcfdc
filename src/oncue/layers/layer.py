"""Layer: a torch module with Keras's life: named, built on first data, configured, with weights in Keras's order."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn, Self

import numpy as np
import torch
from numpy.typing import NDArray

from oncue import backend, constraints, dtype_policies, initializers, naming, regularizers, torch_private
from oncue.core.allowance import are_replaced, count_numbers
from oncue.core.builtin import builtin, is_builtin
from oncue.core.numbers import sizes_of, whole, whole_of
from oncue.core.suggest import nearest
from oncue.layers.arguments import Shape
from oncue.layers.input_spec import check_inputs
from oncue.layers.keras_tensor import KerasTensor, has_symbolic, symbols
from oncue.layers.modes import switch_on, take_in
from oncue.layers.policy_scope import run_in_policy, running
from oncue.layers.real_keras import adopted, own_symbols
from oncue.layers.trial import Trial, building
from oncue.legacy import first_layer_shape, methods as old_methods, no_method
from oncue.nested import first_leaf, flatten, is_nested, map_leaves
from oncue.shards import is_sharded, put, sum_of_parts
from oncue.variable import Variable, torch_dtype

_OF_WEIGHTS = ("_regularizer", "_constraint")
"""How attributes end that say something of a weight: `kernel_regularizer`."""


@builtin
class Layer(torch.nn.Module):
    """A building block of a model: weights and a computation, with Keras's arguments and methods.

    It is a `torch.nn.Module`, so it can stand inside any torch code; `forward` builds the weights from the first input,
    then runs `call`. A subclass overrides `build(input_shape)` (which calls `add_weight`) and `call(inputs)`, or simply
    `forward`. Called outside `fit`, a layer is in inference mode, as in Keras, until `training=True` or `.train()`.

    Args:
        activity_regularizer: A function from the output to a penalty that is added to the loss.
        trainable: Whether the weights are updated in training.
        dtype: The type of the weights and computations, or a policy of both such as "mixed_float16"; that of
            `config.dtype_policy()` (float32) by default. Floats that `call` is given are cast to it.
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
        >>> Scale()(np.ones((1, 2))).shape
        torch.Size([1, 2])
    """

    of_the_run: frozenset[str] = frozenset({"_added_losses", "_device", "_in_pass"})
    """Attributes that say how a run goes, and not what is computed."""

    can_be_sharded: ClassVar[bool] = True
    """Whether its weights are torch's parameters, which `DataParallel(shard_weights=True)` can shard."""
    supports_masking: bool = False
    input_spec: Any = None
    """What is checked of the inputs in every call: an `InputSpec`, or several, nested as the inputs are."""
    quantization_mode: None = None
    """How the weights are quantized: never."""
    # Whether `compute_mask` may return a mask for inputs without one. Taken to be True of every class that overrides it,
    # unless that class says False, and of a layer that is given one of its own: else it isn't asked where no mask comes.
    _makes_masks: bool = False
    _masks_if_defined: ClassVar[bool] = True
    _accepts_training: ClassVar[bool] = False
    _accepts_mask: ClassVar[bool] = False
    _forward_accepts_training: ClassVar[bool] = False
    # The names of the shapes that `build` takes, where it takes several: those of the arguments of `call`, with "_shape".
    _build_takes: ClassVar[tuple[str, ...]] = ()
    # The methods from which these were found; others may be put on the class later.
    _seen: ClassVar[tuple[Any, ...]] = ()
    # Whether the layer is a model, which leaves casting to the layers in it.
    _holds_layers: ClassVar[bool] = False
    # Whether the layer, or one inside, may add losses when it is called; a model finds that out by itself.
    _may_add_losses: bool = False
    # Whether a call of a model, or of a layer around it, is under way or expected, so that its next call begins no new pass.
    _in_pass: bool = False
    # Whether it was built for inputs or called on some, after which calls need not look whether they are the first.
    _has_begun: bool = False
    # The arguments of `call` besides the first whose masks it takes by their names: `keys`, where there is `keys_mask`.
    _masks_by_name: ClassVar[tuple[str, ...]] = ()
    # Whether the weights are on another device than the CPU, so that tensors that come from there are to be moved.
    _off_cpu: bool = False
    # Whether a layer of oncue takes several tensors in a list or dict. Those of the user's own may always.
    _takes_several: ClassVar[bool] = False

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note what a class of the user's own is made with, for `get_config`."""
        layer = super().__new__(cls)
        if cls._is_described_by_arguments() and (args or kwargs):
            layer.__dict__["_made_with"] = (args, kwargs)
        return layer

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        build = cls.__dict__.get("build")
        if build is not None:
            cls.build = _marks_built(build)  # type: ignore[method-assign]  # so that an explicit build isn't repeated
        cls._masks_if_defined = cls.__dict__.get("_makes_masks", True)
        cls._look_at_methods()

    @classmethod
    def _look_at_methods(cls) -> None:
        """See which arguments the class's methods take, and whether it makes masks."""
        cls._seen = (cls.call, cls.forward, cls.compute_mask, cls.build)
        parameters = inspect.signature(cls.call).parameters
        cls._accepts_training = "training" in parameters
        cls._accepts_mask = "mask" in parameters
        cls._masks_by_name = tuple(name for name in parameters if f"{name}_mask" in parameters)
        cls._forward_accepts_training = (
            cls.forward is not Layer.forward and "training" in inspect.signature(cls.forward).parameters
        )
        owner = _owner(cls, "compute_mask")
        cls._makes_masks = owner is not Layer and vars(owner).get("_masks_if_defined", True)
        shapes = [
            name
            for name, parameter in list(inspect.signature(cls.build).parameters.items())[1:]
            if parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]
        cls._build_takes = tuple(shapes) if len(shapes) > 1 else ()

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
        cls = type(self)
        if cls._seen and cls._seen != (cls.call, cls.forward, cls.compute_mask, cls.build):
            cls._look_at_methods()
        self.training = False
        # Those of oncue that make no weights are built as they are made.
        self.built = type(self).build is Layer.build and is_builtin(type(self)) and not self._holds_layers
        self._name = naming.auto_name(naming.to_snake_case(type(self).__name__)) if name is None else str(name)
        if not isinstance(trainable, (bool, np.bool_)) and whole_of(trainable) not in (0, 1):
            raise ValueError(
                f"`trainable` must be True or False; got {trainable!r} of type {type(trainable).__name__}."
            )
        self._trainable = bool(trainable)
        self._take_policy(dtype)
        self._variables: dict[str, Variable] = {}
        self._regularizers: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
        self._added_losses: list[torch.Tensor] = []
        self._input_shape_arg = first_layer_shape(kwargs)
        self._first_weights = kwargs.pop("weights", None)
        self.autocast = bool(kwargs.pop("autocast", True))
        if not (self._holds_layers or is_builtin(type(self))):
            self.__dict__["_may_add_losses"] = True
        if activity_regularizer is not None:
            activity_regularizer = regularizers.get(activity_regularizer)
        self.activity_regularizer = activity_regularizer
        if kwargs:
            name_given = next(iter(kwargs))
            known = _constructor_arguments(type(self))
            guess = nearest(name_given, known)
            hint = f" Did you mean `{guess}`?" if guess is not None else f" It takes: {', '.join(known)}."
            raise ValueError(f"{type(self).__name__} has no argument `{name_given}`.{hint}")

    # Its name, its dtypes, whether it is trained --------------------------------------------------------------

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
    def input_dtype(self) -> Any:
        """The type to which floating inputs are cast, the same as `compute_dtype`."""
        return self.compute_dtype

    @property
    def path(self) -> str:
        """The layer's name. Where it stands in a model is in the `path` of its weights."""
        return self.name

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
        self._computed = torch_dtype(self._dtype_policy.compute_dtype)
        self._is_mixed = self._computed != self._dtype
        # Models of oncue leave it to the layers in them.
        own = not (is_builtin(_owner(type(self), "call")) and is_builtin(_owner(type(self), "forward")))
        self._casts_floats = own or (self._computed.is_floating_point and not self._holds_layers)
        self._looks_at_types = self._is_mixed or (self._casts_floats and self._computed != torch.float32)
        # The outputs of the user's own layers stay as they were computed, as in Keras.
        self._casts_outputs = is_builtin(type(self))

    @property
    def trainable(self) -> bool:
        """Whether the weights are updated in training. Setting it sets it for every layer inside."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        value = bool(value)
        for module in self.modules():
            if isinstance(module, Layer):
                module.freeze(not value)
            else:
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(value)

    def freeze(self, value: bool) -> None:
        """Set whether the layer's own weights stay as they are, and not those of layers inside.

        Args:
            value: True to freeze them.
        """
        self._trainable = not value
        for parameter in self.parameters(recurse=False):
            parameter.requires_grad_(not value)

    def not_weights(self) -> frozenset[str]:
        """Return the names of parameters that are none of the weights; none, but for layers of other libraries."""
        return frozenset()

    # Looking inside -----------------------------------------------------------------------------------------------

    def modules(self, remove_duplicate: bool = True) -> Iterator[torch.nn.Module]:
        """Yield the layer and all modules inside, as torch does, but without making their paths.

        Args:
            remove_duplicate: False to yield a module once for each of its paths.
        """
        if not remove_duplicate:
            return (module for _, module in self.named_modules(remove_duplicate=False))
        return iter(torch_private.modules_of(self))

    def parameters(self, recurse: bool = True) -> Iterator[torch.nn.Parameter]:
        """Yield the parameters, each once; with `recurse=False` only the layer's own."""
        return iter(self._in_tables(0, recurse))

    def buffers(self, recurse: bool = True) -> Iterator[torch.Tensor]:
        """Yield the buffers, each once; with `recurse=False` only the layer's own."""
        return iter(self._in_tables(1, recurse))

    def _in_tables(self, table: int, recurse: bool) -> list[Any]:
        parts = torch_private.modules_of(self) if recurse else [self]
        tensors = [tensor for part in parts for tensor in torch_private.tensor_tables(part)[table].values()]
        return list({id(tensor): tensor for tensor in tensors if tensor is not None}.values())

    # Building -----------------------------------------------------------------------------------------------------

    def build(self, input_shape: Any) -> None:
        """Make the weights. A subclass that has any overrides this and calls `add_weight`.

        Args:
            input_shape: The shape of the input, the batch axis (None) first; nested as the inputs are.
        """
        self.built = True
        self.__dict__["_has_begun"] = True

    def ensure_built(self, input_shape: Any) -> None:
        """Build once, on the device where the layer is to work."""
        if not (self.built and self._has_begun):
            if self._casts_outputs and not self._takes_several and is_several(input_shape):
                raise ValueError(
                    f"'{self.name}' takes one tensor; got several, or one in a list or dict, of the shapes {input_shape}. "
                    "Pass the tensor itself, or join several with a layer such as `Concatenate()`."
                )
            with building(self):
                if self.built:
                    pass
                elif self._build_takes and isinstance(input_shape, dict):
                    self.build(**input_shape)
                else:
                    self.build(input_shape)
                self.built = True
                self.__dict__["_has_begun"] = True
                self._built_for = input_shape
                self._track_containers()
                self._note_device()
                if self._first_weights is not None:
                    # Of Keras 1 and 2. Set once.
                    given, self._first_weights = self._first_weights, None
                    self.set_weights(given)

    def _built_on(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the inputs of whose shapes `build` is told."""
        if not self._build_takes:
            return args[0] if args else first_leaf(kwargs)
        given = inspect.signature(self.call).bind(*args, **kwargs).arguments
        return {name: given[name.removesuffix("_shape")] for name in self._build_takes}

    def get_build_config(self) -> dict[str, Any] | None:
        """Return what `build_from_config` needs to build this layer again; None before it is built.

        A file has it. What a subclass returns must go into JSON.
        """
        shape = self.__dict__.get("_built_for")
        return None if shape is None else {"input_shape": shape}

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Build the layer as `get_build_config` said; a subclass that overrides it is built so when it is loaded.

        Args:
            config: What it returned.
        """
        shape = config.get("input_shape")
        if shape is not None:
            self.ensure_built(_as_shapes(shape))

    def __getattr__(self, name: str) -> torch.Tensor | torch.nn.Module:
        state = self.__dict__
        for held in ("_parameters", "_buffers", "_modules"):
            table = state.get(held)
            if table is not None and name in table:
                found: torch.Tensor | torch.nn.Module = table[name]
                return found
        hidden = getattr(type(self), name, None)
        if isinstance(hidden, property) and hidden.fget is not None:
            # Python calls this when a property raises AttributeError, and would lose its message.
            return hidden.fget(self)  # type: ignore[no-any-return]  # a property of any kind
        raise AttributeError(no_method(name) or f"'{type(self).__name__}' object has no attribute '{name}'")

    # Calling ------------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer on tensors, arrays, or the symbolic tensors of a functional model.

        Arrays, and tensors from the CPU, are moved to the layer's weights; those of a layer alone are on
        `backend.device()`. A layer without weights leaves tensors where they are.
        """
        if self._may_add_losses and not self._in_pass:
            return self._call_alone(args, kwargs)
        if (
            self.built
            and self._has_begun
            and not kwargs
            and len(args) == 1
            and type(args[0]) is torch.Tensor
            and not self._makes_masks
            and getattr(args[0], "_keras_mask", None) is None
            and not (self._off_cpu and args[0].is_cpu)
            and self.input_spec is None
        ):
            # Nearly all calls: one tensor without a mask.
            if self._looks_at_types or running.mixed:
                return run_in_policy(self, super().__call__, args, kwargs)
            return super().__call__(args[0])
        return self._call_carefully(args, kwargs)

    def _call_alone(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the layer outside of a model: the losses that it and layers inside have afterwards are those of this call."""
        layers = [module for module in self.modules() if isinstance(module, Layer)]
        for layer in layers:
            layer._added_losses.clear()
            layer.__dict__["_in_pass"] = True
        try:
            return self(*args, **kwargs)
        finally:
            for layer in layers:
                layer.__dict__["_in_pass"] = False

    def _call_carefully(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if has_symbolic(args) or (kwargs and has_symbolic(kwargs)):
            return self.symbolic_call(*own_symbols(args), **own_symbols(kwargs))
        training = kwargs.get("training") if self._forward_accepts_training else kwargs.pop("training", None)
        args = tuple([map_leaves(self._as_tensor, arg) for arg in args])
        if kwargs:
            kwargs = {name: map_leaves(self._as_tensor, value) for name, value in kwargs.items()}
        if self.input_spec is not None and args:
            check_inputs(self.input_spec, args[0], self.name)
        first = not (self.built and self._has_begun)
        if first:
            self._see_types(args, kwargs)
            self.ensure_built(_shapes(self._built_on(args, kwargs)))
        if self._off_cpu:
            device = self._placed()
            args = tuple([map_leaves(lambda leaf: _on_device(leaf, device), arg) for arg in args])
        mask, masked = None, _has_mask(args)
        if masked:
            mask = _masks_of(args[0])
            if mask is not None and self._accepts_mask and kwargs.get("mask") is None:
                kwargs["mask"] = mask
        if self._accepts_mask and kwargs.get("mask") is not None:
            # One that is given counts as one that came along.
            mask, masked = kwargs["mask"], True
        if self._masks_by_name:
            self._give_masks_by_name(args, kwargs)
        if training is None or bool(training) == self.training:
            outputs = self._run_in_policy(super().__call__, args, kwargs)
        else:
            before = [(module, module.training) for module in self.modules()]
            if training:
                switch_on(self)
            else:
                self.eval()
            try:
                outputs = self._run_in_policy(super().__call__, args, kwargs)
            finally:
                for module, mode in before:
                    module.training = mode
        if first:
            self._track_containers()
        if masked or self._makes_masks:
            self._pass_mask_on(args, outputs, mask)
        return outputs

    def _give_masks_by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = inspect.signature(self.call).bind(*args, **kwargs).arguments
        for name in self._masks_by_name:
            mask = _masks_of(given.get(name))
            if mask is not None and given.get(f"{name}_mask") is None:
                kwargs[f"{name}_mask"] = mask

    def _run_in_policy(self, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._looks_at_types or running.mixed:
            return run_in_policy(self, run, args, kwargs)
        return run(*args, **kwargs)

    def _see_types(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """See whether a layer of 32 bits gets other floats, which it is to cast; most never do, so they never look."""
        if self._looks_at_types or not (self.autocast and self._casts_floats) or self._holds_layers:
            return
        given: list[Any] = []
        map_leaves(given.append, [args, kwargs])
        kinds = {torch_dtype(leaf.dtype) for leaf in given if isinstance(leaf, (torch.Tensor, KerasTensor))}
        # Modules of torch in it cast nothing, and are given what they compute in.
        others = {kind for kind in kinds if kind.is_floating_point and kind != self._computed}
        self._looks_at_types = bool(others - {weight.dtype for weight in self.parameters()})

    def _pass_mask_on(self, args: tuple[Any, ...], outputs: Any, mask: Any) -> None:
        new = self.compute_mask(args[0] if args else None, mask)
        if new is None:
            return
        for leaf, part in zip(flatten(outputs), flatten(new), strict=False):
            if part is not None and isinstance(leaf, torch.Tensor) and getattr(leaf, "_keras_mask", None) is None:
                leaf._keras_mask = part  # type: ignore[attr-defined]  # travels with the tensor, as in Keras

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Return the mask of the output: the input's if the layer supports masking, else None.

        Args:
            inputs: As for `call`.
            previous_mask: The mask of the input; of several inputs the masks, nested likewise, with None where there is
                none, or None if there is none at all.
        """
        return previous_mask if self.supports_masking else None

    def _as_tensor(self, value: Any) -> Any:
        if isinstance(value, (np.ndarray, np.generic)):
            tensor = torch.as_tensor(np.asarray(value))
            if tensor.is_floating_point():
                tensor = tensor.to(self._array_dtype())
            return tensor.to(self._placed() or backend.device())
        return value

    def _array_dtype(self) -> torch.dtype:
        """The type that floating arrays become when the layer is called on them."""
        return self._dtype

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

    # Calling on symbolic tensors ----------------------------------------------------------------------------------

    def symbolic_call(self, *args: Any, **kwargs: Any) -> Any:
        """Take symbolic inputs and return symbolic outputs that remember this call."""
        self._see_types(args, kwargs)
        if self.input_spec is not None and args:
            check_inputs(self.input_spec, args[0], self.name)
        if not (self.built and self._has_begun):
            self.ensure_built(_shapes(self._built_on(args, kwargs)))
        if kwargs.get("training", self) is None:
            del kwargs["training"]
        rest = {key: value for key, value in kwargs.items() if key != "training"}
        if type(self).compute_output_spec is not Layer.compute_output_spec:
            spec = self.compute_output_spec(*args, **rest)
            shape, dtype = map_leaves(lambda leaf: tuple(leaf.shape), spec), str(first_leaf(spec).dtype)
        else:
            shape, dtype = self._output_spec(args, rest)
        # `layer(x, training=False)` holds for every later run of the model, so the history keeps it.
        outputs = symbols(shape, dtype, (self, args, kwargs))
        self._see_masks(args, outputs)
        self.__dict__["_symbolic"] = (args[0] if len(args) == 1 else list(args), outputs)
        return outputs

    @property
    def input(self) -> Any:
        """The symbolic input of the last symbolic call.

        Raises:
            AttributeError: When there was none.
        """
        return self._symbolic_end("input")

    @input.setter
    def input(self, value: Any) -> None:
        self.__dict__["input"] = value

    @property
    def output(self) -> Any:
        """The symbolic output of the last symbolic call, from which a model of a part of the layers is made.

        Raises:
            AttributeError: When there was none.
        """
        return self._symbolic_end("output")

    @output.setter
    def output(self, value: Any) -> None:
        self.__dict__["output"] = value

    input_shape: Any = old_methods.OldEnd("input")
    output_shape: Any = old_methods.OldEnd("output")
    get_input_at = old_methods.OldEnd("input", shape=False, method=True)
    get_output_at = old_methods.OldEnd("output", shape=False, method=True)
    get_output_shape_at = old_methods.OldEnd("output", method=True)

    def _symbolic_end(self, name: str) -> Any:
        # Torch code often calls a part of a model `self.output`, which then comes first.
        for held in (self.__dict__, self._modules, self._parameters, self._buffers):
            if name in held:
                return held[name]
        ends = self.__dict__.get("_symbolic")
        if ends is None:
            raise AttributeError(
                f"'{self.name}' has no symbolic {name}: it was not called on what `Input(shape)` gives, nor put behind "
                "one in a Sequential model."
            )
        return ends[0 if name == "input" else 1]

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return symbolic outputs for symbolic inputs; a subclass may override it.

        Args:
            *args: As for `call`.
            **kwargs: As for `call`.

        Returns:
            A `KerasTensor`, or several, nested as the outputs are.
        """
        shape, dtype = self._output_spec(args, kwargs)
        return symbols(shape, dtype, (self, args, kwargs))

    def _output_spec(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, str]:
        """Return the shape and the type of the output for symbolic inputs."""
        if args and type(self).compute_output_shape is not Layer.compute_output_shape:
            shapes = map_leaves(lambda leaf: tuple(leaf.shape), args[0])
            return self.compute_output_shape(shapes), self.compute_dtype
        return self._probe_shapes(args, kwargs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the output for an input of a given shape (the batch axis first, None where unknown)."""
        if isinstance(input_shape, (list, dict)):
            named = dict(input_shape) if isinstance(input_shape, dict) else dict(enumerate(input_shape))
            tensors = {key: KerasTensor(tuple(shape), self.dtype) for key, shape in named.items()}
            return self._probe_shapes((tensors if isinstance(input_shape, dict) else list(tensors.values()),), {})[0]
        return self._probe_shapes((KerasTensor(tuple(input_shape), self.dtype),), {})[0]

    def _probe_shapes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, str]:
        """Find the output's shape by running the layer on zeros of two sizes where a size is not known."""

        def run(unknown: int) -> Any:
            def zeros(leaf: Any) -> Any:
                return self._zeros(leaf, unknown)

            with torch.no_grad(), Trial(self):
                probed = map_leaves(zeros, args)
                outputs = self(
                    *probed, **{key: map_leaves(zeros, value) for key, value in kwargs.items()}, training=False
                )
                self._track_containers()
                return outputs

        one, two = run(2), run(3)

        def joined(a: torch.Tensor, b: torch.Tensor) -> Shape:
            return tuple(m if m == n else None for m, n in zip(a.shape, b.shape, strict=True))

        dtype = str(flatten(one)[0].dtype).removeprefix("torch.")
        shapes = iter([joined(a, b) for a, b in zip(flatten(one), flatten(two), strict=True)])

        def placed(part: Any) -> Any:
            if isinstance(part, dict):
                made = {key: placed(part[key]) for key in sorted(part)}
                return {key: made[key] for key in part}
            return [placed(item) for item in part] if isinstance(part, (list, tuple)) else next(shapes)

        return placed(one), dtype

    def _zeros(self, leaf: Any, unknown: int) -> Any:
        """Return zeros for a symbolic tensor, and with them a full mask where one comes; anything else as it is."""
        if not isinstance(leaf, KerasTensor):
            return leaf
        size = [unknown if part is None else part for part in leaf.shape]
        device = self._placed() or backend.device()
        made = torch.zeros(size, dtype=torch_dtype(leaf.dtype), device=device)
        if leaf.mask_ndim is not None:
            mask = torch.ones(size[: leaf.mask_ndim], dtype=torch.bool, device=device)
            made._keras_mask = mask  # type: ignore[attr-defined]  # travels with the tensor, as in Keras
        return made

    def _see_masks(self, args: tuple[Any, ...], outputs: Any) -> None:
        """See which symbolic outputs come with a mask, which layers behind this one may use."""
        given = [leaf for leaf in flatten(args) if isinstance(leaf, KerasTensor)]
        if not self._makes_masks and all(leaf.mask_ndim is None for leaf in given):
            return
        with torch.no_grad(), Trial(self):
            inputs = map_leaves(lambda leaf: self._zeros(leaf, 2), args[0] if args else None)
            masks = self.compute_mask(inputs, _masks_of(inputs))
        for leaf, mask in zip(flatten(outputs), flatten(masks), strict=False):
            if mask is not None:
                leaf.mask_ndim = mask.ndim

    # Weights ------------------------------------------------------------------------------------------------------

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
    ) -> Variable:
        """Make a weight: a `torch.nn.Parameter` when trainable, else a buffer, shown as a `Variable`.

        Args:
            shape: The shape in Keras's order of axes; () by default.
            initializer: A name, an initializer, or a function of (shape, dtype); "glorot_uniform" by default, of whole
                numbers "zeros".
            dtype: The type of the values; the layer's by default.
            trainable: Whether the optimizer updates it.
            regularizer: A penalty on the weight, added to the loss.
            constraint: A projection applied after each update.
            name: Its name, and the attribute under which the layer keeps it if it is assigned to no other.
            axes: When the stored tensor has another order of axes than Keras's: the permutation that turns the stored
                one into Keras's.

        Returns:
            The weight, which arithmetic and functions of torch take in place of its value. `layer.stored(name)` is the
            tensor itself.
        """
        if isinstance(shape, str):
            raise ValueError(f"The first argument of `add_weight` is the shape: give the name by `name={shape!r}`.")
        shape = () if shape is None else tuple([whole(self.name, "shape", size) for size in sizes_of(shape)])
        count_numbers(shape)
        attribute = self._free_attribute(name or "weight")
        kind = self._dtype if dtype is None else torch_dtype(dtype_policies.get(dtype).variable_dtype)
        with building(self):
            # Some take minutes, and a file has the values.
            first = "zeros" if are_replaced() and is_builtin(type(self)) else initializer
            usual = "glorot_uniform" if kind.is_floating_point else "zeros"
            start = initializers.get(usual if first is None else first)(shape, dtype=kind)
        value = torch.as_tensor(start, dtype=kind).to(self._placed() or backend.device_of_weights())
        if axes is not None:
            value = value.permute(sorted(range(len(axes)), key=axes.__getitem__))
        value = value.detach().contiguous()
        if trainable:
            weight = torch.nn.Parameter(value, requires_grad=self._trainable and value.is_floating_point())
            self.register_parameter(attribute, weight)
        else:
            self.register_buffer(attribute, value)
        variable = Variable.of(self, attribute, axes=axes, name=name or attribute)
        self._variables[attribute] = variable
        if regularizer is not None:
            self._regularizers[attribute] = variable.regularizer = regularizers.get(regularizer)
        if constraint is not None:
            self._constrain(variable, constraints.get(constraint))
        self.__dict__[attribute] = variable
        return variable

    def add_variable(self, *args: Any, **kwargs: Any) -> Variable:
        """Make a weight; the same as `add_weight`.

        Args:
            *args: As for `add_weight`.
            **kwargs: As for `add_weight`.
        """
        return self.add_weight(*args, **kwargs)

    def quantize(self, mode: Any = None, **kwargs: Any) -> NoReturn:
        """Refuse: oncue's layers compute in floats.

        Args:
            mode: What Keras calls the kind of quantization.
            **kwargs: As for Keras.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"'{self.name}' can't be quantized: oncue's layers compute in floats. Save the model as 'model.keras', load it "
            f"with Keras itself, and call its `quantize({mode!r})`; `torch.ao.quantization` quantizes torch modules."
        )

    def enable_lora(self, rank: Any = None, **kwargs: Any) -> NoReturn:
        """Refuse: oncue's layers have no adapters of low rank.

        Args:
            rank: Their rank.
            **kwargs: As for Keras.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError(
            f"'{self.name}' has no LoRA. Make the model of the real Keras's layers, call their `enable_lora({rank!r})`, and "
            "train it by `oncue.Model(keras_model)`."
        )

    def _note_device(self) -> None:
        placed = self._placed()
        self._off_cpu = placed is not None and placed.type != "cpu"

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
        while hasattr(self, attribute):
            number += 1
            attribute = f"{name}_{number}"
        return attribute

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "training" and name in self.__dict__:
            # Each `train()` and `eval()` of a model comes here for each layer.
            self.__dict__[name] = value
            return
        if isinstance(value, torch.nn.Module):
            value = adopted(value)
        shown = self.__dict__.get(name)
        if isinstance(shown, Variable) and shown is not value:
            if isinstance(value, torch.Tensor) and (
                # torch puts shards in the place of a weight, and the whole in that of shards, as they are stored.
                shown.axes is None or is_sharded(value) or is_sharded(shown.stored)
            ):
                self._replace(name, value)
                return
            del self._variables[name], self.__dict__[name]
            delattr(self, name)
        if isinstance(value, Variable):
            if value.made_alone:
                self._take_variable(name, value)
                return
            if self.__dict__.get("_variables", {}).get(value.attribute) is value:
                # `self.w = self.add_weight(...)` moves the weight to the attribute that the author chose.
                self._move_weight(value.attribute, name)
                self.__dict__[name] = value
                return
            if "_variables" in self.__dict__:
                # A weight of another layer is shared.
                self.__dict__.pop(name, None)
                value.belong(self, name)
                self._variables[name] = self.__dict__[name] = value
                return
        super().__setattr__(name, value)
        if name.endswith(_OF_WEIGHTS) and self.__dict__.get("built"):
            if name == "activity_regularizer":
                self.__dict__[name] = regularizers.get(value)
            else:
                self._change_weight(name, value)
        if isinstance(value, torch.nn.Module) and not isinstance(value, Layer):
            # Inside a layer they work in the layer's mode.
            take_in(value, self.training)
        elif name == "compute_mask":
            self._makes_masks = True
        if (name == "activity_regularizer" and value is not None) or (
            isinstance(value, Layer) and value._may_add_losses
        ):
            self.__dict__["_may_add_losses"] = True

    def _replace(self, name: str, tensor: torch.Tensor) -> None:
        """Put another tensor in the place of a weight, as torch does at the attributes of its modules."""
        if name in self._buffers:
            if isinstance(tensor, torch.nn.Parameter):
                del self._buffers[name]
                self._parameters[name] = tensor
            else:
                self._buffers[name] = tensor
        elif isinstance(tensor, torch.nn.Parameter):
            self._parameters[name] = tensor
        else:
            raise TypeError(
                f"`{name}` of '{self.name}' is a weight that is trained, and a plain tensor isn't. Set its values by "
                f"`layer.{name}.assign(tensor)`, or give it another `torch.nn.Parameter`."
            )

    def _move_weight(self, old: str, name: str) -> None:
        """Keep a weight under the attribute that the author of the layer chose."""
        if old == name:
            return
        self.__dict__.pop(name, None)
        self.__dict__.pop(old, None)
        tables: list[dict[str, Any]] = [self._parameters, self._buffers]
        for held in tables:
            if old in held:
                held[name] = held.pop(old)
        variable = self._variables.pop(old)
        variable._attribute = name
        if variable.name == "weight":
            variable.name = variable.path = name
        self._variables[name] = variable
        if old in self._regularizers:
            self._regularizers[name] = self._regularizers.pop(old)

    def stored(self, name: str) -> Any:
        """Return a weight as it is kept: the parameter or buffer of torch, in torch's order of axes.

        Args:
            name: The attribute of the weight.

        Returns:
            The tensor; None where the layer has None there, as for a bias that it does without.
        """
        tensor: torch.Tensor | None = self._parameters.get(name)
        if tensor is None:
            tensor = self._buffers.get(name)
        if tensor is not None:
            return tensor
        # One that is computed from others, as `torch.nn.utils.parametrize` does, or that the user has put there.
        found = getattr(self, name)
        return found.tensor() if isinstance(found, Variable) else found

    def _change_weight(self, name: str, value: Any) -> None:
        """Let a regularizer or a constraint that is set on a built layer count for the weight that it is named after."""
        role, _, kind = name.rpartition("_")
        attribute = next((weight for weight in (role, f"{role}_kernel") if weight in self._variables), None)
        if attribute is None:
            if is_builtin(type(self)) and value is not None:
                hint = (
                    f" Set it on the cell: `layer.cell.{name}`."
                    if isinstance(vars(self).get("_modules", {}).get("cell"), Layer)
                    else ""
                )
                raise AttributeError(
                    f"`{name}` can't be set: {type(self).__name__} '{self.name}' has no such weight.{hint}"
                )
            return
        if kind == "constraint":
            self.__dict__[name] = project = constraints.get(value)
            self._constrain(self._variables[attribute], project)
            return
        self.__dict__[name] = penalty = regularizers.get(value)
        self._regularizers.pop(attribute, None)
        self._variables[attribute].regularizer = penalty
        if penalty is not None:
            self._regularizers[attribute] = penalty

    @staticmethod
    def _constrain(variable: Variable, project: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        variable.constraint = project

    def _take_variable(self, name: str, variable: Variable) -> None:
        """Make a Variable of the user's own a weight, which is still seen at the attribute."""
        if "_variables" not in self.__dict__:
            raise AttributeError(
                f"Call `super().__init__()` in {type(self).__name__}.__init__ before `self.{name} = Variable(...)`."
            )
        self.__dict__.pop(name, None)
        placed = self._placed() or backend.device_of_weights()
        if placed != variable.stored.device:
            variable.stored.data = variable.stored.data.to(placed)
        variable.belong(self, name)
        if not self._trainable:
            variable.stored.requires_grad_(False)
        self._variables[name] = self.__dict__[name] = variable

    def _track_containers(self) -> None:
        """Register layers and Variables kept in plain lists, tuples and dicts, which Keras tracks and torch doesn't."""
        known = {id(module) for module in self.modules()}
        for attribute, value in list(self.__dict__.items()):
            if attribute.startswith("_") or not isinstance(value, (list, tuple, dict)):
                continue
            value = self._with_adopted(attribute, value)
            for index, leaf in enumerate(flatten(value)):
                if isinstance(leaf, torch.nn.Module) and id(leaf) not in known:
                    self.add_module(f"{attribute}_{index}", leaf)
                    take_in(leaf, self.training)
                    known.update(id(module) for module in leaf.modules())
                elif isinstance(leaf, Variable) and leaf.is_free:
                    self._take_variable(f"{attribute}_{index}", leaf)

    def _with_adopted(self, attribute: str, value: Any) -> Any:
        """Return a container with layers of oncue in place of those of Keras."""
        if not any(adopted(leaf) is not leaf for leaf in flatten(value)):
            return value
        replaced = map_leaves(adopted, value)
        if isinstance(value, list):
            # The author may hold it under another name, too.
            value[:] = replaced
        elif isinstance(value, dict):
            value.update(replaced)
        else:
            self.__dict__[attribute] = value = replaced
        return value

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

    @property
    def torch_params(self) -> dict[str, torch.Tensor]:
        """The tensors of all weights, by the paths of these."""
        return {weight.path: weight.value for weight in self.weights}

    @property
    def metrics(self) -> list[Any]:
        """The metrics that are attributes of the layer and of those inside. `fit` resets and logs them."""
        from oncue.metrics import Metric

        parts = [module for module in self.modules() if isinstance(module, Layer)]
        found = [value for part in parts for value in vars(part).values() if isinstance(value, Metric)]
        return list({id(metric): metric for metric in found}.values())

    @property
    def metrics_variables(self) -> list[Any]:
        """The running values of the metrics."""
        return [variable for metric in self.metrics for variable in metric.variables]

    def stateless_call(
        self,
        trainable_variables: Sequence[Any],
        non_trainable_variables: Sequence[Any],
        *args: Any,
        return_losses: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Call the layer with other values in place of its weights, which stay as they are.

        Args:
            trainable_variables: A value for each of `layer.trainable_variables`: tensors, arrays or Variables.
            non_trainable_variables: A value for each of `layer.non_trainable_variables`.
            *args: As for a call.
            return_losses: Whether the losses that the layer has after the call are returned too.
            **kwargs: As for a call.

        Returns:
            The outputs and the values that the weights which aren't trained have after the call; with `return_losses` the
            list of losses behind them.

        Raises:
            ValueError: For a layer that isn't built, and for another number of values than of weights.

        Example:
            >>> from oncue import layers
            >>> dense = layers.Dense(1)
            >>> dense.build((None, 2))
            >>> dense.stateless_call([np.ones((2, 1)), np.zeros(1)], [], np.ones((1, 2)))
            (tensor([[2.]]), [])
        """
        if not self.built:
            raise ValueError(
                f"'{self.name}' has no weights yet. Call it on data, or build it, before `stateless_call`."
            )
        trained, rest = self.trainable_variables, self.non_trainable_variables
        given = [*trainable_variables], [*non_trainable_variables]
        for name, own, values in zip(("trainable", "non_trainable"), (trained, rest), given, strict=True):
            if len(own) != len(values):
                raise ValueError(f"`{name}_variables` of '{self.name}' must have {len(own)} values; got {len(values)}.")
        pairs = zip([*trained, *rest], [*given[0], *given[1]], strict=True)
        with _standing_in(self, {id(variable.stored): _stand_in(variable, value) for variable, value in pairs}):
            outputs = self(*args, **kwargs)
            losses = self.losses
            after = [variable.tensor() for variable in rest]
        return (outputs, after, losses) if return_losses else (outputs, after)

    def get_weights(self) -> list[NDArray[Any]]:
        """Return copies of all weights as NumPy arrays, in Keras's order and shapes."""
        return [weight.numpy() for weight in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all weights.

        Args:
            weights: Arrays in the order and shapes of `get_weights`.

        Raises:
            ValueError: When the number or a shape differs, or something is no array of numbers; nothing is changed then.
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
        stored = [variable.converted(value) for variable, value in zip(own, weights, strict=True)]
        with torch.no_grad():
            for variable, value in zip(own, stored, strict=True):
                put(variable.stored, value)

    def _own_variables(self) -> list[Variable]:
        held = set(torch_private.own_tensors(self))
        return [weight for weight in self.weights if weight.owner is self and weight.attribute in held]

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Put the layer's own weights, without those of layers inside, into what is saved. A subclass may put in others.

        Args:
            store: Takes arrays, tensors or numbers by name.
        """
        for index, variable in enumerate(self._own_variables()):
            store[str(index)] = variable

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Set the layer's own weights from what `save_own_variables` put in. A subclass that overrides one overrides both.

        Args:
            store: Arrays by name.

        Raises:
            ValueError: When there are others than the layer's weights, or a shape differs; nothing is changed then.
        """
        own = self._own_variables()
        if set(store) != {str(index) for index in range(len(own))}:
            raise ValueError(
                f"'{self.name}' has {len(own)} weights of its own; the file has {', '.join(map(repr, store)) or 'none'}. "
                f"What `{type(self).__name__}.save_own_variables` adds must be read by a `load_own_variables` of its own."
            )
        values = [variable.converted(store[str(index)]) for index, variable in enumerate(own)]
        with torch.no_grad():
            for variable, value in zip(own, values, strict=True):
                put(variable.stored, value)

    def save_assets(self, folder: str) -> None:
        """Write files that belong to the layer, such as a vocabulary, into a folder: they go into a `.keras` file.

        Nothing, unless a subclass overrides it; one that does overrides `load_assets` too.

        Args:
            folder: An empty folder of the layer's own.
        """

    def load_assets(self, folder: str) -> None:
        """Read what `save_assets` has written.

        Args:
            folder: The folder with the files, which is gone afterwards.
        """

    def count_params(self) -> int:
        """Return how many numbers the weights hold.

        Raises:
            ValueError: When the layer has no weights yet because it was not built.
        """
        if not self.built:
            raise ValueError(
                f"'{self.name}' has no weights yet. Call it on data, or build it with an `Input(shape)` first."
            )
        return sum(weight.stored.numel() for weight in self.weights)

    # Losses -------------------------------------------------------------------------------------------------------

    def add_loss(self, loss: Any) -> None:
        """Add a term to the loss of the step that is being computed (call it inside `call`)."""
        if has_symbolic(loss):
            raise ValueError(
                f"'{self.name}' can't add a symbolic tensor to its loss, as in tf.keras: nothing is computed yet. Call "
                "`self.add_loss(loss)` in the `call` of a layer of your own that gets the tensors, or override `compute_loss` "
                "of the model."
            )
        self._added_losses.extend(flatten(loss))

    @property
    def losses(self) -> list[torch.Tensor]:
        """The terms added to the loss of `compile`: weight penalties, and what `add_loss` added in the last call."""
        terms: list[torch.Tensor] = []
        for module in self.modules():
            if isinstance(module, Layer):
                terms += module._added_losses
                if module._trainable:
                    for attribute, regularizer in module._regularizers.items():
                        variable = module._variables[attribute]
                        weight = variable.stored
                        if is_sharded(weight):
                            # Its value is that of the whole weight, its gradient that of this process's part.
                            part = regularizer(variable.to_keras(weight.to_local())).sum()
                            summed = sum_of_parts(part.detach().reshape(1), [weight], "a penalty")[0]
                            terms.append(part + (summed - part.detach()))
                        else:
                            terms.append(regularizer(variable.tensor()))
        return terms

    def _losses_of_parts(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the penalties of this process's parts of weights that are sharded, and the other terms of `losses`."""
        of_weights: list[torch.Tensor] = []
        others: list[torch.Tensor] = []
        for module in self.modules():
            if isinstance(module, Layer):
                others += module._added_losses
                for attribute, regularizer in module._regularizers.items() if module._trainable else ():
                    variable = module._variables[attribute]
                    weight = variable.stored
                    if is_sharded(weight):
                        of_weights.append(regularizer(variable.to_keras(weight.to_local())).sum())
                    else:
                        others.append(regularizer(variable.tensor()))
        return of_weights, others

    # Copies and configuration -------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        # A copy of one layer must not drag along the whole graph of symbolic tensors before it.
        return {key: value for key, value in self.__dict__.items() if key not in ("_symbolic", "_in_pass")}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that recreate this layer."""
        policy = dtype_policies.serialize(self.dtype_policy)
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": policy}
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        return self._with_own_arguments(config) if self._is_described_by_arguments() else config

    @classmethod
    def _is_described_by_arguments(cls) -> bool:
        """Return whether the class is the user's own and says no other way what makes an object of it again."""
        return cls.get_config is Layer.get_config and not is_builtin(cls)

    def _with_own_arguments(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a configuration with what the object was made with, and without what its `__init__` doesn't take."""
        taken = inspect.signature(type(self).__init__).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
            usual = {"name": self.name, "trainable": True, "dtype": dtype_policies.serialize(dtype_policies.get(None))}
            # What differs from the usual must not be lost in silence: an `__init__` that doesn't take it says so.
            config = {key: value for key, value in config.items() if key in taken or usual.get(key) != value}
        return {**config, **self._own_arguments()}

    def _own_arguments(self) -> dict[str, Any]:
        """Return what a class without `get_config` was made with, by the names of the arguments.

        Raises:
            NotImplementedError: For values that can't be written down.
        """
        args, kwargs = self.__dict__.get("_made_with", ((), {}))
        named = inspect.signature(type(self).__init__).bind_partial(self, *args, **kwargs).arguments
        given: dict[str, Any] = {}
        for name, parameter in list(inspect.signature(type(self).__init__).parameters.items())[1:]:
            if name in named and parameter.kind is parameter.VAR_KEYWORD:
                given |= named[name]
            elif name in named:
                given[name] = named[name]
        given = {name: value for name, value in given.items() if name not in ("name", "trainable", "dtype")}
        wrong = next((name for name, value in given.items() if not _is_written(value)), None)
        if wrong is not None:
            cls = type(self).__name__
            raise NotImplementedError(
                f"'{self.name}' can't be saved: `{wrong}` of {cls} is {given[wrong]!r}, which can't be written down. "
                f"Define `{cls}.get_config(self)` that returns the arguments, as {{**super().get_config(), {wrong!r}: ...}}, "
                f"and `from_config` if they must be read in another form."
            )
        return given

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a layer from what `get_config` returned."""
        return cls(**config)

    def extra_repr(self) -> str:
        """Show the name in torch's printout of modules."""
        return f"name={self.name}"


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
    table: dict[str, Variable] = module._variables if isinstance(module, Layer) else {}
    weights, buffers = torch_private.tensor_tables(module)
    rest = module.not_weights() if isinstance(module, Layer) else frozenset()
    for attribute in torch_private.own_tensors(module):
        if attribute in rest:
            continue
        tensor = weights[attribute] if attribute in weights else buffers[attribute]
        variable = table.get(attribute)
        if tensor is None or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        if variable is None:
            variable = Variable.of(module, attribute)
            if isinstance(module, Layer):
                table[attribute] = variable
        variable.path = f"{prefix}/{variable.name}" if prefix else variable.name
        yield variable
    for child_name, child in torch_private.children_of(module).items():
        if child is None:
            continue
        label = child.name if isinstance(child, Layer) else child_name
        yield from variables_of(child, f"{prefix}/{label}" if prefix else label, seen)


def _as_shapes(value: Any) -> Any:
    """Return shapes that were read from JSON, which has no tuples."""
    if isinstance(value, dict):
        return {key: _as_shapes(item) for key, item in value.items()}
    sizes = isinstance(value, (list, tuple)) and all(size is None or isinstance(size, int) for size in value)
    return tuple(value) if sizes else [_as_shapes(item) for item in value]


def _is_written(value: Any) -> bool:
    """Return whether a value goes into a configuration as it is."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_written, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_written(item) for key, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str, np.generic))


def _stand_in(variable: Variable, value: Any) -> torch.Tensor:
    """Return a value laid out as a weight is stored, through which gradients pass; one that isn't trained is a copy."""
    tensor = value.tensor() if isinstance(value, Variable) else torch.as_tensor(value)
    if tuple(tensor.shape) != variable.shape:
        raise ValueError(
            f"The value for '{variable.path}' must have the shape {variable.shape}; got {tuple(tensor.shape)}."
        )
    stored = variable.stored
    tensor = variable.from_keras(tensor.to(stored.device, stored.dtype))
    return tensor if variable.trainable else tensor.clone()


@contextmanager
def _standing_in(layer: Layer, stand_ins: dict[int, torch.Tensor]) -> Iterator[None]:
    """Let other tensors stand for a layer's own, by their identities, inside the `with` block."""
    places = [
        (table, name, tensor)
        for part in torch_private.modules_of(layer)
        for table in torch_private.tensor_tables(part)
        for name, tensor in table.items()
        if id(tensor) in stand_ins
    ]
    try:
        for table, name, tensor in places:
            table[name] = stand_ins[id(tensor)]
        yield
    finally:
        for table, name, tensor in places:
            table[name] = tensor


def _marks_built(build: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def marked(self: Layer, *args: Any, **kwargs: Any) -> Any:
        with building(self):
            result = build(self, *args, **kwargs)
            self.built = True
            self.__dict__["_has_begun"] = True
            self._note_device()
        return result

    return marked


def _has_mask(inputs: Any) -> bool:
    """Return whether any tensor in nested inputs carries a mask."""
    for value in inputs.values() if isinstance(inputs, Mapping) else inputs:
        if isinstance(value, (list, tuple, Mapping)):
            if _has_mask(value):
                return True
        elif getattr(value, "_keras_mask", None) is not None:
            return True
    return False


def _masks_of(inputs: Any) -> Any:
    """Return the mask of an input, or those of nested inputs, nested likewise; None if there is none at all."""
    if not is_nested(inputs):
        return getattr(inputs, "_keras_mask", None)
    if not _has_mask(flatten(inputs)):
        return None
    if isinstance(inputs, Mapping):
        return {key: _masks_of(value) for key, value in inputs.items()}
    masks = [_masks_of(value) for value in inputs]
    return tuple(masks) if isinstance(inputs, tuple) else masks


def _on_device(value: Any, device: torch.device | None) -> Any:
    if not isinstance(value, torch.Tensor) or value.device == device:
        return value
    moved, mask = value.to(device), getattr(value, "_keras_mask", None)
    if mask is not None:
        moved._keras_mask = mask.to(device)  # type: ignore[attr-defined]  # travels with the tensor, as in Keras
    return moved


def is_several(shape: Any) -> bool:
    """Return whether a shape is one of several, in a list or dict, rather than sizes.

    Example:
        >>> is_several((None, 4)), is_several([(None, 4)]), is_several({"a": (None, 4)})
        (False, True, True)
    """
    return isinstance(shape, dict) or any(isinstance(part, (tuple, list, dict)) for part in shape)


def _owner(cls: type, method: str) -> type:
    """Return the class that a method of a class comes from."""
    return next(kind for kind in cls.__mro__ if method in vars(kind))


def _shapes(value: Any) -> Any:
    def shape(leaf: Any) -> Any:
        if isinstance(leaf, KerasTensor):
            return tuple(leaf.shape)
        return (None, *leaf.shape[1:]) if isinstance(leaf, torch.Tensor) else leaf

    return map_leaves(shape, value)


def _constructor_arguments(cls: type) -> list[str]:
    names: list[str] = []
    for parent in cls.__mro__:
        init = parent.__dict__.get("__init__")
        if init is not None and issubclass(parent, Layer):
            for name, parameter in inspect.signature(init).parameters.items():
                if name != "self" and parameter.kind is not parameter.VAR_KEYWORD and name not in names:
                    names.append(name)
    return names
