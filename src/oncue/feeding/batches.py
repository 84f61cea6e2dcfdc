"""Where a data source is chosen: `as_batches`, and the table `SOURCES` of everything that can be fed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from oncue.core.numbers import whole_of
from oncue.core.warn import warn
from oncue.feeding.arrays import ArrayBatches
from oncue.feeding.batch import Batch, Batches, describe, unpack_x_y_sample_weight
from oncue.feeding.class_weights import ClassWeights, class_weight_to_sample_weights
from oncue.feeding.converter import BatchConverter
from oncue.feeding.huggingface import huggingface_batches, is_huggingface
from oncue.feeding.indexed import IndexedBatches, dataset_batches
from oncue.feeding.loader import iterable_dataset_batches, loader_batches
from oncue.feeding.order import Shuffle
from oncue.feeding.py_dataset import PyDatasetBatches, is_py_dataset
from oncue.feeding.steps import StepBatches
from oncue.feeding.stream import StreamBatches
from oncue.feeding.tensors import Floats, is_arrays, is_batch_list
from oncue.feeding.validation_split import split_validation
from oncue.nested import named_leaves

__all__ = [
    "Batch",
    "Batches",
    "as_batches",
    "check_apart",
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
    dtype: torch.dtype | None = None,
    method: str = "fit",
) -> Batches:
    """Return batches of arrays or of any other data source.

    Sources: arrays (NumPy, torch, pandas, lists of numbers, anything with `__array__`) and nested lists, tuples and
    dicts of them; Hugging Face data sets; torch DataLoaders, Datasets and IterableDatasets; PyDatasets; generators,
    iterators and iterables of batches; lists of batches; and `Batches` themselves.

    A list is taken for several inputs, as in Keras, except in one case, in which it would have no targets: a list of
    tuples `(x, y)` or `(x, y, sample_weight)` of arrays, passed without `y` to train or to evaluate, is a list of batches.

    Args:
        x: Inputs, or a source that gives inputs and targets.
        y: Targets; only with arrays.
        sample_weight: Weights; only with arrays.
        batch_size: Samples per batch, for arrays and for data sets of single samples. Default: 32, or for arrays what
            gives `steps` batches. Sources that yield whole batches ignore it, with a warning.
        shuffle: True for a new random order per epoch, "batch" to shuffle whole batches. Loaders and streams ignore it:
            they shuffle themselves. A PyDataset's batches are kept whole in any case.
        steps: Batches per epoch. Default: a whole pass. With the method "fit" an epoch continues where the last one stopped,
            and may be longer than a pass; with others each begins a pass, where the source can begin again.
        class_weight: Weight per class index; can't be combined with sample weights.
        device: Where batches go.
        dtype: The type that floats become; floatx by default. Targets are never of 16 bits.
        method: The method that takes the data, for messages: "fit", "evaluate", "predict", or "validation", which
            suppresses the warning about `batch_size`.

    Returns:
        The batches; with `steps`, epochs of that many batches.

    Raises:
        TypeError: If `class_weight` is not a dict.
        ValueError: If an argument can't be used; the message names it and says what to pass instead.

    Example:
        >>> batches = as_batches([[1.0], [2.0], [3.0]], [0, 1, 0], batch_size=2, device="cpu")
        >>> batches.num_batches, [tuple(x.shape) for x, y, _ in batches.epoch()]
        (2, [(2, 1), (1, 1)])
    """
    batch_size, steps = _whole("batch_size", batch_size), _whole("steps", steps)
    if shuffle not in (True, False, "batch"):
        raise ValueError(f'`shuffle` must be True, False or "batch"; got {shuffle!r}.')
    device, floats = torch.device(device), Floats.of(dtype)
    listed = method != "predict" and y is None and sample_weight is None and is_batch_list(x)
    arrays = not listed and not isinstance(x, Batches) and x is not None
    if arrays and is_arrays(x) and is_arrays(y) and is_arrays(sample_weight):
        batches: Batches = ArrayBatches(
            x,
            y,
            sample_weight,
            batch_size=batch_size,
            shuffle=shuffle,
            steps=steps,
            class_weight=class_weight,
            device=device,
            floats=floats,
        )
    else:
        weights = None if class_weight is None else ClassWeights(class_weight)
        batches = _from_source(x, y, sample_weight, batch_size, shuffle, weights, device, floats, method)
    if steps is None or steps == batches.num_batches:
        return batches
    return StepBatches(batches, steps, continues=method == "fit")


def check_apart(batches: Batches, validation: Batches) -> None:
    """Refuse one iterator as both training and validation data: each of its batches would be used for one of them only.

    Raises:
        ValueError: If it is the same object.
    """
    if batches.source is validation.source and not batches.restartable:
        raise ValueError(
            f"`x` and `validation_data` are the same {type(batches.source).__name__}. Each of its batches can be used once, so "
            "they would take turns. Pass two of them, one for each."
        )


class MakeBatches(Protocol):
    """Makes batches of a source."""

    def __call__(self, source: Any, convert: BatchConverter, batch_size: int | None, shuffle: Shuffle, /) -> Batches:
        """Return the batches; `convert` turns what the source yields into a checked batch on the device."""
        ...


class Source(NamedTuple):
    """A row of the table of sources.

    Attributes:
        kind: The name in messages, where `{type}` stands for the object's class.
        matches: Whether an object is such a source.
        make: Makes batches of it.
        warns: Whether to warn about `batch_size`, because the source decides the size of its batches.
    """

    kind: str
    matches: Callable[[Any], bool]
    make: MakeBatches
    warns: bool = False


def _is(cls: type) -> Callable[[Any], bool]:
    return lambda x: isinstance(x, cls)


def _is_stream(x: Any) -> bool:
    containers = (str, bytes, Mapping, list, tuple, set, frozenset, type)
    return isinstance(x, Iterable) and not isinstance(x, containers)


def _is_iterator(x: Any) -> bool:
    return isinstance(x, Iterator) and _is_stream(x)


def _ready(x: Batches, convert: BatchConverter, batch_size: int | None, shuffle: Shuffle) -> Batches:
    if convert.class_weights is not None:
        raise ValueError("`class_weight` can't be used with Batches, which are ready; pass it to `as_batches`.")
    return x


def _py_dataset(x: Any, convert: BatchConverter, batch_size: int | None, shuffle: Shuffle) -> Batches:
    return PyDatasetBatches(x, convert, bool(shuffle))


def _batch_list(x: list[Any], convert: BatchConverter, batch_size: int | None, shuffle: Shuffle) -> Batches:
    batches = IndexedBatches(x, lambda at: x[at[0]], convert, batch_size=1)
    batches.batch_size = None
    batches.calls_others = type(x) is not list
    return batches


def _stream(x: Iterable[Any], convert: BatchConverter, batch_size: int | None, shuffle: Shuffle) -> Batches:
    return StreamBatches(x, convert)


# Arrays apart, everything that can be fed. The first row that matches counts: a class may belong to several.
SOURCES = (
    Source("Batches", _is(Batches), _ready),
    Source("Hugging Face data set", is_huggingface, huggingface_batches),
    Source("DataLoader", _is(DataLoader), loader_batches, warns=True),
    Source("torch IterableDataset", _is(IterableDataset), iterable_dataset_batches),
    Source("torch Dataset", _is(Dataset), dataset_batches),
    Source("PyDataset", is_py_dataset, _py_dataset, warns=True),
    Source("list of batches", is_batch_list, _batch_list, warns=True),
    Source("generator", _is_iterator, _stream, warns=True),
    Source("iterable {type}", _is_stream, _stream, warns=True),
)


def _from_source(
    x: Any,
    y: Any,
    sample_weight: Any,
    batch_size: int | None,
    shuffle: Shuffle,
    weights: ClassWeights | None,
    device: torch.device,
    floats: Floats,
    method: str,
) -> Batches:
    # Arrays come here as a list of batches, or because what is beside them can't be fed.
    wrong = is_arrays(x) and not (y is None and sample_weight is None)
    source = None if wrong else next((source for source in SOURCES if source.matches(x)), None)
    if source is None:
        raise ValueError(_unusable(x, y, sample_weight, method))
    kind = source.kind.format(type=type(x).__name__)
    for name, given in (("y", y), ("sample_weight", sample_weight)):
        if given is not None:
            raise ValueError(
                f"`x` is {'an' if kind[0] in 'aeiou' else 'a'} {kind}, which gives `{name}` itself, so `{name}` must not be "
                f"passed to `{method}`; got {describe(given)}. Let each batch be `(x, y)` or `(x, y, sample_weight)`."
            )
    if source.warns and batch_size is not None and method != "validation":
        warn(f"`batch_size={batch_size}` is ignored: `x` is a {kind}, which decides the size of its batches itself.")
    return source.make(x, BatchConverter(kind, device, weights, floats), batch_size, shuffle)


def _unusable(x: Any, y: Any, sample_weight: Any, method: str) -> str:
    method = "fit" if method == "validation" else method
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


def _whole(name: str, value: Any) -> int | None:
    if value is None:
        return None
    number = whole_of(value)
    if number is None or number < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1, or None; got {value!r}.")
    return number
