"""Writing the two files of a state with as few steps of Python as possible, because training waits for each of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from oncue.checkpoints.tensors_file import bytes_of, header_of

if TYPE_CHECKING:
    import torch


def write_synced(path: str, pieces: Iterable[Any]) -> dict[str, Any]:
    """Write a file, and let it reach the disk.

    Args:
        path: The file.
        pieces: Its bytes, part by part.

    Returns:
        Its "size" and its "sha256", of what was to be written, not of what a disk made of it.

    Raises:
        OSError: When it can't be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_synced(f"{folder}/a", [b"one", b"two"])["size"]
        6
    """
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            size += len(rest)
            digest.update(rest)
            while len(rest):
                # A write may take only a part.
                rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return {"size": size, "sha256": digest.hexdigest()}


def safetensors_pieces(tensors: Mapping[str, torch.Tensor]) -> Iterator[Any]:
    """Return the bytes of a safetensors file; tensors that lie one after the other in memory come as one piece.

    Args:
        tensors: Tensors by name.

    Raises:
        ValueError: For a type of numbers that the format doesn't have.

    Example:
        >>> import torch
        >>> from safetensors.torch import load
        >>> load(b"".join(safetensors_pieces({"weight": torch.ones(2)})))
        {'weight': tensor([1., 1.])}
    """
    yield header_of(tensors)
    for run in _runs([tensor for tensor in tensors.values() if tensor.numel()]):
        yield _joined(run)


def _runs(tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    run: list[torch.Tensor] = []
    place = memory = None
    for tensor in tensors:
        own, start = tensor.untyped_storage().data_ptr(), tensor.data_ptr()
        if run and (own != memory or start != place):
            yield run
            run = []
        run.append(tensor)
        memory, place = own, start + tensor.nbytes
    if run:
        yield run


def _joined(run: list[torch.Tensor]) -> Any:
    import torch

    if len(run) == 1:
        return bytes_of(run[0])
    first = run[0]
    start = first.storage_offset() * first.element_size()
    size = sum(tensor.nbytes for tensor in run)
    block = torch.empty(0, dtype=torch.uint8).set_(first.untyped_storage(), start, (size,))  # type: ignore[call-overload]
    return memoryview(block.numpy().data)
