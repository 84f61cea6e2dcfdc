"""Writing files so that a reader sees the old content or the new one, never half of it.

Not done with atomicwrites, the package for this, because it is no longer maintained; it also replaces links and pipes by files,
and leaves the temporary files of killed processes behind.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from oncue.core.interrupts import undivided

SYSTEM = sys.platform
"""The system whose ways files have: "linux", "darwin" for macOS, "win32" for Windows."""

# Windows lets nobody take the place of a file that somebody has open; a virus scanner or an index has it for moments.
_PATIENCE = 2.0
# Of a path, its end included, without the long paths that have to be allowed.
_MOST_ON_WINDOWS = 260
_OF_A_TEMPORARY_NAME = 90


def replace_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file completely or not at all; see `replacing`.

    Args:
        path: The file; where it is a link, the file that it leads to.
        content: All of it.

    Raises:
        OSError: When it can't be written; the old file is untouched then and no temporary file is left.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     replace_file(Path(folder) / "a.txt", b"new")
        ...     [entry.name for entry in Path(folder).iterdir()]
        ['a.txt']
    """
    with replacing(os.path.realpath(path)) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of an empty file to be written inside the `with` block; it takes the target's name at the end.

    The temporary file is beside the target and reaches the disk before it takes the target's name; then the folder is
    written too. When the block raises, the old file is untouched and nothing is left of the new one.

    Args:
        path: The target.

    Yields:
        The path to write to.

    Raises:
        OSError: When it can't be written, or there is something else than a file; see `check_target`.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "a.txt") as temporary:
        ...         _ = temporary.write_text("new")
        ...     (Path(folder) / "a.txt").read_text()
        'new'
    """
    target = Path(os.fspath(path))
    check_target(target)
    mode = target.stat().st_mode & 0o777 if target.exists() else None
    temporary = _temporary_beside(target)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            flush(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask() if mode is None else mode)
        replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def replace(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Give a file another name, in the place of a file that has it.

    Windows refuses that while a program has that file open, so that it is tried for two seconds there.

    Raises:
        OSError: When it can't be done.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "new").write_text("new"), Path(folder, "a").write_text("old")
        ...     replace(Path(folder, "new"), Path(folder, "a"))
        ...     Path(folder, "a").read_text()
        'new'
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if SYSTEM != "win32" or time.monotonic() > end:
                raise
        time.sleep(0.02)


def flush(descriptor: int) -> None:
    """Make what was written into an open file reach the disk.

    On macOS, `fsync` ends when the drive has it, in a memory that a power cut empties.

    Raises:
        OSError: When the disk fails.

    Example:
        >>> with tempfile.TemporaryFile() as file:
        ...     flush(file.fileno())
    """
    if SYSTEM == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # type: ignore[attr-defined, unused-ignore]
            return
        except OSError as error:
            # Some network file systems know nothing of it.
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
    os.fsync(descriptor)


def try_beside(path: str | os.PathLike[str]) -> None:
    """Find out whether a file can be written somewhere; a kill leaves nothing there that `sweep` doesn't find.

    Args:
        path: The file; its folder exists.

    Raises:
        OSError: When it can't.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     try_beside(Path(folder) / "model.keras")
    """
    _temporary_beside(Path(path)).unlink()


def has_its_name(file: IO[Any], name: str | os.PathLike[str]) -> bool:
    """Return whether an open file is still what its name leads to: it may have been removed, or replaced.

    Args:
        file: The file.
        name: Its name.

    Example:
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     has_its_name(file, file.name)
        True
    """
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(name))
    except OSError:
        return False


@undivided
def _temporary_beside(target: Path) -> Path:
    # Names have an end (255 bytes on most systems), so that a long one is cut.
    prefix = f".{target.name[:50]}.{machine()}-{os.getpid()}-"
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=prefix, suffix=".tmp")
    os.close(handle)
    return Path(name)


def reason_of(error: OSError, path: str | os.PathLike[str]) -> str:
    """Return why something can't be written in a folder, in words that say more than the system's.

    Args:
        error: What the system said.
        path: The folder, or a file in it.

    Example:
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     try:
        ...         os.mkdir(file.name)
        ...     except FileExistsError as error:
        ...         reason_of(error, file.name) == f"'{file.name}' is a file"
        True
    """
    place = Path(path)
    for one in (place, *place.parents):
        if one.is_dir():
            break
        if one.is_symlink() and not one.exists():
            return f"'{one}' is a link to {os.readlink(one)!r}, which isn't there"
        if one.exists() and isinstance(error, (FileExistsError, NotADirectoryError)):
            return f"'{one}' is a file"
    if isinstance(error, FileNotFoundError) and not place.parent.is_dir():
        return f"the folder '{place.parent}' isn't there"
    length = len(os.path.abspath(place))
    if SYSTEM == "win32" and length >= _MOST_ON_WINDOWS - _OF_A_TEMPORARY_NAME:
        return (
            f"{error.strerror or error}: the path has {length} characters, and with what is written beside it Windows takes "
            f"{_MOST_ON_WINDOWS - 1}. Give a shorter one, or allow long paths"
        )
    return str(error.strerror or error)


def require_file(path: str | os.PathLike[str]) -> None:
    """Refuse to read or continue what is there and is no file, such as a pipe, which would be waited for.

    Raises:
        OSError: With what it is instead.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        kind, number = (IsADirectoryError, errno.EISDIR) if stat.S_ISDIR(mode) else (FileExistsError, errno.EEXIST)
        raise kind(number, f"This must be the path of a file, and there is {what}. Give another name", os.fspath(path))


OF_PARTS = ".shards"
"""How the name of a folder ends that has a file of each process, with its parts of a model's weights."""


def check_target(path: str | os.PathLike[str]) -> None:
    """Refuse to put a file in the place of a folder, a link, a pipe or a device.

    A link is neither followed, since its target may belong to someone else, nor replaced, since it is there for a reason.

    Args:
        path: Where a file is to be.

    Raises:
        IsADirectoryError: For a folder.
        FileExistsError: For the others.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     check_target(Path(folder) / "new.txt")
    """
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        # A folder that is missing, or is not a folder, is reported when the file is made.
        return
    if stat.S_ISREG(mode):
        return
    what = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
    if stat.S_ISLNK(mode):
        what = f"a link to {os.readlink(path)!r}"
    kind, number = (IsADirectoryError, errno.EISDIR) if stat.S_ISDIR(mode) else (FileExistsError, errno.EEXIST)
    text = f"The path of what is saved must be that of a file, and this one is {what}. Remove it or give another name"
    raise kind(number, text, os.fspath(path))


def sweep(folder: str | os.PathLike[str], names: str) -> list[str]:
    """Remove the temporary files that processes of this machine left when they were killed.

    Files of processes that are alive, or that are of another machine, stay.

    Args:
        folder: The folder of the targets.
        names: A regular expression for the targets' names.

    Returns:
        The names of the removed files.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sweep(folder, "model_.*")
        []
    """
    pattern = re.compile(rf"\.(?P<name>.{{1,50}})\.{machine()}-(?P<process>\d+)-[^.]*\.tmp", re.DOTALL)
    removed = []
    for entry in os.scandir(folder):
        found = pattern.fullmatch(entry.name)
        if found is None or not entry.is_file(follow_symlinks=False):
            continue
        if re.fullmatch(names, found["name"], re.DOTALL) and not is_alive(int(found["process"])):
            # One that is another user's stays: it is in nobody's way.
            with suppress(OSError):
                os.unlink(entry.path)
                removed.append(entry.name)
    return removed


@undivided
def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make the names in a folder reach the disk, on systems where folders can be synchronised."""
    if SYSTEM == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: str | os.PathLike[str]) -> None:
    """Make what was written into a file, and its name, reach the disk, whoever has written it.

    Raises:
        OSError: When it isn't there, or the disk fails.

    Example:
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     sync_file(file.name)
    """
    # Some systems only do so for who may write.
    with open(path, "rb+") as file:
        flush(file.fileno())
    sync_folder(os.path.dirname(path) or ".")


def machine() -> str:
    """Return what stands for this machine in the names of temporary files, and doesn't tell its name."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def is_alive(process: int) -> bool:
    """Return whether a process of this machine runs, as far as the system says."""
    if SYSTEM == "win32":
        # There, asking with a signal would end it.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
