"""KeptWeights: one copy of a model's weights, on their device while it has room for it, else in the host's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from oncue.checkpoints import device_copies
from oncue.checkpoints.snapshot import Snapshot

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from oncue.checkpoints.owed_waits import OwedWaits

_SHARE_OF_FREE_MEMORY = 0.25
"""How much of what a device has free a copy may take there."""


class KeptWeights:
    """Copies weights out of training's way; the next copy takes the place of the one before.

    Nothing waits for the device until the copy is read.

    Args:
        owed: As for `Snapshot`.
    """

    def __init__(self, owed: OwedWaits | None = None) -> None:
        self._owed = owed
        self._weights: list[Any] = []
        self._on_device: list[torch.Tensor] = []
        self._snapshot: Snapshot | None = None
        self._on_host: list[torch.Tensor] = []

    def take(self, weights: Sequence[Any]) -> bool:
        """Copy weights.

        Args:
            weights: Weights of oncue's models, which have `stored` and `to_keras`.

        Returns:
            False, and nothing is done, where copies can't be made beside a device's work: then arrays are as good.
        """
        import torch

        sources = [weight.stored.detach() for weight in weights]
        devices = {device: device_copies.copies_of(device) for device in {one.device for one in sources}}
        free = [copies.free() for copies in devices.values() if copies is not None]
        if len(free) < len(devices) or not free:
            return False
        self._weights = list(weights)
        same = [(one.shape, one.dtype, one.device) for one in sources]
        if same == [(one.shape, one.dtype, one.device) for one in self._on_device]:
            torch._foreach_copy_(self._on_device, sources)
            return True
        self._on_device, self._on_host = [], []
        if self._snapshot is None and sum(one.nbytes for one in sources) <= min(free) * _SHARE_OF_FREE_MEMORY:
            self._on_device = [one.clone() for one in sources]
            return True
        if self._snapshot is None:
            self._snapshot = Snapshot(beside=True, owed=self._owed)
        self._on_host = list(self._snapshot.take({str(place): one for place, one in enumerate(sources)}).values())
        return True

    def tensors(self) -> list[torch.Tensor]:
        """Return the copy, in Keras's order and shapes, wherever it is."""
        if self._snapshot is not None:
            self._snapshot.finish()
        kept = self._on_device or self._on_host
        return [weight.to_keras(one) for weight, one in zip(self._weights, kept, strict=True)]


def as_arrays(weights: Sequence[Any]) -> list[NDArray[Any]]:
    """Return tensors and arrays as arrays, those of types that NumPy lacks in 32 bits.

    Example:
        >>> import torch
        >>> as_arrays([torch.ones(2, dtype=torch.bfloat16)])
        [array([1., 1.], dtype=float32)]
    """
    import numpy as np
    import torch

    known = (torch.float16, torch.float32, torch.float64)
    found: list[NDArray[Any]] = []
    for one in weights:
        if isinstance(one, torch.Tensor):
            wide = one.float() if one.is_floating_point() and one.dtype not in known else one
            found.append(np.array(wide.detach().cpu().numpy(), order="C"))
        else:
            found.append(one)
    return found
