"""The order in which samples are visited: drawn once per pass, and rebuilt from a seed."""

from __future__ import annotations

from typing import Any, Literal

import torch

Shuffle = bool | Literal["batch"]


class BatchOrder:
    """Draws one order per pass from torch's default generator, and can rebuild the order of a saved pass.

    Args:
        num_samples: Number of samples.
        batch_size: Samples per batch; matters for the order only if `shuffle` is "batch".
        shuffle: False for the given order, True for a random order of samples, "batch" for a random order of whole
            batches, which keeps neighbours together (for files read in long runs); a partial batch stays last.
        device: Where the order is drawn and stored; one seed gives different orders on different kinds of device.
            Default: the CPU.

    Example:
        >>> order = BatchOrder(4, 2, shuffle=False)
        >>> order.begin(0) is None
        True
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        shuffle: Shuffle,
        device: torch.device | None = None,
    ) -> None:
        """See the class."""
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.device = device if device is not None else torch.device("cpu")
        self.position = 0
        self._seed: int | None = None
        self._keep_seed = False

    @property
    def num_batches(self) -> int:
        """Batches in one pass, including a partial last one."""
        return -(-self.num_samples // self.batch_size)

    def begin(self, start: int) -> torch.Tensor | None:
        """Begin a pass at batch `start`.

        A pass from batch 0 draws a new order; a later start continues in the order of the last or the loaded pass.

        Args:
            start: The first batch to visit.

        Returns:
            Sample indices of the whole pass (int64, on `device`), or None if not shuffled.
        """
        self.position = start
        if not self.shuffle or start >= self.num_batches:
            return None
        if self._seed is None or (start == 0 and not self._keep_seed):
            self._seed = int(torch.randint(0, 2**63 - 1, ()))
        self._keep_seed = False
        generator = torch.Generator(self.device).manual_seed(self._seed)
        if self.shuffle != "batch":
            return torch.randperm(self.num_samples, generator=generator, device=self.device)
        full, rest = divmod(self.num_samples, self.batch_size)
        batches = torch.randperm(full, generator=generator, device=self.device)
        offsets = torch.arange(self.batch_size, device=self.device)
        order = (batches[:, None] * self.batch_size + offsets).flatten()
        return torch.cat([order, torch.arange(self.num_samples - rest, self.num_samples, device=self.device)])

    def give_up(self) -> None:
        """Take the pass for over."""
        self.position = self.num_batches

    def state_dict(self) -> dict[str, Any]:
        """Return `order_seed` and `position` (batches already yielded) of the current pass; None and 0 between passes."""
        if self.position >= self.num_batches:
            return {"order_seed": None, "position": 0}
        return {"order_seed": self._seed, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next `begin` use a saved pass's order.

        Args:
            state: What `state_dict` returned.

        Raises:
            ValueError: If keys are missing or unknown.
        """
        if set(state) != {"order_seed", "position"}:
            raise ValueError(
                f"The state of a batch order has the keys ['order_seed', 'position']; got {sorted(state)}."
            )
        self._seed = state["order_seed"]
        self.position = state["position"]
        self._keep_seed = self._seed is not None
