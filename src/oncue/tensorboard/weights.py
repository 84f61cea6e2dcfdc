"""The weights of a model, by name: their histograms, images and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from oncue.tensorboard.buckets import bucket_rows
from oncue.tensorboard.images import pictures
from oncue.tensorboard.summaries import histogram


@runtime_checkable
class HasWeights(Protocol):
    """A model with Keras's weights, each with a `path` and a value; oncue's and Keras's own models are such."""

    @property
    def weights(self) -> Any:
        """The weights."""
        ...


@dataclass(frozen=True)
class Weight:
    """One weight.

    Args:
        name: Its path in the model, with slashes: "sequential/dense/kernel".
        value: The tensor, in Keras's order of axes where the model has one.
        gradient: Its gradient after the last batch, or None.
    """

    name: str
    value: Tensor
    gradient: Tensor | None = None


def weights_of(model: Any) -> list[Weight]:
    """Return the weights of a model of Keras's kind or of a torch module.

    Args:
        model: A model with `weights`, or a `torch.nn.Module`.

    Raises:
        TypeError: When the model is neither.

    Example:
        >>> [weight.name for weight in weights_of(torch.nn.Sequential(torch.nn.Linear(1, 1)))]
        ['0/weight', '0/bias']
    """
    if isinstance(model, HasWeights):
        return [_of_variable(variable, _prefix(model)) for variable in model.weights]
    if isinstance(model, torch.nn.Module):
        return [
            Weight(name.replace(".", "/"), parameter.detach(), parameter.grad)
            for name, parameter in model.named_parameters()
        ]
    raise TypeError(
        f"TensorBoard's `histogram_freq` needs a model with `weights`, or a torch module; got {type(model).__name__}. "
        "Use `histogram_freq=0`."
    )


def weight_summaries(model: Any, *, images: bool, gradients: bool) -> Iterator[list[Any]]:
    """Yield the summaries of each weight: its histogram, its images, and the histogram of its gradient.

    Args:
        model: As for `weights_of`.
        images: Whether to make images.
        gradients: Whether to look at the gradients of the last batch, where there are any.

    Yields:
        Values for an event file.
    """
    weights = weights_of(model)
    shown = [(f"{weight.name}/histogram", weight.value) for weight in weights]
    if gradients:
        shown += [
            (f"{weight.name}_grad/histogram", weight.gradient) for weight in weights if weight.gradient is not None
        ]
    for (tag, _), rows in zip(shown, bucket_rows([value for _, value in shown]), strict=True):
        yield [histogram(tag, rows)]
    if images:
        for weight in weights:
            found = pictures(f"{weight.name}/image", as_array(weight.value))
            if found is not None:
                yield [found]


def as_array(value: Tensor) -> Any:
    """Return a tensor as a NumPy array, in single precision where NumPy lacks its type."""
    value = value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()


def as_tensor(value: Any) -> Tensor:
    """Return the tensor of a weight: of oncue's or Keras's variables, a torch parameter, or anything NumPy reads."""
    held = getattr(value, "value", value)
    if not isinstance(held, Tensor):
        return torch.from_numpy(np.array(value))
    to_keras = getattr(value, "to_keras", None)
    tensor: Tensor = held.detach() if to_keras is None else to_keras(held.detach())
    return tensor


def _of_variable(variable: Any, prefix: str) -> Weight:
    name = (prefix + variable.path).replace(":", "_")
    held = getattr(variable, "value", None)
    gradient = held.grad if isinstance(held, Tensor) and held.is_leaf else None
    if gradient is not None and hasattr(variable, "to_keras"):
        gradient = variable.to_keras(gradient)
    return Weight(name, as_tensor(variable), gradient)


def _prefix(model: Any) -> str:
    from oncue.models import Model

    # Keras's paths begin with the name of the model that made the layers. Only a functional one finds them made.
    made_before = type(model) is Model and model.inputs
    return f"{model.name}/" if isinstance(model, Model) and not made_before else ""
