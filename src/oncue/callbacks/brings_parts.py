"""BringsParts: what other processes run in the place of a callback that writes weights of which each has a part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin


@builtin
class BringsParts(Callback):
    """Brings this process's parts of the weights, in the hook in which the main process looks at all of them.

    Args:
        bring: Is given the model and the index of an epoch, when the epoch ends.

    Example:
        >>> BringsParts(lambda model, epoch: print("epoch", epoch)).on_epoch_end(3)
        epoch 3
    """

    # As those that it stands for, so that the processes come to them in one order.
    makes_way = True

    def __init__(self, bring: Callable[[Any, int], object]) -> None:
        super().__init__()
        self._bring = bring

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Bring them."""
        self._bring(self.model, epoch)
