"""The parts of a state that is sharded: which process has which, saved and loaded by torch's `distributed.checkpoint`.

Each process plans what is its own, without a message: the plan follows from the shapes and from how many processes there are.
torch's own files aren't used: what they say of each other is a pickle, and none is ever read here.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, empty
from torch.futures import Future

from oncue.shards import part_of

_MOST_AXES = 64
_FREE = 1 << 20
Read = Callable[[Collection[str], Callable[[str, Tensor], object]], None]
"""Reads the file of a process to its end, and hands out those of its parts that are named; it says whether all was sound."""
Table = dict[str, dict[str, Any]]
"""Of each tensor by name: its whole "shape", its "dtype", and the "axis" along which processes have parts."""


def table_of(tensors: Mapping[str, DTensor]) -> Table:
    """Return what is to be known of sharded tensors beside their numbers, as JSON can have it.

    Raises:
        ValueError: For tensors that are sharded in another way than `fully_shard` shards them over all processes.
    """
    found: Table = {}
    for name, tensor in tensors.items():
        (placement, *rest) = tensor.placements
        if rest or type(placement) is not Shard:
            raise ValueError(
                f"A backup can't keep `{name}`, which is laid out over processes as {tensor.placements}. Shard it along one "
                "axis over all processes, as `fully_shard(module)` does by default."
            )
        found[name] = {
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "axis": placement.dim,
        }
    return found


def check_table(table: Any, room: int) -> None:
    """Refuse a table that no state has: before memory is taken for what it says.

    Args:
        table: What stands in the place of what `table_of` returned.
        room: How many bytes all parts have together, at most.

    Raises:
        ValueError: With what is wrong.
    """
    if not isinstance(table, dict):
        raise ValueError("its table of tensors is none")
    room += _FREE
    for name, one in table.items():
        shape, axis = (one.get("shape"), one.get("axis")) if isinstance(one, dict) else (None, None)
        if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"its tensor {name[:100]!r} has no shape")
        if type(axis) is not int or not 0 <= axis < len(shape) <= _MOST_AXES:
            raise ValueError(
                f"its tensor {name[:100]!r} of the shape {str(shape)[:100]} has no axis {str(axis)[:20]!r}"
            )
        # Even of no numbers torch computes how far they would be apart.
        room -= math.prod(max(length, 1) for length in shape) * _type_of(name, str(one.get("dtype"))).itemsize
        if room < 0:
            raise ValueError(f"its tensor {name[:100]!r} says to have more numbers than all parts")


class Plan:
    """Which parts of sharded tensors this process saves, planned by torch for the first save, and used by those after it.

    Attributes:
        table: What `table_of` returns for the tensors.
    """

    def __init__(self) -> None:
        self.table: Table = {}
        self._layout: list[tuple[Any, ...]] = []
        self._names: list[str] = []

    def own_parts(self, tensors: Mapping[str, DTensor]) -> dict[str, Tensor]:
        """Return this process's parts, in the same memory.

        Raises:
            ValueError: As `table_of`.
        """
        layout = [(name, one.shape, one.dtype, one.placements, one.device_mesh.size()) for name, one in tensors.items()]
        if layout != self._layout:
            self.table, writer = table_of(tensors), _Own()
            with _planning_alone():
                save(dict(tensors), storage_writer=writer, no_dist=True)
            self._layout, self._names = layout, list(writer.parts)
        return {name: part_of(tensors[name]).detach() for name in self._names}


def assembled(table: Table, read: Sequence[Read], mesh: DeviceMesh | None) -> dict[str, Tensor]:
    """Return tensors from the parts of any number of processes.

    A process reads the files whose parts it needs, one tensor after the other, and keeps no more than its own of it. A file
    that none needs is read by one of them.

    Args:
        table: What `table_of` returned.
        read: For each process that saved, reads its file.
        mesh: The processes of the run that loads them, each of which gets its parts; None for whole tensors.

    Raises:
        ValueError: When a part isn't what the table says.
    """
    found: dict[str, Tensor] = {}
    for name, one in table.items():
        shape, dtype = torch.Size(one["shape"]), _type_of(name, one["dtype"])
        if mesh is None:
            found[name] = torch.empty(shape, dtype=dtype)
        else:
            found[name] = empty(shape, dtype=dtype, device_mesh=mesh, placements=[Shard(one["axis"])])
    own, size = (0, 1) if mesh is None else (mesh.get_local_rank(), mesh.size())
    parts = _Parts(table, read)
    try:
        with _planning_alone():
            load(dict(found), storage_reader=parts, no_dist=True)
        for rank in range(own, len(read), size):
            if rank not in parts.seen:
                read[rank]((), lambda name, part: None)
    except CheckpointException as failure:
        # No Exception in torch, though an error in a file is one.
        error = next(iter(failure.failures.values()))[0]
        raise error if isinstance(error, (ValueError, OSError)) else ValueError(str(error)) from None
    return found


@contextmanager
def _planning_alone() -> Iterator[None]:
    with warnings.catch_warnings():
        # torch takes it for a mistake that a process plans without the others.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


def _type_of(name: str, text: str) -> torch.dtype:
    kind = getattr(torch, text, None)
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"its tensor {name[:100]!r} is of the type {text[:50]!r}, which torch doesn't have")
    return kind


def _chunks(entry: Mapping[str, Any], size: int) -> list[tuple[torch.Size, torch.Size]]:
    """Return where the part of each process begins in a tensor, and its shape, as torch shards one."""
    shape, axis = list(entry["shape"]), entry["axis"]
    rows = -(-shape[axis] // size)
    found = []
    for rank in range(size):
        begin = min(rank * rows, shape[axis])
        offset, lengths = [0] * len(shape), list(shape)
        offset[axis], lengths[axis] = begin, min(begin + rows, shape[axis]) - begin
        found.append((torch.Size(offset), torch.Size(lengths)))
    return found


class _Own(StorageWriter):
    """Takes this process's parts, which the run's own files hold."""

    def __init__(self) -> None:
        self.parts: dict[str, Tensor] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        self.parts = {}

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results = []
        for item in plan.items:
            part = planner.resolve_data(item)
            assert isinstance(part, Tensor)
            self.parts[item.index.fqn] = part.detach()
            results.append(WriteResult(index=item.index, size_in_bytes=part.nbytes, storage_data=None))
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        pass

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True


class _Parts(StorageReader):
    """Gives parts out of the run's own files."""

    def __init__(self, table: Table, read: Sequence[Read]) -> None:
        self._table, self._read = table, read
        self.seen: set[int] = set()
        self._ranks: dict[tuple[str, torch.Size], int] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        pass

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        described: dict[str, Any] = {}
        for name, entry in self._table.items():
            chunks = []
            for rank, (offset, lengths) in enumerate(_chunks(entry, len(self._read))):
                if math.prod(lengths):
                    chunks.append(ChunkStorageMetadata(offset, lengths))
                    self._ranks[name, offset] = rank
            properties = TensorProperties(dtype=_type_of(name, entry["dtype"]))
            described[name] = TensorStorageMetadata(properties, torch.Size(entry["shape"]), chunks)
        return Metadata(described)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        pass

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        wanted: dict[int, dict[str, list[Any]]] = {}
        for item in plan.items:
            of_rank = wanted.setdefault(self._rank_of(item.storage_index), {})
            of_rank.setdefault(item.storage_index.fqn, []).append(item)
        for rank, items in sorted(wanted.items()):
            self.seen.add(rank)
            missing = {*items}

            def take(name: str, part: Tensor, rank: int = rank, left: set[str] = missing) -> None:
                if part.shape != self._expected(name, rank):
                    return
                left.discard(name)
                for item in wanted[rank][name]:
                    source = part
                    for axis, (begin, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                        source = source.narrow(axis, begin, length)
                    target = planner.resolve_tensor(item).detach()
                    target.copy_(source)
                    planner.commit_tensor(item, target)

            self._read[rank](items.keys(), take)
            for name in sorted(missing):
                expected = tuple(self._expected(name, rank))
                raise ValueError(f"process {rank} has saved no part of {name[:100]!r} of the shape {expected}")
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _expected(self, name: str, rank: int) -> torch.Size:
        return _chunks(self._table[name], len(self._read))[rank][1]

    def _rank_of(self, index: MetadataIndex) -> int:
        assert index.offset is not None
        return self._ranks[index.fqn, index.offset]

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True
