"""Journal: what callbacks decided, when, and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One decision.

    Args:
        time: Seconds since the epoch (1970), when it was made.
        epoch: The index of the epoch, from 0; None outside epochs.
        batch: The index of the batch in its epoch; None outside batches.
        callback: Who decided: the class's name.
        text: What and why, in words with the numbers.
        kind: A word for programs: "note", "stop", "learning_rate", "best", "restore", "save".
        data: The numbers of the decision.
    """

    time: float
    epoch: int | None
    batch: int | None
    callback: str
    text: str
    kind: str = "note"
    data: dict[str, Any] | None = None

    def __str__(self) -> str:
        where = "before training" if self.epoch is None else f"epoch {self.epoch + 1}"
        if self.batch is not None:
            where += f", batch {self.batch + 1}"
        return f"{where}: {self.callback}: {self.text}"


class Journal:
    """The decisions of a run, in order. Bounded: after `limit` entries the oldest notes make room.

    Args:
        limit: The most entries to keep.

    Example:
        >>> journal = Journal()
        >>> journal.write("EarlyStopping", "stopped", epoch=4)
        >>> print(journal[0])
        epoch 5: EarlyStopping: stopped
    """

    def __init__(self, limit: int = 10_000) -> None:
        self.limit = limit
        self.dropped = 0
        self._entries: list[Entry] = []

    def write(
        self,
        callback: str,
        text: str,
        *,
        epoch: int | None = None,
        batch: int | None = None,
        kind: str = "note",
        data: dict[str, Any] | None = None,
    ) -> None:
        """Add an entry, with the time of now."""
        if len(self._entries) >= self.limit:
            plain = next((index for index, entry in enumerate(self._entries) if entry.kind == "note"), 0)
            del self._entries[plain]
            self.dropped += 1
        self._entries.append(Entry(time.time(), epoch, batch, callback, text, kind, data))

    def of(self, *kinds: str) -> list[Entry]:
        """Return the entries of some kinds."""
        return [entry for entry in self._entries if entry.kind in kinds]

    def clear(self) -> None:
        """Start with nothing."""
        self._entries.clear()
        self.dropped = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the entries as plain data."""
        return {"dropped": self.dropped, "entries": [asdict(entry) for entry in self._entries]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over entries that `state_dict` returned."""
        self.dropped = int(state["dropped"])
        self._entries = [Entry(**entry) for entry in state["entries"]]

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    def __repr__(self) -> str:
        return "\n".join(str(entry) for entry in self._entries) or "<empty journal>"
