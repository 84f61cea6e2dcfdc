"""Keras's `distribution`: training on several processes, by torch.distributed.

A script that is started by `torchrun` is trained data-parallel without a line of its own: each process computes its rows of
each batch, and all of them make the same update. The functions here are the explicit form, with Keras's names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

import torch
import torch.distributed as dist

from oncue.core.numbers import whole
from oncue.core.process import process
from oncue.core.ranks import is_launched
from oncue.distribution.failures import PeerFailed as PeerFailed, RanksDiverged as RanksDiverged
from oncue.distribution.group import DEFAULT_TIMEOUT, Group
from oncue.distribution.launched import Place, place_of

__all__ = [
    "DataParallel",
    "DeviceMesh",
    "PeerFailed",
    "RanksDiverged",
    "distribution",
    "initialize",
    "list_devices",
    "set_distribution",
]


def initialize(
    job_addresses: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT,
) -> None:
    """Meet the other processes. Under torchrun the first `fit` does so by itself.

    Args:
        job_addresses: The address of process 0, such as "10.0.0.1:29500"; of several, by commas, the first. By default what
            torchrun, SLURM or OpenMPI say in the environment.
        num_processes: How many processes there are; by default what the environment says.
        process_id: The number of this process, from 0; by default what the environment says.
        timeout: Seconds after which processes that wait for another end with an error, unless it is reading data.

    Raises:
        ValueError: When it isn't known how many processes there are, or which one this is; for a number that can't be.
        RuntimeError: When this process has joined a group already.

    Example:
        >>> initialize()
        Traceback (most recent call last):
        ...
        ValueError: `initialize` doesn't know the other processes: start the script with `torchrun --nproc-per-node 2 ...`, ...
    """
    if process.group is not None:
        raise RuntimeError("This process has joined a group already: call `initialize` once, before the first `fit`.")
    if not timeout > 0:
        raise ValueError(f"`timeout` of `initialize` must be seconds above 0; got {timeout!r}.")
    process.group = Group.join(
        None if dist.is_initialized() else _place(job_addresses, num_processes, process_id), timeout
    )


def _place(job_addresses: str | None, num_processes: int | None, process_id: int | None) -> Place:
    found = place_of(os.environ)
    if job_addresses is None and num_processes is None and process_id is None:
        if found is None:
            raise ValueError(
                "`initialize` doesn't know the other processes: start the script with `torchrun --nproc-per-node 2 ...`, with "
                "SLURM's srun or with mpirun, or pass job_addresses, num_processes and process_id."
            )
        return found
    size = found.size if num_processes is None and found is not None else num_processes
    rank = found.rank if process_id is None and found is not None else process_id
    if size is None or rank is None:
        missing = "num_processes" if size is None else "process_id"
        raise ValueError(f"`initialize` needs `{missing}`, because the environment doesn't say it.")
    if not 0 <= rank < size:
        raise ValueError(f"`process_id` must be between 0 and num_processes - 1 = {size - 1}; got {rank}.")
    address, _, port = (job_addresses or (found.address if found else "127.0.0.1")).split(",")[0].partition(":")
    local = found.local_rank if found is not None else rank
    return Place(rank, size, local, address, int(port or (found.port if found else 29500)))


def list_devices(device_type: str | None = None) -> list[str]:
    """Return the devices of all processes, as Keras names them: one for each process.

    Args:
        device_type: "cpu", "gpu" or "cuda"; by default what the processes train on.

    Example:
        >>> list_devices("cpu")
        ['cpu:0']
    """
    kind = device_type or ("gpu" if torch.cuda.is_available() else "cpu")
    if kind not in ("cpu", "gpu", "cuda"):
        raise ValueError(f"`device_type` must be 'cpu', 'gpu' or 'cuda'; got {device_type!r}.")
    group = process.group
    size = group.size if group is not None else torch.cuda.device_count() if kind != "cpu" else 1
    return [f"{kind}:{index}" for index in range(size)]


class DeviceMesh:
    """The devices of a distribution, as an array with names for its axes; here always one axis.

    Args:
        shape: The number of devices, as a tuple of one.
        axis_names: The name of the axis.
        devices: The devices; `list_devices()` by default.

    Raises:
        ValueError: For more than one axis.
    """

    def __init__(self, shape: Sequence[int], axis_names: Sequence[str], devices: Sequence[str] | None = None) -> None:
        if len(shape) != 1 or len(axis_names) != 1:
            raise ValueError(
                f"DeviceMesh has one axis here, that of the batch; got the shape {tuple(shape)} and the axes "
                f"{list(axis_names)}. Models that are split over devices need `torch.distributed.tensor` itself."
            )
        self.shape, self.axis_names = tuple(shape), list(axis_names)
        self.devices = list_devices() if devices is None else list(devices)


class DataParallel:
    """Each process computes its rows of each batch, and all of them make the same update.

    Args:
        device_mesh: A mesh of one axis; one device for each process by default.
        devices: The devices instead; as many as there are processes.
        auto_shard_dataset: Whether batches are those of the whole run, of which each process takes its rows. False where
            each process brings batches of its own, of which it takes all rows.
        shard_weights: Whether each process keeps a part of each weight, its gradient and its optimizer's state, by torch's
            `fully_shard`, so that models can be larger than a device. A layer's weights are gathered while it computes.
        min_shard_size: How many numbers the weights of a layer have at least for it to be gathered by itself; those of smaller
            ones are gathered together, and stay so for a whole step.

    Raises:
        ValueError: When the number of devices isn't that of the processes, or `min_shard_size` no whole number of 0 or more.

    Example:
        >>> parallel = DataParallel()
        >>> parallel.auto_shard_dataset
        True
    """

    def __init__(
        self,
        device_mesh: DeviceMesh | None = None,
        devices: Sequence[str] | None = None,
        auto_shard_dataset: bool = True,
        *,
        shard_weights: bool = False,
        min_shard_size: int = 1 << 16,
    ) -> None:
        if device_mesh is not None and devices is not None:
            raise ValueError("DataParallel takes `device_mesh` or `devices`, not both.")
        given = devices if device_mesh is None else device_mesh.devices
        if given is None:
            # How many processes there are is known when they have met.
            joined()
        self.devices = list_devices() if given is None else list(given)
        self.device_mesh = device_mesh
        self.auto_shard_dataset = auto_shard_dataset
        self.shard_weights = bool(shard_weights)
        self.min_shard_size = whole("DataParallel", "min_shard_size", min_shard_size)


def set_distribution(value: DataParallel | None) -> None:
    """Choose how models are trained from now on.

    Args:
        value: A `DataParallel`; or None for each process to train on its own, under torchrun too.

    Raises:
        TypeError: For anything else.
        ValueError: When it names another number of devices than there are processes.
    """
    if value is not None and not isinstance(value, DataParallel):
        raise TypeError(
            f"`set_distribution` takes a DataParallel or None; got {value!r} of type {type(value).__name__}."
        )
    if value is not None:
        group = joined()
        size = 1 if group is None else group.size
        if len(value.devices) != size:
            raise ValueError(
                f"DataParallel has {len(value.devices)} devices for {size} processes. Each process has one: start as many "
                f"with `torchrun --nproc-per-node {len(value.devices)} ...`, or leave the devices out."
            )
    process.distribution, process.chosen = value, True


def distribution() -> DataParallel | None:
    """Return what `set_distribution` was given last; None by default."""
    return process.distribution  # type: ignore[no-any-return]  # nothing but `set_distribution` sets it


_ELSEWHERE = {
    "ModelParallel": "Models that are split over devices need torch's own `torch.distributed.tensor` or `fully_shard`.",
    "LayoutMap": "Weights aren't laid out by name here; see `torch.distributed.tensor`.",
    "TensorLayout": "Tensors aren't laid out over devices here; see `torch.distributed.tensor`.",
    "distribute_tensor": "Use `torch.distributed.tensor.distribute_tensor`.",
    "get_device_count": "Use `len(keras.distribution.list_devices())`.",
}


def __getattr__(name: str) -> NoReturn:
    if name in _ELSEWHERE:
        raise AttributeError(f"oncue has no `keras.distribution.{name}`: it trains data-parallel. {_ELSEWHERE[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def joined() -> Group | None:
    """Return the group of the processes that were started together, after meeting them; None for one alone."""
    if process.group is None and is_launched(os.environ):
        process.group = Group.join(None if dist.is_initialized() else place_of(os.environ))
    elif process.group is not None:
        process.group.failures.look()
    if process.group is not None and process.group.failures.reason is not None:
        # The script has caught the error, as one that tries a smaller batch size does; so have the others, if they come.
        process.group = process.group.joined_again()
    return process.group  # type: ignore[no-any-return]  # nothing else is put there


def training_group(sharded: bool = False) -> Group | None:
    """Return the group that models are trained by; None where this process trains on its own.

    Args:
        sharded: Whether the script has sharded the model's weights: then by the processes that have parts of them, and be it
            one alone.
    """
    if sharded and process.group is None and dist.is_initialized():
        process.group = Group.join(None)
    if process.is_alone and not sharded:
        return None
    group = joined()
    return group if group is not None and (group.size > 1 or sharded) else None
