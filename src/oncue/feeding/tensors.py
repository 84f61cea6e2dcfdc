"""Arrays of every kind as torch tensors, without copying where memory can be shared."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from oncue import backend
from oncue.feeding.batch import describe
from oncue.nested import map_named

_SCALARS = (bool, int, float, np.generic)
_WIDER = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}


def float_dtype() -> torch.dtype:
    """Return torch's dtype for `oncue.backend.floatx()`."""
    dtype: torch.dtype = getattr(torch, backend.floatx())
    return dtype


class Floats(NamedTuple):
    """The types in which a model receives data of any float type; data of other types stay as they are.

    Attributes:
        inputs: For the inputs.
        targets: For targets and sample weights, which losses are computed from: never of 16 bits.
    """

    inputs: torch.dtype
    targets: torch.dtype

    @classmethod
    def of(cls, dtype: torch.dtype | None = None) -> Floats:
        """Return the types for a model that computes in `dtype`; None stands for floatx.

        Example:
            >>> Floats.of(torch.float64).targets, Floats.of(torch.bfloat16).targets
            (torch.float64, torch.float32)
        """
        inputs = float_dtype() if dtype is None else dtype
        return cls(inputs, inputs if inputs in (torch.float32, torch.float64) else float_dtype())

    @property
    def parts(self) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
        """Those for the three parts of a batch."""
        return self.inputs, self.targets, self.targets


def wanted_dtype(dtype: torch.dtype, floats: torch.dtype | None = None) -> torch.dtype:
    """Return the dtype in which a model receives data of `dtype`: `floats` (floatx by default) for floats, else itself."""
    if not dtype.is_floating_point:
        return dtype
    return float_dtype() if floats is None else floats


def is_numbers(data: Any) -> bool:
    """Return whether `data` is a list or tuple, possibly nested, of plain numbers only, and so stands for one array."""
    if not isinstance(data, (list, tuple)) or not data:
        return False
    first = data[0]
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if not _is_scalar(first):
        return False
    return all(is_numbers(item) if isinstance(item, (list, tuple)) else _is_scalar(item) for item in data)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, _SCALARS) or (isinstance(value, torch.Tensor) and value.ndim == 0)


def is_arrays(data: Any) -> bool:
    """Return whether `data` is an array, or a list, tuple or dict of arrays, rather than a source of batches."""
    if data is None or is_numbers(data):
        return True
    if isinstance(data, Mapping):
        return all(is_arrays(value) for value in data.values())
    if isinstance(data, (list, tuple)):
        return all(is_arrays(value) for value in data)
    return isinstance(data, (torch.Tensor, np.ndarray, *_SCALARS)) or hasattr(data, "__array__") or _is_sparse(data)


def is_batch_list(x: Any) -> bool:
    """Return whether `x` is a list of tuples `(x, y)` or `(x, y, sample_weight)` of arrays.

    Example:
        >>> is_batch_list([(torch.zeros(2), torch.zeros(2))]), is_batch_list([(1.0, 2.0)])
        (True, False)
    """
    if not isinstance(x, list) or not x or is_numbers(x):
        return False
    return all(type(part) is tuple and len(part) in (2, 3) and is_arrays(part) for part in x)


def _is_sparse(data: Any) -> bool:
    # There can be no sparse matrix unless the package has been imported.
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(data))


def to_tensors(data: Any, name: str) -> Any:
    """Convert arrays, and nested lists, tuples and dicts of them, to tensors that share their memory where possible.

    A list of plain numbers is one array. Dtypes stay as they are, except that unsigned integers that torch can't index
    become the next wider signed type.

    Args:
        data: NumPy arrays, torch tensors, pandas objects, lists of numbers, or anything with `__array__`.
        name: The argument's name, for error messages.

    Returns:
        The same structure of tensors.

    Raises:
        ValueError: For text, objects, sparse matrices, and arrays without a batch axis; the message gives the path.

    Example:
        >>> to_tensors({"a": [1, 2], "b": np.zeros((2, 3))}, "x")["b"].shape
        torch.Size([2, 3])
    """
    return map_named(_to_tensor, _numbers_as_arrays(data, name), name)


def _numbers_as_arrays(data: Any, name: str) -> Any:
    if isinstance(data, Mapping):
        return {key: _numbers_as_arrays(value, f"{name}[{key!r}]") for key, value in data.items()}
    if not isinstance(data, (list, tuple)):
        return data
    if is_numbers(data):
        try:
            return np.asarray(data)
        except ValueError as error:
            raise ValueError(
                f"`{name}` is a list of rows of different lengths: {describe(data)}. Pad the rows to one length."
            ) from error
    parts = [_numbers_as_arrays(value, f"{name}[{index}]") for index, value in enumerate(data)]
    if isinstance(data, list):
        return parts
    return type(data)(*parts) if hasattr(data, "_fields") else tuple(parts)


def _to_tensor(name: str, value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        tensor = value.detach()
        if tensor.is_nested:
            raise ValueError(f"`{name}` is a nested tensor; pass `torch.nested.to_padded_tensor({name}, 0.0)`.")
        if tensor.layout != torch.strided:
            raise ValueError(f"`{name}` is a sparse tensor ({tensor.layout}); pass `{name}.to_dense()`.")
    elif _is_sparse(value):
        raise ValueError(f"`{name}` is a sparse matrix of shape {value.shape}; pass `{name}.toarray()`.")
    else:
        tensor = _from_numpy(name, _as_numpy(name, value))
    if tensor.ndim == 0:
        raise ValueError(
            f"`{name}` must have a batch axis; got {describe(value)} of shape (). For one sample pass `[{name}]`."
        )
    return tensor


def _as_numpy(name: str, value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, (str, bytes)):
        raise ValueError(f"`{name}` must be numbers; got text: {value!r:.60}. Encode text as numbers first.")
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series, pandas.Index)):
        return _from_pandas(name, value)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"`{name}` is a masked array with {int(np.ma.getmaskarray(value).sum())} masked entries, which would be used with "
            f"what is below the mask; pass `{name}.filled(0)`."
        )
    return np.asarray(value)


def _from_pandas(name: str, value: Any) -> np.ndarray[Any, Any]:
    columns = value.dtypes if value.ndim == 2 else [value.dtype]
    labels = list(value.columns) if value.ndim == 2 else [value.name]
    bad = [
        f"{label!r} ({dtype})"
        for label, dtype in zip(labels, columns, strict=True)
        if getattr(dtype, "kind", "O") not in "biuf"
    ]
    if bad:
        raise ValueError(
            f"`{name}` is a pandas {type(value).__name__} with columns that are not numbers: {', '.join(bad)}. "
            "Drop or encode them, for example with `pandas.get_dummies`."
        )
    if all(isinstance(dtype, np.dtype) for dtype in columns):
        return np.asarray(value.to_numpy(dtype=np.result_type(*columns) if len(columns) else None))
    # Nullable dtypes (Int64, boolean, Float64) become object arrays unless a NumPy dtype is asked for.
    gaps = np.atleast_1d(np.asarray(value.isna()).any(axis=0))
    if gaps.any():
        where = (
            f" in {', '.join(repr(label) for label, gap in zip(labels, gaps, strict=True) if gap)}"
            if value.ndim == 2
            else ""
        )
        raise ValueError(
            f"`{name}` is a pandas {type(value).__name__} with missing values (NA){where}; fill them, for "
            f'example `{name}.fillna(0)`, or pass `{name}.astype("float32")` to train on NaN.'
        )
    kinds = {dtype.kind for dtype in columns}
    dtype = backend.floatx() if "f" in kinds else ("bool" if kinds == {"b"} else "int64")
    return np.asarray(value.to_numpy(dtype=dtype))


def _from_numpy(name: str, array: np.ndarray[Any, Any]) -> torch.Tensor:
    if array.dtype.kind not in "biufc":
        hint = "np.stack them into one array" if array.dtype.kind == "O" else "encode them as numbers first"
        raise ValueError(
            f"`{name}` must be numbers; got dtype {array.dtype} of shape {array.shape}. If these are numbers, pass "
            f'`{name}.astype("float32")`; otherwise {hint}.'
        )
    if array.dtype.name in _WIDER:
        array = array.astype(_WIDER[array.dtype.name])
    elif array.dtype.itemsize > 8 and array.dtype.kind == "f":
        array = array.astype("float64")
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 for stride in array.strides):
        array = np.ascontiguousarray(array)
    with warnings.catch_warnings():
        # torch warns against writing to a read-only array through the tensor; we never write to batches.
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)
