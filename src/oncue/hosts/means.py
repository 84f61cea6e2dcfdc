"""Means: the running means of what a loop measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from oncue.nested import first_leaf
from oncue.training.meter import Reading

Number = Tensor | float


class Means:
    """The running means of what a loop measures in an epoch, on the device until they are read; a source for logs.

    It does what `oncue.metrics.Mean` does, for numbers by name: a step of the loop waits for it, and half of that time would go
    into calls of methods.

    Attributes:
        names: The names, in the order in which they came.

    Example:
        >>> means = Means()
        >>> means.add({"loss": torch.tensor(0.5)}, 3)
        >>> means.add({"loss": 1.5}, 1)
        >>> means.names, means.read()
        (['loss'], [0.75])
    """

    def __init__(self) -> None:
        self.names: Sequence[str] = []
        self._totals: dict[str, Number] = {}
        self._counts: dict[str, float] = {}

    def add(self, values: Mapping[str, Any], weight: float) -> None:
        """Add what a batch measured; nothing is read from the device.

        Args:
            values: Numbers or tensors by name: one for the batch, or one for each sample.
            weight: What one for the batch weighs: its number of samples.
        """
        totals, counts = self._totals, self._counts
        for name, value in values.items():
            known, number = counts.get(name), weight
            if type(value) not in (float, int):
                value = value.detach() if isinstance(value, Tensor) else _as_tensor(name, value)
                if value.ndim:
                    number = value.shape[0]
                    value = value.mean(dtype=_wide(value.device)) if value.numel() else value.new_zeros(())
            if known is None:
                known = counts[name] = 0.0
                totals[name] = 0.0
                self.names = list(counts)
            total = totals[name]
            if isinstance(total, Tensor):
                total.add_(value, alpha=number)
            elif isinstance(value, Tensor):
                totals[name] = _tensor(total, value.device).add_(value, alpha=number)
            else:
                totals[name] = total + value * number
            counts[name] = known + number

    def clear(self) -> None:
        """Forget everything, the names too."""
        self.restore({})

    def read(self) -> list[float]:
        """Return the means, in the order of the names: one transfer from the device."""
        return self._reading(dict(self._totals)).read()

    def snapshot(self) -> Reading:
        """Return the means as they are, safe from further batches; nothing is transferred."""
        return self._reading({name: _copy(total) for name, total in self._totals.items()})

    def state(self) -> dict[str, Any]:
        """Return what was added, as `restore` takes it."""
        return {name: [_copy(total), self._counts[name]] for name, total in self._totals.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` returned, in place of everything."""
        # They may come from another device, and go on as numbers do.
        self._totals = {name: float(total) for name, (total, _) in state.items()}
        self._counts = {name: count for name, (_, count) in state.items()}
        self.names = list(self._counts)

    def _reading(self, totals: Mapping[str, Number]) -> Reading:
        return Reading(self.names, [(total, self._counts[name]) for name, total in totals.items()])


def samples_in(batch: Any) -> int:
    """Return how many samples a batch has: the length of the first tensor in it; 1 for a single number.

    Example:
        >>> samples_in({"x": torch.ones(3, 2)}), samples_in([torch.ones(4)]), samples_in(0.5)
        (3, 4, 1)
    """
    first = batch[0] if type(batch) in (list, tuple) and batch else batch
    # In most batches it is the first thing.
    if isinstance(first, Tensor) and first.ndim:
        return first.size(0)
    shape: Sequence[int] = getattr(first_leaf(batch), "shape", ())
    return int(shape[0]) if shape else 1


def _as_tensor(name: str, value: Any) -> Tensor:
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"`{name}` must be a number or a tensor; got a {type(value).__name__}, {value!r:.100}."
        ) from None


def _tensor(number: float, device: torch.device) -> Tensor:
    # What is made inside inference mode can't be added to outside.
    with torch.inference_mode(False):
        return torch.full((), number, dtype=_wide(device), device=device)


def _wide(device: torch.device) -> torch.dtype:
    # Sums of float32 lose counts.
    return torch.float32 if device.type == "mps" else torch.float64


def _copy(total: Number) -> Number:
    return total.clone() if isinstance(total, Tensor) else total
