"""torch's DataLoader as batches, resumable within a pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from oncue.feeding.batch import Batch, Batches
from oncue.feeding.converter import BatchConverter
from oncue.feeding.huggingface import is_huggingface, split_columns
from oncue.feeding.order import Shuffle
from oncue.feeding.resumable_sampler import ResumableSampler
from oncue.feeding.stream import StreamBatches, is_stateful
from oncue.feeding.worker_states import ReportingCollate, WorkerInit, WorkerStates
from oncue.random_state import preserved_random_state, random_state, set_random_state
from oncue.torch_private import drop_workers

_STATELESS_SAMPLERS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)
"""Samplers whose order depends only on a generator's state at the start of the pass."""
_KEYS = {"passes", "begun", "workers", "last"}


class LoaderBatches(Batches):
    """Batches of a DataLoader over a map-style data set, iterated from scratch in every epoch.

    Samplers with `set_epoch` get the epoch's number. The random states at the start of the pass are part of
    `state_dict`, so a resumed pass visits the samples in the same order: its indices are drawn again, and those before
    the saved position are skipped without loading samples. The random states of worker processes are part of it too.
    A sampler that isn't one of torch's may remember earlier passes, so their indices are drawn again as well. The
    indices of the last batch are saved and compared, to detect a sampler that doesn't repeat its order.

    Args:
        loader: The loader.
        convert: Converts and checks raw batches.
        arrange: Applied to every raw batch before `convert`. Default: no change.

    Example:
        >>> loader = DataLoader(torch.arange(4.0), batch_size=2)
        >>> batches = LoaderBatches(loader, BatchConverter("DataLoader", torch.device("cpu")))
        >>> [x.tolist() for x, _, _ in batches.epoch()]
        [[0.0, 1.0], [2.0, 3.0]]
    """

    restartable = True

    def __init__(
        self, loader: DataLoader[Any], convert: BatchConverter, arrange: Callable[[Any], Any] | None = None
    ) -> None:
        """See the class."""
        self.source = loader
        self.batch_size = loader.batch_size
        self.num_batches = _length(loader)
        self.exact_position = type(loader).__iter__ is DataLoader.__iter__ and getattr(loader, "in_order", True)
        if not self.exact_position:
            self.obstacle = f"the loader, a {type(loader).__name__}, doesn't iterate as torch's DataLoader does"
        self._convert = convert
        self._arrange = _unchanged if arrange is None else arrange
        self._passes = 0
        self._keeps_position = False
        # The random states at the start of the current pass; None between passes.
        self._begun: dict[str, Any] | None = None
        self._loaded_state: dict[str, Any] | None = None
        self._resumable: ResumableSampler | None = None
        self._workers: WorkerStates | None = None
        self._done = 0

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass, without its first `start` batches."""
        for index, data in enumerate(self._open(start), start):
            self._done = index + 1
            yield self._convert(self._arrange(data), index)
        self._begun, self._done = None, 0

    def keep_position(self) -> None:
        """Record what `state_dict` needs from now on."""
        self._keeps_position = self.exact_position

    def first(self) -> Batch:
        """Return the batch that the sampler would start with, loaded in this process."""
        loader = self.source
        with preserved_random_state(*self._generators()):
            sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
            wanted = next(iter(sampler), None)
            if wanted is None:
                raise ValueError(
                    f"The {self._convert.kind} has no batches; its data set has {_length(loader.dataset)}."
                )
            if loader.batch_sampler is None:
                data = loader.dataset[wanted]
            elif hasattr(loader.dataset, "__getitems__"):
                data = loader.dataset.__getitems__(wanted)
            else:
                data = [loader.dataset[index] for index in wanted]
            return self._convert(self._arrange(loader.collate_fn(data)), 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of passes; within a pass also its initial random states and the last batch's indices."""
        # After its last batch the pass is over, even if the iterator hasn't been asked for another one yet.
        begun, workers = None if self._done == self.num_batches else self._begun, None
        if self._workers is not None:
            workers = list((self._workers.latest if begun is None else self._workers.last_round).items())
        last = self._resumable.indices(self._done - 1) if self._resumable is not None and self._done else None
        return {"passes": self._passes, "begun": begun, "workers": workers, "last": last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved pass for the next `epoch(start)`."""
        if set(state) != _KEYS:
            raise ValueError(f"The state of a loader has the keys {sorted(_KEYS)}; got {sorted(state)}.")
        if not self._passes and not self._has_stateless_sampler():
            with preserved_random_state(*self._generators()):
                for _ in range(state["passes"] - (state["begun"] is not None)):
                    # Such a sampler may remember earlier passes.
                    deque(self._sampler(), maxlen=0)
        self._loaded_state, self._passes = state, state["passes"]

    def close(self) -> None:
        """Stop persistent workers, whose batches carry random states that the loader's next user doesn't expect."""
        if self._workers is not None and self.source.persistent_workers:
            drop_workers(self.source)

    # A pass --------------------------------------------------------------------------------------------------------

    def _open(self, start: int) -> Iterator[Any]:
        saved, self._loaded_state = self._loaded_state, None
        if start and start == self.num_batches:
            return iter(())
        begun = None if saved is None or not start else saved["begun"]
        self._passes += begun is None
        for sampler in (getattr(self.source, "sampler", None), getattr(self.source, "batch_sampler", None)):
            set_epoch = getattr(sampler, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(self._passes - 1)
        if begun is None:
            self._begun = {"all": random_state(cuda=False), "own": [one.get_state() for one in self._generators()]}
            batches = self._resumable_pass(0, saved) if self._keeps_position else iter(self.source)
            return islice(batches, start, None)
        self._begun = begun
        with preserved_random_state():
            # The saved states serve to draw the same order; the rest of the program keeps its present ones.
            set_random_state(begun["all"])
            for generator, state in zip(self._generators(), begun["own"], strict=True):
                generator.set_state(state)
            iterator = self._resumable_pass(start, saved)
            for _ in range(start % max(self.source.num_workers, 1)):
                next(iterator, None)
        assert self._resumable is not None and saved is not None
        last = self._resumable.indices(start - 1)
        if saved["last"] is not None and last != saved["last"]:
            raise ValueError(
                f"The data can't be resumed where it stopped: batch {start - 1} of the epoch had the samples "
                f"{_brief(saved['last'])}, but now the sampler, a {type(self._inner_sampler()).__name__}, gives "
                f"{_brief(last)}. Give the sampler a seeded generator, or restart the interrupted epoch with "
                "`BackupAndRestore(..., resume='epoch')`."
            )
        return iterator

    def _resumable_pass(self, start: int, saved: dict[str, Any] | None) -> Iterator[Any]:
        """Begin a pass at the last full round of the workers before `start`, and record what a state needs."""
        loader, workers = self.source, self.source.num_workers
        skipped = start - start % max(workers, 1)
        # Workers that live for one pass only start every pass with new states.
        lasting = start or (workers and loader.persistent_workers)
        states = dict(saved["workers"] or ()) if saved is not None and lasting else {}
        alive = bool(workers) and loader.persistent_workers and self._workers is not None
        if self._workers is not None and alive:
            states = self._workers.latest
        if alive and self._resumable is not None:
            self._resumable.restart(skipped)
        else:
            self._resumable = ResumableSampler(self._sampler(), skipped)
        if workers:
            self._workers = WorkerStates(workers, states)
        sampler_name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        # The loader reads these attributes when its iterator is made; they are restored right after.
        original = {name: vars(loader)[name] for name in (sampler_name, "collate_fn", "worker_init_fn", "generator")}
        try:
            if not alive:
                vars(loader)[sampler_name] = self._resumable
                if workers:
                    vars(loader)["collate_fn"] = ReportingCollate(loader.collate_fn)
                    vars(loader)["worker_init_fn"] = WorkerInit(loader.worker_init_fn, states)
                    drop_workers(loader)
                if workers and loader.persistent_workers and self._passes > 1:
                    # Starting workers draws one number from the generator, which already happened in the first pass.
                    vars(loader)["generator"] = torch.Generator()
            iterator = iter(loader)
        finally:
            vars(loader).update(original)
        assert self._resumable is not None
        self._resumable.begin()
        return self._recorded(iterator, skipped)

    def _recorded(self, iterator: Iterator[Any], number: int) -> Iterator[Any]:
        assert self._resumable is not None
        for data in iterator:
            if self._workers is not None:
                data, report = data
                self._workers.record(number, report)
            self._resumable.forget(number - 1)
            number += 1
            yield data

    def _sampler(self) -> Any:
        loader = self.source
        return loader.sampler if loader.batch_sampler is None else loader.batch_sampler

    def _has_stateless_sampler(self) -> bool:
        sampler, inner = self._sampler(), self._inner_sampler()
        return isinstance(inner, _STATELESS_SAMPLERS) or hasattr(sampler, "set_epoch") or hasattr(inner, "set_epoch")

    def _inner_sampler(self) -> Any:
        sampler = self._sampler()
        return sampler.sampler if type(sampler) is BatchSampler else sampler

    def _generators(self) -> list[torch.Generator]:
        return own_generators(self.source)


def own_generators(loader: Any) -> list[torch.Generator]:
    """Return the generators of a loader and of its samplers, each once.

    Args:
        loader: A DataLoader, or anything else.

    Example:
        >>> own_generators(DataLoader(torch.arange(4.0), generator=torch.Generator())) == []
        False
    """
    batch_sampler = getattr(loader, "batch_sampler", None)
    holders = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found: list[torch.Generator] = []
    for holder in holders:
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator) and not any(generator is other for other in found):
            found.append(generator)
    return found


def loader_batches(
    loader: DataLoader[Any], convert: BatchConverter, batch_size: int | None = None, shuffle: Shuffle = False
) -> Batches:
    """Return batches of a DataLoader, according to its data set.

    Args:
        loader: The loader.
        convert: Converts and checks raw batches.
        batch_size: Ignored: the loader decides.
        shuffle: Ignored: the loader decides.

    Returns:
        A `LoaderBatches`, or a `StreamBatches` for an `IterableDataset`, which may be readable only once, and for a
        stateful loader, which saves its own position.

    Example:
        >>> loader = DataLoader(torch.arange(4.0), batch_size=2)
        >>> loader_batches(loader, BatchConverter("DataLoader", torch.device("cpu"))).num_batches
        2
    """
    arrange = split_columns if is_huggingface(loader.dataset) else _unchanged
    if not isinstance(loader.dataset, IterableDataset) and not is_stateful(loader):
        return LoaderBatches(loader, convert, arrange)
    return StreamBatches(loader, convert, lambda number: map(arrange, iter(loader)), loader.batch_size)


def iterable_dataset_batches(
    dataset: IterableDataset[Any], convert: BatchConverter, batch_size: int | None, shuffle: Shuffle
) -> Batches:
    """Return batches of a torch IterableDataset of single samples.

    Args:
        dataset: The data set.
        convert: Converts and checks raw batches.
        batch_size: Samples per batch; None for 32.
        shuffle: Ignored: the samples come in the data set's order.

    Returns:
        The batches.
    """
    return loader_batches(DataLoader(dataset, batch_size=32 if batch_size is None else batch_size), convert)


def _unchanged(data: Any) -> Any:
    return data


def _brief(indices: list[int] | None) -> str:
    text = str(indices)
    return text if len(text) <= 60 else text[:57] + "..."


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except TypeError:
        return None
