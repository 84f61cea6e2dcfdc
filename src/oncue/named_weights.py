"""The weights of a model, by name, and what is said of them in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from oncue.core.builtin import kind_of
from oncue.shards import is_sharded, least_of_parts, part_of, sum_of_parts


@runtime_checkable
class HasWeights(Protocol):
    """A model with Keras's weights, each with a `path` and a value; oncue's and Keras's own models are such."""

    @property
    def weights(self) -> Any:
        """The weights."""
        ...


@runtime_checkable
class HasTensors(Protocol):
    """A model that has its tensors by name; one that another loop trains is such."""

    def tensors(self) -> Mapping[str, Tensor]:
        """Return all parameters and buffers by name."""
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


def weights_of(model: Any, asked_by: str) -> list[Weight]:
    """Return the weights of a model of Keras's kind, of a torch module, or of what another loop trains.

    Args:
        model: A model with `weights`, a `torch.nn.Module`, or a model that has its tensors by name.
        asked_by: The argument that asks for them, which is 0 where they aren't wanted.

    Raises:
        TypeError: When the model is none of these.

    Example:
        >>> [weight.name for weight in weights_of(torch.nn.Sequential(torch.nn.Linear(1, 1)), "`a`")]
        ['0/weight', '0/bias']
    """
    if isinstance(model, HasWeights):
        return [_of_variable(variable, _prefix(model)) for variable in model.weights]
    if isinstance(model, torch.nn.Module):
        return [
            Weight(name.replace(".", "/"), parameter.detach(), parameter.grad)
            for name, parameter in model.named_parameters()
        ]
    if isinstance(model, HasTensors):
        return [
            Weight(name.replace(".", "/"), tensor.detach(), tensor.grad) for name, tensor in model.tensors().items()
        ]
    raise TypeError(
        f"{asked_by} needs a model with `weights`, or a torch module; got {type(model).__name__}. Leave it at 0."
    )


@torch.no_grad()
def statistics_of(weights: Sequence[Weight]) -> dict[str, list[float]]:
    """Return what `oncue.core.run_record.STATISTICS` names, of each weight, with one transfer from each device.

    Args:
        weights: Weights; those that have no numbers, or whole ones, are left out. Of those that are sharded each process
            looks at its part, and all must call it.

    Returns:
        By name: the mean, the standard deviation, the share of zeros, the least and the greatest number. Of complex numbers
        the absolute values are looked at.

    Example:
        >>> statistics_of([Weight("w", torch.tensor([0.0, 0.0, 1.0, 3.0]))])["w"]
        [1.0, 1.224..., 0.5, 0.0, 3.0]
    """
    rows: dict[torch.device, list[tuple[str, Tensor]]] = {}
    parts: list[tuple[str, Tensor]] = []
    for weight in weights:
        value = weight.value.detach()
        if value.numel() and (value.is_floating_point() or value.is_complex()):
            if is_sharded(value):
                parts.append((weight.name, value))
            else:
                rows.setdefault(value.device, []).append((weight.name, _statistics(_real(value))))
    if parts:
        found = _statistics_of_parts([value for _, value in parts])
        rows.setdefault(found.device, []).extend(zip([name for name, _ in parts], found, strict=True))
    read: dict[str, list[float]] = {}
    for named in rows.values():
        read.update(zip([name for name, _ in named], torch.stack([row for _, row in named]).tolist(), strict=True))
    return {weight.name: read[weight.name] for weight in weights if weight.name in read}


def _real(value: Tensor) -> Tensor:
    value = value.flatten()
    value = value.abs() if value.is_complex() else value
    return value if value.itemsize >= 4 else value.float()


def _statistics(value: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(value, correction=0)
    zeros = 1 - torch.count_nonzero(value).double() / value.numel()
    low, high = torch.aminmax(value)
    return torch.stack([mean.double(), deviation.double(), zeros, low.double(), high.double()])


def _statistics_of_parts(tensors: Sequence[Tensor]) -> Tensor:
    """Return what `_statistics` does of whole tensors, in three small messages; each process looks at its parts."""
    what = "statistics of weights"
    flat = [_real(part_of(tensor)) for tensor in tensors]
    device = flat[0].device
    sizes = torch.tensor([tensor.numel() for tensor in tensors], dtype=torch.float64, device=device)
    least = least_of_parts(torch.stack([_ends(one) for one in flat]), tensors, what)
    sums = sum_of_parts(torch.stack([_sums(one) for one in flat]), tensors, what)
    means = sums[:, 0] / sizes
    apart = [(one - mean).square().sum(dtype=torch.float64) for one, mean in zip(flat, means, strict=True)]
    deviations = (sum_of_parts(torch.stack(apart), tensors, what) / sizes).sqrt()
    ends = torch.stack([least[:, 0], -least[:, 1]], 1)
    ends[sums[:, 2] > 0] = math.nan
    return torch.cat([torch.stack([means, deviations, 1 - sums[:, 1] / sizes], 1), ends], 1)


def _ends(part: Tensor) -> Tensor:
    """Return the least number of a part, and of its negative, without those that are none."""
    if not len(part):
        return torch.full((2,), math.inf, dtype=torch.float64, device=part.device)
    numbers = torch.stack([part.where(~part.isnan(), math.inf).amin(), (-part).where(~part.isnan(), math.inf).amin()])
    return numbers.double()


def _sums(part: Tensor) -> Tensor:
    counted = torch.stack([torch.count_nonzero(part), part.isnan().count_nonzero()])
    return torch.cat([part.sum(dtype=torch.float64)[None], counted.double()])


def as_array(value: Tensor) -> Any:
    """Return a tensor as a NumPy array, in single precision where NumPy lacks its type."""
    value = value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()


def as_tensor(value: Any) -> Tensor:
    """Return the tensor of a weight: of oncue's or Keras's variables, a torch parameter, or anything NumPy reads."""
    held = getattr(value, "value", value)
    if not isinstance(held, Tensor):
        return torch.from_numpy(np.array(value))
    return held.detach()


def _of_variable(variable: Any, prefix: str) -> Weight:
    name = (prefix + variable.path).replace(":", "_")
    held = getattr(variable, "value", None)
    # A variable that shows its tensor in another order of axes has the gradient in that order itself.
    gradient = getattr(held if isinstance(held, Tensor) and held.is_leaf else variable, "grad", None)
    return Weight(name, as_tensor(variable), gradient)


def _prefix(model: Any) -> str:
    from oncue.models import Model

    # Keras's paths begin with the name of the model that made the layers. Only a functional one finds them made.
    made_before = kind_of(model) is Model and model.inputs
    return f"{model.name}/" if isinstance(model, Model) and not made_before else ""
