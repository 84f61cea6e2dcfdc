"""LateVerdict: steps of loss scaling without waiting for the device to say whether the gradients were finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from oncue.optimizers.optimizer import Optimizer


class LateVerdict:
    """Steps an optimizer whose kernel itself leaves the weights alone when a gradient was not finite.

    The host needs to know that too, for the count of updates. It looks one step later: the answer was copied to it
    meanwhile, while the device has the next forward and backward pass to do, so that nothing stands still.

    Args:
        optimizer: The optimizer, built.

    Example:
        >>> from oncue.optimizers import Adam
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adam()
        >>> optimizer.build([weight])
        >>> weight.grad, verdict = torch.tensor([1.0]), LateVerdict(optimizer)
        >>> verdict.step(torch.tensor(1.0))
        >>> verdict.settle()
        >>> weight.data, optimizer.iterations
        (tensor([1.]), 0)
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._waiting: tuple[Tensor, torch.cuda.Event | None] | None = None

    @staticmethod
    def suits(optimizer: Optimizer) -> bool:
        """Return whether the kernel of an optimizer can leave the weights alone, and nothing around it changes any."""
        inner: Any = optimizer._inner
        if not getattr(inner, "_step_supports_amp_scaling", False):
            return False
        alone = optimizer._average is None and optimizer._accumulators is None and not optimizer._constraints
        decays = bool(optimizer._weight_decay) and not optimizer._torch_decays
        return alone and not decays and all(group.get("fused") for group in inner.param_groups)

    def step(self, found: Tensor) -> None:
        """Step, unless `found` is 1 on the device.

        Args:
            found: 1.0 when a gradient was not finite, else 0.0.
        """
        self.settle()
        inner: Any = self._optimizer._inner
        inner.found_inf, inner.grad_scale = found, None
        try:
            self._optimizer._advance([])
        finally:
            del inner.found_inf, inner.grad_scale
        if found.device.type == "cuda":
            copy = torch.empty((), dtype=found.dtype, pin_memory=True)
            copy.copy_(found, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's, without types
            event.record()
            self._waiting = copy, event
        else:
            self._waiting = found.clone(), None

    def settle(self) -> None:
        """Take the last step out of the count if it was none."""
        if self._waiting is None:
            return
        (found, event), self._waiting = self._waiting, None
        if event is not None:
            event.synchronize()
        if found.item():
            self._optimizer._iterations -= 1
