"""Meter: the running values of a pass, kept on the device until they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from oncue.core.logs import flattened
from oncue.metrics.metric import Metric

Number = torch.Tensor | float
Pair = tuple[Number, Number | None]


class Meter:
    """Names and running values of the loss and the metrics of one pass; a source for `Logs`.

    Args:
        named_metrics: Pairs of a logged name and a metric, in any order; a metric whose result is a dict gives several.

    Example:
        >>> from oncue.metrics import Mean
        >>> loss = Mean(name="loss")
        >>> meter = Meter([("loss", loss)])
        >>> loss.update_state(torch.tensor(0.5), sample_weight=4)
        >>> meter.names, meter.read()
        (['loss'], [0.5])
    """

    def __init__(self, named_metrics: Iterable[tuple[str, Metric]]) -> None:
        self._metrics = sorted(named_metrics, key=lambda pair: pair[0])
        self.names: Sequence[str] = [name for name, _ in self._metrics]

    def reset(self) -> None:
        """Reset all metrics."""
        for _, metric in self._metrics:
            metric.reset_state()

    def read(self) -> list[float]:
        """Return the values now, in the order of the names: one transfer from the device."""
        return self._take([metric.peek() for _, metric in self._metrics]).read()

    def snapshot(self) -> Reading:
        """Return the values as they are, safe from further steps; nothing is transferred."""
        return self._take([metric.snapshot() for _, metric in self._metrics])

    def _take(self, taken: list[Any]) -> Reading:
        if not any(type(one) is dict for one in taken):
            return Reading(self.names, taken)
        pairs: dict[str, Pair] = {}
        for (name, _), one in zip(self._metrics, taken, strict=True):
            pairs.update(one if isinstance(one, dict) else {name: one})
        self.names = sorted(pairs)
        return Reading(self.names, [pairs[name] for name in self.names])


class Reading:
    """Values as they were at one moment, still on the device.

    Args:
        names: The names of the values.
        pairs: A numerator and a denominator for each; None for a denominator of one.
    """

    def __init__(self, names: Sequence[str], pairs: Sequence[Pair]) -> None:
        self.names = names
        self._pairs = pairs

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Reading:
        """Return the values that an overridden `train_step` returned, in Keras's order: by name, those of nested dicts too."""
        flat = flattened(values)
        given = [value.detach() if isinstance(value, torch.Tensor) else value for value in flat.values()]
        return cls(list(flat), [(value, None) for value in given])

    def read(self) -> list[Any]:
        """Return the values as Python floats."""
        flat = _fetch([part for pair in self._pairs for part in pair])
        values = []
        for value, count in zip(flat[::2], flat[1::2], strict=True):
            values.append(value if count is None else value / count if count else 0.0)
        return values

    def results(self) -> dict[str, Any]:
        """Return the values by name, as tensors still on the device where they are tensors."""
        values: dict[str, Any] = {}
        for name, (numerator, denominator) in zip(self.names, self._pairs, strict=True):
            if denominator is None:
                values[name] = numerator
            elif isinstance(denominator, torch.Tensor):
                safe = torch.where(denominator == 0, torch.ones_like(denominator), denominator)
                values[name] = numerator / safe
            else:
                values[name] = numerator / denominator if denominator else 0.0
        return values

    def snapshot(self) -> Reading:
        """Return itself: the values are owned already."""
        return self


def _fetch(parts: Sequence[Any]) -> list[Any]:
    """Return numbers for tensors and numbers, with one transfer for all tensors of an accelerator."""
    remote = [part for part in parts if isinstance(part, torch.Tensor) and part.device.type != "cpu"]
    if len(remote) > 1 and all(part.numel() == 1 for part in remote):
        wide = torch.float64 if remote[0].device.type != "mps" else torch.float32
        fetched = iter(torch.stack([part.detach().reshape(()).to(wide) for part in remote]).tolist())
        return [
            next(fetched) if isinstance(part, torch.Tensor) and part.device.type != "cpu" else _number(part)
            for part in parts
        ]
    return [_number(part) for part in parts]


def _number(part: Any) -> Any:
    if part is None or type(part) is float:
        return part
    if isinstance(part, torch.Tensor):
        return float(part.item()) if part.numel() == 1 else part.detach().cpu().numpy()
    try:
        return float(part)
    except (TypeError, ValueError):
        return part
