"""Means: the running means of what a loop measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from oncue.metrics.mean import Mean
from oncue.nested import first_leaf
from oncue.training.meter import Meter, Reading


class Means:
    """The running means of what a loop measures in an epoch, on the device until they are read; a source for logs.

    Attributes:
        names: The names, sorted.

    Example:
        >>> means = Means()
        >>> means.add({"loss": torch.tensor(0.5)}, 3)
        >>> means.add({"loss": 1.5}, 1)
        >>> means.names, means.read()
        (['loss'], [0.75])
    """

    def __init__(self) -> None:
        self.restore({})

    def add(self, values: Mapping[str, Any], weight: float) -> None:
        """Add what a batch measured; nothing is read from the device.

        Args:
            values: Numbers or tensors by name: one for the batch, or one for each sample.
            weight: What one for the batch weighs: its number of samples.
        """
        for name, value in values.items():
            mean = self._means.get(name)
            if mean is None:
                mean = self._means[name] = Mean(name)
                self._show()
            mean.update_state(value, weight if getattr(value, "ndim", 0) == 0 else None)

    def clear(self) -> None:
        """Forget everything, the names too."""
        self.restore({})

    def read(self) -> list[float]:
        """Return the means, in the order of the names: one transfer from the device."""
        return self._meter.read()

    def snapshot(self) -> Reading:
        """Return the means as they are, safe from further batches; nothing is transferred."""
        return self._meter.snapshot()

    def state(self) -> dict[str, Any]:
        """Return what was added, as `restore` takes it."""
        return {name: mean.get_state() for name, mean in self._means.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` returned, in place of everything."""
        self._means = {name: Mean(name) for name in state}
        for name, mean in self._means.items():
            mean.set_state(state[name])
        self._show()

    def _show(self) -> None:
        self._meter = Meter(self._means.items())
        self.names: Sequence[str] = self._meter.names


def samples_in(batch: Any) -> int:
    """Return how many samples a batch has: the length of the first tensor in it; 1 for a single number.

    Example:
        >>> samples_in({"x": torch.ones(3, 2)}), samples_in([torch.ones(4)]), samples_in(0.5)
        (3, 4, 1)
    """
    first = batch[0] if type(batch) in (list, tuple) and batch else batch
    # In most batches it is the first thing.
    leaf = first if isinstance(first, torch.Tensor) else first_leaf(batch)
    shape: Sequence[int] = getattr(leaf, "shape", ())
    return int(shape[0]) if shape else 1
