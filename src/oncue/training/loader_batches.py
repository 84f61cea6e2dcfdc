"""torch's DataLoader, and whatever follows its protocol, as batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from oncue.training.batch import Batch, Batches
from oncue.training.deliver import Deliver
from oncue.training.stream_batches import StreamBatches
from oncue.training.undisturbed import undisturbed_random_state

_KNOWN_SAMPLERS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)


class LoaderBatches(Batches):
    """Batches of a DataLoader over a map-style data set, iterated afresh for every epoch.

    Samplers that shuffle by epoch (`set_epoch`) are told the epoch. The random state at the beginning of the pass is
    part of `state_dict`, so that a resumed pass visits the samples in the same order.

    Args:
        loader: The loader.
        deliver: Converts and checks what comes.
        arrange: Applied to every raw batch first.

    Example:
        >>> loader = DataLoader(torch.arange(4.0), batch_size=2)
        >>> batches = LoaderBatches(loader, Deliver("DataLoader", torch.device("cpu")))
        >>> [x.tolist() for x, _, _ in batches.epoch()]
        [[0.0, 1.0], [2.0, 3.0]]
    """

    restartable = True

    def __init__(
        self, loader: DataLoader[Any], deliver: Deliver, arrange: Callable[[Any], Any] = lambda data: data
    ) -> None:
        """See the class."""
        self.source = loader
        self.batch_size = loader.batch_size
        self.num_batches = _length(loader)
        self.exact_position = isinstance(getattr(loader, "sampler", None), _KNOWN_SAMPLERS)
        self._deliver = deliver
        self._arrange = arrange
        self._passes = 0
        self._begun: dict[str, Any] | None = None
        self._saved: dict[str, Any] | None = None

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass; the `start` first batches are loaded and dropped."""
        iterator = self._open(start)
        for index, data in enumerate(iterator, start):
            yield self._deliver(self._arrange(data), index)
        self._begun = None

    def first(self) -> Batch:
        """Return the batch that the sampler would begin with, loaded in this process."""
        loader = self.source
        with undisturbed_random_state(loader.generator, getattr(loader.sampler, "generator", None)):
            sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
            wanted = next(iter(sampler), None)
            if wanted is None:
                raise ValueError(
                    f"The {self._deliver.kind} has no batches; its data set has {_length(loader.dataset)}."
                )
            if loader.batch_sampler is None:
                data = loader.dataset[wanted]
            elif hasattr(loader.dataset, "__getitems__"):
                data = loader.dataset.__getitems__(wanted)
            else:
                data = [loader.dataset[index] for index in wanted]
            return self._deliver(self._arrange(loader.collate_fn(data)), 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the pass's number and, within a pass, the random states it began with."""
        return {"passes": self._passes, "begun": self._begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the random states of a saved pass for the next `epoch(start)`."""
        if set(state) != {"passes", "begun"}:
            raise ValueError(f"The state of a loader has the keys ['begun', 'passes']; got {sorted(state)}.")
        self._saved, self._passes = state["begun"], state["passes"]

    def _open(self, start: int) -> Iterator[Any]:
        loader, saved = self.source, self._saved if start else None
        self._saved = None
        if saved is None:
            self._passes += 1
        for sampler in (getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None)):
            set_epoch = getattr(sampler, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(self._passes - 1)
        if saved is None:
            self._begun = {"default": torch.get_rng_state(), "loader": _state_of(loader.generator)}
            return islice(iter(loader), start, None)
        self._begun = saved
        now = torch.get_rng_state()
        torch.set_rng_state(saved["default"])
        if loader.generator is not None and saved["loader"] is not None:
            loader.generator.set_state(saved["loader"])
        iterator: Iterator[Any] = iter(loader)
        for _ in range(start):
            next(iterator, None)
        # The samplers have drawn their order by now; everybody else goes on with the state of the moment.
        torch.set_rng_state(now)
        return iterator


def loader_batches(
    loader: DataLoader[Any], deliver: Deliver, arrange: Callable[[Any], Any] = lambda data: data
) -> Batches:
    """Return batches of a DataLoader, by the kind of its data set.

    Args:
        loader: The loader.
        deliver: Converts and checks what comes.
        arrange: Applied to every raw batch first.

    Returns:
        A `LoaderBatches`, or a `StreamBatches` for an `IterableDataset`, which may be readable only once.

    Example:
        >>> loader = DataLoader(torch.arange(4.0), batch_size=2)
        >>> loader_batches(loader, Deliver("DataLoader", torch.device("cpu"))).num_batches
        2
    """
    if not isinstance(loader.dataset, IterableDataset):
        return LoaderBatches(loader, deliver, arrange)
    return StreamBatches(loader, deliver, lambda: map(arrange, iter(loader)), loader.batch_size)


def _state_of(generator: torch.Generator | None) -> torch.Tensor | None:
    return None if generator is None else generator.get_state()


def _length(sized: Any) -> int | None:
    try:
        return len(sized)
    except TypeError:
        return None
