"""Files at URLs, through fsspec: written here first, put there under another name, and renamed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oncue.core.files import machine


def is_url(path: Any) -> bool:
    """Return whether a path is a URL such as `s3://bucket/model.keras`; `file://` names a path of this machine.

    Example:
        >>> is_url("memory://m.keras"), is_url("m.keras")
        (True, False)
    """
    return isinstance(path, str) and "://" in path


@contextmanager
def uploading(url: str) -> Iterator[Path]:
    """Give a local path to write to; what is there at the end takes the URL's place, completely or not at all.

    Args:
        url: Where the file goes.

    Yields:
        A path with the URL's file name, in a folder of its own.

    Raises:
        OSError: When it can't be put there; the old file is untouched then.
        ValueError: For a protocol that is not known, or whose package is not installed.
    """
    store, key = _store(url)
    with tempfile.TemporaryDirectory(prefix="oncue-") as folder:
        path = Path(folder) / key.rsplit("/", 1)[-1]
        yield path
        parent = key.rpartition("/")[0]
        if parent:
            store.makedirs(parent, exist_ok=True)
        _put(store, str(path), key)


def _put(store: Any, path: str, key: str) -> None:
    parent, name = key.rpartition("/")[::2]
    aside = f"{parent}/.{name[:50]}.{uuid.uuid4().hex[:12]}.tmp" if parent else f".{name[:50]}.{uuid.uuid4().hex}.tmp"
    try:
        store.put_file(path, aside)
        # Stores without renaming copy within themselves: the name is there when all of it is.
        store.mv(aside, key)
    except BaseException:
        # The caller needs the original error, not that of cleaning up.
        with contextlib.suppress(Exception):
            store.rm_file(aside)
        raise


@contextmanager
def downloaded(url: str) -> Iterator[Path]:
    """Give a local copy of the file at a URL, with its file name; it is gone at the end.

    Raises:
        FileNotFoundError: When there is none.
        ValueError: For a protocol that is not known, or whose package is not installed.
    """
    store, key = _store(url)
    with tempfile.TemporaryDirectory(prefix="oncue-") as folder:
        path = Path(folder) / key.rsplit("/", 1)[-1]
        with store.open(key, "rb") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        yield path


def try_folder(url: str) -> None:
    """Put an empty file into the folder of a URL and take it away again, to find out whether that can be done.

    Args:
        url: Of a file that is going to be there.

    Raises:
        OSError: When it can't.
        ValueError: For a protocol that is not known, or whose package is not installed.

    Example:
        >>> try_folder("memory://runs/m.keras")
    """
    store, key = _store(url)
    parent = key.rpartition("/")[0]
    # One name for this machine: what a kill has left there goes with the next try.
    probe = f"{parent}/.oncue-probe-{machine()}"
    try:
        if parent:
            store.makedirs(parent, exist_ok=True)
        store.pipe_file(probe, b"")
        with contextlib.suppress(FileNotFoundError):
            # Another run of this machine has just tried, too.
            store.rm_file(probe)
    except Exception as error:
        # Every store has errors of its own.
        raise OSError(f"nothing can be written to the folder of '{url}': {type(error).__name__}: {error}") from error


def exists(url: str) -> bool:
    """Return whether there is a file at a URL."""
    store, key = _store(url)
    return bool(store.exists(key))


class RemoteFolder:
    """A folder at a URL, whose files are there completely or not at all. Whatever goes wrong is an OSError.

    Args:
        url: Of the folder.

    Raises:
        ValueError: For a protocol that is not known, or whose package is not installed.

    Example:
        >>> folder = RemoteFolder("memory://a-folder")
        >>> folder.make()
        >>> folder.names()
        []
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._store, key = _store(url)
        self._key = key.rstrip("/")

    def make(self) -> None:
        """Make the folder, where stores have such."""
        with self._errors("made"):
            self._store.makedirs(self._key, exist_ok=True)

    def try_writing(self) -> None:
        """Find out whether files can be put there.

        Raises:
            OSError: When they can't.
        """
        try_folder(f"{self.url.rstrip('/')}/m")

    def names(self) -> list[str]:
        """Return the names of the files."""
        with self._errors("listed"):
            # Others may have put files there since it was listed last.
            self._store.invalidate_cache()
            try:
                found = self._store.ls(self._key, detail=False)
            except FileNotFoundError:
                return []
            return [str(one).rstrip("/").rsplit("/", 1)[-1] for one in found]

    def exists(self, name: str) -> bool:
        """Return whether there is such a file."""
        with self._errors("looked for", name):
            self._store.invalidate_cache()
            return bool(self._store.exists(self._of(name)))

    def digest(self, name: str) -> str:
        """Return the SHA-256 digest of a file, in hexadecimal."""
        with self._errors("read", name), self._store.open(self._of(name), "rb") as source:
            found = hashlib.sha256()
            while piece := source.read(1 << 20):
                found.update(piece)
            return found.hexdigest()

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, in the place of one of that name."""
        with tempfile.TemporaryDirectory(prefix="oncue-") as folder:
            path = Path(folder, "content")
            path.write_bytes(content)
            self.put(str(path), name)

    def size(self, name: str) -> int:
        """Return how large a file is."""
        with self._errors("read", name):
            return int(self._store.size(self._of(name)))

    def put(self, path: str, name: str) -> None:
        """Put a file there, in the place of one of that name."""
        with self._errors("written", name):
            _put(self._store, path, self._of(name))

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file to this machine's disk."""
        with (
            self._errors("read", name),
            self._store.open(self._of(name), "rb") as source,
            path.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)

    def read(self, name: str) -> bytes:
        """Return what is in a small file."""
        with self._errors("read", name):
            return bytes(self._store.cat_file(self._of(name)))

    def copy(self, name: str, other: str) -> None:
        """Copy a file within the folder, in the place of one of that name."""
        with self._errors("copied", name):
            aside = self._of(f".{other[:50]}.{uuid.uuid4().hex[:12]}.tmp")
            self._store.cp_file(self._of(name), aside)
            self._store.mv(aside, self._of(other))

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        with self._errors("deleted", name), contextlib.suppress(FileNotFoundError):
            self._store.rm_file(self._of(name))

    def remove_folder(self) -> None:
        """Delete the folder, if nothing is in it, where stores have such."""
        with self._errors("deleted"):
            self._store.rmdir(self._key)

    def sweep(self) -> None:
        """Delete what saves that were killed have left."""
        for name in self.names():
            if re.fullmatch(r"\..+\.[0-9a-f]{12}\.tmp", name):
                with contextlib.suppress(OSError):
                    self.remove(name)

    def _of(self, name: str) -> str:
        return f"{self._key}/{name}"

    @contextmanager
    def _errors(self, done: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except OSError:
            raise
        except Exception as error:
            # Every store has errors of its own.
            raise OSError(f"'{self.url}/{name}' could not be {done}: {type(error).__name__}: {error}") from error


def _store(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        store, key = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        protocol = url.split("://")[0]
        raise ValueError(
            f"'{url}' can't be reached: {error}. fsspec needs a package for {protocol}://, such as s3fs for s3://, gcsfs "
            "for gs://, adlfs for abfs://; or give the path of a file."
        ) from None
    return store, os.fspath(key)
