"""`PyDataset`, ours or Keras's, as batches loaded by worker threads or processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from queue import SimpleQueue
from typing import Any

from torch.utils.data import DataLoader, Dataset

from oncue.core.interrupts import undivided
from oncue.feeding.batch import Batch, Batches, unpack_x_y_sample_weight
from oncue.feeding.converter import BatchConverter
from oncue.feeding.epoch_hooks import EpochHooks
from oncue.feeding.order import BatchOrder
from oncue.feeding.parts import generators_of, is_stateful
from oncue.feeding.rows import Rows
from oncue.feeding.tensors import to_tensors
from oncue.random_state import preserved_random_state


def is_py_dataset(x: Any) -> bool:
    """Return whether `x` returns whole batches by index, as our PyDataset and Keras's do."""
    return (
        hasattr(x, "__getitem__")
        and hasattr(x, "on_epoch_end")
        and (hasattr(type(x), "num_batches") or hasattr(x, "num_batches") or hasattr(x, "__len__"))
    )


class PyDatasetBatches(Batches):
    """Batches of a PyDataset, prefetched by its workers and yielded in order.

    Args:
        dataset: The data set.
        convert: Converts and checks raw batches.
        shuffle: Whether to visit the batches in a new random order in every pass; ignored for an infinite data set.

    Raises:
        ValueError: If the data set has no batches.

    Example:
        >>> import torch
        >>> from oncue.utils.py_dataset import PyDataset
        >>> class Numbers(PyDataset):
        ...     def __len__(self):
        ...         return 3
        ...     def __getitem__(self, index):
        ...         return ([index],)
        >>> batches = PyDatasetBatches(Numbers(workers=2), BatchConverter("PyDataset", torch.device("cpu")))
        >>> [x.tolist() for x, _, _ in batches.epoch()]
        [[0], [1], [2]]
    """

    restartable = True

    def __init__(self, dataset: Any, convert: BatchConverter, shuffle: bool = False) -> None:
        """See the class."""
        self.source = dataset
        self.exact_position = True
        self.data_sets = [dataset] if is_stateful(dataset) else []
        self._convert = convert
        self._shuffle = shuffle
        self._workers = int(getattr(dataset, "workers", 1))
        self._processes = bool(getattr(dataset, "use_multiprocessing", False))
        self.calls_others = not (self._processes and self._workers > 0)
        self._ahead = max(1, int(getattr(dataset, "max_queue_size", 10)))
        self._threads: ThreadPoolExecutor | None = None
        self._order: BatchOrder | None = None
        self._hooks = EpochHooks(dataset)
        if self.num_batches == 0:
            raise ValueError(f"The {convert.kind} {type(dataset).__name__} has no batches: its length is 0.")
        self._rows = Rows(f"PyDataset {type(dataset).__name__}", self.num_batches or 3, dataset.__getitem__, [dataset])

    @property
    def num_batches(self) -> int | None:  # type: ignore[override]  # a property: a data set may grow between epochs
        """Batches in one pass; None for an infinite data set."""
        if hasattr(type(self.source), "num_batches") or hasattr(self.source, "num_batches"):
            number = self.source.num_batches
        else:
            number = len(self.source)
        return None if number is None else int(number)

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass from batch `start`, between the data set's `on_epoch_begin` and `on_epoch_end`."""
        if start and start == self.num_batches:
            # The pass was over when the state was saved, but perhaps for its hook.
            self.epoch_ends()
            return
        self.epoch_begins()
        yield from self.one_pass(start)
        self.epoch_ends()

    def one_pass(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass without the data set's epoch hooks."""
        for index, data in enumerate(self._load(self._indices(start)), start):
            if self._order is not None:
                self._order.position = index + 1
            yield self._convert(data, index)

    def epoch_begins(self) -> None:
        """Call the data set's `on_epoch_begin`."""
        self._hooks.begin()

    def epoch_ends(self) -> None:
        """Call the data set's `on_epoch_end`."""
        self._hooks.end()

    def contents(self) -> dict[str, str]:
        """Return digests of some batches."""
        return {**self._rows.contents(), **self._convert.contents()}

    def few_rows(self) -> dict[str, str]:
        """Return digests of a few batches, and of what the data set's hooks have changed."""
        return {**self._rows.few(), **self._hooks.digests()}

    def keep_position(self) -> None:
        """Record what the data set's hooks draw from now on."""
        self._hooks.records = not self.data_sets

    def first(self) -> Batch:
        """Return batch 0 of an epoch, loaded in this thread."""
        with preserved_random_state(*generators_of([self.source])), self._hooks.tried():
            return self._convert(self.source[0], 0)

    def give_up(self) -> None:
        """Take the pass for over."""
        if self._order is not None:
            self._order.give_up()

    def state_dict(self) -> dict[str, Any]:
        """Return `order_seed` and `position` of the current pass, if there was one, and the calls of the hooks."""
        return {**({} if self._order is None else self._order.state_dict()), "hooks": self._hooks.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the order of a saved pass for the next `epoch(position)`.

        The hooks of a data set without a state of its own are called as they were before, if none was called yet.
        """
        order = {key: value for key, value in state.items() if key != "hooks"}
        if "hooks" in state:
            self._hooks.load_state_dict(state["hooks"], replay=not self.data_sets)
        number = self.num_batches
        if order and number is not None:
            self._order = BatchOrder(number, 1, self._shuffle)
            self._order.load_state_dict(order)

    def close(self) -> None:
        """Stop the worker threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None

    def _indices(self, start: int) -> Iterable[int]:
        number = self.num_batches
        if number is None:
            return count(start)
        if self._order is None or self._order.num_samples != number:
            self._order = BatchOrder(number, 1, self._shuffle)
        order = self._order.begin(start)
        return range(start, number) if order is None else order[start:].tolist()

    def _load(self, indices: Iterable[int]) -> Iterator[Any]:
        if self._processes and self._workers > 0:
            yield from DataLoader(
                _Pickled(self.source),
                batch_size=None,
                sampler=indices,
                num_workers=self._workers,
                collate_fn=_unchanged,
                prefetch_factor=-(-self._ahead // self._workers),
            )
        elif self._workers > 1:
            yield from self._load_in_threads(iter(indices))
        else:
            for index in indices:
                yield self.source[index]

    def _load_in_threads(self, indices: Iterator[int]) -> Iterator[Any]:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="oncue-data")
        waiting = deque(self._hand_on(index) for index in islice(indices, self._ahead))
        try:
            while waiting:
                # Ctrl-C within a `Future`, which is Python code, may leave it locked for good; not so in this queue.
                data, error = waiting.popleft()[1].get()
                if error is not None:
                    raise error
                for index in islice(indices, 1):
                    waiting.append(self._hand_on(index))
                yield data
        finally:
            _cancel(future for future, _ in waiting)

    @undivided
    def _hand_on(self, index: int) -> tuple[Future[None], SimpleQueue[tuple[Any, BaseException | None]]]:
        """Let a thread read a batch; return what stands for that, and the queue that gets it, or else an error."""
        read = self.source.__getitem__
        answer: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

        def job() -> None:
            try:
                answer.put((read(index), None))
            except BaseException as error:
                answer.put((None, error))

        assert self._threads is not None
        return self._threads.submit(job), answer


@undivided
def _cancel(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        future.cancel()


class _Pickled(Dataset[Any]):
    """Reads batches in a worker process and returns them as tensors, which are sent through shared memory."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __getitem__(self, index: int) -> Any:
        x, y, sample_weight = unpack_x_y_sample_weight(self._source[index])
        return to_tensors(x, "x"), to_tensors(y, "y"), to_tensors(sample_weight, "sample_weight")


def _unchanged(data: Any) -> Any:
    return data
