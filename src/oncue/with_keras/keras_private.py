"""Every name of Keras that its documentation doesn't promise, with what goes without it."""

from __future__ import annotations

import functools
import inspect
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from oncue.torch_private import has_hooks


def layers_of(model: Any) -> list[Any]:
    """Return a model and all layers inside, however deep.

    Without `_flatten_layers`, layers that are held in lists couldn't be found.
    """
    return list(model._flatten_layers())


def states_of_layers(model: Any) -> list[Any]:
    """Return the variables in which stateful layers keep what the next batch begins with, which aren't among the model's."""
    import keras

    layers = [
        layer for layer in layers_of(model) if isinstance(layer, keras.layers.RNN) and layer.stateful and layer.built
    ]
    return [state for layer in layers for state in flattened(layer.states)]


def is_built(model: Any) -> bool:
    """Return whether a model and all layers inside have their weights."""
    return all(layer.built for layer in layers_of(model))


def build(model: Any, x: Any) -> None:
    """Make the weights of a model for inputs like these, without running it, as Keras's own `fit` does.

    Args:
        model: The model.
        x: A batch of inputs.

    Raises:
        ValueError: For inputs that don't fit.
        RuntimeError: When the model can't be run on shapes alone.
    """
    from keras.src import backend, tree

    def symbolic(leaf: Any) -> Any:
        return backend.KerasTensor(leaf.shape, backend.standardize_dtype(leaf.dtype))

    shapes = tree.map_structure(symbolic, x)
    try:
        backend.compute_output_spec(model, shapes, training=False)
    except ValueError:
        raise
    except Exception as error:
        raise RuntimeError(
            f"The Keras model '{model.name}' can't be built on the shapes of the first batch alone ({type(error).__name__}: "
            f"{error}). Call it on a batch before `fit`: `keras_model(x[:1])`."
        ) from error
    if not is_built(model):
        # Layers that are called in training only. What can't be run so on shapes is built by the first step, which says why
        # where that fails, too.
        with suppress(Exception):
            backend.compute_output_spec(model, shapes, training=True)
    model._post_build()


def build_layer(layer: Any, shape: Any) -> None:
    """Make the weights of a layer, and of the layers inside, without running it.

    Args:
        layer: The layer.
        shape: The shape of its input, the batch axis first; nested as the inputs are.
    """
    from keras.src import backend

    def symbolic(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: symbolic(value) for name, value in part.items()}
        if any(isinstance(size, (list, tuple, dict)) for size in part):
            return [symbolic(value) for value in part]
        return backend.KerasTensor(tuple(part), layer.input_dtype)

    backend.compute_output_spec(layer, symbolic(shape), training=False)
    if not is_built(layer):
        with suppress(Exception):
            backend.compute_output_spec(layer, symbolic(shape), training=True)
    layer._post_build()


def node_of(tensor: Any) -> Any:
    """Return the call that gave a symbolic tensor; None for one that comes from nowhere."""
    operation, place, _ = getattr(tensor, "_keras_history", (None, 0, 0))
    return None if operation is None else operation._inbound_nodes[place]


def clear_losses(layer: Any) -> None:
    """Forget what earlier calls of a layer, and of those inside, have added to the loss."""
    layer._clear_losses()


def added_losses(layer: Any) -> list[Any]:
    """Return what the last call of a layer, and of those inside, has added to the loss."""
    return [loss for one in layers_of(layer) for loss in one._losses]


def has_assets(layer: Any) -> bool:
    """Return whether a layer keeps files, besides its weights, in a `.keras` file."""
    return hasattr(type(layer), "save_assets")


def saved_parts(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yield a layer and those inside, each once, with their paths in Keras's files of weights."""
    from keras.src.saving import saving_lib

    seen: set[int] = set()

    def container(items: Any, path: str) -> Iterator[tuple[str, Any]]:
        used: dict[str, int] = {}
        for item in items.values() if isinstance(items, dict) else items:
            if is_layer(item):
                name = saving_lib._get_unique_name(saving_lib.naming.to_snake_case(type(item).__name__), used)
                yield from walk(item, f"{path}/{name}")
            elif isinstance(item, (list, tuple, dict)) and id(item) not in seen:
                seen.add(id(item))
                yield from container(item, path)

    def walk(part: Any, path: str) -> Iterator[tuple[str, Any]]:
        if id(part) in seen:
            return
        seen.add(id(part))
        yield path, part
        for name, child in saving_lib._walk_saveable(part):
            below = f"{path}/{name}" if path else name
            if is_layer(child):
                yield from walk(child, below)
            elif isinstance(child, (list, tuple, dict)):
                yield from container(child, below)

    yield from walk(layer, "")


def build_whole(model: Any, batch: tuple[Any, Any, Any]) -> None:
    """Build a compiled model with its loss, its metrics and its optimizer, as Keras's own `fit` does."""
    model._symbolic_build(data_batch=batch)


def compiled_with(model: Any) -> Any:
    """Return the object that has what was given to the model's `compile`, another one after each call; None before.

    Without it, what was compiled could only be read from files, where functions and objects of the user's are lost.
    """
    return vars(model).get("_compile_config")


def measures_of(model: Any) -> tuple[Any, Any, Any, Any]:
    """Return the loss, its weights, the metrics and the weighted metrics that a model was compiled with, as objects.

    Each stays what it was where a later `compile` left it out.
    """
    loss, metrics = model._compile_loss, model._compile_metrics
    losses = (None, None) if loss is None else (loss._user_loss, loss._user_loss_weights)
    return *losses, *((None, None) if metrics is None else (metrics._user_metrics, metrics._user_weighted_metrics))


def own_metrics(model: Any) -> list[Any]:
    """Return the metrics that are attributes of a model or of layers inside, not those given to `compile`."""
    compiled = [model._loss_tracker, model._compile_metrics]
    if model._compile_loss is not None:
        compiled += model._compile_loss.metrics
    known = {id(metric) for metric in compiled}
    return [metric for metric in model.metrics if id(metric) not in known]


def arguments_of(measure: Any) -> dict[str, Any] | None:
    """Return the arguments that make a loss or a metric of Keras's own classes again; None where they can't be told.

    `get_config` leaves some out, such as the `delta` of `Huber` in Keras 3.15: they are among those of the function inside.
    Without `_fn_kwargs`, objects with such arguments stay Keras's own.
    """
    kind = type(measure)
    inside = vars(measure).get("_fn_kwargs", {})
    known = {name: inside[name] for name in inspect.signature(kind).parameters if name in inside}
    arguments = {**measure.get_config(), **known, "dtype": measure.dtype}
    return arguments if _alike(kind(**arguments), measure) else None


def plain_attributes(metric: Any) -> dict[str, Any]:
    """Return copies of the numbers, tensors, lists and dicts that a metric of a class of the user's has as attributes.

    Classes of Keras's own gather in variables alone.
    """
    import keras

    if type(metric) in vars(keras.metrics).values():
        return {}
    known = vars(keras.metrics.Metric(name="none"))
    found = {name: value for name, value in vars(metric).items() if name not in known}
    return {name: _copied(value) for name, value in found.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, dict)):
        return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, (bool, int, float, str, np.ndarray, torch.Tensor))


def _copied(value: Any) -> Any:
    # Keras's own kinds of lists and dicts note what is put in.
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_copied(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return value.copy() if isinstance(value, np.ndarray) else value


_BESIDE = ("_dtype_policy", "_tracker")
"""Attributes of metrics that say again what others say."""


def _alike(one: Any, other: Any) -> bool:
    """Return whether two objects compute the same, whatever they have gathered."""
    import keras

    if type(one) is not type(other):
        return False
    if isinstance(one, keras.Variable):
        return bool(one.shape == other.shape and one.dtype == other.dtype)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_alike(one[name], other[name]) for name in one if name not in _BESIDE)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, (keras.losses.Loss, keras.metrics.Metric)):
        return _alike(vars(one), vars(other))
    if inspect.ismethod(one):
        return one.__func__ is other.__func__
    if hasattr(one, "shape"):
        return one.shape == other.shape and bool((one == other).all())
    return bool(one == other)


def may_add_losses(model: Any) -> bool:
    """Return whether a model's weights or layers may add anything to its loss.

    Layers of Keras's own do so only by regularizers; any other may call `add_loss`.
    """
    own = own_layers()
    return any(type(layer) not in own or layer.activity_regularizer is not None for layer in layers_of(model)) or any(
        variable.regularizer is not None for variable in model.trainable_variables
    )


@functools.cache
def own_layers() -> set[type]:
    """Return Keras's own classes of layers, with those of models made of layers."""
    import keras
    from keras.src.models.functional import Functional

    return {kind for kind in vars(keras.layers).values() if isinstance(kind, type)} | {keras.Sequential, Functional}


def makers_of_masks() -> tuple[type, ...]:
    """Return the classes of layers that make masks; an `Embedding` does so by its `mask_zero`."""
    import keras

    return (keras.layers.Masking,)


def graph_of(model: Any) -> Any:
    """Return the graph of a functional or sequential model of Keras's own class; None for others."""
    import keras
    from keras.src.models.functional import Functional

    if type(model) is keras.Sequential:
        return model._functional
    return model if type(model) is Functional else None


def nodes_of(graph: Any) -> list[Any]:
    """Return the calls in a graph, in an order in which each can be computed."""
    depths = sorted(graph._nodes_by_depth, reverse=True)
    return [node for depth in depths for node in graph._nodes_by_depth[depth] if node.operation and not node.is_input]


def packer(graph: Any) -> Any:
    """Return the function from a list of outputs to what the graph gives; None where that is one tensor."""
    from keras.src import tree

    form = graph._outputs_struct
    if not tree.is_nested(form) or (isinstance(form, (list, tuple)) and len(form) == 1 and is_symbolic(form[0])):
        return None
    return lambda values: tree.pack_sequence_as(form, values)


def flattened(value: Any) -> list[Any]:
    """Return the tensors in a structure, in Keras's order."""
    from keras.src import tree

    return list(tree.flatten(value))


def is_symbolic(value: Any) -> bool:
    """Return whether a value is one of Keras's symbolic tensors."""
    import keras

    return isinstance(value, keras.KerasTensor)


def is_layer(operation: Any) -> bool:
    """Return whether an operation of a graph is a layer, and not a function of `keras.ops`."""
    import keras

    return issubclass(type(operation), keras.Layer)


def is_called_plainly(layer: Any) -> bool:
    """Return whether a call of a layer is nothing but its `call`: no hooks of torch's, no quantization, nothing run again."""
    state = vars(layer)
    own = "call" in state or state.get("lora_enabled")
    return not has_hooks(layer) and layer.quantization_mode is None and state.get("_remat_mode") is None and not own


def is_alone(layer: Any) -> bool:
    """Return whether a layer has no layers inside, and is called as most are."""
    import keras

    return len(layers_of(layer)) == 1 and type(layer).__call__ is keras.Layer.__call__


def mask_of(tensor: Any) -> Any:
    """Return the mask that Keras has noted on a tensor; None where there is none."""
    return getattr(tensor, "_keras_mask", None)


def is_usual_attention(layer: Any) -> bool:
    """Return whether a `MultiHeadAttention` attends over sequences by its four projections and nothing else.

    Releases differ in what else there is: gates, windows, kernels of one's own choice.
    """
    state = vars(layer)
    others = ("_use_gate", "_sliding_window", "_flash_attention")
    return not any(state.get(name) for name in others) and tuple(layer.attention_axes) == (1,)


def is_distributed() -> bool:
    """Return whether Keras lays tensors out over several devices."""
    import keras

    return keras.distribution.distribution() is not None


def torch_dtype(name: str) -> Any:
    """Return torch's type of the name that Keras has for it."""
    import keras

    return keras.ops.zeros((), dtype=name).dtype


def rate_source(optimizer: Any) -> Any:
    """Return where an optimizer's learning rate comes from: a variable, a schedule or a function."""
    return optimizer._learning_rate


def trained_by(optimizer: Any) -> list[Any]:
    """Return the variables that a built optimizer is for, in its order."""
    return list(optimizer._trainable_variables)


def undecayed(optimizer: Any, variables: list[Any]) -> Iterator[Any]:
    """Give the variables that `exclude_from_weight_decay` named."""
    return (variable for variable in variables if not optimizer._use_weight_decay(variable))


def steps_of(model: Any) -> tuple[bool, bool, bool]:
    """Return whether a model has a step of its own for training and evaluation, for prediction, and a loss or metrics.

    A method counts that isn't the one of Keras's trainer, on the class or on the model itself.
    """
    own = own_of_steps(model)
    steps, measures = set(own) & set(_OF_STEPS), set(own) - set(_OF_STEPS)
    return bool(steps), _is_own(model, "predict_step"), bool(measures)


_OF_STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")
_OF_MEASURES = ("metrics", "reset_metrics", "get_metrics_result")


def own_of_steps(model: Any) -> list[str]:
    """Return the names of a model's own methods that count in steps for training and evaluation."""
    return [name for name in (*_OF_STEPS, *_OF_MEASURES) if _is_own(model, name)]


def _is_own(model: Any, name: str) -> bool:
    import keras

    return getattr(type(model), name) is not getattr(keras.Model, name) or name in vars(model)


# Files: Keras's documented functions take paths only, and what is written and read here is in memory -------------------


def write_archive(model: Any, file: Any) -> None:
    """Write the content of a `.keras` file of a model into an open file."""
    from keras.src.saving import saving_lib

    saving_lib.save_model(model, file)


def write_weights(model: Any, file: Any, skipped: Sequence[Any] = ()) -> None:
    """Write the content of a `.weights.h5` file of a model into a file in memory, but for some of its parts."""
    from keras.src.saving import saving_lib

    store = saving_lib.H5IOStore(file, mode="w")
    try:
        saving_lib._save_state(model, store, None, inner_path="", visited_saveables=set(map(id, skipped)))
    finally:
        store.close()


def write_legacy_model(model: Any, content: Any, include_optimizer: bool) -> None:
    """Write a model into an open HDF5 file, in the form of Keras 1 and 2."""
    from keras.src.legacy.saving import legacy_h5_format

    legacy_h5_format.save_model_to_hdf5(model, content, include_optimizer=include_optimizer)


def write_legacy_weights(model: Any, content: Any) -> None:
    """Write a model's weights into an open HDF5 file, in the form of Keras 1 and 2."""
    from keras.src.legacy.saving import legacy_h5_format

    legacy_h5_format.save_weights_to_hdf5_group(content, model)


def read_archive(file: Any, custom_objects: dict[str, Any] | None, compile: bool) -> Any:
    """Return the model in the content of a `.keras` file; code in it is refused whatever the process has allowed."""
    from keras.src.saving import saving_lib, serialization_lib

    with serialization_lib.SafeModeScope(True):
        return saving_lib.load_model(file, custom_objects=custom_objects, compile=compile, safe_mode=True)


def read_legacy_model(content: Any, custom_objects: dict[str, Any] | None, compile: bool) -> Any:
    """Return the model in an open HDF5 file of the form of Keras 1 and 2."""
    from keras.src.legacy.saving import legacy_h5_format
    from keras.src.saving import serialization_lib

    with serialization_lib.SafeModeScope(True):
        return legacy_h5_format.load_model_from_hdf5(content, custom_objects=custom_objects, compile=compile)


def read_weights(model: Any, file: Any, skip_mismatch: bool, skipped: Sequence[Any] = ()) -> set[str]:
    """Set a model's weights, and its optimizer's state, from the content of a `.weights.h5` file.

    Args:
        model: The model.
        file: The content.
        skip_mismatch: Whether parts that don't fit are left as they are, with a warning.
        skipped: Parts that are left as they are.

    Returns:
        The groups of the file that parts of the model were looked for in, those of skipped ones too.

    Raises:
        ValueError: When some don't fit; others are set then.
    """
    from keras.src.saving import saving_lib

    class Noting(saving_lib.H5IOStore):  # type: ignore[misc]  # Keras has no types
        def get(self, path: str) -> Any:
            asked.add(path)
            return super().get(path)

    class Groups(saving_lib.H5IOStore):  # type: ignore[misc]  # as above
        def make(self, path: str, metadata: Any = None) -> dict[str, Any]:
            asked.add(path)
            return {}

    asked: set[str] = set()
    failed: set[int] = set()
    problems: dict[int, Any] = {}
    store = Noting(file, mode="r")
    try:
        saving_lib._load_state(
            model,
            store,
            None,
            inner_path="",
            skip_mismatch=skip_mismatch,
            visited_saveables=set(map(id, skipped)),
            failed_saveables=failed,
            error_msgs=problems,
        )
    finally:
        store.close()
    if failed:
        saving_lib._raise_loading_failure(problems, warn_only=skip_mismatch)
    if skipped:
        # What a save would write says where they are.
        saving_lib._save_state(model, Groups(io.BytesIO(), mode="w"), None, inner_path="", visited_saveables=set())
    return asked


def not_made_again(model: Any) -> tuple[str, str] | None:
    """Return the class of a model or layer that takes other arguments than its configuration has, and an error.

    None where all can be made again, and for classes that say themselves how.
    """
    import keras

    makers = {kind.from_config.__func__ for kind in (keras.Layer, keras.Model)}
    own = own_layers()
    for layer in layers_of(model):
        kind = type(layer)
        if kind in own or graph_of(layer) is not None or getattr(kind.from_config, "__func__", None) not in makers:
            continue
        try:
            # Not that of the class: a `__new__` of Keras's takes anything.
            inspect.signature(kind.__init__).bind(layer, **layer.get_config())
        except TypeError as error:
            return kind.__name__, str(error)
    return None


def read_legacy_weights(model: Any, group: Any, skip_mismatch: bool, by_name: bool) -> None:
    """Set a model's weights from a group of the form of Keras 1 and 2."""
    from keras.src.legacy.saving import legacy_h5_format

    if by_name:
        legacy_h5_format.load_weights_from_hdf5_group_by_name(group, model, skip_mismatch)
    else:
        # Older versions have no such argument.
        options = {"skip_mismatch": True} if skip_mismatch else {}
        legacy_h5_format.load_weights_from_hdf5_group(group, model, **options)


def built_in_kinds() -> tuple[type, ...]:
    """Return the classes of which all that a model's configuration may name are derived."""
    import keras
    from keras.src.saving.keras_saveable import KerasSaveable

    schedule: type = keras.optimizers.schedules.LearningRateSchedule
    policies = (keras.dtype_policies.DTypePolicy, keras.dtype_policies.DTypePolicyMap)
    named = (keras.initializers.Initializer, keras.regularizers.Regularizer, keras.constraints.Constraint)
    return (
        KerasSaveable,
        keras.Operation,
        keras.losses.Loss,
        keras.Quantizer,
        keras.random.SeedGenerator,
        schedule,
        *policies,
        *named,
    )


def refresh(model: Any) -> None:
    """Let layers that compute with numbers made from their weights make them again."""
    import keras

    for layer in layers_of(model):
        if isinstance(layer, keras.layers.Normalization) and layer.built:
            layer.finalize_state()


def overrides(layer: Any, *methods: str) -> bool:
    """Return whether a layer has one of these methods, and not from a class of Keras's."""
    import keras

    own = {kind for kind in vars(keras.layers).values() if isinstance(kind, type)}
    sources = [next((kind for kind in type(layer).__mro__ if name in vars(kind)), None) for name in methods]
    # What all models have is of the classes that `keras.Model` is derived from.
    return any(kind is not None and kind not in own and not issubclass(keras.Model, kind) for kind in sources)


def saves_more(model: Any) -> Any:
    """Return a layer whose class, one of the user's, says by itself what is saved of it; None when there is none."""
    methods = ("save_own_variables", "load_own_variables", "save_assets", "load_assets")
    return next((layer for layer in layers_of(model) if overrides(layer, *methods)), None)


def saved_by_itself(model: Any) -> list[str]:
    """Return which of the methods for files the model's class has of its own."""
    import keras

    methods = ("save", "save_weights", "load_weights")
    return [name for name in methods if getattr(type(model), name) is not getattr(keras.Model, name)]


def draw_seed(seed: Any) -> Any:
    """Return the two numbers that Keras draws from a seed, and add up to one; None where it runs on shapes alone."""
    from keras.src.backend.torch.core import get_device
    from keras.src.random.seed_generator import draw_seed

    return None if get_device() == "meta" else draw_seed(seed)


def exchange_generator(make: Callable[[Any], Any]) -> Callable[[Any], Any] | None:
    """Put a function in place of the one that makes a generator of a seed, and return that.

    Where a release of Keras has it no more, None, and layers that draw from seeds aren't part of a graph.

    Args:
        make: Takes a seed, and returns a generator of torch's.
    """
    from keras.src.backend.torch import random

    before: Callable[[Any], Any] | None = vars(random).get("torch_seed_generator")
    if before is not None:
        random.torch_seed_generator = make
    return before
