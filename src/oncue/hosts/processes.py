"""Processes: the processes that train together, by the process group that a loop's library has made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import distributed

from oncue.core.monitor import as_number


class Processes:
    """The processes of a run; one alone where `torch.distributed` has no process group.

    Args:
        device: Where tensors that are sent must be.

    Attributes:
        alone: Whether there is one process.
        is_main: Whether this is the process that writes files.

    Example:
        >>> processes = Processes()
        >>> processes.alone, processes.is_main, processes.means({"loss": 0.5}), processes.any(True)
        (True, True, {'loss': 0.5}, True)
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        together = distributed.is_available() and distributed.is_initialized()
        self._device, self._count = device, distributed.get_world_size() if together else 1
        self.alone = self._count == 1
        self.is_main = self.alone or distributed.get_rank() == 0

    def means(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the means of the processes' logs, so that all of them decide the same."""
        numbers = {name: number for name, value in logs.items() if (number := as_number(value)) is not None}
        if self.alone or not numbers:
            return dict(logs)
        values = torch.tensor(list(numbers.values()), dtype=torch.float64, device=self._device)
        distributed.all_reduce(values)
        return {**logs, **dict(zip(numbers, (values / self._count).tolist(), strict=True))}

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set in any process."""
        return flag if self.alone else self.means({"flag": float(flag)})["flag"] > 0
