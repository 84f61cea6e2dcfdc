"""Hugging Face `datasets`: columns as inputs and targets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch

from oncue.feeding.batch import Batches
from oncue.feeding.converter import BatchConverter
from oncue.feeding.indexed import IndexedBatches
from oncue.feeding.order import Shuffle
from oncue.feeding.stream import StreamBatches

_TARGETS = ("labels", "label")


def is_huggingface(x: Any) -> bool:
    """Return whether `x` is a Hugging Face data set, or a dict of several."""
    package = sys.modules.get("datasets")
    # A module of the user's own may have this name too.
    names = ("Dataset", "DatasetDict", "IterableDataset", "IterableDatasetDict")
    found = (getattr(package, name, None) for name in names)
    kinds = tuple(kind for kind in found if isinstance(kind, type))
    return isinstance(x, kinds) and hasattr(x, "column_names") and hasattr(x, "with_format")


def split_columns(columns: Any) -> Any:
    """Split the columns of a batch into inputs and targets.

    Args:
        columns: A dict of columns; anything else is returned unchanged.

    Returns:
        `(x, y)`, where y is the column "labels" or "label" and x the rest: a single column itself, several as a dict;
        `(x,)` if there is no such column.

    Raises:
        ValueError: If the rows of a column have different shapes.

    Example:
        >>> split_columns({"pixels": [[0.0]], "label": [1]})
        ([[0.0]], [1])
    """
    if not isinstance(columns, dict):
        return columns
    for name, column in columns.items():
        # Rows of equal shape arrive stacked in one tensor.
        if isinstance(column, list) and any(isinstance(row, torch.Tensor) and row.ndim for row in column):
            shapes = sorted({tuple(row.shape) for row in column})
            raise ValueError(
                f"The rows of column {name!r} have different shapes, such as {shapes[0]} and {shapes[-1]}; pad or "
                "resize them with `x.map(...)`."
            )
    target = next((name for name in _TARGETS if name in columns), None)
    inputs = {name: column for name, column in columns.items() if name != target}
    x = next(iter(inputs.values())) if len(inputs) == 1 else inputs
    return (x,) if target is None else (x, columns[target])


def huggingface_batches(dataset: Any, convert: BatchConverter, batch_size: int | None, shuffle: Shuffle) -> Batches:
    """Return batches of a Hugging Face data set, with or without torch format.

    Args:
        dataset: A Dataset, read by index, or an IterableDataset, read in order.
        convert: Converts and checks raw batches.
        batch_size: Samples per batch; None for 32.
        shuffle: See `IndexedBatches`; an IterableDataset shuffles itself (`dataset.shuffle(...)`).

    Returns:
        The batches.

    Raises:
        ValueError: If the data set is a dict of splits, is empty, has text columns, or has no inputs.
    """
    names = dataset.column_names
    if isinstance(names, dict):
        raise ValueError(
            f"`x` holds several splits: {sorted(names)}; pass one of them, such as `x[{sorted(names)[0]!r}]`."
        )
    form = getattr(dataset, "format", None) or {}
    # A user's own transform may turn text into numbers; any other format yields the columns' own types.
    rows = dataset
    if form.get("type") != "custom":
        features = getattr(dataset, "features", None) or {}
        shown = list(form.get("columns") or features)
        _check_columns(shown, features)
        rows = dataset.with_format("torch", columns=shown) if "columns" in form else dataset.with_format("torch")
    if hasattr(dataset, "__len__"):
        return IndexedBatches(dataset, lambda at: split_columns(rows[at]), convert, batch_size, shuffle)
    size = 32 if batch_size is None else batch_size

    def open_pass(number: int) -> Iterator[Any]:
        # A shuffled stream repeats its order in every epoch unless the epoch is set.
        rows.set_epoch(number)
        return map(split_columns, rows.iter(batch_size=size))

    return StreamBatches(dataset, convert, open_pass, size, numbered=True)


def _check_columns(columns: list[str], features: Any) -> None:
    text = [name for name in columns if getattr(features[name], "dtype", None) in ("string", "large_string")]
    if text:
        raise ValueError(
            f"The data set has text columns {text}; tokenize them, or drop them with `x.remove_columns({text})`."
        )
    if columns and all(name in _TARGETS for name in columns):
        raise ValueError(f"The data set has only the columns {columns}, which are targets; inputs are missing.")
