"""An optimizer's state as the arrays that Keras writes, in Keras's order of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from oncue.core.protocols import inner_optimizer_of
from oncue.core.warn import warn
from oncue.optimizers import LossScaleOptimizer
from oncue.saving import guard
from oncue.saving.tree import Stored
from oncue.saving.values import as_kind


def optimizer_tensors(model: Any) -> list[Stored]:
    """Return the state of a model's optimizer: the step count, the learning rate, then the slots of each weight.

    Args:
        model: A compiled model.

    Returns:
        Tensors in the order of `optimizer.variables`; empty without an optimizer that keeps its state so.

    Example:
        >>> from oncue import Sequential, layers
        >>> model = Sequential([layers.Input((2,)), layers.Dense(3)])
        >>> model.compile("sgd", "mse")
        >>> [stored.array().tolist() for stored in optimizer_tensors(model)]
        [0, 0.009999999776482582]
    """
    optimizer = model.optimizer
    try:
        variables = optimizer.state_tensors()
    except ValueError:
        # A torch optimizer that hasn't been created yet has no learning rate.
        return []
    inner = inner_optimizer_of(optimizer)
    if inner.counts_apart:
        warn(
            f"A file has one count of updates for all weights, and {type(inner).__name__} counts those apart that were "
            "unfrozen later: training that goes on from the file differs a little. A backup by `BackupAndRestore` has them all."
        )
    owners = _owners(model)
    found: list[Stored] = []
    for tensor in variables:
        owner = owners.get(id(tensor))
        # Keras counts in 32 bits.
        counts = tensor.dtype == torch.int64 and tensor.device.type == "cpu" and tensor.numel() == 1
        kept = tensor.to(torch.int32) if counts and int(tensor) <= torch.iinfo(torch.int32).max else tensor
        found.append(Stored(kept, None if owner is None else owner.axes, f"{optimizer.name}/{len(found)}"))
    return found


def optimizer_shapes(model: Any) -> list[tuple[int, ...]]:
    """Return the shapes of `optimizer_tensors` in the file without copying anything."""
    try:
        variables = model.optimizer.state_tensors()
    except ValueError:
        return []
    owners = _owners(model)
    shapes = []
    for tensor in variables:
        owner = owners.get(id(tensor))
        shapes.append(tuple((tensor if owner is None else owner.to_keras(tensor)).shape))
    return shapes


def optimizer_values(model: Any, datasets: Sequence[Any], source: Any) -> list[torch.Tensor]:
    """Read the state of a model's optimizer.

    Args:
        model: A compiled model.
        datasets: The arrays in the file, of the shapes of `optimizer_shapes`.
        source: The file, for messages.

    Returns:
        The values, of the types of `optimizer.variables`.

    Raises:
        ValueError: If one of them isn't a value that the optimizer can have.
    """
    values: list[torch.Tensor] = []
    for index, (variable, dataset) in enumerate(zip(model.optimizer.state_tensors(), datasets, strict=True)):
        try:
            values.append(as_kind(guard.read_array(dataset), variable.dtype))
        except ValueError as error:
            raise ValueError(
                f"The optimizer's state in {str(source)!r} doesn't fit; nothing was loaded: its variable {index} is of the "
                f"type {str(variable.dtype).removeprefix('torch.')}, and {error}."
            ) from None
    return values


def set_optimizer_values(model: Any, values: Sequence[torch.Tensor]) -> None:
    """Set the state of a model's optimizer to what `optimizer_values` returned."""
    optimizer = model.optimizer
    if not optimizer.built:
        if isinstance(optimizer, LossScaleOptimizer):
            # The outer optimizer's own count and rate are unused.
            values = values[len(optimizer.own_variables()) :]
            optimizer = optimizer.inner_optimizer
        # There are only the count and the rate so far.
        optimizer._restore_count(int(values[0]))
        if len(values) > 1 and isinstance(optimizer._rate.source, float):
            _set_rate(optimizer, float(optimizer.learning_rate), float(values[1]))
        return
    owners = _owners(model)
    stored = []
    for tensor, value in zip(optimizer.state_tensors(), values, strict=True):
        owner = owners.get(id(tensor))
        stored.append(value if owner is None else owner.from_keras(value))
    rate = float(optimizer.learning_rate) if optimizer.has_rate else None
    optimizer.set_weights(stored)
    if rate is not None and isinstance(optimizer._rate.source, float):
        _set_rate(optimizer, rate, float(optimizer.learning_rate))


def _set_rate(optimizer: Any, before: float, saved: float) -> None:
    # The file has only 32 bits of the rate that the configuration, or `compile`, has in full precision.
    if not optimizer._rate.decay:
        optimizer.learning_rate = before if np.float32(before) == np.float32(saved) else saved


def warn_of_count(optimizer: Any, own: int, saved: int) -> None:
    """Warn that an optimizer's state was left alone because the file has another number of arrays for it."""
    hint = " It is not built yet: train it for a step, or use `load_model`." if not optimizer.built else ""
    warn(
        f"Skipping variable loading for optimizer '{optimizer.name}', because it has {own} variables whereas the saved "
        f"optimizer has {saved} variables.{hint}"
    )


def _owners(model: Any) -> dict[int, Any]:
    """Return, for each tensor that is laid out as a weight is stored, that weight."""
    optimizer = model.optimizer
    weights = {id(weight.stored): weight for weight in model.weights}
    owned = [weights.get(id(parameter)) for parameter in optimizer._parameters]
    lists = [tensors for tensors in optimizer.slots().values() if tensors]
    lists += [tensors for tensors in (optimizer.ema_variables, optimizer._accumulators) if tensors is not None]
    pairs = [pair for tensors in lists for pair in zip(tensors, owned, strict=True)]
    return {id(tensor): weight for tensor, weight in pairs if weight is not None}
