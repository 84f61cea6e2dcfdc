"""Store: a folder of states, each of which is one file that is there completely or not at all."""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from oncue.checkpoints.lock import FolderLock
from oncue.core.files import sync_folder
from oncue.core.warn import warn

_T = TypeVar("_T")
_STATE = re.compile(r"state-(\d+)\.safetensors")
_TEMPORARY = re.compile(r"\.state-[0-9a-f]{32}\d+\.tmp")


class Store:
    """Keeps the newest state and the one before it, for one run at a time.

    A state is written under a temporary name beside its place, reaches the disk, and takes its name, which has the next
    number. Only then are older states deleted. A kill at any moment leaves the old state or the new one.

    Args:
        folder: The folder. Nothing else in it is ever touched.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Store(folder)
        ...     store.commit(lambda path: path.write_text("first"))
        ...     store.commit(lambda path: path.write_text("second"))
        ...     store.newest(Path.read_text)
        'second'
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._good: int | None = None
        self._lock = FolderLock(folder)
        # The numbers of the states that are there, from the first look on, and what makes temporary names this store's own.
        self._known: list[int] | None = None
        self._token, self._temporaries = uuid.uuid4().hex, 0

    def prepare(self) -> None:
        """Make the folder, keep other runs out of it, find out whether it can be written to, and remove leftovers.

        Raises:
            OSError: When nothing can be written there, naming the folder.
            RuntimeError: When another run is using it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._lock.acquire():
                raise RuntimeError(
                    f"Another run that is still going on saves to '{self.folder}'. Wait for its end, stop it, or give "
                    "another folder."
                )
            self._sweep()
            self._known = None
            probe = self._temporary()
            os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            os.unlink(probe)
        except OSError as error:
            raise OSError(
                error.errno,
                f"Nothing can be saved to this folder ({error.strerror}), so training doesn't begin. Give a folder that "
                "can be written to",
                str(self.folder),
            ) from None

    def release(self) -> None:
        """Let other runs use the folder."""
        self._lock.release()

    def commit(self, write: Callable[[Path], object]) -> None:
        """Save a state.

        Args:
            write: Writes the state into the file whose path it is given, and lets it reach the disk.

        Raises:
            OSError: When it can't be saved; the states that were there still are, and nothing is left of the new one.
        """
        # Training waits for every step of Python here, so that this is written with as few as there can be.
        known = self._numbers() if self._known is None else self._known
        number = max(known, default=0) + 1
        temporary = self._temporary()
        try:
            try:
                write(Path(temporary))
            except FileNotFoundError:
                os.makedirs(self.folder, exist_ok=True)
                write(Path(temporary))
            os.replace(temporary, self._path(number))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._known = [*known, number]
        # Nothing is deleted before the new name is on the disk, too.
        sync_folder(self.folder)
        before, self._good = self._good, number
        self._known = [one for one in self._known if one in (number, before) or not self._remove(one)]

    def newest(self, read: Callable[[Path], _T]) -> _T | None:
        """Return the newest state that is whole, with a warning when that isn't the one that was saved last.

        Args:
            read: Reads a state from its file; a ValueError or OSError says that it can't be read.

        Returns:
            None when no state was ever saved.

        Raises:
            ValueError: When there are states and none can be read: to start from nothing would lose them.
        """
        failures = []
        for number in sorted(self._numbers(), reverse=True):
            path = self._path(number)
            try:
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    raise ValueError("it is no file")
                found = read(Path(path))
            except (ValueError, OSError) as error:
                failures.append(f"'{path}' is damaged: {error}.")
                continue
            self._good = number
            if failures:
                warn(f"{' '.join(failures)} '{path}' is used instead.")
            return found
        if failures:
            raise ValueError(
                f"No saved state in '{self.folder}' can be read. {' '.join(failures)} To start over, delete the folder."
            )
        return None

    def start_over(self) -> None:
        """Let the next state take the place of all that are there, rather than of all but the newest."""
        self._good = None

    def clear(self) -> None:
        """Delete all states, the newest one last, and the folder when nothing else is in it."""
        if not self.folder.is_dir():
            return
        for number in sorted(self._numbers()):
            self._remove(number)
        self._good = self._known = None
        self._sweep()
        self.release()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _numbers(self) -> list[int]:
        try:
            found = [_STATE.fullmatch(name) for name in os.listdir(self.folder)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [int(match[1]) for match in found if match is not None]

    def _path(self, number: int) -> str:
        return os.path.join(self.folder, f"state-{number}.safetensors")

    def _temporary(self) -> str:
        self._temporaries += 1
        return os.path.join(self.folder, f".state-{self._token}{self._temporaries}.tmp")

    def _remove(self, number: int) -> bool:
        """Delete a state; return whether it is gone."""
        path = self._path(number)
        try:
            os.unlink(path)
        except FileNotFoundError:
            # Somebody else has deleted it.
            return True
        except OSError as error:
            warn(f"'{path}' could not be deleted ({error}).")
            return False
        return True

    def _sweep(self) -> None:
        for name in os.listdir(self.folder):
            if _TEMPORARY.fullmatch(name):
                (self.folder / name).unlink(missing_ok=True)
