"""FolderLock: one writer for a folder, or for some of the files in it."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

# Who waits for a file that its owner removes meanwhile finds that out at once, and tries again.
_PATIENCE = 0.3


class FolderLock:
    """Keeps a second run, in this process or another, from writing to a folder.

    The system gives the lock back when its owner dies, however it dies. It isn't inherited by processes that are forked,
    so that the workers of a DataLoader, which may outlive a killed run for some seconds, don't hold it.

    Args:
        folder: The folder; it is made when it is missing.
        name: The lock's file in there. Whoever takes a lock of another name is not kept out.

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

    def acquire(self) -> bool:
        """Take the lock; wait for it no longer than a moment.

        Returns:
            False when somebody else has it; True also when this object has it already.

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

    def release(self) -> None:
        """Give the lock back, and remove its file; nothing happens without it."""
        lock, self._lock = self._lock, None
        # In a process that was forked it isn't locked any more.
        if lock is None or not lock.is_locked:
            return
        try:
            # While it is still locked: whoever has opened the file already sees that it has no name any more.
            if os.name == "posix" and self._is_there(lock.lock_file):
                os.unlink(lock.lock_file)
        finally:
            lock.release()

    def _identify(self, descriptor: int) -> None:
        self._file = os.fstat(descriptor)

    def _is_there(self, path: str) -> bool:
        """Return whether the file has its name still: the folder may have been deleted, and made again by another run."""
        try:
            return self._file is not None and os.path.samestat(self._file, os.lstat(path))
        except FileNotFoundError:
            return False
