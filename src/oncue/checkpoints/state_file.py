"""The one file of a state: a safetensors file whose last tensor is the state's JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from oncue.checkpoints.tensors_file import bytes_of, entries_of, header_of, pick_tensors, read_tensors, seal
from oncue.core.bounded_json import MEGABYTE, check_amount
from oncue.core.write_behind import WriteBehind

if TYPE_CHECKING:
    import torch

TEXT = "state.json"
"""The name of the JSON among the tensors: bytes, since a header may not be as long as the JSON of a long run."""


_OF_PARTS = "oncue_processes"
_HEADER = 16 * MEGABYTE
_CONTAINERS, _VALUES = 100_000, 1_000_000


class TensorBlocks(NamedTuple):
    """Tensors as they stand in a file.

    Args:
        entries: What the file's header says of them.
        size: How many bytes they are.
        blocks: Those bytes; adjacent tensors in memory are one block.
    """

    entries: str
    size: int
    blocks: list[memoryview]


def blocks_of(tensors: Mapping[str, torch.Tensor]) -> TensorBlocks:
    """Return tensors as they stand in a file; what is written is what their memory holds by then.

    Args:
        tensors: Contiguous tensors on the CPU, by name.

    Raises:
        ValueError: For a type of numbers that the format doesn't have.

    Example:
        >>> import torch
        >>> blocks_of({"weight": torch.ones(2)}).size
        8
    """
    blocks = [_joined(run) for run in _runs([tensor for tensor in tensors.values() if tensor.numel()])]
    return TensorBlocks(entries_of(tensors), sum(map(len, blocks)), blocks)


def write_state(
    path: str | os.PathLike[str], text: Sequence[bytes], tensors: TensorBlocks, processes: int | None = None
) -> None:
    """Write a state, with a checksum of all of it, and let it reach the disk.

    Args:
        path: The file; one that is there is written over.
        text: The state's JSON, in pieces.
        tensors: Its tensors.
        processes: How many processes have a file each of the state; None for a state that is one file.

    Raises:
        OSError: When it can't be written.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_state(f"{folder}/a.safetensors", [b"{}"], blocks_of({"weight": torch.ones(2)}))
        ...     read_state(f"{folder}/a.safetensors")
        ({}, {'weight': tensor([1., 1.])})
    """
    import torch

    own = entries_of({TEXT: torch.empty(sum(map(len, text)), dtype=torch.uint8, device="meta")}, tensors.size)
    with WriteBehind(path) as file:
        file.write(header_of(tensors.entries, own, metadata=None if processes is None else {_OF_PARTS: str(processes)}))
        for block in tensors.blocks:
            file.write(block)
        for piece in text:
            file.write(piece)
        seal(file)
        file.synchronise()


def read_state(
    path: str | os.PathLike[str],
    wanted: Callable[[str], bool] | None = None,
    take: Callable[[str, torch.Tensor], object] | None = None,
) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return the JSON, decoded, and the tensors of a state.

    Args:
        path: The file.
        wanted: As for `read_tensors`.
        take: As for `read_tensors`.

    Raises:
        ValueError: When it isn't what was saved.
        OSError: When it can't be read.
    """
    texts: dict[str, torch.Tensor] = {}

    def taking(name: str, tensor: torch.Tensor) -> None:
        if name == TEXT:
            texts[name] = tensor
        elif take is not None:
            take(name, tensor)

    with _opened(path) as (file, _):
        tensors = read_tensors(
            file,
            required=True,
            wanted=None if wanted is None else lambda name: name == TEXT or wanted(name),
            take=None if take is None else taking,
        )
        if tensors is None:
            raise ValueError("its checksum isn't that of what was saved")
        return _decoded({**tensors, **texts})


def read_beginning(
    path: str | os.PathLike[str], of_parts: Callable[[Any], Container[str]]
) -> tuple[Any, dict[str, torch.Tensor]] | None:
    """Return the JSON of a state of several processes, and the tensors that are whole, without a look at its parts.

    What it returns may be damaged: that is found out when the file is read by one of the processes.

    Args:
        path: The file of the main process.
        of_parts: Returns the names of the tensors that are parts, from the JSON.

    Returns:
        None for a state that doesn't say that it is one of several processes.

    Raises:
        ValueError: When it isn't what was saved.
        OSError: When it can't be read.
    """
    with _opened(path) as (file, metadata):
        if _OF_PARTS not in metadata:
            return None
        data, _ = _decoded(pick_tensors(file, lambda name: name == TEXT) or {})
        parts = of_parts(data)
        tensors = pick_tensors(file, lambda name: name != TEXT and name not in parts)
        if tensors is None:
            raise ValueError("it is shorter than it says")
        return data, tensors


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, dict[str, str]]]:
    """Give an open file whose header was found right, and its metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb") as file:
            _check_length(file)
            # Checks the header.
            with safe_open(path, framework="pt") as checked:
                metadata = checked.metadata() or {}
            yield file, metadata
    except KeyError:
        raise ValueError(f"it has no {TEXT!r}") from None
    except (SafetensorError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _decoded(tensors: dict[str, torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor]]:
    text = str(bytes_of(tensors.pop(TEXT)), "utf-8")
    # Of a long run it is long, but most of it is numbers with many digits, and words.
    check_amount(text, _CONTAINERS + len(text) // 20, _VALUES + len(text) // 12)
    return json.loads(text), tensors


def _check_length(file: BinaryIO) -> None:
    """Refuse a header of more tensors than any state has, before it is parsed."""
    length = int.from_bytes(file.read(8), "little")
    if length > _HEADER:
        raise ValueError(f"its header says {length} bytes, more than {_HEADER}")
    check_amount(file.read(length))


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


def _joined(run: list[torch.Tensor]) -> memoryview:
    import torch

    if len(run) == 1:
        return bytes_of(run[0])
    first = run[0]
    start = first.storage_offset() * first.element_size()
    size = sum(tensor.nbytes for tensor in run)
    block = torch.empty(0, dtype=torch.uint8).set_(first.untyped_storage(), start, (size,))  # type: ignore[call-overload]
    return memoryview(block.numpy().data)
