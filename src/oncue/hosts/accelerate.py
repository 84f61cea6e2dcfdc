"""Accelerated: what `loop` asks Accelerate's `Accelerator`, or Lightning's `Fabric`."""

from __future__ import annotations

from typing import Any

import torch


class Accelerated:
    """What an accelerator has made of a module and a loader; nothing without one.

    Args:
        accelerator: An `Accelerator` or a `Fabric`, or None.

    Attributes:
        keep: What the accelerator has whose state belongs to the run.

    Raises:
        TypeError: For another object.

    Example:
        >>> net = torch.nn.Linear(1, 1)
        >>> Accelerated(None).unwrapped(net) is net
        True
    """

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self._is_fabric = hasattr(accelerator, "all_reduce")
        if accelerator is not None and not self._is_fabric and not hasattr(accelerator, "unwrap_model"):
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
        """Return the module as it was before it was prepared."""
        if self._accelerator is not None and not self._is_fabric:
            inner: torch.nn.Module = self._accelerator.unwrap_model(module)
            return inner
        # What Fabric makes has the module that its strategy has made.
        inner = getattr(module, "module", module) if self._is_fabric else module
        return inner.module if isinstance(inner, torch.nn.parallel.DistributedDataParallel) else inner
