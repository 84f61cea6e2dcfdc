"""What may be given as a target or a prediction, brought to tensors of the same type, device and rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from oncue.variable import torch_dtype


def as_tensor(value: Any, argument: str, *, device: torch.device | None = None) -> Tensor:
    """Return `value` as a tensor, without a copy where it is one already.

    Args:
        value: A tensor, NumPy array, number, nested list, or anything NumPy can read.
        argument: The argument's name, for the error.
        device: Where the tensor is wanted; None leaves a tensor where it is.

    Returns:
        A tensor; Python floats and NumPy strings of digits are not touched otherwise.

    Raises:
        TypeError: When NumPy can't make numbers of the value.

    Example:
        >>> as_tensor([1.0, 2.0], "y_pred")
        tensor([1., 2.])
    """
    if not isinstance(value, Tensor):
        inner = getattr(value, "value", None)
        value = inner if isinstance(inner, Tensor) else _from_numpy(value, argument)
    tensor: Tensor = value
    return tensor if device is None or tensor.device == device else tensor.to(device)


def _from_numpy(value: Any, argument: str) -> Tensor:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"`{argument}` must hold numbers: a tensor, a NumPy array or nested lists of one shape; got "
            f"{type(value).__name__} with elements of type {array.dtype}. Turn text labels into integers first, for "
            "example with sklearn.preprocessing.LabelEncoder."
        )
    if array.dtype == np.float64 and not isinstance(value, np.ndarray | np.generic):
        # Python floats carry no type of their own; they take Keras's default one.
        return torch.as_tensor(array, dtype=torch_dtype(None))
    return torch.as_tensor(array)


def refuse_complex(tensor: Tensor, argument: str) -> None:
    """Refuse complex numbers, which a cast would take for real ones.

    Raises:
        ValueError: With what to pass instead.
    """
    if tensor.is_complex():
        raise ValueError(
            f"`{argument}` holds complex numbers, of which only the real part would count; pass "
            f"`torch.view_as_real({argument})`, or its absolute values."
        )


def floats(value: Any, argument: str, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Return `value` as a tensor of the float type `dtype`; a mask on it stays on it."""
    tensor = as_tensor(value, argument, device=device)
    if tensor.dtype == dtype:
        return tensor
    refuse_complex(tensor, argument)
    cast, mask = tensor.to(dtype), getattr(tensor, "_keras_mask", None)
    if mask is not None:
        cast._keras_mask = mask  # type: ignore[attr-defined]  # Keras's way to hand a mask on
    return cast


def pair(y_true: Any, y_pred: Any) -> tuple[Tensor, Tensor]:
    """Return target and prediction as tensors of the prediction's type, device and rank.

    Every loss function starts with this, so it tests for the usual case first.

    Args:
        y_true: The target.
        y_pred: The prediction.

    Returns:
        The target and the prediction; one of them is squeezed or expanded by a last axis of 1 where the ranks differ
        by one.

    Example:
        >>> [x.shape for x in pair([1, 2], [[1.0], [2.0]])]
        [torch.Size([2, 1]), torch.Size([2, 1])]
    """
    y_pred = as_tensor(y_pred, "y_pred")
    if not y_pred.is_floating_point():
        y_pred = y_pred.to(torch_dtype(None))
    y_true = floats(y_true, "y_true", y_pred.dtype, y_pred.device)
    return (y_true, y_pred) if y_true.ndim == y_pred.ndim else match_ranks(y_true, y_pred)


def match_ranks(x: Tensor, y: Tensor, *, expand_rank_1: bool = True) -> tuple[Tensor, Tensor]:
    """Squeeze or expand the last axis where two ranks differ by exactly one, as Keras does.

    Args:
        x: A tensor.
        y: Another one.
        expand_rank_1: Let a vector become a column beside a column, instead of making the column a vector.

    Returns:
        Both tensors, unchanged when the ranks agree or differ by more than one.

    Example:
        >>> match_ranks(torch.zeros(3), torch.zeros(3, 1))[0].shape
        torch.Size([3, 1])
    """
    if x.ndim == y.ndim + 1 and x.shape[-1] == 1:
        return (x, y.unsqueeze(-1)) if y.ndim == 1 and expand_rank_1 else (x.squeeze(-1), y)
    if y.ndim == x.ndim + 1 and y.shape[-1] == 1:
        return (x.unsqueeze(-1), y) if x.ndim == 1 and expand_rank_1 else (x, y.squeeze(-1))
    return x, y
