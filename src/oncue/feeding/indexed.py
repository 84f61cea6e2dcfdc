"""Data sets read by sample index: torch's map-style data sets and Hugging Face's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import Subset, TensorDataset, default_collate

from oncue.feeding.batch import Batch, Batches
from oncue.feeding.converter import BatchConverter
from oncue.feeding.order import BatchOrder, Shuffle
from oncue.feeding.parts import generators_of, is_stateful, parts_of
from oncue.feeding.row_share import RowShare
from oncue.feeding.rows import Rows
from oncue.random_state import preserved_random_state


class IndexedBatches(Batches):
    """Batches of a data set that returns the samples for a list of indices.

    Args:
        dataset: The data set; it must have a length.
        fetch: Returns the raw batch for a list of sample indices.
        convert: Converts and checks raw batches.
        batch_size: Samples per batch; None for 32.
        shuffle: False, True for a new random order per pass, or "batch" to shuffle whole batches.

    Raises:
        ValueError: If the data set is empty.

    Example:
        >>> rows = torch.arange(5.0)
        >>> batches = IndexedBatches(rows, lambda at: rows[at], BatchConverter("Dataset", torch.device("cpu")), batch_size=2)
        >>> [x.tolist() for x, _, _ in batches.epoch(start=1)]
        [[2.0, 3.0], [4.0]]
    """

    restartable = True
    exact_position = True
    _share: RowShare | None = None

    def __init__(
        self,
        dataset: Any,
        fetch: Callable[[list[int]], Any],
        convert: BatchConverter,
        batch_size: int | None = None,
        shuffle: Shuffle = False,
    ) -> None:
        """See the class."""
        samples = len(dataset)
        if samples == 0:
            raise ValueError(f"The {convert.kind} has no samples.")
        self.source = dataset
        self.batch_size = 32 if batch_size is None else batch_size
        self.data_sets = [part for part in parts_of(dataset) if is_stateful(part)]
        self._fetch = fetch
        self._convert = convert
        kind = f"{convert.kind} {type(dataset).__name__}"
        self._rows = Rows(kind, samples, lambda row: fetch([row]), parts_of(dataset))
        self._order = BatchOrder(samples, self.batch_size, shuffle)
        self.num_batches = self._order.num_batches

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass from batch `start`: from 0 in a new order, from a later batch in the current pass's order."""
        return self._walk(start, self._order.begin(start))

    def first(self) -> Batch:
        """Return the first samples, unshuffled."""
        with preserved_random_state(*generators_of(parts_of(self.source))):
            return self._convert(self._fetch(list(range(min(self.batch_size or 1, self._order.num_samples)))), 0)

    def contents(self) -> dict[str, str]:
        """Return the number of samples and digests of some."""
        return {"samples": str(self._order.num_samples), **self._rows.contents(), **self._convert.contents()}

    def few_rows(self) -> dict[str, str]:
        """Return digests of a few samples."""
        return self._rows.few()

    def give_rows(self, share: RowShare | None) -> bool:
        """Give only the rows of one of several processes, where a row is a sample; a list has whole batches.

        A data set that draws random numbers is read whole, so that each row gets those that it gets on one process.
        """
        self._share = None if self.batch_size is None or share is None or self._rows.draws() else share
        return self._share is not None

    def give_up(self) -> None:
        """Take the pass for over."""
        self._order.give_up()

    def state_dict(self) -> dict[str, Any]:
        """Return `order_seed` and `position` of the current pass."""
        return self._order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the order of a saved pass for the next `epoch(position)`."""
        self._order.load_state_dict(state)

    def _walk(self, start: int, order: torch.Tensor | None) -> Iterator[Batch]:
        size, samples = self._order.batch_size, self._order.num_samples
        for index in range(start, self._order.num_batches):
            low, high = index * size, min((index + 1) * size, samples)
            if self._share is not None:
                own = self._share.of(high - low)
                low, high = low + own.start, low + own.stop
            at = list(range(low, high)) if order is None else order[low:high].tolist()
            self._order.position = index + 1
            yield self._convert(self._fetch(at), index)


def dataset_batches(dataset: Any, convert: BatchConverter, batch_size: int | None, shuffle: Shuffle) -> Batches:
    """Return batches of a map-style torch Dataset, with samples collated as a DataLoader does it.

    Args:
        dataset: A data set with `__getitem__` and `__len__`.
        convert: Converts and checks raw batches.
        batch_size: Samples per batch; None for 32.
        shuffle: See `IndexedBatches`.

    Returns:
        The batches.

    Raises:
        ValueError: If the data set has no length or no samples.

    Example:
        >>> pairs = torch.utils.data.TensorDataset(torch.arange(3.0), torch.tensor([0, 1, 0]))
        >>> convert = BatchConverter("torch Dataset", torch.device("cpu"))
        >>> [y.tolist() for _, y, _ in dataset_batches(pairs, convert, batch_size=2, shuffle=False).epoch()]
        [[0, 1], [0]]
    """
    if not hasattr(dataset, "__len__"):
        raise ValueError(
            f"The torch Dataset {type(dataset).__name__} has no `__len__`; add it, or make it an IterableDataset."
        )
    fetch_many = getattr(dataset, "__getitems__", None)

    def fetch(indices: list[int]) -> Any:
        samples = [dataset[index] for index in indices] if fetch_many is None else fetch_many(indices)
        return default_collate(samples)

    batches = IndexedBatches(dataset, fetch, convert, batch_size, shuffle)
    batches.calls_others = not holds_tensors(dataset)
    return batches


def holds_tensors(dataset: Any) -> bool:
    """Return whether a data set is torch's `TensorDataset`, or a part of one: reading it runs no other code.

    Example:
        >>> pairs = torch.utils.data.TensorDataset(torch.arange(3.0))
        >>> holds_tensors(torch.utils.data.Subset(pairs, [0, 2])), holds_tensors([0.0])
        (True, False)
    """
    while type(dataset) is Subset:
        dataset = dataset.dataset
    return type(dataset) is TensorDataset
