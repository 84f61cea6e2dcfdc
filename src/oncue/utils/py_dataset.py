"""Keras's `PyDataset`: a data set that returns whole batches by index."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from oncue.core.builtin import names_arguments


@names_arguments
class PyDataset:
    """Base class of data sets that return whole batches by index.

    Subclasses define `__getitem__(index)`, which returns a whole batch, `(x,)`, `(x, y)` or `(x, y, sample_weight)`,
    and `__len__`, the number of batches, or the property `num_batches`, which may be None for an infinite data set.
    Every batch is loaded once per epoch, also with several workers.

    Args:
        workers: Number of threads or processes that load batches; 0 and 1 (default) load in the training thread.
        use_multiprocessing: Use processes instead of threads; then even a single worker is a separate process, and the
            data set must be picklable. Default: False.
        max_queue_size: Maximum number of prefetched batches. Default: 10.

    Example:
        >>> import numpy as np
        >>> class Squares(PyDataset):
        ...     def __len__(self):
        ...         return 2
        ...     def __getitem__(self, index):
        ...         x = np.array([[index]])
        ...         return x, x**2
        >>> [y.item() for x, y in Squares(workers=2)]
        [0, 1]
    """

    # Class attributes, so that a subclass that forgets `super().__init__()` still works.
    workers: int = 1
    use_multiprocessing: bool = False
    max_queue_size: int = 10

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        """See the class."""
        self.workers = workers
        self.use_multiprocessing = use_multiprocessing
        self.max_queue_size = max_queue_size

    def __getitem__(self, index: int) -> Any:
        """Return batch `index`; subclasses must override it."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `__getitem__(self, index)`, which returns a whole batch `(x, y)`."
        )

    @property
    def num_batches(self) -> int | None:
        """Batches in one epoch, or None for an infinite data set. Default: `len(self)`."""
        length = getattr(self, "__len__", None)
        if length is None:
            raise NotImplementedError(
                f"{type(self).__name__} must define `__len__(self)` or the property `num_batches`: the number of "
                "batches in one epoch."
            )
        return int(length())

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches in order, without workers."""
        number = self.num_batches
        for index in count() if number is None else range(number):
            yield self[index]

    def on_epoch_begin(self) -> None:
        """Called before every epoch."""

    def on_epoch_end(self) -> None:
        """Called after every epoch, for example to shuffle."""


Sequence = PyDataset
