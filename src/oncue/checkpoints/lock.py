"""FolderLock: one writer for a folder, or for some of the files in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import ClassVar


class FolderLock:
    """Keeps a second run, in this process or another, from writing to a folder.

    The system gives the lock back when its owner dies, however it dies. It isn't inherited by processes that are forked,
    so that the workers of a DataLoader, which may outlive a killed run for some seconds, don't hold it.

    Args:
        folder: The folder; it must be there when the lock is taken.
        name: The lock's file in there. Who takes a lock of another name is not kept out.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     lock = FolderLock(folder)
        ...     lock.acquire(), FolderLock(folder).acquire()
        ...     lock.release()
        (True, False)
    """

    _held: ClassVar[set[str]] = set()

    def __init__(self, folder: str | os.PathLike[str], name: str = ".oncue.lock") -> None:
        self.path = Path(folder) / name
        self._descriptor: int | None = None
        self._key = ""

    def acquire(self) -> bool:
        """Take the lock, at once or not at all.

        Returns:
            False when somebody else has it; True also when this object has it already.

        Raises:
            OSError: When the folder can't be written to.
        """
        if self._descriptor is not None:
            return True
        key = os.path.realpath(self.path)
        # What the system keeps for a process says nothing about two runs within it.
        if key in FolderLock._held:
            return False
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            taken = _lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if not taken:
            os.close(descriptor)
            return False
        self._descriptor, self._key = descriptor, key
        FolderLock._held.add(key)
        return True

    def release(self) -> None:
        """Give the lock back, and remove its file; nothing happens without it."""
        if self._descriptor is None:
            return
        # While it is still locked: whoever opens the file in between finds it locked, and a later one makes a new file.
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        FolderLock._held.discard(self._key)
        self._descriptor = None


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True
