"""SharedStore: the states of a run of several processes, which the main process writes and reads for all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
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
        store = self._store
        self._note, run = self._ranks.broadcast([store.note(), store.run] if self.writes else [{}, ""])
        store.run = run

    def newest(self, read: Callable[[Path], _T], by_all: bool = False) -> _T | None:
        """Return the newest intact state, as `Store.newest`.

        Args:
            read: Reads a state from its file, or raises a ValueError or OSError.
            by_all: Whether each process reads its part of a state in the folder, which all must see then. A state counts
                when all can read it. Otherwise the main process sends the others what it has read.
        """
        if self._ranks.size == 1:
            return self._store.newest(read)
        return self._newest_of_all(read) if by_all else self._newest_of_main(read)

    def _newest_of_main(self, read: Callable[[Path], _T]) -> _T | None:
        taken: list[bytes] = []

        def noting(path: Path) -> _T:
            found = read(path)
            taken.append(path.read_bytes())
            return found

        found = self._store.newest(noting) if self.writes else None
        sent = self._ranks.broadcast_bytes(taken[0] if taken else b"")
        if self.writes or not sent:
            return found
        with tempfile.TemporaryDirectory(prefix="oncue-state-") as folder:
            path = Path(folder, "state.safetensors")
            path.write_bytes(sent)
            return read(path)

    def _newest_of_all(self, read: Callable[[Path], _T]) -> _T | None:
        if self.writes:
            found = self._store.newest_by_name(lambda name, path: self._read_by_all(name, partial(read, path)))
            self._ranks.broadcast("")
            return found
        found = None
        while name := self._ranks.broadcast(""):
            try:
                found = self._read_by_all(name, partial(self._read_here, name, read))
            except ValueError:
                # All know it, and look at the state before.
                found = None
        return found

    def _read_by_all(self, name: str, read: Callable[[], _T]) -> _T:
        if self.writes:
            self._ranks.broadcast(name)
        return by_all(self._ranks, read)

    def _read_here(self, name: str, read: Callable[[Path], _T]) -> _T:
        with self._store.opened(name) as path:
            return read(path)

    def size(self, name: str) -> int:
        """Return how large a file of the folder is, as `Store.size`; on any process."""
        return self._store.size(name)

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


def by_all(ranks: Ranks, read: Callable[[], _T]) -> _T:
    """Call a function on all processes; where it fails on one, it does on all.

    Args:
        ranks: The processes.
        read: The function.

    Raises:
        ValueError: When it has raised one, or an OSError, on any of them.
        OSError: When it has raised one here.

    Example:
        >>> by_all(Ranks(), lambda: 3)
        3
    """
    failure: ValueError | OSError | None = None
    try:
        found = read()
    except (ValueError, OSError) as error:
        failure = error
    own = "" if failure is None else str(failure) or type(failure).__name__
    said = [text.decode() for text in ranks.gather_bytes(own.encode())]
    if failure is not None:
        raise failure
    for rank, text in enumerate(said):
        if text:
            raise ValueError(f"process {rank} can't use it: {text}")
    return found
