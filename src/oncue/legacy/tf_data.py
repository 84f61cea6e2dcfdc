"""A modest `tf.data.Dataset`: chains of what scripts do most before `fit`, in Python, on torch's tensors."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

AUTOTUNE = -1
"""What TensorFlow is told to choose a number by; nothing here needs one."""
experimental = SimpleNamespace(AUTOTUNE=AUTOTUNE)
UNKNOWN_CARDINALITY, INFINITE_CARDINALITY = -2, -1

_NOT_HERE = {
    "interleave": "`flat_map` reads one after another",
    "padded_batch": "use `utils.pad_sequences` before `from_tensor_slices`",
    "window": "use `utils.timeseries_dataset_from_array`",
    "shard": "oncue gives each process its part of the data by itself",
    "list_files": "use `sorted(glob.glob(pattern))`",
    "from_tensors": "use `from_tensor_slices`, or a list of batches",
    "group_by_window": "use a `utils.PyDataset`",
    "bucket_by_sequence_length": "use a `utils.PyDataset`",
    "reduce": "use a loop of Python",
    "scan": "use a loop of Python",
    "apply": "call the function on the data set",
    "with_options": "leave it out",
    "save": "save the arrays, with `numpy.savez`",
    "load": "load the arrays, with `numpy.load`",
}


class Dataset:
    """Elements in an order: tensors, or tuples and dicts of them. `fit` takes a data set whose elements are batches.

    What is done to one gives another: `from_tensor_slices((x, y)).shuffle(1000).batch(32)`. Functions given to `map` and
    `filter` are called with tensors, in Python. Anything else of TensorFlow's class is refused by name.

    Args:
        begin: Begins a pass: returns an iterator of elements.
        cardinality: How many elements there are; -1 for no end, -2 when it isn't known.

    Example:
        >>> data = Dataset.from_tensor_slices(([1, 2, 3], [4, 5, 6])).map(lambda x, y: (x * 10, y)).batch(2)
        >>> [(x.tolist(), y.tolist()) for x, y in data]
        [([10, 20], [4, 5]), ([30], [6])]
        >>> len(data)
        2
    """

    def __init__(self, begin: Callable[[], Iterator[Any]], cardinality: int = UNKNOWN_CARDINALITY) -> None:
        self._begin = begin
        self._cardinality = cardinality

    def __iter__(self) -> Iterator[Any]:
        return self._begin()

    def __len__(self) -> int:
        if self._cardinality < 0:
            raise TypeError(
                "The data set has no end." if self._cardinality == INFINITE_CARDINALITY else "The length is not known."
            )
        return self._cardinality

    def __bool__(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        if name in _NOT_HERE:
            raise AttributeError(f"`Dataset.{name}` of TensorFlow is not here: {_NOT_HERE[name]}.")
        raise AttributeError(f"'Dataset' object has no attribute {name!r}")

    # Where data comes from ---------------------------------------------------------------------------------------

    @staticmethod
    def from_tensor_slices(tensors: Any) -> Dataset:
        """Return a data set with an element for each position along the first axis.

        Args:
            tensors: Arrays, tensors or lists, or tuples and dicts of them, of one length.

        Raises:
            ValueError: When lengths differ.
        """
        parts = _mapped(tensors, _as_tensor)
        lengths = {len(leaf) for leaf in _leaves(parts)}
        if len(lengths) != 1:
            raise ValueError(f"`from_tensor_slices` needs parts of one length; got the lengths {sorted(lengths)}.")
        (length,) = lengths

        def begin() -> Iterator[Any]:
            return (_mapped(parts, operator.itemgetter(index)) for index in range(length))

        return Dataset(begin, length)

    @staticmethod
    def from_generator(
        generator: Callable[..., Iterable[Any]],
        output_types: Any = None,
        output_shapes: Any = None,
        args: Any = (),
        output_signature: Any = None,
        name: str | None = None,
    ) -> Dataset:
        """Return a data set of what a function's generator yields.

        Args:
            generator: A function, called at the beginning of each pass.
            output_types: The type of each part, if it is to be cast.
            output_shapes: Not needed.
            args: The function's arguments.
            output_signature: Not needed.
            name: Not needed.
        """
        return Dataset(lambda: (_cast(element, output_types) for element in generator(*args)))

    @staticmethod
    def range(*args: int, **kwargs: Any) -> Dataset:
        """Return a data set of the whole numbers of a range."""
        numbers = range(*args)
        return Dataset(lambda: (torch.tensor(number) for number in numbers), len(numbers))

    @staticmethod
    def zip(*datasets: Any, **kwargs: Any) -> Dataset:
        """Return a data set whose elements are tuples of those of several, as long as the shortest."""
        several = datasets[0] if len(datasets) == 1 and isinstance(datasets[0], (tuple, list)) else datasets
        sizes = [one._cardinality for one in several]
        known = [size for size in sizes if size >= 0]
        size = UNKNOWN_CARDINALITY if UNKNOWN_CARDINALITY in sizes else (min(known) if known else INFINITE_CARDINALITY)
        return Dataset(lambda: itertools.starmap(lambda *parts: parts, zip(*several, strict=False)), size)

    # What is done to it ------------------------------------------------------------------------------------------

    def map(self, map_func: Callable[..., Any], num_parallel_calls: Any = None, **kwargs: Any) -> Dataset:
        """Return a data set of what a function makes of each element; the parts of a tuple are its arguments."""
        return Dataset(lambda: (_mapped(_called(map_func, element), _as_tensor) for element in self), self._cardinality)

    def filter(self, predicate: Callable[..., Any], **kwargs: Any) -> Dataset:
        """Return a data set of the elements for which a function is true."""
        return Dataset(lambda: (element for element in self if bool(_called(predicate, element))))

    def flat_map(self, map_func: Callable[..., Any], **kwargs: Any) -> Dataset:
        """Return a data set of the elements of the data sets that a function makes, one after another."""
        return Dataset(lambda: itertools.chain.from_iterable(_called(map_func, element) for element in self))

    def unbatch(self, **kwargs: Any) -> Dataset:
        """Return a data set of the single elements of batches."""
        return Dataset(lambda: itertools.chain.from_iterable(map(Dataset.from_tensor_slices, self)))

    def shuffle(
        self, buffer_size: int, seed: int | None = None, reshuffle_each_iteration: bool | None = True, **kwargs: Any
    ) -> Dataset:
        """Return a data set in random order: each element is drawn from a buffer of the next ones.

        Args:
            buffer_size: The size of the buffer; that of the data set shuffles all.
            seed: A seed; without one the order goes by torch's.
            reshuffle_each_iteration: False for the same order in each pass.
            **kwargs: `name`.

        Raises:
            ValueError: For a buffer of no size.
        """
        size = int(buffer_size)
        if size < 1:
            raise ValueError(f"`buffer_size` must be at least 1; got {buffer_size!r}.")
        passes = itertools.count()
        first = int(torch.randint(2**31, ())) if seed is None and not reshuffle_each_iteration else seed

        def begin() -> Iterator[Any]:
            number = next(passes) if reshuffle_each_iteration else 0
            order = np.random.default_rng(int(torch.randint(2**31, ())) if first is None else [first, number])
            held: list[Any] = []
            for element in self:
                if len(held) < size:
                    held.append(element)
                    continue
                at = int(order.integers(size))
                drawn, held[at] = held[at], element
                yield drawn
            order.shuffle(held)
            yield from held

        return Dataset(begin, self._cardinality)

    def batch(self, batch_size: int, drop_remainder: bool = False, **kwargs: Any) -> Dataset:
        """Return a data set of batches: several elements stacked along a first axis.

        Args:
            batch_size: How many.
            drop_remainder: Whether to leave out a last batch that is smaller.
            **kwargs: `num_parallel_calls` and others that nothing needs.

        Raises:
            ValueError: For a size below 1.
        """
        size = int(batch_size)
        if size < 1:
            raise ValueError(f"`batch_size` must be at least 1; got {batch_size!r}.")

        def begin() -> Iterator[Any]:
            elements = iter(self)
            while held := list(itertools.islice(elements, size)):
                if len(held) == size or not drop_remainder:
                    yield _stacked(held)

        count = self._cardinality
        if count >= 0:
            count = count // size if drop_remainder else -(-count // size)
        return Dataset(begin, count)

    def repeat(self, count: int | None = None, **kwargs: Any) -> Dataset:
        """Return a data set of several passes, without an end by default."""
        if count is None or count < 0:

            def endless() -> Iterator[Any]:
                while True:
                    yield from self

            return Dataset(endless, INFINITE_CARDINALITY)
        total = self._cardinality * count if self._cardinality >= 0 else self._cardinality
        return Dataset(lambda: itertools.chain.from_iterable(iter(self) for _ in range(count)), total)

    def take(self, count: int, **kwargs: Any) -> Dataset:
        """Return a data set of the first elements."""
        size = count if self._cardinality == INFINITE_CARDINALITY else self._cardinality
        return Dataset(lambda: itertools.islice(self, count), min(count, size) if size >= 0 else size)

    def skip(self, count: int, **kwargs: Any) -> Dataset:
        """Return a data set without the first elements."""
        size = self._cardinality
        return Dataset(lambda: itertools.islice(self, count, None), max(size - count, 0) if size >= 0 else size)

    def concatenate(self, dataset: Dataset, **kwargs: Any) -> Dataset:
        """Return a data set of its elements, then those of another."""
        sizes = self._cardinality, dataset._cardinality
        return Dataset(lambda: itertools.chain(self, dataset), sum(sizes) if min(sizes) >= 0 else min(sizes))

    def enumerate(self, start: int = 0, **kwargs: Any) -> Dataset:
        """Return a data set of pairs of a number and an element."""
        return Dataset(lambda: ((torch.tensor(at), one) for at, one in enumerate(self, start)), self._cardinality)

    def cache(self, filename: str = "", **kwargs: Any) -> Dataset:
        """Return a data set that keeps the elements of its first whole pass, in memory.

        Raises:
            ValueError: For a file.
        """
        if filename:
            raise ValueError(f"`cache` keeps elements in memory only; got the file {filename!r}. Leave it out.")
        kept: list[Any] = []
        whole = [False]

        def begin() -> Iterator[Any]:
            if whole[0]:
                yield from kept
                return
            found = []
            for element in self:
                found.append(element)
                yield element
            kept[:], whole[0] = found, True

        return Dataset(begin, self._cardinality)

    def prefetch(self, buffer_size: Any = AUTOTUNE, **kwargs: Any) -> Dataset:
        """Return the data set: oncue moves the next batch to the device by itself."""
        return self

    # Looking at it -----------------------------------------------------------------------------------------------

    def cardinality(self) -> int:
        """Return how many elements there are; -1 for no end, -2 when it isn't known."""
        return self._cardinality

    def as_numpy_iterator(self) -> Iterator[Any]:
        """Return an iterator of the elements as arrays."""
        return (_mapped(element, lambda leaf: leaf.detach().cpu().numpy()) for element in self)

    @property
    def element_spec(self) -> Any:
        """The shapes and types of the first element."""
        return _mapped(next(iter(self)), lambda leaf: (tuple(leaf.shape), str(leaf.dtype).removeprefix("torch.")))

    def __repr__(self) -> str:
        size = {INFINITE_CARDINALITY: "no end", UNKNOWN_CARDINALITY: "an unknown number"}.get(
            self._cardinality, str(self._cardinality)
        )
        return f"<Dataset of {size} elements>" if self._cardinality >= 0 else f"<Dataset of elements with {size}>"


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in _leaves(part)]
    if isinstance(value, tuple):
        return [leaf for part in value for leaf in _leaves(part)]
    return [value]


def _mapped(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return a nested value with a function applied to its leaves; a list is a leaf, as in TensorFlow."""
    if isinstance(value, dict):
        return {key: _mapped(part, function) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_mapped(part, function) for part in value)
    return function(value)


def _as_tensor(value: Any) -> Any:
    if isinstance(value, (torch.Tensor, Dataset, str)):
        return value
    array = np.asarray(value)
    if array.dtype.kind == "U":
        # Names of files, or texts, which a function is to turn into numbers.
        return array if array.ndim else str(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"A data set holds numbers or text; got {array.dtype.name} of shape {array.shape}. Bring the parts to one length, "
            "with `utils.pad_sequences`, or read them in a `utils.PyDataset`."
        )
    if array.dtype == np.float64 and not isinstance(value, (np.ndarray, np.generic)):
        array = array.astype(np.float32)
    return torch.as_tensor(array)


def _cast(element: Any, kinds: Any) -> Any:
    tensors = _mapped(tuple(element) if isinstance(element, (list, tuple)) else element, _as_tensor)
    if kinds is None:
        return tensors
    if isinstance(tensors, tuple):
        return tuple(_cast(part, kind) for part, kind in zip(tensors, kinds, strict=True))
    return tensors.to(getattr(torch, str(kinds)))


def _called(function: Callable[..., Any], element: Any) -> Any:
    return function(*element) if isinstance(element, tuple) else function(element)


def _stacked(elements: list[Any]) -> Any:
    first = elements[0]
    if isinstance(first, dict):
        return {key: _stacked([element[key] for element in elements]) for key in first}
    if isinstance(first, tuple):
        return tuple(_stacked([element[at] for element in elements]) for at in range(len(first)))
    if isinstance(first, (str, np.ndarray)):
        return np.array(elements)
    shapes = {tuple(element.shape) for element in elements}
    if len(shapes) > 1:
        raise ValueError(
            f"`batch` can't stack elements of the shapes {sorted(shapes)}. Bring them to one size by `map`, or use "
            "`utils.pad_sequences` before."
        )
    return torch.stack(elements)
