"""FolderLock: one writer for a folder, or for some of the files in it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from filelock import FileLock, Timeout

from oncue.core.files import SYSTEM
from oncue.core.interrupts import undivided

# A process that waited for a lock file which its owner then removed notices that, and tries again.
_PATIENCE = 0.3

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class FolderLock:
    """Keeps a second run, in this process or another, from writing to a folder.

    The system releases the lock when its owner dies, in whatever way. Forked processes don't inherit it, so that the
    workers of a DataLoader, which may outlive a killed run for some seconds, don't hold it.

    Args:
        folder: The folder; created if it is missing.
        name: The lock file in it. Locks with different names don't exclude each other.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lock = FolderLock(folder)
        ...     lock.acquire(), FolderLock(folder).acquire()
        ...     lock.release()
        (True, False)
    """

    def __init__(self, folder: str | os.PathLike[str], name: str = ".oncue.lock") -> None:
        self.path = Path(folder) / name
        self._lock: FileLock | None = None
        self._file: os.stat_result | None = None

    @undivided
    def acquire(self) -> bool:
        """Acquire the lock, waiting for a moment at most.

        Returns:
            False if another owner has it; True also if this object already has it.

        Raises:
            OSError: When the folder can't be written to.
        """
        if self._lock is not None and self._lock.is_locked:
            return True
        # Without `fallback_to_soft`: a file that only exists would outlive a killed run.
        lock = FileLock(
            os.path.abspath(self.path), thread_local=False, fallback_to_soft=False, on_acquired=self._identify
        )
        try:
            lock.acquire(timeout=_PATIENCE, poll_interval=0.01)
        except Timeout:
            return False
        self._lock = lock
        return True

    @undivided
    def release(self) -> None:
        """Release the lock, and remove its file; does nothing if it isn't held."""
        lock, self._lock = self._lock, None
        # In a forked process it isn't locked any more.
        if lock is None or not lock.is_locked:
            return
        # A file that can't be removed, in a folder that has become read-only, locks nothing.
        with suppress(OSError):
            # Removed while still locked, so that a process that has already opened the file sees that it has lost its name. On
            # Windows, where no open file can be removed, filelock does it afterwards.
            if SYSTEM != "win32" and self._is_there(lock.lock_file):
                os.unlink(lock.lock_file)
        lock.release()

    def _identify(self, descriptor: int) -> None:
        self._file = os.fstat(descriptor)

    def _is_there(self, path: str) -> bool:
        """Return whether the file has its name still: the folder may have been deleted, and made again by another run."""
        try:
            return self._file is not None and os.path.samestat(self._file, os.lstat(path))
        except FileNotFoundError:
            return False


class NameLock:
    """Keeps other processes from writing the files of a name, as `FolderLock` does for a folder.

    A run of this process that ended without saying so, as under Keras's own loop, doesn't keep out the next one: the lock is
    the process's. Where a file system has no locks, files are written without one.

    Args:
        path: The name that the files go by; its folder is there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lock = NameLock(f"{folder}/log.csv")
        ...     lock.acquire(), os.listdir(folder)
        ...     lock.release()
        (True, ['.log.csv.lock'])
    """

    _held: ClassVar[dict[str, FolderLock]] = {}

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._key = os.path.realpath(path)

    @undivided
    def acquire(self) -> bool:
        """Acquire the lock, waiting for a moment at most.

        Returns:
            False if another process has it.

        Raises:
            OSError: When the folder can't be written to.
        """
        if self._key in NameLock._held:
            return True
        folder, name = os.path.split(self._key)
        lock = FolderLock(folder, f".{name[:200]}.lock")
        try:
            taken = lock.acquire()
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            # Some network file systems have no locks; files can be saved there all the same.
            lock.path.unlink(missing_ok=True)
            taken = True
        if taken:
            NameLock._held[self._key] = lock
        return taken

    @undivided
    def release(self, when: Callable[[Callable[[], None]], None] = lambda give_back: give_back()) -> None:
        """Release the lock; does nothing if it isn't held.

        Args:
            when: Calls what it is given when nothing is being written any more; at once by default.
        """
        lock = NameLock._held.pop(self._key, None)
        if lock is not None:
            when(lock.release)


def alone_with(path: str | os.PathLike[str], callback: str, argument: str = "filename") -> NameLock | None:
    """Keep runs of other processes from writing a file, as long as this run does.

    Args:
        path: The file; it need not be there.
        callback: Who writes it, for the message.
        argument: The argument that says where.

    Returns:
        The lock, to be released at the end; None where nothing but the file itself can be written.

    Raises:
        RuntimeError: When a run of another process writes it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lock = alone_with(f"{folder}/log.csv", "CSVLogger")
        ...     lock is not None and lock.release()
    """
    if not Path(path).parent.is_dir():
        return None
    lock = NameLock(path)
    try:
        taken = lock.acquire()
    except PermissionError:
        return None
    if not taken:
        raise RuntimeError(
            f"Another run that is still going on writes to `{os.fspath(path)}`. Wait for its end, stop it, or give "
            f"{callback} another `{argument}`."
        )
    return lock
