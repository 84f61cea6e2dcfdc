"""Files at URLs, through fsspec: written here first, put there under another name, and renamed."""

from __future__ import annotations

import contextlib
import os
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
        parent, name = key.rpartition("/")[::2]
        if parent:
            store.makedirs(parent, exist_ok=True)
        aside = (
            f"{parent}/.{name[:50]}.{uuid.uuid4().hex[:12]}.tmp" if parent else f".{name[:50]}.{uuid.uuid4().hex}.tmp"
        )
        try:
            store.put_file(str(path), aside)
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
