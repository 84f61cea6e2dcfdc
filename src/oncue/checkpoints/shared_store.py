"""SharedStore: the states of a run of several processes, which the main process writes and reads for all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from oncue.checkpoints.retention import Rule
from oncue.checkpoints.store import Store
from oncue.checkpoints.url_store import UrlStore
from oncue.core.ranks import Ranks
from oncue.core.remote import is_url

_T = TypeVar("_T")


class SharedStore:
    """A `Store` for each process of a run: only the main process touches the folder, which the others needn't see.

    `prepare`, `newest` and `clear` are called by all processes, in the same order.

    Args:
        folder: The folder.
        ranks: The processes of the run.

    Attributes:
        writes: Whether this process writes states.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = SharedStore(folder, Ranks())
        ...     store.prepare()
        ...     store.commit(lambda path: path.write_text("state"))
        ...     print(store.newest(Path.read_text))
        ...     store.release()
        state
    """

    def __init__(self, folder: str | os.PathLike[str], ranks: Ranks) -> None:
        self._store = UrlStore(os.fspath(folder)) if is_url(folder) else Store(folder)
        self._ranks = ranks
        self._note: dict[str, Any] = {}
        self.writes = ranks.main

    def prepare(self) -> None:
        """Prepare the folder, as `Store.prepare`."""
        if self.writes:
            self._store.prepare()
        self._note = self._ranks.broadcast(self._store.note() if self.writes else {})

    def newest(self, read: Callable[[Path], _T]) -> _T | None:
        """Return the newest intact state, as `Store.newest`; the other processes read what the main process sends."""
        taken: list[bytes] = []

        def noting(path: Path) -> _T:
            found = read(path)
            if self._ranks.size > 1:
                taken.append(path.read_bytes())
            return found

        found = self._store.newest(noting) if self.writes else None
        if self._ranks.size == 1:
            return found
        sent = self._ranks.broadcast_bytes(taken[0] if taken else b"")
        if self.writes or not sent:
            return found
        with tempfile.TemporaryDirectory(prefix="oncue-state-") as folder:
            path = Path(folder, "state.safetensors")
            path.write_bytes(sent)
            return read(path)

    def opened(self, name: str) -> AbstractContextManager[Path]:
        """Give a path to read a file of the folder from, as `Store.opened`; on any process."""
        return self._store.opened(name)

    def commit(
        self, write: Callable[[Path], object], keep: Sequence[Rule] = (), epochs: int = 0, first: bool = False
    ) -> None:
        """Save a state, as `Store.commit`."""
        if self.writes:
            self._store.commit(write, keep, epochs, first)

    @property
    def next_number(self) -> int:
        """The number of the state that is saved next, of the main process."""
        return self._store.next_number if self.writes else 0

    def commit_part(self, name: str, write: Callable[[Path], object]) -> None:
        """Save this process's part of a state, as `Store.commit_part`; into the folder, which all must see then."""
        self._store.commit_part(name, write)

    def keep_marks(self, marks: dict[str, Any]) -> None:
        """Keep marks, as `Store.keep_marks`."""
        if self.writes:
            self._store.keep_marks(marks)

    def marks(self) -> dict[str, Any] | None:
        """Return marks, as `Store.marks`; only the main process has any."""
        return self._store.marks() if self.writes else None

    def keep_note(self, note: dict[str, Any]) -> None:
        """Keep a note, as `Store.keep_note`; the other processes remember it."""
        self._note = note
        if self.writes:
            self._store.keep_note(note)

    def note(self) -> dict[str, Any]:
        """Return the note, as `Store.note`."""
        return self._note

    def start_over(self) -> None:
        """Let the next state replace all, as `Store.start_over`."""
        self._store.start_over()

    def release(self) -> None:
        """Unlock the folder."""
        self._store.release()

    def clear(self) -> None:
        """Delete all states, as `Store.clear`."""
        if self.writes:
            self._store.clear()
