"""Every name of Keras that its documentation doesn't promise, with what goes without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def layers_of(model: Any) -> list[Any]:
    """Return a model and all layers inside, however deep.

    Without `_flatten_layers`, layers that are held in lists couldn't be found.
    """
    return list(model._flatten_layers())


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

    try:
        backend.compute_output_spec(model, tree.map_structure(symbolic, x), training=False)
    except ValueError:
        raise
    except Exception as error:
        raise RuntimeError(
            f"The Keras model '{model.name}' can't be built on the shapes of the first batch alone ({type(error).__name__}: "
            f"{error}). Call it on a batch before `fit`: `keras_model(x[:1])`."
        ) from error
    model._post_build()


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


def may_add_losses(model: Any) -> bool:
    """Return whether a model's weights or layers may add anything to its loss.

    Layers of Keras's own do so only by regularizers; any other may call `add_loss`.
    """
    import keras
    from keras.src.models.functional import Functional

    own = {kind for kind in vars(keras.layers).values() if isinstance(kind, type)} | {keras.Sequential, Functional}
    return any(type(layer) not in own or layer.activity_regularizer is not None for layer in layers_of(model)) or any(
        variable.regularizer is not None for variable in model.trainable_variables
    )


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
    import keras

    def own(*names: str) -> bool:
        return any(
            getattr(type(model), name) is not getattr(keras.Model, name) or name in vars(model) for name in names
        )

    steps = own("train_step", "test_step", "compute_loss", "compute_metrics")
    return steps, own("predict_step"), own("metrics", "reset_metrics", "get_metrics_result")
