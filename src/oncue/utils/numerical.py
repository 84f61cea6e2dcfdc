"""`to_categorical` and `normalize`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def to_categorical(x: Any, num_classes: int | None = None) -> Any:
    """Turn class indices into one-hot rows.

    Args:
        x: Class indices from 0, of any shape; a last axis of length 1 is dropped.
        num_classes: Length of a row. Default: the highest index plus one.

    Returns:
        An array with one more axis, the classes, at the end: a float64 NumPy array for arrays and lists, as in Keras;
        for a torch tensor, a tensor of floatx on the same device.

    Raises:
        ValueError: If there are no indices and no `num_classes`, or an index is not a whole number between 0 and
            `num_classes - 1`.

    Example:
        >>> to_categorical([0, 2])
        array([[1., 0., 0.],
               [0., 0., 1.]])
    """
    if num_classes is not None and (
        isinstance(num_classes, bool) or int(num_classes) != num_classes or num_classes < 1
    ):
        raise ValueError(f"`num_classes` must be a whole number of at least 1, or None; got {num_classes!r}.")
    is_tensor = isinstance(x, torch.Tensor)
    given = x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
    if given.dtype.kind not in "biuf":
        raise ValueError(
            f"`x` must be class indices; got dtype {given.dtype}: {given.reshape(-1)[:3]!r}. Number the classes first, "
            "for example with `np.unique(x, return_inverse=True)[1]`."
        )
    labels = given.astype(np.int64)
    if given.dtype.kind == "f" and not np.array_equal(labels, given):
        raise ValueError(f"`x` must be whole class indices; got {given[labels != given][:5].tolist()}.")
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.size == 0 and num_classes is None:
        raise ValueError("`x` is empty, so the number of classes is unknown; pass `num_classes`.")
    classes = int(labels.max()) + 1 if num_classes is None else int(num_classes)
    outside = np.unique(labels[(labels < 0) | (labels >= classes)])
    if outside.size:
        lowest = ", ".join(str(label) for label in outside[:5])
        hint = " Shift the labels so that they begin with 0." if outside[0] < 0 or int(labels.min()) > 0 else ""
        raise ValueError(
            f"`x` has labels outside 0 to {classes - 1}: {lowest}{', ...' if outside.size > 5 else ''} "
            f"(num_classes={num_classes}).{hint}"
        )
    rows = np.zeros((*labels.shape, classes))
    np.put_along_axis(rows, labels[..., None], 1.0, axis=-1)
    if not is_tensor:
        return rows
    from oncue.feeding.tensors import float_dtype

    return torch.from_numpy(rows).to(device=x.device, dtype=float_dtype())


def normalize(x: Any, axis: int = -1, order: int | float = 2) -> Any:
    """Divide an array by its norm along an axis; vectors of norm 0 stay 0.

    Args:
        x: A NumPy array, a list, or a torch tensor.
        axis: The axis along which the norm is taken.
        order: The order of the norm: 1, 2, `np.inf`, ...

    Returns:
        A new array of the same shape.

    Example:
        >>> normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
        array([[0.6, 0.8],
               [0. , 0. ]])
    """
    if isinstance(x, torch.Tensor):
        norm = torch.linalg.vector_norm(x, ord=order, dim=axis, keepdim=True)
        return x / torch.where(norm == 0, 1, norm)
    array = np.asarray(x)
    size = np.linalg.norm(array, order, axis, keepdims=True)
    return array / np.where(size == 0, 1, size)
