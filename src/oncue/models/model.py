"""Model: any torch module with Keras's compile, fit, evaluate and predict."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import torch

from oncue import naming
from oncue.core.builtin import builtin, is_builtin
from oncue.core.protocols import HasFiles
from oncue.core.suggest import nearest
from oncue.layers.keras_tensor import has_symbolic
from oncue.layers.layer import Layer, variables_of
from oncue.layers.modes import take_in
from oncue.layers.real_keras import is_keras_model, own_symbols
from oncue.layers.trial import Trial
from oncue.legacy import layer_of_keras_1, renamed
from oncue.models.module_call import ModuleCall, check_module, wrong_inputs
from oncue.models.state_tree import set_state_tree, state_tree
from oncue.nested import flatten, map_leaves
from oncue.training.probe import mode
from oncue.training.trainer import Trainer, is_unready

if TYPE_CHECKING:
    from oncue.checkpoints.snapshot import Snapshot


@builtin
class Model(Trainer):
    """A network that can be trained.

    There are three ways to one: `Model(module)` around any `torch.nn.Module`; `Model(inputs, outputs)` of symbolic
    tensors, the functional way; and a subclass with `call` (or `forward`). `Model(keras_model)` around a model of the real
    Keras, on its torch backend, is an `oncue.with_keras.KerasModel`.

    A module gets a tuple or list of inputs as its arguments, and a dict as its keywords. One whose `forward` has a single
    parameter gets several inputs whole: the list or tuple, or the dict if no key is the parameter's name.

    Args:
        inputs: A torch module to wrap, or the symbolic inputs of a functional model.
        outputs: The symbolic outputs of a functional model.
        name: The model's name.
        device: The device to train on; the one of `backend.device()` by default, unless the module is on an
            accelerator already.
        **kwargs: `trainable` and `dtype`, as for every layer. A torch module has types of its own: around one, `dtype` is a
            mixed policy, or names the type that the module's weights have.

    Raises:
        ValueError: When `dtype` is another type than that of a module's weights.
        TypeError: When `inputs` is neither a module nor symbolic, or a module that `torch.jit` or `torch.export` made.

    Example:
        >>> model = Model(torch.nn.Linear(2, 1))
        >>> model.compile(optimizer="sgd", loss="mse")
        >>> model.predict([[1.0, 2.0]], verbose=0).shape
        (1, 1)
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make the object; for a model of the real Keras, that of the class for those."""
        given = args[0] if args else kwargs.get("inputs")
        if cls is Model and is_keras_model(given):
            from oncue.with_keras.model import KerasModel

            return KerasModel.__new__(KerasModel, given)  # type: ignore[return-value]  # a subclass
        return super().__new__(cls, *args, **kwargs)

    def __init__(
        self,
        inputs: Any = None,
        outputs: Any = None,
        name: str | None = None,
        *,
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> None:
        ends = renamed("Model", kwargs)
        inputs, outputs = ends.get("inputs", inputs), ends.get("outputs", outputs)
        module = kwargs.pop("module", None)
        if isinstance(inputs, torch.nn.Module):
            inputs, module = None, inputs
        inputs, outputs = own_symbols(inputs), own_symbols(outputs)
        if name is None and module is not None:
            name = naming.auto_name(naming.to_snake_case(type(module).__name__))
        if name is None and inputs is not None and type(self) is Model:
            name = naming.auto_name("functional")
        super().__init__(name=name, **kwargs)
        self.module: torch.nn.Module | None = None
        self._graph: Any = None
        self._chosen_device = None if device is None else torch.device(device)
        if module is not None:
            if outputs is not None:
                raise TypeError("`Model(module)` takes no `outputs`: the module says what it gives.")
            check_module(module, "Model")
            self._check_dtype(module, kwargs.get("dtype"))
            self.module = module
            self._off_cpu = any(not tensor.is_cpu for tensor in module.parameters())
            self._module_call = ModuleCall(module)
        elif inputs is not None or outputs is not None:
            if not has_symbolic(inputs) or not has_symbolic(outputs):
                raise wrong_inputs(inputs, outputs)
            from oncue.models.functional import Graph

            self._graph = Graph(inputs, outputs)
            for layer in self._graph.layers:
                self._register(layer.name, layer)
            self.built = True

    def _register(self, name: str, layer: torch.nn.Module) -> None:
        """Keep a layer as a module, under its name unless that is an attribute to be set later, such as 'loss'."""
        key = name.replace(".", "_")
        while key in self._modules or key in self.__dict__ or (hasattr(type(self), key) and key not in _SYMBOLIC_ENDS):
            key += "_layer"
        self._modules[key] = layer
        self._layer_losses = None
        take_in(layer, self.training)
        self._place_part(layer)

    # Running -----------------------------------------------------------------------------------------------------

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Compute the outputs.

        Args:
            inputs: A tensor, or tensors nested as the model takes them.
            training: Set by the mode the model is in.
            mask: Passed on by models that use it.

        Returns:
            The outputs.
        """
        if self.module is not None:
            return self._module_call(self.module, inputs)
        if self._graph is not None:
            return self._graph(inputs)
        return super().call(inputs)

    def _check_dtype(self, module: torch.nn.Module, given: Any) -> None:
        """Refuse a type that a module doesn't have, since nothing would be cast to it."""
        if given is None or self._is_mixed:
            return
        floats = [(name, one.dtype) for name, one in module.named_parameters() if one.dtype.is_floating_point]
        name, found = next(((name, kind) for name, kind in floats if kind != self._dtype), ("", None))
        if found is not None:
            raise ValueError(
                f"`dtype` of a model around a torch module must be the type of its weights, or a mixed policy; got {given!r}, "
                f"and `{name}` has {found}. Convert the module: `Model(module.to({self._dtype}))`. To compute in 16 bits with "
                'weights in 32, use `dtype="mixed_bfloat16"`.'
            )

    def _forward(self, x: Any) -> Any:
        module = self.module
        if module is not None:
            if self._layer_losses is not None and self._layer_losses.added:
                self._forget_added_losses()
            return module(x) if type(x) is torch.Tensor else self._module_call(module, x)
        return self(x)

    def _build_on(self, x: Any) -> None:
        """Make the weights by running the model once, where they are not there yet."""
        if self.module is not None:
            if any(is_unready(tensor) for tensor in (*self.parameters(), *self.buffers())):
                with torch.no_grad(), mode(self, False), Trial(self):
                    self._forward(x)
            self.built = True
        else:
            super()._build_on(x)

    # Looking inside ----------------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Any]:
        """The layers of the model: those of the graph, or the modules directly inside."""
        if self._graph is not None:
            return list(self._graph.all_layers)
        self._track_containers()
        return list((self if self.module is None else self.module).children())

    @layers.setter
    def layers(self, value: Any) -> None:
        raise AttributeError(
            "The `Model.layers` attribute is reserved: it lists the layers that the model has. Give yours another "
            "name, such as `self.blocks = [...]`."
        )

    def get_layer(self, name: str | None = None, index: int | None = None) -> Any:
        """Return a layer by its name or its index.

        Args:
            name: The layer's name.
            index: The layer's index in `layers`.

        Returns:
            The layer.

        Raises:
            ValueError: For an unknown name or index, or when both or neither are given.
        """
        if (name is None) == (index is None):
            raise ValueError("Give `get_layer` either a `name` or an `index`.")
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(f"`index` must be below {len(layers)}, the number of layers; got {index}.")
            return layers[index]
        named = {self._layer_name(layer): layer for layer in layers}
        old = None if name in named else layer_of_keras_1(str(name), list(named))
        if old is not None:
            return named[old]
        if name not in named:
            guess = nearest(str(name), named)
            hint = f" Did you mean {guess!r}?" if guess is not None else ""
            raise ValueError(f"There is no layer {name!r}.{hint} The layers are: {', '.join(named)}.")
        return named[name]

    def _layer_name(self, layer: torch.nn.Module) -> str:
        if isinstance(layer, Layer):
            return layer.name
        owner = self if self.module is None else self.module
        return next((key for key, child in owner.named_children() if child is layer), type(layer).__name__)

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Print a table of the layers, their output shapes and their numbers of parameters.

        Args:
            line_length: The width of the table.
            positions: Kept from Keras 2; the columns find their places themselves.
            print_fn: A function that takes the text instead of stdout.
            expand_nested: Also list the layers inside layers.
            show_trainable: Add a column that says whether a layer is trained.
            layer_range: The names of the first and the last layer to list.
        """
        from oncue.utils.summary import print_summary

        print_summary(
            self,
            line_length=line_length,
            print_fn=print_fn,
            expand_nested=expand_nested,
            show_trainable=show_trainable,
            layer_range=layer_range,
        )

    @property
    def input_shape(self) -> Any:
        """The shape of the input, the batch axis (None) first.

        Raises:
            AttributeError: When it is not known.
        """
        if self._graph is not None:
            return self._graph.input_shape
        raise AttributeError(f"'{self.name}' doesn't know the shape of its input: it was not made from `Input(shape)`.")

    @property
    def output_shape(self) -> Any:
        """The shape of the output, the batch axis (None) first.

        Raises:
            AttributeError: When it is not known.
        """
        if self._graph is not None:
            return self._graph.output_shape
        raise AttributeError(
            f"'{self.name}' doesn't know the shape of its output: it was not made from `Input(shape)`."
        )

    def _symbolic_end(self, name: str) -> Any:
        if self._graph is not None:
            return self._graph.input_structure if name == "input" else self._graph.output_structure
        return super()._symbolic_end(name)

    def _output_spec(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, str]:
        """Return the shape and the type of the output for symbolic inputs."""
        graph = self._graph
        if graph is not None and [tensor.shape for tensor in flatten(args)] == [x.shape for x in graph.inputs]:
            return map_leaves(lambda tensor: tensor.shape, graph.result_structure), graph.outputs[0].dtype
        return super()._output_spec(args, kwargs)

    @property
    def inputs(self) -> list[Any]:
        """The symbolic inputs of a functional model."""
        return self._known_inputs()

    def _known_inputs(self) -> list[Any]:
        return [] if self._graph is None else list(self._graph.inputs)

    @property
    def outputs(self) -> list[Any]:
        """The symbolic outputs of a functional model."""
        return [] if self._graph is None else list(self._graph.outputs)

    @property
    def output_names(self) -> list[str] | None:
        """The names of the outputs of a functional model, after which losses and metrics are named."""
        return None if self._graph is None else list(self._graph.output_names)

    def get_config(self) -> dict[str, Any]:
        """Return what makes this model again, in Keras's form, for a functional model; else what a layer returns."""
        graph = self._graph
        if graph is None:
            config = super().get_config()
            return self._with_own_arguments(config) if self._is_described_by_arguments() else config
        from oncue.models.graph_config import graph_to_config

        config = graph_to_config(graph.order, graph.input_structure, graph.output_structure)
        return {"name": self.name, "trainable": self.trainable, **config}

    @classmethod
    def _is_described_by_arguments(cls) -> bool:
        return cls.get_config is Model.get_config and not is_builtin(cls)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Make a model from what `get_config` returned.

        Args:
            config: The configuration.
            custom_objects: Your own layers, by class name.

        Returns:
            A model with fresh weights.
        """
        rest = dict(config)
        if "input_layers" in rest:
            from oncue.models.graph_config import graph_from_config

            parts = {key: rest.pop(key) for key in ("layers", "input_layers", "output_layers")}
            inputs, outputs = graph_from_config(parts, custom_objects)
            return cls(inputs, outputs, **rest)
        return cls(**rest)

    @property
    def weights(self) -> list[Any]:
        """All weights, layer by layer, in Keras's order."""
        return list(variables_of(self if self.module is None else self.module))

    @property
    def metrics_variables(self) -> list[Any]:
        """The variables of all metrics."""
        return [variable for metric in self.metrics for variable in metric.variables]

    def get_state_tree(self, value_format: str = "backend_tensor") -> dict[str, Any]:
        """Return the values of all variables, nested by the parts of their paths.

        Args:
            value_format: "backend_tensor" for the tensors themselves, "numpy_array" for arrays.

        Returns:
            A dict with the keys trainable_variables, non_trainable_variables, optimizer_variables and metrics_variables.

        Raises:
            ValueError: When two variables have one path, or for another `value_format`.
        """
        return state_tree(self, value_format)

    def set_state_tree(self, state_tree: dict[str, Any]) -> None:
        """Set variables to what `get_state_tree` returned, or to a part of it.

        Args:
            state_tree: The nested dict; variables that it doesn't name stay as they are.

        Raises:
            ValueError: For a path that no variable has, before anything is changed.
        """
        set_state_tree(self, state_tree)

    # Files -------------------------------------------------------------------------------------------------------

    @property
    def own_files(self) -> HasFiles | None:
        """What writes and reads the model's files in a way of its own; None for a model of oncue's or torch's layers."""
        return None

    def save(
        self, filepath: str | os.PathLike[str], overwrite: bool = True, zipped: bool | None = None, **kwargs: Any
    ) -> None:
        """Save the whole model; arguments and errors as those of `oncue.saving.save_model`."""
        from oncue.saving.formats import save_model

        save_model(self, filepath, overwrite, zipped, **kwargs)

    def save_weights(
        self,
        filepath: str | os.PathLike[str],
        overwrite: bool = True,
        max_shard_size: float | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the weights; arguments and errors as those of `oncue.saving.save_weights`."""
        from oncue.saving.formats import save_weights

        save_weights(self, filepath, overwrite, max_shard_size, **kwargs)

    def prepare_save(
        self,
        filepath: str | os.PathLike[str],
        *,
        weights_only: bool = False,
        snapshot: Snapshot | None = None,
        note: str | None = None,
    ) -> Callable[[], None]:
        """Take all that a save needs, and return a function that writes it later; see `oncue.saving.prepare_save`.

        Raises:
            ValueError: Also when the model's class saves in its own way, which nothing is known of.
        """
        from oncue.saving.formats import prepare_save

        method = "save_weights" if weights_only else "save"
        if method in vars(self) or getattr(type(self), method) is not getattr(Model, method):
            raise ValueError(
                f"`{type(self).__name__}.{method}` is a method of your own, so only it can save the model, and not in "
                "the background. Leave out `asynchronous=True`."
            )

        return prepare_save(self, filepath, weights_only=weights_only, snapshot=snapshot, note=note)

    def size_of_save(self, filepath: str | os.PathLike[str], *, weights_only: bool = False) -> int:
        """Return about how many bytes a save takes; see `oncue.saving.size_of_save`."""
        from oncue.saving.formats import size_of_save

        return size_of_save(self, filepath, weights_only=weights_only)

    def load_weights(self, filepath: str | os.PathLike[str], skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Load weights; arguments and errors as those of `oncue.saving.load_weights`."""
        from oncue.saving.formats import load_weights

        load_weights(self, filepath, skip_mismatch, **kwargs)

    def export(
        self,
        filepath: str | os.PathLike[str],
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write what the model computes in inference as a program that runs without its code.

        Args:
            filepath: The file: "model.pt2" for torch, "model.onnx" for ONNX.
            format: "torch", which `torch.export.load` reads; or "onnx", for which onnx and onnxscript must be installed. The
                others of Keras can't be written on torch, its default "tf_saved_model" among them.
            verbose: Whether to say where it is; True by default.
            input_signature: What has a `shape` and a `dtype` for each input, such as `KerasTensor((None, 3))`; sizes that
                are None may vary. By default the model's symbolic inputs.
            **kwargs: Further arguments of `torch.export.export`, or of `torch.onnx.export`.

        Raises:
            ValueError: For another format or ending, for inputs that aren't known, and for a model that is no program, such
                as one whose code looks at values.
            ImportError: Without what ONNX needs.

        Example:
            >>> import tempfile
            >>> from oncue import Sequential, layers
            >>> model = Sequential([layers.Input((2,)), layers.Dense(1)])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.export(f"{folder}/m.pt2", format="torch", verbose=False)
            ...     torch.export.load(f"{folder}/m.pt2").module()(torch.ones(5, 2)).shape
            torch.Size([5, 1])
        """
        from oncue.models.export import export

        export(self, filepath, format, verbose, input_signature, **kwargs)

    def get_compile_config(self) -> dict[str, Any] | None:
        """Return what was given to `compile` as a dict that goes into JSON; None for a model that is not compiled.

        It is Keras's dict, and has the key "precision" besides where that is not 32 bits.
        """
        from oncue.saving.compile_config import compile_config

        config, precision = compile_config(self), self._plan.precision
        return config if config is None or precision is None else {**config, "precision": precision.name}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile the model as `get_compile_config` says, of Keras's models too.

        Args:
            config: The dict.

        Raises:
            ValueError: For a name that is not known.
        """
        from oncue.saving.compile_config import compile_from_config

        compile_from_config(self, config, precision=config.get("precision"))

    def to_json(self, **kwargs: Any) -> str:
        """Return the architecture as JSON, for `models.model_from_json`.

        Args:
            **kwargs: Arguments of `json.dumps`, such as `indent`.
        """
        import json

        from oncue.saving.model_config import model_config

        return json.dumps(model_config(self), **kwargs)


_SYMBOLIC_ENDS = ("input", "output")


def model_from_json(json_string: str, custom_objects: dict[str, Any] | None = None) -> Any:
    """Make a model with fresh weights from what `model.to_json()` returned.

    Args:
        json_string: The JSON.
        custom_objects: Your own classes and functions by name.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: For text that isn't a configuration of a model, or names what is not known.

    Example:
        >>> from oncue import Sequential, layers
        >>> model_from_json(Sequential([layers.Input((2,)), layers.Dense(3)]).to_json()).count_params()
        9
    """
    from oncue.saving import guard
    from oncue.saving.model_config import model_from_written

    config = guard.read_json(json_string, "json_string")
    config.pop("compile_config", None)
    return model_from_written(config, "json_string", custom_objects)
