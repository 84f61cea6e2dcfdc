"""A digest of a batch, to check that data read a second time is the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_PREFIX = 1 << 14
"""How many leading elements of each array are hashed: hashing whole batches of images would take too long."""


def batch_digest(data: Any) -> str:
    """Return a digest of a batch's structure and of the leading elements of its arrays.

    Args:
        data: Arrays, tensors, numbers and strings, nested in lists, tuples and dicts; of any other object, only the
            type is hashed.

    Example:
        >>> batch_digest(([1, 2], 3)) == batch_digest(([1, 2], 3)), batch_digest([1, 2]) == batch_digest([1, 3])
        (True, False)
    """
    digest = hashlib.sha256()
    _add(digest, data)
    return digest.hexdigest()[:16]


def _add(digest: Any, data: Any) -> None:
    if isinstance(data, Mapping):
        digest.update(f"dict {len(data)}".encode())
        # A dict that is made from a set has its keys in another order in each process.
        for key in sorted(data, key=_named):
            digest.update(_named(key).encode())
            _add(digest, data[key])
    elif isinstance(data, (list, tuple)):
        digest.update(f"list {len(data)}".encode())
        for part in data[:_PREFIX]:
            _add(digest, part)
    elif isinstance(data, torch.Tensor):
        digest.update(f"{data.dtype} {tuple(data.shape)}".encode())
        numbers = data.detach().reshape(-1)[:_PREFIX].cpu().contiguous()
        if numbers.numel():
            digest.update(numbers.view(torch.uint8).numpy().data)
    elif isinstance(data, (np.ndarray, np.generic)):
        digest.update(f"{data.dtype} {data.shape}".encode())
        if data.dtype.kind in "biufc":
            digest.update(np.ascontiguousarray(np.asarray(data).reshape(-1)[:_PREFIX]).view(np.uint8).data)
    else:
        digest.update(_named(data).encode())


def _named(data: Any) -> str:
    # What else there is may show its address.
    return repr(data) if data is None or isinstance(data, (bool, int, float, str, bytes)) else type(data).__qualname__
