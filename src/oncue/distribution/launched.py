"""Where a process stands among those that were started together, as their launcher says it in the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_PORT = 29500


@dataclass(frozen=True)
class Place:
    """One process of several.

    Args:
        rank: Its number, from 0.
        size: How many there are.
        local_rank: Its number on its machine, which is that of its device.
        address: The machine of process 0.
        port: The port where process 0 listens.
    """

    rank: int
    size: int
    local_rank: int
    address: str
    port: int


def place_of(environment: Mapping[str, str]) -> Place | None:
    """Return the place that torchrun, SLURM's srun or OpenMPI's mpirun has given to this process; None without one.

    Args:
        environment: The variables of the environment.

    Raises:
        ValueError: When there are several processes, and the address of the first isn't known.

    Example:
        >>> place_of({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "1234"})
        Place(rank=1, size=2, local_rank=1, address='node0', port=1234)
        >>> place_of({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[07-08]"})
        Place(rank=3, size=4, local_rank=1, address='gpu07', port=29500)
        >>> place_of({})
    """
    for names, address in (
        (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ""),
        (("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"), _first_node(environment)),
        (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"), ""),
    ):
        rank, size, local = (environment.get(name) for name in names)
        if rank is None or size is None:
            continue
        address = environment.get("MASTER_ADDR") or address
        if not address and int(size) > 1:
            raise ValueError(
                f"{names[1]} says that there are {size} processes, but not where they meet: set MASTER_ADDR to the machine of "
                "process 0 (127.0.0.1 on a single machine), and MASTER_PORT to a free port there."
            )
        port = int(environment.get("MASTER_PORT") or _PORT)
        return Place(int(rank), int(size), int(local or 0), address or "127.0.0.1", port)
    return None


def _first_node(environment: Mapping[str, str]) -> str:
    """Return the first machine of SLURM's list, such as `gpu[07-08,11],login1`."""
    listed = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    found = re.match(r"([^\[,]+)(?:\[([^\],-]+))?", listed)
    return "" if found is None else found[1] + (found[2] or "")
