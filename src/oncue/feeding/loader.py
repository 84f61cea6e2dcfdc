"""torch's DataLoader, and whatever follows its protocol, as batches."""

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
from oncue.feeding.resumable_sampler import ResumableSampler
from oncue.feeding.stream import StreamBatches, is_stateful
from oncue.feeding.worker_states import ReportingCollate, WorkerInit, WorkerStates
from oncue.random_state import preserved_random_state, random_state, set_random_state
from oncue.torch_private import drop_workers

_STATELESS_SAMPLERS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)
"""Samplers whose order comes from a generator's state when a pass begins, and from nothing else."""
_KEYS = {"passes", "begun", "workers", "last"}


class LoaderBatches(Batches):
    """Batches of a DataLoader over a map-style data set, iterated afresh for every epoch.

    Samplers that shuffle by epoch (`set_epoch`) are told the epoch. The random states at the beginning of the pass are
    part of `state_dict`, so that a resumed pass visits the samples in the same order: its indices are drawn again, and
    those that are done are passed over without loading their samples. With worker processes, their random states are
    part of it too. A sampler of another origin than torch's, which may remember earlier passes, goes through their
    indices once more; whether it then gives what it gave before is compared.

    Args:
        loader: The loader.
        convert: Converts and checks what comes.
        arrange: Applied to every raw batch first.

    Example:
        >>> loader = DataLoader(torch.arange(4.0), batch_size=2)
        >>> batches = LoaderBatches(loader, BatchConverter("DataLoader", torch.device("cpu")))
        >>> [x.tolist() for x, _, _ in batches.epoch()]
        [[0.0, 1.0], [2.0, 3.0]]
    """

    restartable = True

    def __init__(
        self, loader: DataLoader[Any], convert: BatchConverter, arrange: Callable[[Any], Any] = lambda data: data
    ) -> None:
        """See the class."""
        self.source = loader
        self.batch_size = loader.batch_size
        self.num_batches = _length(loader)
        self.exact_position = type(loader).__iter__ is DataLoader.__iter__ and getattr(loader, "in_order", True)
        if not self.exact_position:
            self.obstacle = f"the loader, a {type(loader).__name__}, doesn't give its batches in torch's way"
        self._convert = convert
        self._arrange = arrange
        self._passes = 0
        self._keeps = False
        self._begun: dict[str, Any] | None = None
        self._saved: dict[str, Any] | None = None
        self._position: ResumableSampler | None = None
        self._workers: WorkerStates | None = None
        self._done = 0

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass; the `start` first batches are passed over."""
        for index, data in enumerate(self._open(start), start):
            self._done = index + 1
            yield self._convert(self._arrange(data), index)
        self._begun, self._done = None, 0

    def keep_position(self) -> None:
        """Keep what `state_dict` needs of every batch from now on."""
        self._keeps = self.exact_position

    def first(self) -> Batch:
        """Return the batch that the sampler would begin with, loaded in this process."""
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
        """Return the pass's number and, within a pass, the random states it began with and the last batch's indices."""
        # The last batch may be the last one for good: nobody has asked whether there is another.
        begun, workers = None if self._done == self.num_batches else self._begun, None
        if self._workers is not None:
            workers = list((self._workers.now if begun is None else self._workers.even).items())
        last = self._position.indices(self._done - 1) if self._position is not None and self._done else None
        return {"passes": self._passes, "begun": begun, "workers": workers, "last": last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the random states of a saved pass for the next `epoch(start)`."""
        if set(state) != _KEYS:
            raise ValueError(f"The state of a loader has the keys {sorted(_KEYS)}; got {sorted(state)}.")
        if not self._passes and not self._has_stateless_sampler():
            with preserved_random_state(*self._generators()):
                for _ in range(state["passes"] - (state["begun"] is not None)):
                    # What such a sampler remembers of the passes before.
                    deque(self._sampler(), maxlen=0)
        self._saved, self._passes = state, state["passes"]

    def close(self) -> None:
        """Let workers go that tell more than whoever uses the loader next expects."""
        if self._workers is not None and self.source.persistent_workers:
            drop_workers(self.source)

    # A pass --------------------------------------------------------------------------------------------------------

    def _open(self, start: int) -> Iterator[Any]:
        saved, self._saved = self._saved, None
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
            return islice(self._kept(0, saved) if self._keeps else iter(self.source), start, None)
        self._begun = begun
        with preserved_random_state():
            # The order is drawn as it was; everybody else goes on with the states of the moment.
            set_random_state(begun["all"])
            for generator, state in zip(self._generators(), begun["own"], strict=True):
                generator.set_state(state)
            iterator = self._kept(start, saved)
            for _ in range(start % max(self.source.num_workers, 1)):
                next(iterator, None)
        assert self._position is not None and saved is not None
        last = self._position.indices(start - 1)
        if saved["last"] is not None and last != saved["last"]:
            raise ValueError(
                f"The data can't be taken up where they were: batch {start - 1} of the epoch had the samples "
                f"{_brief(saved['last'])}, and now the sampler, a {type(self._inner_sampler()).__name__}, gives "
                f"{_brief(last)}. Let it draw from a generator with a seed; or type "
                "`BackupAndRestore(..., resume='epoch')`, to begin the epoch anew."
            )
        return iterator

    def _kept(self, start: int, saved: dict[str, Any] | None) -> Iterator[Any]:
        """Begin a pass at a batch that all workers take up together, and keep what a state needs."""
        loader, workers = self.source, self.source.num_workers
        passed = start - start % max(workers, 1)
        # Workers that last for one pass begin each with new states.
        lasting = start or (workers and loader.persistent_workers)
        states = dict(saved["workers"] or ()) if saved is not None and lasting else {}
        alive = bool(workers) and loader.persistent_workers and self._workers is not None
        if self._workers is not None and alive:
            states = self._workers.now
        if alive and self._position is not None:
            self._position.restart(passed)
        else:
            self._position = ResumableSampler(self._sampler(), passed)
        if workers:
            self._workers = WorkerStates(workers, states)
        place = "sampler" if loader.batch_sampler is None else "batch_sampler"
        # The loader's own attributes are read while its iterator is made, and are put back then.
        kept = {name: vars(loader)[name] for name in (place, "collate_fn", "worker_init_fn", "generator")}
        try:
            if not alive:
                vars(loader)[place] = self._position
                if workers:
                    vars(loader)["collate_fn"] = ReportingCollate(loader.collate_fn)
                    vars(loader)["worker_init_fn"] = WorkerInit(loader.worker_init_fn, states)
                    drop_workers(loader)
                if workers and loader.persistent_workers and self._passes > 1:
                    # Workers draw one number when they are made, which they were in the first pass.
                    vars(loader)["generator"] = torch.Generator()
            iterator = iter(loader)
        finally:
            vars(loader).update(kept)
        assert self._position is not None
        self._position.begin()
        return self._delivered(iterator, passed)

    def _delivered(self, iterator: Iterator[Any], number: int) -> Iterator[Any]:
        assert self._position is not None
        for data in iterator:
            if self._workers is not None:
                data, told = data
                self._workers.delivered(number, told)
            self._position.forget(number - 1)
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
    loader: DataLoader[Any], convert: BatchConverter, arrange: Callable[[Any], Any] = lambda data: data
) -> Batches:
    """Return batches of a DataLoader, by the kind of its data set.

    Args:
        loader: The loader.
        convert: Converts and checks what comes.
        arrange: Applied to every raw batch first.

    Returns:
        A `LoaderBatches`, or a `StreamBatches` for an `IterableDataset`, which may be readable only once.

    Example:
        >>> loader = DataLoader(torch.arange(4.0), batch_size=2)
        >>> loader_batches(loader, BatchConverter("DataLoader", torch.device("cpu"))).num_batches
        2
    """
    if not isinstance(loader.dataset, IterableDataset) and not is_stateful(loader):
        return LoaderBatches(loader, convert, arrange)
    return StreamBatches(loader, convert, lambda number: map(arrange, iter(loader)), loader.batch_size)


def _brief(indices: list[int] | None) -> str:
    text = str(indices)
    return text if len(text) <= 60 else text[:57] + "..."


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except TypeError:
        return None
