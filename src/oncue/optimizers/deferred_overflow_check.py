"""DeferredOverflowCheck: steps of loss scaling without waiting for the device to say whether the gradients were finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from oncue import backend
from oncue.torch_private import can_skip_steps, step_unless

if TYPE_CHECKING:
    from oncue.optimizers.optimizer import Optimizer


class DeferredOverflowCheck:
    """Steps an optimizer whose kernel itself leaves the weights alone when a gradient was not finite.

    The host needs to know that too, for the count of updates. It looks one step later: the answer was copied to it
    meanwhile, while the device has the next forward and backward pass to do, so that neither waits for the other.

    Args:
        optimizer: The optimizer, built for some parameters.

    Example:
        >>> from oncue.optimizers import Adam
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adam()
        >>> optimizer.build([weight])
        >>> weight.grad, check = torch.tensor([1.0]), DeferredOverflowCheck(optimizer)
        >>> check.step(torch.tensor(1.0))
        >>> check.settle()
        >>> weight.data, optimizer.iterations
        (tensor([1.]), 0)
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer, self._inner = optimizer, optimizer.torch_optimizer
        self._pending: tuple[Tensor, torch.cuda.Event | None, Callable[[], None]] | None = None

    @staticmethod
    def suits(optimizer: Optimizer) -> bool:
        """Return whether the kernel of an optimizer can leave the weights alone, and nothing around it changes any."""
        if optimizer._has_own_update():
            return False
        if optimizer._inner is None or optimizer._average is not None or optimizer._accumulators is not None:
            return False
        decays = bool(optimizer.weight_decay) and not optimizer._torch_decays
        return not decays and not optimizer._constraints and can_skip_steps(optimizer._inner)

    def step(self, found: Tensor) -> None:
        """Step, unless `found` is 1 on the device.

        Args:
            found: 1.0 when a gradient was not finite, else 0.0.
        """
        self.settle()
        step_unless(found, self._inner, self._optimizer._advance)
        self.defer(found, self._take_back)

    def _take_back(self) -> None:
        self._optimizer._iterations -= 1

    def defer(self, found: Tensor, take_back: Callable[[], None]) -> None:
        """Look later whether a step was skipped that is counted already.

        Args:
            found: As for `step`.
            take_back: Called then if it was, to take it out of the count.
        """
        if found.device.type == "cuda":
            copy = torch.empty((), dtype=found.dtype, pin_memory=True)
            copy.copy_(found, non_blocking=True)
            self._pending = copy, backend.work_so_far(found.device), take_back
        else:
            self._pending = found.clone(), None, take_back

    def settle(self) -> None:
        """Take the last step out of the count if it was skipped."""
        if self._pending is None:
            return
        (found, event, take_back), self._pending = self._pending, None
        if event is not None:
            event.synchronize()
        if found.item():
            take_back()
