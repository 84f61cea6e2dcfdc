"""Histograms of tensors, counted on the device that holds them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from oncue.shards import is_sharded, least_of_parts, part_of, sum_of_parts

BUCKETS = 30
"""The number of buckets of TensorFlow's histogram summaries, which TensorBoard shows."""

_IN_CACHE = 1 << 16
# `histc` counts in the type of its input: in single precision a count can't pass this.
_COUNTABLE = 1 << 24
_WIDE = 1e38
_INFINITE = float("inf")
_WHAT = "histograms of weights"

Row = tuple[float, float, float]


@torch.no_grad()
def bucket_rows(tensors: Sequence[Tensor]) -> list[list[Row]]:
    """Return the histogram of each tensor, with two transfers from the device for all of them.

    Buckets are as `tf.summary.histogram` makes them: 30 of equal width between the least and the greatest value; with a
    single value, all edges are that value and the last bucket has all. Values that are not finite are left out.

    Args:
        tensors: Tensors of any shape and number type, on one device. Of those that are sharded each process counts its part,
            and all must call it.

    Returns:
        For each tensor 30 rows of left edge, right edge and count.

    Example:
        >>> rows = bucket_rows([torch.arange(61.0)])[0]
        >>> rows[0], rows[29], sum(count for _, _, count in rows)
        ((0.0, 2.0, 2.0), (58.0, 60.0, 3.0), 61.0)
    """
    flat = [_real(part_of(tensor)) for tensor in tensors]
    ranges = _ranges(flat)
    for index, (low, high) in enumerate(ranges):
        if not (abs(low) < _INFINITE and abs(high) < _INFINITE):
            flat[index] = flat[index][flat[index].isfinite()]
            ranges[index] = _ranges([flat[index]])[0]
    if any(map(is_sharded, tensors)):
        ranges = _of_all_parts(ranges, flat, tensors)
    counts = [_counts(values, low, high) for values, (low, high) in zip(flat, ranges, strict=True)]
    read: list[list[float]] = sum_of_parts(torch.stack(counts), tensors, _WHAT).tolist() if counts else []
    return [_rows(low, high, row) for (low, high), row in zip(ranges, read, strict=True)]


def _of_all_parts(
    ranges: Sequence[tuple[float, float]], flat: Sequence[Tensor], tensors: Sequence[Tensor]
) -> list[tuple[float, float]]:
    """Return the least and the greatest value of each whole tensor, from those of this process's part."""
    # A part may be empty: of such a one nothing counts.
    ends = [(low, -high) if len(part) else (_INFINITE,) * 2 for (low, high), part in zip(ranges, flat, strict=True)]
    least = torch.tensor(ends, dtype=torch.float64, device=flat[0].device)
    found = least_of_parts(least, tensors, _WHAT).tolist()
    return [(low, -high) if low < _INFINITE else (0.0, 0.0) for low, high in found]


def _real(tensor: Tensor) -> Tensor:
    values = tensor.detach().reshape(-1)
    if values.is_complex():
        values = values.abs()
    if values.dtype in (torch.float32, torch.float64):
        return values
    return values.double() if values.dtype == torch.int64 else values.float()


def _ranges(flat: Sequence[Tensor]) -> list[tuple[float, float]]:
    if not flat:
        return []
    ends = [torch.stack(torch.aminmax(values)).double() if len(values) else _nothing(values) for values in flat]
    return [(low, high) for low, high in torch.stack(ends).tolist()]


def _nothing(values: Tensor) -> Tensor:
    return torch.zeros(2, dtype=torch.float64, device=values.device)


def _counts(values: Tensor, low: float, high: float) -> Tensor:
    total = torch.zeros(BUCKETS, dtype=torch.float64, device=values.device)
    if low == high:
        total[-1] = len(values)
        return total
    if high - low > _WIDE:
        values = values.double()
    if values.device.type != "cpu":
        # `bincount` would wait for the device here.
        for start in range(0, len(values), _COUNTABLE):
            total += torch.histc(values[start : start + _COUNTABLE], BUCKETS, low, high)
        return total
    for start in range(0, len(values), _IN_CACHE):
        places = values[start : start + _IN_CACHE].sub(low).div_(high - low).mul_(BUCKETS).clamp_(max=BUCKETS - 1)
        total += torch.bincount(places.to(torch.int64), minlength=BUCKETS)
    return total


def _rows(low: float, high: float, counts: Sequence[float]) -> list[Row]:
    width = (high - low) / BUCKETS
    edges = [low + width * place for place in range(BUCKETS)] + [high]
    return [(edges[place], edges[place + 1], count) for place, count in enumerate(counts)]
