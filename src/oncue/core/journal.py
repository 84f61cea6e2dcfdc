"""Journal: what callbacks decided, when, and why."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from oncue.core import phrases


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

    def kept(self) -> str | dict[str, Any]:
        """Return it as JSON, made once for the many states of a run; as a dict where JSON would lose something."""
        found: str | dict[str, Any] | None = vars(self).get("_kept")
        if found is None:
            found = asdict(self)
            if self.what is not None:
                # The words are made again from the data.
                del found["text"]
            try:
                text = json.dumps(found, allow_nan=False)
                if json.loads(text) == found:
                    found = text
            except (TypeError, ValueError):
                # The data aren't only numbers and strings.
                pass
            object.__setattr__(self, "_kept", found)
        return found


class Journal(list[Entry]):
    """The decisions of a run, in order: a list, which prints readably.

    It is bounded: after `limit` entries, those that are written make the oldest plain notes go.

    Args:
        limit: The most entries to keep.

    Attributes:
        dropped: How many entries went.

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
            del self[next((index for index, entry in enumerate(self) if entry.kind == "note"), 0)]
            self.dropped += 1
        self.append(Entry(time.time(), epoch, batch, callback, text, kind, data, what))
        return self[-1]

    def of(self, *kinds: str) -> list[Entry]:
        """Return the entries of some kinds."""
        return [entry for entry in self if entry.kind in kinds]

    def clear(self) -> None:
        """Start with nothing."""
        super().clear()
        self.dropped = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the entries as plain data."""
        return {"dropped": self.dropped, "entries": [entry.kept() for entry in self]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over entries that `state_dict` returned."""
        self.dropped = int(state["dropped"])
        kept = (json.loads(entry) if isinstance(entry, str) else entry for entry in state["entries"])
        self[:] = [Entry(**entry) for entry in kept]

    def __repr__(self) -> str:
        return "\n".join(str(entry) for entry in self) or "<empty journal>"
