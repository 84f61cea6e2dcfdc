"""Processes: what `loop` asks Accelerate's `Accelerator`, or Lightning's `Fabric`, about the processes of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from oncue.core.monitor import as_number


class Processes:
    """The processes that train together; one alone without an accelerator.

    Args:
        accelerator: An `Accelerator` or a `Fabric`, or None.

    Attributes:
        alone: Whether there is one process.
        is_main: Whether this is the process that writes files.
        keep: What the accelerator has whose state belongs to the run.

    Raises:
        TypeError: For another object.

    Example:
        >>> Processes(None).means({"loss": 0.5})
        {'loss': 0.5}
    """

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self._is_fabric = hasattr(accelerator, "all_reduce")
        if accelerator is None:
            self.alone, self.is_main = True, True
        elif self._is_fabric:
            self.alone, self.is_main = accelerator.world_size == 1, accelerator.is_global_zero
        elif hasattr(accelerator, "unwrap_model"):
            self.alone, self.is_main = accelerator.num_processes == 1, accelerator.is_main_process
        else:
            raise TypeError(
                "`accelerator` of `loop` must be an `Accelerator` of Accelerate or a `Fabric` of Lightning; got "
                f"{accelerator!r} of type {type(accelerator).__name__}."
            )
        scaler = None if self._is_fabric else getattr(accelerator, "scaler", None)
        self.keep = () if scaler is None else (scaler,)

    def place_of(self, loader: Any) -> Any:
        """Return what knows the position in a loader: itself, unless Accelerate has given it a `state_dict` that has none."""
        stateful = getattr(self._accelerator, "use_stateful_dataloader", True)
        return loader if stateful or not hasattr(loader, "base_dataloader") else None

    def unwrapped(self, module: torch.nn.Module) -> torch.nn.Module:
        """Return the module that the accelerator prepared, as it was before."""
        if self._accelerator is None:
            return module
        if not self._is_fabric:
            inner: torch.nn.Module = self._accelerator.unwrap_model(module)
            return inner
        inner = getattr(module, "module", module)
        return inner.module if isinstance(inner, torch.nn.parallel.DistributedDataParallel) else inner

    def means(self, logs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the means of the processes' logs, so that all of them decide the same."""
        numbers = {name: number for name, value in logs.items() if (number := as_number(value)) is not None}
        if self.alone or not numbers:
            return dict(logs)
        values = torch.tensor(list(numbers.values()), dtype=torch.float64, device=self._accelerator.device)
        if self._is_fabric:
            values = self._accelerator.all_reduce(values, reduce_op="mean")
        else:
            values = self._accelerator.reduce(values, reduction="mean")
        found = values.tolist()
        return {**logs, **dict(zip(numbers, found, strict=True))}

    def any(self, flag: bool) -> bool:
        """Return whether a flag is set in any process."""
        return flag if self.alone else self.means({"flag": float(flag)})["flag"] > 0
