"""Methods and properties under the names that older versions of Keras gave them."""

from __future__ import annotations

import functools
import itertools
import operator
from typing import Any

from oncue.legacy.warning import warn_once
from oncue.legacy.words import KERAS_1, KERAS_2, Old, since

METHODS: dict[str, Old] = {
    **since(
        KERAS_1,
        {
            "evaluate_generator": "evaluate",
            "fit_generator": "fit",
            "get_input_at": "input",
            "get_output_at": "output",
            "get_output_shape_at": "output.shape",
            "input_shape": "input.shape",
            "lr": "learning_rate",
            "output_shape": "output.shape",
            "predict_classes": "predict(x).argmax(axis=-1)",
            "predict_generator": "predict",
            "predict_proba": "predict",
            "reset_states": "reset_state",
        },
    ),
    **since(
        KERAS_2,
        {
            "_decayed_lr": "learning_rate",
            "get_weights": "variables",
            "weights": "variables",
            "monitor_op": "watch.is_better",
        },
    ),
}
"""From methods and attributes of layers, models, optimizers and callbacks to those of today."""

OF_SAMPLES: dict[str, str] = {
    "nb_val_samples": "validation_steps",
    "samples_per_epoch": "steps_per_epoch",
    "val_samples": "steps",
}
"""From arguments of Keras 1 that counted samples to those of today, which count batches."""


def fit_generator(model: Any, generator: Any, *args: Any, **kwargs: Any) -> Any:
    """Train on what a generator gives; the name of Keras 1 and 2 for `fit`.

    Its arguments are those of Keras 2, or by their names those of Keras 1, where `samples_per_epoch` and `nb_val_samples`
    count samples: the first batch says how many make a step.
    """
    warn_once("fit_generator", "fit")
    names = ("steps_per_epoch", "epochs", "verbose", "callbacks", "validation_data", "validation_steps", "class_weight")
    kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
    generator = _in_steps(generator, "samples_per_epoch", kwargs)
    if "nb_val_samples" in kwargs:
        kwargs["validation_data"] = _in_steps(kwargs.get("validation_data"), "nb_val_samples", kwargs)
    return model.fit(generator, **kwargs)


def _in_steps(generator: Any, old: str, kwargs: dict[str, Any]) -> Any:
    """Turn an argument that counts samples into one that counts batches; return what gives the batches."""
    samples = kwargs.pop(old, None)
    if samples is None:
        return generator
    warn_once(old, OF_SAMPLES[old])
    if isinstance(generator, (tuple, list)):
        return generator
    if hasattr(generator, "__getitem__"):
        first = generator[0]
    else:
        rest = iter(generator)
        first = next(rest)
        generator = itertools.chain([first], rest)
    inputs = first[0] if isinstance(first, (tuple, list)) else first
    inputs = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
    size = len(inputs[0] if isinstance(inputs, (tuple, list)) else inputs)
    kwargs[OF_SAMPLES[old]] = -(-int(samples) // size)
    return generator


def predict_proba(model: Any, x: Any, batch_size: int = 32, verbose: Any = 0) -> Any:
    """Compute outputs; the name of Keras 1 and 2 for `predict`."""
    warn_once("predict_proba", "predict")
    return model.predict(x, batch_size=batch_size, verbose=verbose)


def predict_classes(model: Any, x: Any, batch_size: int = 32, verbose: Any = 0) -> Any:
    """Compute classes: where the greatest of several outputs is, or whether a single one is above 0.5."""
    warn_once("predict_classes", "predict(x).argmax(axis=-1)` or `predict(x) > 0.5")
    outputs = model.predict(x, batch_size=batch_size, verbose=verbose)
    return outputs.argmax(axis=-1) if outputs.shape[-1] > 1 else (outputs > 0.5).astype("int32")


def reset_states(model: Any) -> None:
    """Forget the states that stateful layers kept from the last batch."""
    warn_once("model.reset_states", "layer.reset_state")
    for layer in model.modules():
        if getattr(layer, "stateful", False):
            layer.reset_state()


def evaluate_generator(model: Any, generator: Any, steps: int | None = None, **kwargs: Any) -> Any:
    """Measure on what a generator gives; the name of Keras 1 and 2 for `evaluate`, silent unless told."""
    warn_once("evaluate_generator", "evaluate")
    generator = _in_steps(generator, "val_samples", kwargs)
    return model.evaluate(generator, **{"steps": steps, "verbose": 0, **kwargs})


def predict_generator(model: Any, generator: Any, steps: int | None = None, **kwargs: Any) -> Any:
    """Compute outputs for what a generator gives; the name of Keras 1 and 2 for `predict`."""
    warn_once("predict_generator", "predict")
    generator = _in_steps(generator, "val_samples", kwargs)
    return model.predict(generator, **{"steps": steps, "verbose": 0, **kwargs})


class OldEnd:
    """An attribute of layers of Keras 1 and 2, about one end of the last symbolic call; one of the user's own hides it.

    Args:
        end: "input" or "output".
        shape: Whether it is the shape.
        method: Whether it is a method, which took the number of the call.
    """

    def __init__(self, end: str, shape: bool = True, method: bool = False) -> None:
        self.end, self.shape, self.method = end, shape, method

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, layer: Any, owner: type) -> Any:
        """Return the tensor or its shape, or the method that does."""
        if layer is None:
            return self
        return functools.partial(self._read, layer) if self.method else self._read(layer)

    def _read(self, layer: Any, node_index: int = 0) -> Any:
        if node_index:
            raise ValueError(
                f"`{self.name}({node_index})` asks for another call than the last, which nothing keeps today. Keep what the "
                "call returned."
            )
        found = getattr(layer, self.end)
        warn_once(f"layer.{self.name}", f"layer.{self.end}.shape" if self.shape else f"layer.{self.end}")
        if not self.shape:
            return found
        return [one.shape for one in found] if isinstance(found, (list, tuple)) else found.shape


def monitor_op(callback: Any) -> Any:
    """Return what tells whether one value is better than another; for a property of callbacks that watch a value."""
    warn_once("callback.monitor_op", "callback.watch.is_better")
    return operator.gt if callback.watch.direction == "up" else operator.lt


def decayed_lr(optimizer: Any, var_dtype: Any = None) -> Any:
    """Return the learning rate of the next update."""
    warn_once("optimizer._decayed_lr", "optimizer.learning_rate")
    return optimizer.learning_rate


def weights(optimizer: Any) -> Any:
    """Return an optimizer's state; for a property that can't be set."""
    warn_once("optimizer.weights", "optimizer.variables")
    return optimizer.variables


def get_weights(optimizer: Any) -> list[Any]:
    """Return an optimizer's state as arrays, for `set_weights`."""
    return [tensor.detach().cpu().numpy() for tensor in optimizer.variables]


def old_property(owner: str, old: str, new: str) -> Any:
    """Return a property that reads and sets another one, and warns once.

    Args:
        owner: What the warning calls the object.
        old: The property's name.
        new: The name of the property that it stands for.

    Example:
        >>> import warnings
        >>> class Optimizer:
        ...     learning_rate = 0.5
        ...     lr = old_property("optimizer", "lr", "learning_rate")
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     Optimizer().lr
        0.5
    """

    def read(self: Any) -> Any:
        warn_once(f"{owner}.{old}", f"{owner}.{new}")
        return getattr(self, new)

    def assign(self: Any, value: Any) -> None:
        warn_once(f"{owner}.{old}", f"{owner}.{new}")
        setattr(self, new, value)

    return property(read, assign, doc=f"The name of Keras 1 and 2 for `{new}`.")
