"""Generators, iterators and iterables of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from oncue.core.console import print_message
from oncue.core.warn import warn
from oncue.feeding.batch import Batch, Batches
from oncue.feeding.converter import BatchConverter
from oncue.feeding.digest import batch_digest
from oncue.random_state import preserved_random_state, random_state, set_random_state

_END = object()
_KEYS = {"passes", "in_pass", "taken", "seen", "begun", "source"}
_LOOKS = 32
"""One of so many batches is compared, because a look at it takes as long as a small step of training."""


class StreamBatches(Batches):
    """Batches that can only be read one after another.

    A generator or iterator goes on in the next epoch where it stopped; an iterable starts anew. Looking at the first
    batch keeps it for the next pass.

    A source that can tell and take its place (`state_dict` and `load_state_dict`, as torchdata's StatefulDataLoader) is
    asked to. Any other one is read again from its beginning to the saved place, and what it gives is dropped. One of the
    last batches is compared with what it was: a stream that isn't the same each time is refused.

    Args:
        source: Anything with `__iter__` that gives batches.
        convert: Converts and checks what comes.
        open_pass: Begins one pass, given how many were before it; default `iter(source)`.
        batch_size: Samples per batch where known.
        numbered: Whether a pass depends on its number alone, so that earlier ones needn't be read again.

    Example:
        >>> import torch
        >>> stream = StreamBatches((([[i]],) for i in range(3)), BatchConverter("generator", torch.device("cpu")))
        >>> stream.first()[0].tolist(), [x.tolist() for x, _, _ in stream.epoch()]
        ([[0]], [[[0]], [[1]], [[2]]])
    """

    exact_position = True

    def __init__(
        self,
        source: Iterable[Any],
        convert: BatchConverter,
        open_pass: Callable[[int], Iterator[Any]] | None = None,
        batch_size: int | None = None,
        numbered: bool = False,
    ) -> None:
        """See the class."""
        self.source = source
        self.restartable = not isinstance(source, Iterator)
        self.batch_size = batch_size
        self.num_batches = _length(source)
        self._convert = convert
        self._open = open_pass if open_pass is not None else lambda number: iter(source)
        self._numbered = numbered
        # What a numbered stream tells of its place leaves out what it has read ahead to shuffle it.
        self._tells = is_stateful(source) and not numbered
        self._opened: Iterator[Any] | None = None
        self._looked_at: Any = _END
        # Passes that were read to their end, batches given of the next one, and batches given of all.
        self._passes = self._in_pass = self._taken = 0
        self._begun_passes = 0
        self._keeps = False
        # The last batch that was looked at, and the one that a batch must be equal to.
        self._seen: dict[str, Any] | None = None
        self._wanted: dict[str, Any] | None = None
        self._begun: dict[str, Any] | None = None
        self._placed = False

    def first(self) -> Batch:
        """Return the first batch and keep it for the next pass."""
        if self._looked_at is _END:
            if self._opened is None:
                self._opened = self._opened_pass()
            self._looked_at = next(self._opened, _END)
        if self._looked_at is _END:
            raise ValueError(f"The {self._convert.kind} gave no batch at all; it must give at least one.")
        return self._convert(self._looked_at, 0)

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass; the `start` first batches are read and dropped, where `load_state_dict` didn't see to it."""
        before, self._begun_passes = self._begun_passes, self._begun_passes + 1
        placed, self._placed = self._placed, False
        taken = start
        for data in self._raw() if placed else islice(self._raw(), start, None):
            yield self._convert(data, taken)
            taken += 1
        self._passes, self._in_pass = self._passes + 1, 0
        if taken == start and before == 0 and not placed and not start:
            raise ValueError(f"The {self._convert.kind} gave no batch at all; it must give at least one.")
        if taken == start and not (placed and start):
            warn(
                f"The {self._convert.kind} ran out of data: epoch {before + 1} got no batch. Pass something that can "
                "be read again (a list of batches, a DataLoader, a PyDataset), or a generator that never ends together "
                "with `steps_per_epoch`."
            )

    def keep_position(self) -> None:
        """Look at some of the batches from now on."""
        self._keeps = True

    # The place ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return how much was read, what a batch looked like, and what the source tells of its place."""
        passes, in_pass = self._passes, self._in_pass
        if in_pass and in_pass == self.num_batches:
            # Nobody has asked whether there is another batch.
            passes, in_pass = passes + 1, 0
        own = self._tells and self._looked_at is _END and self._taken > 0
        return {
            "passes": passes,
            "in_pass": in_pass,
            "taken": self._taken,
            "seen": self._seen,
            "begun": self._begun,
            "source": self.source.state_dict() if own else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved place, for the next `epoch(start)`.

        In the process that was there before, a generator can't go back: it goes on.

        Raises:
            ValueError: When the source ends before that place, or gives other batches than it gave.
        """
        if set(state) != _KEYS:
            raise ValueError(f"The state of a stream has the keys {sorted(_KEYS)}; got {sorted(state)}.")
        used = self._taken > 0
        if self._tells:
            if state["source"] is not None:
                self.source.load_state_dict(state["source"])
                self._opened, self._looked_at, self._placed = None, _END, True
            self._count(state)
        elif not used:
            self._read_again(state)
        elif self.restartable:
            self._opened, self._looked_at = None, _END
        else:
            self._placed = True

    def _count(self, state: dict[str, Any]) -> None:
        self._passes, self._in_pass, self._taken = state["passes"], state["in_pass"], state["taken"]

    def _read_again(self, state: dict[str, Any]) -> None:
        passes, in_pass, total = state["passes"], state["in_pass"], state["taken"]
        if self._numbered and passes:
            self._opened, self._looked_at, self._passes, self._taken = None, _END, passes, total - in_pass
            total = in_pass
        if total:
            print_message(
                f"BackupAndRestore: the {self._convert.kind} is read again up to where it was: {total} batches are "
                "dropped. Give it `state_dict` and `load_state_dict`, or type resume='epoch', to spare this."
            )
        keeps, self._keeps, self._wanted = self._keeps, False, state["seen"]
        with preserved_random_state():
            if not self.restartable:
                self._drop(total)
            else:
                while self._passes < passes:
                    self._open_again(state)
                    self._drop(None)
                    self._passes, self._in_pass, self._opened = self._passes + 1, 0, None
                if in_pass:
                    self._open_again(state)
                    self._drop(in_pass)
        self._keeps, self._wanted, self._seen = keeps, None, state["seen"]
        self._count(state)
        self._placed = bool(in_pass) or not self.restartable

    def _open_again(self, state: dict[str, Any]) -> None:
        """Open a pass, the last one as it was opened before; the first is open, because somebody looked into it."""
        if 0 < self._passes == state["passes"] - (not state["in_pass"]):
            set_random_state(state["begun"])
        if self._opened is None:
            self._opened = self._opened_pass()

    def _drop(self, number: int | None) -> None:
        if self._opened is None:
            self._opened = self._opened_pass()
        opened = self._opened
        dropped = sum(1 for _ in islice(self._raw(), number))
        if number is not None:
            if dropped < number:
                raise ValueError(self._differs(f"it ended after {dropped} batches"))
            # The pass goes on with the batch after those.
            self._opened = opened

    @property
    def reads_again(self) -> bool:  # type: ignore[override]  # not the same for every source
        """Whether what was given must be read once more to come to a saved place."""
        return not self._tells

    def _differs(self, how: str) -> str:
        return (
            f"The data, a {self._convert.kind}, can't be taken up where they were: read again, {how}. A run goes on "
            "exactly only when its data are the same each time the script is started: seed them, or give them "
            "`state_dict` and `load_state_dict`. To begin the epoch that was interrupted anew, with what they give now, "
            "type `BackupAndRestore(..., resume='epoch')`."
        )

    # Reading ------------------------------------------------------------------------------------------------------

    def _opened_pass(self) -> Iterator[Any]:
        if self._tells:
            # It may draw in another way when it begins at a place, and nobody else's numbers may depend on that.
            with preserved_random_state():
                return self._open(self._passes)
        if self.restartable:
            self._begun = random_state(cuda=False)
        return self._open(self._passes)

    def _raw(self) -> Iterator[Any]:
        opened = self._opened if self._opened is not None else self._opened_pass()
        self._opened = None if self.restartable else opened
        # Not `yield from`: it would close the user's generator when a pass is left half-way.
        while True:
            number, before, wanted = self._taken, None, self._wanted
            looks = self._keeps and (number % _LOOKS == 0 or not self._in_pass)
            if self._looked_at is not _END:
                data, self._looked_at = self._looked_at, _END
            else:
                if wanted is not None and wanted["batch"] == number and wanted["before"] is not None:
                    set_random_state(wanted["before"])
                before = random_state(cuda=False) if looks else None
                data = next(opened, _END)
            if data is _END:
                return
            if looks:
                self._seen = {"batch": number, "before": before, "digest": batch_digest(data)}
            if wanted is not None and wanted["batch"] == number and wanted["digest"] != batch_digest(data):
                raise ValueError(self._differs(f"batch {number} of all is not what it was"))
            self._taken += 1
            self._in_pass += 1
            yield data


def is_stateful(source: Any) -> bool:
    """Return whether a source can tell and take its place, as torchdata's StatefulDataLoader.

    Example:
        >>> is_stateful(iter([]))
        False
    """
    return all(callable(getattr(source, name, None)) for name in ("state_dict", "load_state_dict"))


def _length(source: Any) -> int | None:
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        # It has no length, or its class says, as torch's IterableDataset may, that none is known.
        return None
