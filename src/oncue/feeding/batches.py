"""Whatever may be fed to `fit`, `evaluate` and `predict`, as batches with a position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from oncue.core.warn import warn
from oncue.feeding.arrays import ArrayBatches
from oncue.feeding.batch import Batch, Batches, describe, unpack_x_y_sample_weight
from oncue.feeding.class_weights import ClassWeights, class_weight_to_sample_weights
from oncue.feeding.converter import BatchConverter
from oncue.feeding.huggingface import huggingface_batches, is_huggingface, split_columns
from oncue.feeding.indexed import dataset_batches
from oncue.feeding.loader import loader_batches
from oncue.feeding.order import Shuffle
from oncue.feeding.py_dataset import PyDatasetBatches, is_py_dataset
from oncue.feeding.steps import StepBatches
from oncue.feeding.stream import StreamBatches
from oncue.feeding.tensors import is_arrays
from oncue.feeding.validation_split import split_validation
from oncue.nested import named_leaves

__all__ = [
    "Batch",
    "Batches",
    "as_batches",
    "class_weight_to_sample_weights",
    "split_validation",
    "unpack_x_y_sample_weight",
]


def as_batches(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    shuffle: Shuffle = False,
    steps: int | None = None,
    class_weight: Mapping[int, float] | None = None,
    device: torch.device | str,
    method: str = "fit",
) -> Batches:
    """Return batches of whatever was fed.

    Sources: arrays (NumPy, torch, pandas, lists of numbers, anything with `__array__`) and nested lists, tuples and
    dicts of them; Hugging Face data sets; torch DataLoaders, Datasets and IterableDatasets; PyDatasets; generators,
    iterators and iterables of batches; and `Batches` themselves.

    Args:
        x: Inputs, or a source that gives inputs and targets.
        y: Targets; only with arrays.
        sample_weight: Weights; only with arrays.
        batch_size: Samples per batch, for arrays and for data sets of single samples. Default: 32, or for arrays what
            gives `steps` batches. Sources of whole batches ignore it, with a warning.
        shuffle: True for a new random order per epoch, "batch" to shuffle whole batches. Loaders and streams ignore it:
            they shuffle themselves. A PyDataset's batches are shuffled as wholes.
        steps: Batches per epoch. Default: a whole pass. An epoch then goes on where the last one stopped.
        class_weight: Weight per class index, multiplied into nothing else: with sample weights it is refused.
        device: Where batches go.
        method: The method the data was fed to, for messages: "fit", "evaluate", "predict", or "validation", which
            leaves out the warning about `batch_size`.

    Returns:
        The batches; with `steps`, epochs of that many batches.

    Raises:
        TypeError: When `class_weight` is not a dict.
        ValueError: When an argument can't be used; names it, what came, and what to pass instead.

    Example:
        >>> batches = as_batches([[1.0], [2.0], [3.0]], [0, 1, 0], batch_size=2, device="cpu")
        >>> batches.num_batches, [tuple(x.shape) for x, y, _ in batches.epoch()]
        (2, [(2, 1), (1, 1)])
    """
    _check_whole_number("batch_size", batch_size)
    _check_whole_number("steps", steps)
    if shuffle not in (True, False, "batch"):
        raise ValueError(f'`shuffle` must be True, False or "batch"; got {shuffle!r}.')
    device = torch.device(device)
    if not isinstance(x, Batches) and x is not None and is_arrays(x) and is_arrays(y) and is_arrays(sample_weight):
        batches: Batches = ArrayBatches(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            shuffle=shuffle,
            steps=steps,
            class_weight=class_weight,
            device=device,
        )
    else:
        weights = None if class_weight is None else ClassWeights(class_weight)
        batches = _from_source(x, y, sample_weight, batch_size, shuffle, weights, device, method)
    return batches if steps is None or steps == batches.num_batches else StepBatches(batches, steps)


def _from_source(
    x: Any,
    y: Any,
    sample_weight: Any,
    batch_size: int | None,
    shuffle: Shuffle,
    weights: ClassWeights | None,
    device: torch.device,
    method: str,
) -> Batches:
    kind = _kind(x)
    if kind is None:
        raise ValueError(_unusable(x, y, sample_weight, method))
    for name, given in (("y", y), ("sample_weight", sample_weight)):
        if given is not None:
            raise ValueError(
                f"`x` is a {kind}, which gives `{name}` itself, so `{name}` must not be passed to `{method}`; got "
                f"{describe(given)}. Let each batch be `(x, y)` or `(x, y, sample_weight)`."
            )
    if kind == "Batches":
        if weights is not None:
            raise ValueError("`class_weight` can't be used with Batches, which are ready; pass it to `as_batches`.")
        return cast(Batches, x)
    convert = BatchConverter(kind, device, weights)
    if kind == "Hugging Face data set":
        return huggingface_batches(x, convert, batch_size, shuffle)
    if kind == "torch Dataset":
        return dataset_batches(x, convert, batch_size, shuffle)
    if kind == "torch IterableDataset":
        return loader_batches(DataLoader(x, batch_size=32 if batch_size is None else batch_size), convert)
    if batch_size is not None and method != "validation":
        warn(f"`batch_size={batch_size}` is ignored: `x` is a {kind}, which decides the size of its batches itself.")
    if kind == "DataLoader":
        arrange = split_columns if is_huggingface(x.dataset) else lambda data: data
        return loader_batches(x, convert, arrange)
    if kind == "PyDataset":
        return PyDatasetBatches(x, convert, bool(shuffle))
    return StreamBatches(x, convert)


def _kind(x: Any) -> str | None:
    """Name what gives batches; None for what doesn't."""
    if isinstance(x, Batches):
        return "Batches"
    if is_huggingface(x):
        return "Hugging Face data set"
    if isinstance(x, DataLoader):
        return "DataLoader"
    if isinstance(x, IterableDataset):
        return "torch IterableDataset"
    if isinstance(x, Dataset):
        return "torch Dataset"
    if is_py_dataset(x):
        return "PyDataset"
    if isinstance(x, (str, bytes, Mapping, list, tuple, set, frozenset, type)) or not isinstance(x, Iterable):
        return None
    return "generator" if isinstance(x, Iterator) else f"iterable {type(x).__name__}"


def _unusable(x: Any, y: Any, sample_weight: Any, method: str) -> str:
    if x is None:
        return f"`{method}` needs data: `x` is None."
    for name, part in (("x", x), ("y", y), ("sample_weight", sample_weight)):
        for path, leaf in named_leaves(part, name):
            if not is_arrays(leaf):
                hint = " Encode text as numbers first." if isinstance(leaf, (str, bytes)) else ""
                if callable(leaf) and hasattr(leaf, "__name__"):
                    hint = f" To feed what it returns, call it: `{leaf.__name__}()`."
                return (
                    f"`{path}` can't be fed to `{method}`: got {describe(leaf)} of type {type(leaf).__name__}. Pass "
                    "NumPy arrays, torch tensors, pandas objects, lists of numbers, a DataLoader, a PyDataset, a "
                    f"Hugging Face data set or a generator of batches.{hint}"
                )
    return f"`x` of type {type(x).__name__} can't be fed to `{method}`: {describe(x)}."


def _check_whole_number(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1, or None; got {value!r}.")
