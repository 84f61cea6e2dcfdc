"""Windows over a series, as a torch data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from oncue.core.numbers import whole
from oncue.preprocessing.loader import FileLoader, check_format


class Windows(Dataset[Any]):
    """Windows of a series, and a target for each.

    Args:
        series: The values, the steps along the first axis.
        targets: A target for each window, by where it begins; None for windows alone.
        starts: Where the windows begin.
        length: How many values a window has.
        rate: How many steps are between two of them.

    Example:
        >>> Windows(torch.arange(5), None, [0, 2], length=2, rate=2)[1]
        tensor([2, 4])
    """

    def __init__(self, series: Any, targets: Any, starts: Any, length: int, rate: int) -> None:
        self.series, self.targets, self.starts = series, targets, starts
        self.length, self.rate = length, rate

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Any:
        start = int(self.starts[index])
        window = self.series[start : start + self.length * self.rate : self.rate]
        return window if self.targets is None else (window, self.targets[start])


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
    format: str = "torch",
) -> FileLoader:
    """Return windows over a series as batches, which `fit` takes: a torch DataLoader.

    Args:
        data: The series, the steps along the first axis.
        targets: A target for each step: a window's is that of the step where it begins. None for windows alone.
        sequence_length: How many values a window has.
        sequence_stride: How many steps are between the beginnings of two windows.
        sampling_rate: How many steps are between two values of a window.
        batch_size: Windows in a batch; None for single windows.
        shuffle: Whether each pass has another order.
        seed: The seed of the order.
        start_index: The first step that counts; None for 0.
        end_index: The step to stop before; None for the end.
        format: "torch"; "tf" and "grain", which Keras takes, are understood, and give the same.

    Returns:
        The batches `(windows, targets)`, or windows alone.

    Raises:
        ValueError: For an argument that can't be used.

    Example:
        >>> [batch.tolist() for batch in timeseries_dataset_from_array(np.arange(5), None, 3, batch_size=2)]
        [[[0, 1, 2], [1, 2, 3]], [[2, 3, 4]]]
    """
    check_format(format)
    size = len(data)
    length = whole("", "sequence_length", sequence_length, least=1)
    stride = whole("", "sequence_stride", sequence_stride, least=1)
    rate = whole("", "sampling_rate", sampling_rate, least=1)
    for name, value in (("sequence_stride", stride), ("sampling_rate", rate)):
        if value >= size:
            raise ValueError(f"`{name}` must be below the length of the series, {size}; got {value}.")
    first = 0 if start_index is None else whole("", "start_index", start_index, least=0)
    last = size if end_index is None else whole("", "end_index", end_index, least=1)
    if not first < last <= size:
        raise ValueError(
            f"`start_index` and `end_index` must be in order within the series of {size} steps; got {start_index} and "
            f"{end_index}."
        )
    series = torch.as_tensor(np.asarray(data)[first:last])
    aims = None if targets is None else torch.as_tensor(np.asarray(targets)[first:last])
    count = len(series) - (length - 1) * rate
    if targets is not None:
        count = min(count, len(targets))
    if count < 1:
        raise ValueError(
            f"A window of {length} values, {rate} steps apart, is longer than the series of {len(series)} steps."
        )
    if aims is not None and len(aims) < count:
        raise ValueError(
            f"`targets` must reach as far as the windows, {count} steps from `start_index`; got {len(aims)}."
        )
    starts = np.arange(0, count, stride)
    return FileLoader(Windows(series, aims, starts, length, rate), batch_size, shuffle, seed)
