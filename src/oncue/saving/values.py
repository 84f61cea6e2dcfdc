"""The arrays of a file as the values of weights: converted, and found to fit, before the first weight is set."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oncue.saving import guard
from oncue.saving.tree import Stored
from oncue.variable import Variable, numpy_kind

Values = list[tuple[Variable, torch.Tensor]]
"""Weights, each with the value it gets."""


def read_values(pairs: list[tuple[Variable, Any]], label: str, problems: list[str]) -> Values:
    """Read the values of a layer's weights.

    Args:
        pairs: Each weight with its data set, or with None where the file lacks it.
        label: The layer, for messages.
        problems: Gets what doesn't fit.

    Returns:
        The values, in Keras's order of axes, of the types of the weights; none if one doesn't fit.
    """
    for variable, dataset in pairs:
        wrong = f"the file lacks the weight '{variable.name}'" if dataset is None else mismatch(variable, dataset)
        if wrong is not None:
            problems.append(f"{label}: {wrong}")
            return []
    found: Values = []
    for variable, dataset in pairs:
        try:
            found.append((variable, as_kind(guard.read_array(dataset), variable.stored.dtype)))
        except ValueError as error:
            problems.append(f"{label}: '{variable.name}' is of the type {variable.dtype}, and {error}")
            return []
    return found


def set_values(values: Values) -> None:
    """Set weights to values that `read_values` returned."""
    for variable, value in values:
        variable.assign(value)


def mismatch(variable: Variable, dataset: Any) -> str | None:
    """Return why a data set doesn't fit a weight, or None if it does, without reading the data."""
    if tuple(dataset.shape) != variable.shape:
        return f"'{variable.name}' has the shape {variable.shape}, the array in the file {tuple(dataset.shape)}"
    if dataset.dtype != np.dtype("V2") and dataset.dtype.kind not in _kinds(variable.stored.dtype):
        return f"'{variable.name}' is of the type {variable.dtype}, the array in the file of {dataset.dtype}"
    return None


def as_kind(array: NDArray[Any], kind: torch.dtype) -> torch.Tensor:
    """Return the numbers of an array in another type.

    Args:
        array: The array, of any order of bytes.
        kind: The type.

    Returns:
        A tensor on the CPU.

    Raises:
        ValueError: If the array's numbers are of a kind that the type doesn't hold, or too large for it.

    Example:
        >>> as_kind(np.array([1, 2], ">i8"), torch.int32)
        tensor([1, 2], dtype=torch.int32)
    """
    if array.dtype.kind not in _kinds(kind) or array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
        raise ValueError(f"the array in the file of {array.dtype}")
    if kind.is_floating_point or kind.is_complex:
        return converted(torch.from_numpy(np.asarray(array, array.dtype.newbyteorder("="))), kind)
    low, high = (0, 1) if kind == torch.bool else (torch.iinfo(kind).min, torch.iinfo(kind).max)
    if array.size and not low <= int(array.min()) <= int(array.max()) <= high:
        raise ValueError(f"the array in the file has numbers that it doesn't hold: {array.min()} to {array.max()}")
    return torch.from_numpy(np.asarray(array, array.dtype.newbyteorder("="))).to(kind)


def converted(tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    """Return numbers in another type of floats; the tensor itself if they are of that type.

    Raises:
        ValueError: If a number is too large for the other type.
    """
    value = tensor.to(kind)
    if _largest(tensor.dtype) > _largest(kind):
        # Types of 8 bits know no `isfinite`.
        lost = torch.isfinite(tensor) & ~torch.isfinite(value.to(numpy_kind(kind, "")))
        if bool(lost.any()):
            raise ValueError(f"the array in the file has numbers that are too large for it, such as {tensor[lost][0]}")
    return value


def _kinds(kind: torch.dtype) -> str:
    """Return NumPy's letters for the kinds of numbers that a type takes."""
    return "c" if kind.is_complex else "fiub" if kind.is_floating_point else "iub"


def _largest(kind: torch.dtype) -> float:
    if kind == torch.bool:
        return 1.0
    return float((torch.finfo if kind.is_floating_point or kind.is_complex else torch.iinfo)(kind).max)


def stored(variable: Variable) -> Stored:
    """Return a weight as it stands in a file.

    Raises:
        ValueError: For a type of numbers that the file can't hold, naming the weight.
    """
    return Stored(variable.stored, variable.axes, variable.path)
