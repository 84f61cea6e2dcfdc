"""Shards: tensors of which each process of a run has a part, as torch's `fully_shard` makes them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

from oncue.core.process import process

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Any) -> TypeGuard[DTensor]:
    """Return whether processes have parts of a tensor each.

    Example:
        >>> is_sharded(torch.zeros(2))
        False
    """
    # Who has never imported it has none; the import takes a second.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


@torch.no_grad()
def part_of(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor, in the same memory; a tensor that isn't sharded is all of it.

    Example:
        >>> part_of(torch.ones(2))
        tensor([1., 1.])
    """
    return tensor.to_local() if is_sharded(tensor) else tensor


def parts_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return this process's parts of tensors, in the same memory.

    What is computed element by element is computed on them, by torch's quickest kernels and without a message.

    Example:
        >>> parts_of([torch.ones(2)])
        [tensor([1., 1.])]
    """
    return [part_of(tensor) for tensor in tensors]


@torch.no_grad()
def whole(tensor: Tensor, what: str = "the whole of a weight") -> Tensor:
    """Return all of a tensor, on its device. For one that is sharded all processes must call it.

    Args:
        tensor: The tensor.
        what: What it is for, for the error of a process to which others don't come.

    Raises:
        PeerFailed: When another process fails, or doesn't come.

    Example:
        >>> whole(torch.ones(2))
        tensor([1., 1.])
    """
    if not is_sharded(tensor):
        return tensor
    from torch.distributed.tensor.placement_types import Shard

    if process.group is not None:
        # A process alone would wait for parts in the place of which others send something else.
        process.group.together(what)
    (placement, *rest), mesh = tensor.placements, tensor.device_mesh
    if rest or type(placement) is not Shard or placement.dim != 0:
        return tensor.full_tensor()
    length, size, own = tensor.shape[0], mesh.size(), tensor.to_local()
    rows = -(-length // size)
    padded = own.contiguous()
    if len(own) < rows:
        padded = own.new_zeros((rows, *tensor.shape[1:]))
        padded[: len(own)] = own
    found = own.new_empty((rows * size, *tensor.shape[1:]))
    run(lambda: gathering(found, padded, group=mesh.get_group(), async_op=True), what, found)
    return found[:length]


def mesh_of(tensors: Iterable[Tensor]) -> DeviceMesh | None:
    """Return the processes that have parts of tensors; None where none of them is sharded.

    Example:
        >>> mesh_of([torch.ones(2)]) is None
        True
    """
    sharded = next(filter(is_sharded, tensors), None)
    return None if sharded is None else sharded.device_mesh


def follows(tensors: Iterable[Tensor]) -> bool:
    """Return whether this process only brings its parts of tensors that the main process writes.

    Then it must call `whole` for each, in the order in which the main process does.

    Example:
        >>> follows([torch.ones(2)])
        False
    """
    return process.group is not None and not process.group.main and any(map(is_sharded, tensors))


@torch.no_grad()
def put(target: Tensor, value: Tensor) -> None:
    """Copy a value into a tensor; into one that is sharded, each process its part of the whole, or of shards alike.

    Nothing is sent, and no more than the part comes to the tensor's device.

    Args:
        target: The tensor.
        value: The whole value, the same on all processes; or shards of it.

    Example:
        >>> weight = torch.zeros(2)
        >>> put(weight, torch.ones(2))
        >>> weight
        tensor([1., 1.])
    """
    if not is_sharded(target) or is_sharded(value):
        target.copy_(value)
        return
    from torch.distributed.tensor import distribute_tensor
    from torch.distributed.tensor.placement_types import Shard

    mesh, own, given = target.device_mesh, target.to_local(), value.detach().expand(target.shape)
    (placement, *rest) = target.placements
    if rest or type(placement) is not Shard:
        # Every process has the whole value, so that none need send it.
        own.copy_(distribute_tensor(given.to(own.device), mesh, target.placements, src_data_rank=None).to_local())
        return
    length, axis = target.shape[placement.dim], placement.dim
    begin = min(mesh.get_local_rank() * -(-length // mesh.size()), length)
    own.copy_(given.narrow(axis, begin, own.shape[axis]))


def like(part: Tensor, tensor: DTensor) -> DTensor:
    """Return a part as one of a tensor that is sharded as another is; in the same memory.

    Args:
        part: This process's part, of the shape of its part of the other.
        tensor: The other.
    """
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def sum_of_parts(numbers: Tensor, of: Sequence[Tensor], what: str = "a step") -> Tensor:
    """Return the sums of numbers over the processes, of those that were computed from parts.

    Args:
        numbers: For each of some tensors a number, or a row of them, from this process's part of it.
        of: Those tensors. The numbers of one that isn't sharded stay as they are.
        what: What it is for.

    Example:
        >>> sum_of_parts(torch.ones(1), [torch.ones(2)])
        tensor([1.])
    """
    return _put_together(numbers, of, what, "SUM")


def least_of_parts(numbers: Tensor, of: Sequence[Tensor], what: str) -> Tensor:
    """Return the least of numbers over the processes, of those that were computed from parts; none may be NaN.

    Args:
        numbers: As for `sum_of_parts`.
        of: As for `sum_of_parts`.
        what: What it is for. It is no step: processes that do something else are told so.

    Example:
        >>> least_of_parts(torch.ones(1), [torch.ones(2)], "the least number")
        tensor([1.])
    """
    if process.group is not None and any(map(is_sharded, of)):
        process.group.together(what)
    return _put_together(numbers, of, what, "MIN")


def _put_together(numbers: Tensor, of: Sequence[Tensor], what: str, operation: str) -> Tensor:
    sharded = next(filter(is_sharded, of), None)
    if sharded is None:
        return numbers
    import torch.distributed as dist

    group = sharded.device_mesh.get_group(0) if sharded.device_mesh.ndim == 1 else None
    own = torch.tensor([not is_sharded(one) for one in of], device=numbers.device)
    own = own.reshape(-1, *[1] * (numbers.ndim - 1))
    found = torch.where(own, numbers.new_zeros(()), numbers)
    kind = getattr(dist.ReduceOp, operation)
    run(lambda: dist.all_reduce(found, kind, group=group, async_op=True), what, found)
    return torch.where(own, numbers, found)


def gathering(output: Tensor, own: Tensor, **options: Any) -> Any:
    """Begin to gather the parts of all processes in one tensor; see torch.distributed."""
    import torch.distributed as dist

    # torch 2.13 has a new name for it, and warns of the old one.
    begin = dist.all_gather_single if hasattr(dist, "all_gather_single") else dist.all_gather_into_tensor
    return begin(output, own, **options)


def summing(output: Tensor, all_parts: Tensor, **options: Any) -> Any:
    """Begin to sum tensors over the processes, each of which gets a part of the sum; see torch.distributed."""
    import torch.distributed as dist

    begin = dist.reduce_scatter_single if hasattr(dist, "reduce_scatter_single") else dist.reduce_scatter_tensor
    return begin(output, all_parts, **options)


def run(begin: Callable[[], Any], what: str, tensor: Tensor) -> None:
    """Run a collective of torch.distributed, which ends with an error when another process fails.

    Args:
        begin: Begins it, and returns what can be waited for.
        what: What it is for, in words.
        tensor: One that takes part in it.
    """
    if process.group is None:
        begin().wait()
    else:
        process.group.failures.run(begin, what, tensor.device.type != "cpu")
