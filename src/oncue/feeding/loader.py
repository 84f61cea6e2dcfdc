"""torch's DataLoader as batches, resumable within a pass."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from oncue.core.console import print_message
from oncue.feeding.batch import Batch, Batches
from oncue.feeding.converter import BatchConverter
from oncue.feeding.huggingface import is_huggingface, split_columns
from oncue.feeding.indexed import holds_tensors
from oncue.feeding.order import Shuffle
from oncue.feeding.own_rows import OwnRows
from oncue.feeding.parts import generators_of, is_stateful, parts_of
from oncue.feeding.resumable_sampler import ResumableSampler
from oncue.feeding.row_share import RowShare
from oncue.feeding.rows import Rows
from oncue.feeding.stream import StreamBatches
from oncue.feeding.worker_states import ReportingCollate, WorkerInit, WorkerStates
from oncue.random_state import (
    generator_state,
    preserved_random_state,
    random_state,
    set_generator_state,
    set_random_state,
)
from oncue.torch_private import drop_workers

_STATELESS_SAMPLERS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)
"""Samplers whose order depends only on a generator's state at the start of the pass."""
_KEYS = {"passes", "begun", "workers", "last", "samplers"}


class LoaderBatches(Batches):
    """Batches of a DataLoader over a map-style data set, iterated from scratch in every epoch.

    Samplers with `set_epoch` get the epoch's number. The random states at the start of the pass are part of
    `state_dict`, so a resumed pass visits the samples in the same order: its indices are drawn again, and those before
    the saved position are skipped without loading samples. The random states of worker processes are part of it too.
    A sampler with `state_dict` and `load_state_dict` gets the state that the pass began with. Any other that isn't one of
    torch's may remember earlier passes, so their indices are drawn again as well. The indices of the last batch are saved
    and compared, to detect a sampler that doesn't repeat its order.

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
        self.calls_others = _calls_others(loader)
        self.exact_position = bool(getattr(loader, "in_order", True) or not loader.num_workers)
        if not self.exact_position:
            self.obstacle = (
                "the loader has in_order=False: the order of its batches depends on how fast its workers are"
            )
        of_samples = parts_of(loader.dataset) + parts_of(loader.collate_fn)
        # Workers that stay have copies of the data set as it was when they began.
        stays = loader.num_workers and loader.persistent_workers
        self.data_sets = [] if stays else [part for part in of_samples if is_stateful(part)]
        self._of_samples = of_samples
        self._rows = _rows(loader)
        self._convert = convert
        self._arrange = _unchanged if arrange is None else arrange
        self._passes = 0
        self._keeps_position = False
        # The random states at the start of the current pass; None between passes.
        self._begun: dict[str, Any] | None = None
        self._loaded_state: dict[str, Any] | None = None
        self._resumable: ResumableSampler | None = None
        self._workers: WorkerStates | None = None
        self._share: RowShare | None = None
        self._own_rows: OwnRows | None = None
        self._done = 0

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass, without its first `start` batches."""
        for index, data in enumerate(self._open(start), start):
            self._done = index + 1
            yield self._convert(self._arrange(data), index)
        self.give_up()

    def give_rows(self, share: RowShare | None) -> bool:
        """Load only the rows of one of several processes, where each sample is a row that doesn't depend on others."""
        loader = self.source
        by_sample = type(loader.batch_sampler) is BatchSampler and loader.collate_fn is default_collate
        able = by_sample and self.exact_position and self._rows is not None and share is not None
        self._share = share if able and self._rows is not None and not self._rows.draws() else None
        return self._share is not None

    def give_up(self) -> None:
        """Take the pass for over."""
        self._begun, self._done = None, 0

    def keep_position(self) -> None:
        """Record what `state_dict` needs from now on."""
        self._keeps_position = self.exact_position

    def keep_batches(self) -> None:
        """Record what `state_dict` needs of workers that stay."""
        if self.source.num_workers and self.source.persistent_workers:
            self.keep_position()

    def contents(self) -> dict[str, str]:
        """Return the number of samples that the loader's sampler may give, and digests of some."""
        return {**({} if self._rows is None else self._rows.contents()), **self._convert.contents()}

    def few_rows(self) -> dict[str, str]:
        """Return digests of a few samples; empty where workers that stay have copies of the data set."""
        stays = self.source.num_workers and self.source.persistent_workers
        return {} if self._rows is None or stays else self._rows.few()

    def first(self) -> Batch:
        """Return the batch that the sampler would start with, loaded in this process."""
        loader = self.source
        with preserved_random_state(*self._generators(), *generators_of(self._of_samples)):
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
        if self._loaded_state is not None:
            # The pass that it is for hasn't begun yet: that of validation begins after those of training.
            return self._loaded_state
        # After its last batch the pass is over, even if the iterator hasn't been asked for another one yet.
        begun, workers = None if self._done == self.num_batches else self._begun, None
        if self._workers is not None:
            workers = list((self._workers.latest if begun is None else self._workers.last_round).items())
        last = self._resumable.indices(self._done - 1) if self._resumable is not None and self._done else None
        samplers = self._sampler_states() if begun is None else begun["samplers"]
        return {"passes": self._passes, "begun": begun, "workers": workers, "last": last, "samplers": samplers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved pass for the next `epoch(start)`."""
        state = {"samplers": [], **state}
        if set(state) != _KEYS:
            raise ValueError(f"The state of a loader has the keys {sorted(_KEYS)}; got {sorted(state)}.")
        if not self._passes and not self._repeats_passes():
            with preserved_random_state():
                for _ in range(state["passes"] - (state["begun"] is not None)):
                    # Such a sampler may remember earlier passes.
                    deque(self._sampler(), maxlen=0)
        elif self._passes:
            self._go_back(state)
        self._load_samplers(state["samplers"])
        self._loaded_state, self._passes = state, state["passes"]

    def close(self) -> None:
        """Stop persistent workers, whose batches carry random states that the loader's next user doesn't expect."""
        if self._workers is not None and self.source.persistent_workers:
            drop_workers(self.source)
            self._workers = self._resumable = self._own_rows = None

    def _go_back(self, state: dict[str, Any]) -> None:
        """Prepare for a state of this process."""
        inner = self._inner_sampler()
        if (
            state["passes"] < self._passes
            and not self._repeats_passes()
            and not generators_of([inner, self._sampler()])
        ):
            print_message(
                f"The {type(inner).__name__} of the {self._convert.kind} may not go back to where it was: it has no random "
                "generator as an attribute, and neither `state_dict` nor `set_epoch`."
            )
        if self._workers is not None:
            # Workers that stay have the random states of now.
            drop_workers(self.source)
            self._workers = self._resumable = None

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
            own = [generator_state(one) for one in self._generators()]
            self._begun = {"all": random_state(cuda=False), "own": own, "samplers": self._sampler_states()}
            changes = self._keeps_position or self._share is not None
            batches = self._resumable_pass(0, saved) if changes else iter(self.source)
            return islice(batches, start, None)
        # That of an older backup has none of samplers.
        self._begun = {"samplers": [], **begun}
        # Those that draw samples too have their present states, unless samples are drawn in other processes.
        kept = [] if self.source.num_workers else self._generators()
        with preserved_random_state(*kept):
            # The saved states serve to draw the same order; the rest of the program keeps its present ones.
            set_random_state(begun["all"])
            for generator, state in zip(self._generators(), begun["own"], strict=False):
                set_generator_state(generator, state)
            self._load_samplers(self._begun["samplers"])
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
                self._own_rows = None if self._share is None else OwnRows(self._resumable, self._share)
                vars(loader)[sampler_name] = self._resumable if self._own_rows is None else self._own_rows
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
        return self._recorded(iterator if self._own_rows is None else self._own_rows.given(iterator), skipped)

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

    def _stateful_samplers(self) -> list[Any]:
        return [part for part in parts_of(self._sampler()) if is_stateful(part)]

    def _sampler_states(self) -> list[Any]:
        return [copy.deepcopy(sampler.state_dict()) for sampler in self._stateful_samplers()]

    def _load_samplers(self, states: list[Any]) -> None:
        for sampler, state in zip(self._stateful_samplers(), states, strict=False):
            sampler.load_state_dict(copy.deepcopy(state))

    def _repeats_passes(self) -> bool:
        """Return whether earlier passes needn't be drawn again to draw the next one."""
        sampler, inner = self._sampler(), self._inner_sampler()
        numbered = hasattr(sampler, "set_epoch") or hasattr(inner, "set_epoch")
        return numbered or isinstance(inner, _STATELESS_SAMPLERS) or bool(self._stateful_samplers())

    def _inner_sampler(self) -> Any:
        sampler = self._sampler()
        return sampler.sampler if type(sampler) is BatchSampler else sampler

    def _generators(self) -> list[Any]:
        """Return the generators of the loader and its samplers, which draw the order."""
        loader = self.source
        return generators_of([loader, *parts_of(loader.sampler), *parts_of(loader.batch_sampler)])


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
        A `LoaderBatches`, or a `StreamBatches` for an `IterableDataset`, which may be readable only once, for a stateful
        loader, which saves its own position, and for one with an `__iter__` of its own. A stateful `IterableDataset` is asked
        for its position, too.

    Example:
        >>> loader = DataLoader(torch.arange(4.0), batch_size=2)
        >>> loader_batches(loader, BatchConverter("DataLoader", torch.device("cpu"))).num_batches
        2
    """
    arrange = split_columns if is_huggingface(loader.dataset) else _unchanged
    as_torch_does = type(loader).__iter__ is DataLoader.__iter__
    if as_torch_does and not isinstance(loader.dataset, IterableDataset) and not is_stateful(loader):
        return LoaderBatches(loader, convert, arrange)
    # The copies of a data set in other processes can't be asked; the state of Hugging Face's leaves out its shuffle buffer.
    asked = is_stateful(loader.dataset) and not loader.num_workers and not is_huggingface(loader.dataset)
    place = loader.dataset if asked and not is_stateful(loader) else None
    rows = None if isinstance(loader.dataset, IterableDataset) else _rows(loader)
    batches = StreamBatches(
        loader, convert, lambda number: map(arrange, iter(loader)), loader.batch_size, place=place, rows=rows
    )
    batches.calls_others = _calls_others(loader)
    return batches


def _calls_others(loader: DataLoader[Any]) -> bool:
    """Return whether a pass over a loader runs other code than torch's in this process: workers have copies of a model."""
    sampler = _plain_sampler(loader)
    if type(loader) is not DataLoader or sampler is None:
        return True
    if not isinstance(loader.dataset, IterableDataset) and type(sampler) not in (
        *_STATELESS_SAMPLERS,
        DistributedSampler,
    ):
        return True
    ordinary = holds_tensors(loader.dataset) and loader.collate_fn is default_collate
    return not (ordinary or loader.num_workers)


def _plain_sampler(loader: DataLoader[Any]) -> Any:
    """Return the sampler of a loader; None where another batch sampler than torch's own is around it."""
    outer: Any = loader.batch_sampler
    if outer is None:
        return loader.sampler
    return outer.sampler if type(outer) is BatchSampler else None


def _rows(loader: DataLoader[Any]) -> Rows | None:
    """Return the samples that a loader gives, if its samplers are torch's own: others may give anything as an index."""
    sampler, data_set = _plain_sampler(loader), loader.dataset
    if type(sampler) is SubsetRandomSampler:
        indices: Sequence[int] = sampler.indices
    elif type(sampler) is WeightedRandomSampler:
        indices = sampler.weights.nonzero().flatten().tolist()
    elif type(sampler) in (RandomSampler, SequentialSampler):
        indices = range(_length(sampler.data_source) or 0)
    else:
        return None
    read_many = None if loader.batch_sampler is None else getattr(data_set, "__getitems__", None)

    def read(row: int) -> Any:
        return data_set[indices[row]] if read_many is None else read_many([indices[row]])

    kind = f"data set of the DataLoader, a {type(data_set).__name__},"
    return Rows(kind, len(indices), read, parts_of(data_set)) if len(indices) else None


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
