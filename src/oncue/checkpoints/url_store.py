"""UrlStore: the states of a run in a folder at a URL, through fsspec."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from oncue.checkpoints.retention import Rule
from oncue.checkpoints.store import Store
from oncue.core.bounded_json import bounded_json
from oncue.core.remote import RemoteFolder

_OWNER = "owner.json"
_CLOCK = "%Y-%m-%d %H:%M:%S"


class UrlStore(Store):
    """A `Store` at a URL. A state is written to this machine's disk, put there under a temporary name, and renamed.

    Stores of objects have no locks. A run writes who it is into the folder before anything else, and looks whether it is
    still so before it saves: of two that save there at once, the one that has begun first ends with an error. What a killed
    run has left of that is no obstacle.

    Args:
        url: Of the folder, such as `s3://bucket/backup`.

    Raises:
        ValueError: For a protocol that is not known, or whose package is not installed.

    Example:
        >>> store = UrlStore("memory://backup-of-a-run")
        >>> store.prepare()
        >>> store.commit(lambda path: path.write_text("first"))
        >>> store.commit(lambda path: path.write_text("second"))
        >>> store.newest(Path.read_text)
        'second'
        >>> store.clear()
    """

    def __init__(self, url: str) -> None:
        self._url, self._remote = url, RemoteFolder(url)
        super().__init__(os.path.join(tempfile.gettempdir(), f"oncue-{os.urandom(8).hex()}"))
        self.run = os.urandom(16).hex()
        """Says whose folder it is; the same on all processes of a run."""
        self._owns = False

    @property
    def where(self) -> str:
        """The URL."""
        return self._url.rstrip("/")

    def _take_folder(self) -> None:
        self._remote.make()
        self._own()

    def _own(self) -> None:
        said = {"run": self.run, "machine": platform.node(), "process": os.getpid(), "since": time.strftime(_CLOCK)}
        self._write(_OWNER, json.dumps(said).encode("utf-8"))
        self._owns = True

    def _owner(self) -> dict[str, Any] | None:
        """Return what the run says of itself that has begun last; None where that isn't known."""
        try:
            found = bounded_json(self._content(_OWNER))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _require_own(self) -> None:
        found = self._owner()
        if found is None:
            # Another run has come to its end since, or somebody has emptied the folder.
            self._own()
        elif found.get("run") != self.run:
            self._owns = False
            who = f"process {found.get('process')} on {found.get('machine')!r}"
            raise RuntimeError(
                f"Another run has begun to save to '{self.where}' while this one does: {str(who)[:200]}, at "
                f"{str(found.get('since'))[:50]}. It has the folder now, and this run's states would spoil its own. Stop one "
                "of them, and give each run a folder of its own."
            )

    def commit(
        self, write: Callable[[Path], object], keep: Sequence[Rule] = (), epochs: int = 0, first: bool = False
    ) -> None:
        """Save a state, as `Store.commit`.

        Raises:
            RuntimeError: When another run has begun to save there.
        """
        self._require_own()
        super().commit(write, keep, epochs, first)

    def commit_part(self, name: str, write: Callable[[Path], object]) -> None:
        """Save the part of a process, as `Store.commit_part`.

        Raises:
            RuntimeError: When another run has begun to save there.
        """
        self._require_own()
        super().commit_part(name, write)

    def _try(self) -> None:
        self._remote.try_writing()

    def release(self) -> None:
        """Let go of the folder, and of the disk of this machine."""
        owns, self._owns = self._owns, False
        if owns:
            # Nobody waits for it.
            with suppress(OSError):
                found = self._owner()
                if found is not None and found.get("run") == self.run:
                    self._unlink(_OWNER)
        shutil.rmtree(self.folder, ignore_errors=True)

    def clear(self) -> None:
        """Delete all states, as `Store.clear`; those of another run that has begun to save there stay."""
        with suppress(OSError):
            found = self._owner()
            if found is not None and found.get("run") != self.run:
                self.release()
                return
        super().clear()

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        """Give a path to a copy on this machine's disk.

        Raises:
            RuntimeError: When it can't be fetched now; it is no older state's turn then.
        """
        path = Path(self._temporary())
        try:
            try:
                self._remote.fetch(name, path)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise RuntimeError(
                    f"'{self._shown(name)}' can't be fetched: {error}. Start again when it can."
                ) from error
            yield path
        finally:
            path.unlink(missing_ok=True)

    def size(self, name: str) -> int:
        """Return how large a file is.

        Raises:
            FileNotFoundError: When it isn't there.
            RuntimeError: When it can't be looked at now.
        """
        try:
            return self._remote.size(name)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise RuntimeError(
                f"'{self._shown(name)}' can't be looked at: {error}. Start again when it can."
            ) from error

    def _temporary(self) -> str:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return super()._temporary()

    def _shown(self, name: str) -> str:
        return f"{self.where}/{name}"

    def _names(self) -> list[str]:
        return self._remote.names()

    def _put(self, temporary: str, name: str) -> None:
        self._remote.put(temporary, name)
        os.unlink(temporary)

    def _link(self, name: str, other: str) -> None:
        self._remote.copy(name, other)

    def _sync(self) -> None:
        pass

    def _unlink(self, name: str) -> None:
        self._remote.remove(name)

    def _content(self, name: str) -> bytes:
        return self._remote.read(name)

    def _write(self, name: str, content: bytes) -> None:
        self._remote.write(name, content)

    def _remove_folder(self) -> None:
        self._remote.remove_folder()

    def _sweep_temporaries(self) -> None:
        self._remote.sweep()
