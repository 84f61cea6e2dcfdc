"""UrlStore: the states of a run in a folder at a URL, through fsspec."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oncue.checkpoints.store import Store
from oncue.core.remote import RemoteFolder


class UrlStore(Store):
    """A `Store` at a URL. A state is written to this machine's disk, put there under a temporary name, and renamed.

    Another run that saves to the same URL isn't noticed: stores of objects have no locks.

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

    @property
    def where(self) -> str:
        """The URL."""
        return self._url.rstrip("/")

    def _take_folder(self) -> None:
        self._remote.make()

    def _try(self) -> None:
        self._remote.try_writing()

    def release(self) -> None:
        """Let go of the disk of this machine."""
        shutil.rmtree(self.folder, ignore_errors=True)

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
