"""Journal: what callbacks decided, when, and why."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from oncue.core import phrases
from oncue.core.growing import Growing, Watched


@dataclass(frozen=True)
class Entry:
    """One decision.

    Args:
        time: Seconds since the epoch (1970), when it was made.
        epoch: The index of the epoch, from 0; None outside epochs.
        batch: The index of the batch in its epoch; None outside batches.
        callback: Who decided: the class's name.
        text: What and why, in words with the numbers; made from the data when `what` is given.
        kind: For programs: "note", "stop", "learning_rate", "best", "restore", "save".
        data: The numbers of the decision.
        what: The name of its phrase in `oncue.core.phrases`; None for a text of the user's own.

    Example:
        >>> Entry(0.0, 4, None, "ModelCheckpoint", kind="save", data={"path": "last.keras"}, what="file").text
        'saved last.keras'
    """

    time: float
    epoch: int | None
    batch: int | None
    callback: str
    text: str = ""
    kind: str = "note"
    data: dict[str, Any] | None = None
    what: str | None = None

    def __post_init__(self) -> None:
        if self.what is not None:
            object.__setattr__(self, "text", phrases.line(self.what, self.data))

    @property
    def cited(self) -> str:
        """The reason alone, which the account adds to a sentence of its own, such as who stopped the run and when."""
        return self.text if self.what is None else phrases.cited(self.what, self.data)

    def __str__(self) -> str:
        where = "before training" if self.epoch is None else f"epoch {self.epoch + 1}"
        if self.batch is not None:
            where += f", batch {self.batch + 1}"
        return f"{where}: {self.callback}: {self.text}"

    def plain(self) -> dict[str, Any]:
        """Return it as plain data, from which `Entry(**data)` makes it again."""
        found = asdict(self)
        if self.what is not None:
            # The words are made again from the data.
            del found["text"]
        return found


class Journal(Watched[Entry]):
    """The decisions of a run, in order: a list, which prints readably.

    It is bounded: after `limit` entries, those that are written make the oldest plain notes go.

    Args:
        limit: The most entries to keep.

    Attributes:
        dropped: How many entries went.
        readers: Functions that are called with each entry as it is written; a copy has none.

    Example:
        >>> journal = Journal()
        >>> entry = journal.write("Mine", "saw enough", epoch=4)
        >>> print(journal[0])
        epoch 5: Mine: saw enough
    """

    def __init__(self, limit: int = 10_000) -> None:
        super().__init__()
        self.limit = limit
        self.dropped = 0
        self.readers: list[Callable[[Entry], None]] = []
        # The entries as plain data, and before which index there is no plain note.
        self._plain: Growing[dict[str, Any]] | None = None
        self._searched = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (list(self), self.limit, self.dropped)

    def changed(self) -> None:
        """Forget what is known of the entries."""
        self._plain = None
        self._searched = 0

    def write(
        self,
        callback: str,
        text: str = "",
        *,
        what: str | None = None,
        epoch: int | None = None,
        batch: int | None = None,
        kind: str = "note",
        data: dict[str, Any] | None = None,
    ) -> Entry:
        """Add an entry, with the current time.

        Args:
            callback: Who decided.
            text: The decision in words; or
            what: the name of the phrase that makes them from the data.
            epoch: The index of the epoch; None outside epochs.
            batch: The index of the batch; None outside batches.
            kind: The kind of the decision.
            data: Its numbers.

        Returns:
            The entry.
        """
        if len(self) >= self.limit:
            self._make_room()
        entry = Entry(time.time(), epoch, batch, callback, text, kind, data, what)
        self.append(entry)
        for read in self.readers:
            read(entry)
        return entry

    def _make_room(self) -> None:
        while self._searched < len(self) and self[self._searched].kind != "note":
            self._searched += 1
        index = self._searched
        if index == len(self):
            # Decisions alone.
            index = 0
            self._searched -= 1
        list.__delitem__(self, index)
        if self._plain is not None:
            if index < len(self._plain):
                self._plain.drop(index)
        self.dropped += 1

    def of(self, *kinds: str) -> list[Entry]:
        """Return the entries of some kinds."""
        return [entry for entry in self if entry.kind in kinds]

    def clear(self) -> None:
        """Start with nothing."""
        super().clear()
        self.dropped = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the entries as plain data; each is made into that once, for the many states of a run."""
        if self._plain is None:
            self._plain = Growing(fixed=True)
        self._plain.extend(entry.plain() for entry in self[len(self._plain) :])
        return {"dropped": self.dropped, "entries": self._plain}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over entries that `state_dict` returned."""
        self.dropped = int(state["dropped"])
        # Older states have them as texts.
        kept = (json.loads(entry) if isinstance(entry, str) else entry for entry in state["entries"])
        self[:] = [Entry(**entry) for entry in kept]

    def __repr__(self) -> str:
        return "\n".join(str(entry) for entry in self) or "<empty journal>"


def _made_again(entries: list[Entry], limit: int, dropped: int) -> Journal:
    journal = Journal(limit)
    journal.extend(entries)
    journal.dropped = dropped
    return journal
