"""Generators, iterators and iterables of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from oncue.core.console import print_message
from oncue.core.warn import warn
from oncue.feeding.batch import Batch, Batches, OtherDataError
from oncue.feeding.converter import BatchConverter
from oncue.feeding.digest import batch_digest
from oncue.feeding.parts import is_stateful
from oncue.feeding.rows import Rows
from oncue.feeding.tape import Tape
from oncue.random_state import draws, preserved_random_state, random_state, set_random_state

_END = object()
_KEYS = {"passes", "in_pass", "taken", "seen", "begun", "source", "given_up"}
_CHECK_INTERVAL = 32
"""One batch in this many is hashed, because hashing one takes as long as a small training step."""


class StreamBatches(Batches):
    """Batches that can only be read in order.

    In the next epoch a generator or iterator continues where it stopped; an iterable starts from its beginning.
    `first` keeps the batch that it reads for the next pass.

    A stateful source (one with `state_dict` and `load_state_dict`, such as torchdata's StatefulDataLoader) saves and
    restores its own position. Any other source is read again from its beginning to the saved position. A digest of one
    of the last batches is saved and compared, to refuse a stream that isn't the same each time.

    Args:
        source: Any iterable of batches.
        convert: Converts and checks raw batches.
        open_pass: Begins a pass, given the number of passes before it. Default: `iter(source)`.
        batch_size: Samples per batch; None if unknown.
        numbered: Whether a pass depends on its number alone, so that earlier passes needn't be read again.
        place: The object with `state_dict` and `load_state_dict` that knows the position. Default: the source, if it has
            them.
        rows: Some of the data, where they can also be read by index.

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
        place: Any = None,
        rows: Rows | None = None,
    ) -> None:
        """See the class."""
        self.source = source
        self._rows = rows
        self.restartable = not isinstance(source, Iterator)
        self.batch_size = batch_size
        self.num_batches = _length(source)
        self._convert = convert
        self._open = open_pass if open_pass is not None else lambda number: iter(source)
        self._numbered = numbered
        # The state of a numbered stream (Hugging Face's) leaves out its shuffle buffer.
        self._place: Any = source if place is None else place
        self._stateful = is_stateful(self._place) and not numbered
        self._iterator: Iterator[Any] | None = None
        self._peeked: Any = _END
        # Passes read to their end, batches read of the pass after them, and batches read in all.
        self._passes = self._in_pass = self._taken = 0
        # The batches read of passes that were left before their end, by the number of passes before each.
        self._given_up: dict[str, int] = {}
        self._begun_passes = 0
        self._keeps_position = False
        # The digest of the last batch that was hashed, and the one that a batch read again must have.
        self._digest: dict[str, Any] | None = None
        self._expected: dict[str, Any] | None = None
        # The random states when the current pass was opened.
        self._begun: dict[str, Any] | None = None
        # Whether the source is already at the position where the next epoch starts.
        self._positioned = False
        self._tape: Tape | None = None

    def first(self) -> Batch:
        """Return the first batch and keep it for the next pass."""
        if self._peeked is _END:
            if self._iterator is None:
                self._iterator = self._opened_pass()
            self._peeked = next(self._iterator, _END)
        if self._peeked is _END:
            raise ValueError(f"The {self._convert.kind} gave no batch at all; it must give at least one.")
        return self._convert(self._peeked, 0)

    def epoch(self, start: int = 0) -> Iterator[Batch]:
        """Return one pass; skips the first `start` batches by reading them, unless `load_state_dict` already did."""
        before, self._begun_passes = self._begun_passes, self._begun_passes + 1
        positioned, self._positioned = self._positioned, False
        if self.restartable and not positioned and self._peeked is _END and not self._plays:
            self.give_up()
        taken = start
        for data in self._raw() if positioned else islice(self._raw(), start, None):
            yield self._convert(data, taken)
            taken += 1
        self._passes, self._in_pass = self._passes + 1, 0
        if taken == start and before == 0 and not positioned and not start:
            raise ValueError(f"The {self._convert.kind} gave no batch at all; it must give at least one.")
        if taken == start and not (positioned and start):
            warn(
                f"The {self._convert.kind} ran out of data: epoch {before + 1} got no batch. Pass something that can "
                "be read again (a list of batches, a DataLoader, a PyDataset), or a generator that never ends together "
                "with `steps_per_epoch`."
            )

    def give_up(self) -> None:
        """Take the pass for over: the next one opens the source again. A source that can't be goes on."""
        if not self.restartable:
            return
        if self._in_pass:
            self._given_up[str(self._passes)] = self._in_pass
            self._passes, self._in_pass = self._passes + 1, 0
        self._iterator = None

    def contents(self) -> dict[str, str]:
        """Return what the rows say that it was given for this; batches themselves are compared when they are read again."""
        return {**({} if self._rows is None else self._rows.contents()), **self._convert.contents()}

    def keep_position(self) -> None:
        """Hash some of the batches from now on."""
        self._keeps_position = True

    def keep_batches(self) -> None:
        """Keep what the stream gives from now on, so that `load_state_dict` can go back to here; at most 1 GiB."""
        if self._stateful:
            return
        state = self.state_dict()
        if self._tape is None:
            self._tape = Tape(state["passes"], state["taken"])
        else:
            self._tape.begin(state["passes"], state["taken"])

    # Position -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return how much was read, the digest of a batch, and a stateful source's own state."""
        passes, in_pass = self._passes, self._in_pass
        if in_pass and in_pass == self.num_batches:
            # The pass is over, even if the iterator hasn't been asked for another batch yet.
            passes, in_pass = passes + 1, 0
        own = self._stateful and self._peeked is _END and self._taken > 0
        return {
            "passes": passes,
            "in_pass": in_pass,
            "taken": self._taken,
            "seen": self._digest,
            "begun": self._begun,
            "source": self._place.state_dict() if own else None,
            "given_up": dict(self._given_up),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position, for the next `epoch(start)`.

        One that was already read in this process goes back as far as `keep_batches` allows. Where it can't, a message says so.

        Raises:
            OtherDataError: If the source ends before that position, or yields other batches than before.
            ValueError: If keys are missing or unknown.
        """
        # That of an older backup has none.
        state = {"given_up": {}, **state}
        if set(state) != _KEYS:
            raise ValueError(f"The state of a stream has the keys {sorted(_KEYS)}; got {sorted(state)}.")
        used = self._taken > 0
        if self._stateful:
            if state["source"] is not None:
                self._place.load_state_dict(state["source"])
                self._iterator, self._peeked = None, _END
                left = not state["in_pass"] and str(state["passes"] - 1) in state["given_up"]
                if left and self.restartable:
                    # Opened once it goes on in the pass that was left, as it was told; opened again it begins another.
                    with preserved_random_state():
                        self._open(state["passes"] - 1)
                self._positioned = not left
            self._load_counts(state)
        elif not used:
            self._read_again(state)
        elif self._tape is not None and self._tape.rewind(state["passes"], state["taken"]):
            self._load_counts(state)
            self._positioned = bool(state["in_pass"]) or not self.restartable
        else:
            print_message(f"The {self._convert.kind} can't go back to where it was: it gives what comes next.")
            self._iterator = self._iterator if not self.restartable else None
            self._positioned = not self.restartable

    def _load_counts(self, state: dict[str, Any]) -> None:
        self._passes, self._in_pass, self._taken = state["passes"], state["in_pass"], state["taken"]
        self._given_up = dict(state["given_up"])

    def _read_again(self, state: dict[str, Any]) -> None:
        passes, in_pass, total = state["passes"], state["in_pass"], state["taken"]
        if self._numbered and passes:
            self._iterator, self._peeked, self._passes, self._taken = None, _END, passes, total - in_pass
            total = in_pass
        if total:
            print_message(
                f"BackupAndRestore: the {self._convert.kind} is read again up to where it was: {total} batches are "
                "skipped. To avoid this, give it `state_dict` and `load_state_dict`, or use resume='epoch'."
            )
        keeps_position, self._keeps_position, self._expected = self._keeps_position, False, state["seen"]
        try:
            with preserved_random_state():
                if not self.restartable:
                    self._skip(total)
                else:
                    while self._passes < passes:
                        self._reopen(state)
                        self._skip(state["given_up"].get(str(self._passes)))
                        self._passes, self._in_pass, self._iterator = self._passes + 1, 0, None
                    if in_pass:
                        self._reopen(state)
                        self._skip(in_pass)
        finally:
            # A run may go on with a stream of validation that isn't what it was.
            self._keeps_position, self._expected = keeps_position, None
        self._digest = state["seen"]
        self._load_counts(state)
        self._positioned = bool(in_pass) or not self.restartable

    def _reopen(self, state: dict[str, Any]) -> None:
        """Open a pass unless `first` already did; the last one with the random states it was opened with before."""
        if 0 < self._passes == state["passes"] - (not state["in_pass"]):
            set_random_state(state["begun"])
        if self._iterator is None:
            self._iterator = self._opened_pass()

    def _skip(self, number: int | None) -> None:
        skipped = sum(1 for _ in islice(self._raw(), number))
        if number is not None and skipped < number:
            raise OtherDataError(self._mismatch(f"it ended after {skipped} batches"))

    @property
    def reads_again(self) -> bool:  # type: ignore[override]  # not the same for every source
        """Whether resuming reads the batches before the saved position again."""
        return not self._stateful

    def _mismatch(self, how: str) -> str:
        return (
            f"The data, a {self._convert.kind}, can't be resumed where it stopped: read again, {how}. A run can only "
            "be resumed exactly if its data is the same each time the script is started: seed it, or give it "
            "`state_dict` and `load_state_dict`. To restart the interrupted epoch with the data as it is now, use "
            "`BackupAndRestore(..., resume='epoch')`."
        )

    # Reading ------------------------------------------------------------------------------------------------------

    def _opened_pass(self) -> Iterator[Any]:
        if self._stateful:
            # It may draw differently when it starts at a restored position, which must not change others' numbers.
            with preserved_random_state():
                return self._open(self._passes)
        if self.restartable:
            self._begun = random_state(cuda=False)
        return self._open(self._passes)

    @property
    def _plays(self) -> bool:
        return self._tape is not None and self._tape.left

    def _raw(self) -> Iterator[Any]:
        # Not `yield from`: that would close the user's generator when a pass is abandoned.
        while True:
            number, before, expected, played = self._taken, None, self._expected, self._plays
            since = None if self._tape is None or played else draws()
            if self._iterator is None and not played:
                self._iterator = self._opened_pass()
            hashed = self._keeps_position and not played and (number % _CHECK_INTERVAL == 0 or not self._in_pass)
            if self._tape is not None and played:
                item = self._tape.play()
            elif self._peeked is not _END:
                item, self._peeked = (self._peeked,), _END
            else:
                if expected is not None and expected["batch"] == number and expected["before"] is not None:
                    set_random_state(expected["before"])
                before = random_state(cuda=False) if hashed else None
                item = self._read()
            if self._tape is not None and since is not None:
                self._tape.record(item, since())
            if item is None:
                return
            (data,) = item
            if hashed:
                self._digest = {"batch": number, "before": before, "digest": batch_digest(data)}
            if expected is not None and expected["batch"] == number and expected["digest"] != batch_digest(data):
                raise OtherDataError(self._mismatch(f"batch {number}, counted over all epochs, is not what it was"))
            self._taken += 1
            self._in_pass += 1
            yield data

    def _read(self) -> tuple[Any] | None:
        assert self._iterator is not None
        data = next(self._iterator, _END)
        if data is not _END:
            return (data,)
        if self.restartable:
            self._iterator = None
        return None


def _length(source: Any) -> int | None:
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        # It has no length, or refuses to give one, as torch's IterableDataset may.
        return None
