"""Digests inside HDF5 files: what was damaged since it was written is noticed before anything of it is used."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from oncue.saving import guard

_ATTRIBUTE = "oncue_sha256"
_TEXTS = ("model_config", "training_config")
CHANGED = (
    "its content is not what was written: it was damaged, or changed by another program. Take an older checkpoint; "
    "`oncue.checkpoints.Checkpoints` finds the newest one that is whole."
)


def seal(content: Any) -> None:
    """Put the digest of all arrays of an open HDF5 file, and of the texts that describe a model, into the file."""
    content.attrs[_ATTRIBUTE] = _digest(content, "the file")


def verify(content: Any, source: Any) -> None:
    """Compare an open HDF5 file with the digest that it carries; files of Keras carry none.

    Args:
        content: The file.
        source: Its path, for messages.

    Raises:
        ValueError: When they differ.
    """
    carried = content.attrs.get(_ATTRIBUTE)
    if carried is not None and carried != _digest(content, source):
        guard.refuse(source, CHANGED)


def _digest(content: Any, source: Any) -> str:
    digest = hashlib.sha256()
    for name in _TEXTS:
        text = content.attrs.get(name, b"")
        digest.update(text if isinstance(text, bytes) else str(text).encode("utf-8"))
    for path in sorted(guard.paths_of_arrays(content, source)):
        dataset = guard.dataset_at(content, path, source)
        if dataset is None:
            guard.refuse(source, CHANGED)
        size = int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize
        # What is written is stored as it is; nothing that takes more memory than it has bytes is read here.
        if size and dataset.id.get_storage_size() != size:
            guard.refuse(source, CHANGED)
        digest.update(f"{path} {dataset.dtype.str} {dataset.shape}".encode())
        if size:
            digest.update(np.ascontiguousarray(dataset[()]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
