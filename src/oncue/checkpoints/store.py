"""Store: a folder of states, each of which is there completely or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from oncue.checkpoints.lock import FolderLock
from oncue.checkpoints.state_files import write_synced
from oncue.core.files import sync_folder

FORMAT = 1
"""The version of the form of a state's manifest and of the pointer."""
_T = TypeVar("_T")
_STATE = re.compile(r"state-(\d+)")
_POINTER = "latest.json"
_MANIFEST = "manifest.json"
_TEMPORARY = ".tmp-"


class Store:
    """Keeps the newest state and the one before it, for one run at a time.

    A state is written under a temporary name beside its place, with a manifest of sizes and SHA-256 digests; it reaches
    the disk, takes its name, and the pointer `latest.json` is moved to it. Only then are older states deleted. A kill at
    any moment leaves the old state or the new one.

    Args:
        folder: The folder. Nothing else in it is ever touched.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Store(folder)
        ...     store.commit(lambda place: (place / "a.txt").write_text("first"))
        ...     store.commit(lambda place: (place / "a.txt").write_text("second"))
        ...     store.newest(lambda place: (place / "a.txt").read_text())
        'second'
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._good: str | None = None
        self._lock = FolderLock(folder)
        # The numbers of the states that are there, from the first look on, and what makes temporary names this store's own.
        self._known: list[int] | None = None
        self._token, self._words = uuid.uuid4().hex, 0

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
            os.mkdir(probe)
            os.rmdir(probe)
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
            write: Writes the state's files into the folder that it is given. When it has let all of them reach the disk,
                it may return a dict of their "size" and "sha256" by name, which aren't found out once more then.

        Raises:
            OSError: When it can't be saved; the states that were there still are, and nothing is left of the new one.
        """
        # Training waits for every step of Python here, so that this is written with as few as there can be.
        known = self._numbers() if self._known is None else self._known
        number = max(known, default=0) + 1
        folder, temporary, name = os.fspath(self.folder), self._temporary(), f"state-{number}"
        try:
            os.mkdir(temporary)
        except FileNotFoundError:
            os.makedirs(temporary)
        try:
            facts = write(Path(temporary))
            _seal(temporary, facts if isinstance(facts, dict) else None)
            os.rename(temporary, os.path.join(folder, name))
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._known = [*known, number]
        self._point(name)
        # One flush for both names: nothing is deleted before it, and a pointer whose state isn't there is passed over.
        sync_folder(folder)
        before, self._good = self._good, name
        self._known = [one for one in self._known if f"state-{one}" in (name, before) or not self._remove(one)]

    def newest(self, read: Callable[[Path], _T]) -> _T | None:
        """Return the newest state that is whole, with a warning when that isn't the one that was saved last.

        Args:
            read: Reads a state from its folder; a ValueError or OSError says that it can't be read.

        Returns:
            None when no state was ever saved.

        Raises:
            ValueError: When there are states and none can be read: to start from nothing would lose them.
        """
        names = [f"state-{number}" for number in sorted(self._numbers(), reverse=True)]
        pointed = self._pointed()
        if pointed is not None:
            # One that is newer than the pointer was saved by a run that was killed before it said so.
            names = [pointed, *(name for name in names if name != pointed)]
        failures = []
        for name in names:
            try:
                _verify(self.folder / name)
                found = read(self.folder / name)
            except (ValueError, OSError) as error:
                failures.append(f"'{self.folder / name}' is damaged: {error}")
                continue
            self._good = name
            if failures:
                warnings.warn(
                    f"{' '.join(failures)} '{self.folder / name}' is used instead.", UserWarning, stacklevel=2
                )
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
        (self.folder / _POINTER).unlink(missing_ok=True)
        for number in sorted(self._numbers()):
            self._remove(number)
        self._good = self._known = None
        self._sweep()
        self.release()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _numbers(self) -> list[int]:
        try:
            with os.scandir(self.folder) as entries:
                found = [_STATE.fullmatch(entry.name) for entry in entries if entry.is_dir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [int(match[1]) for match in found if match is not None]

    def _point(self, name: str) -> None:
        temporary = os.path.join(self.folder, f".{_POINTER}.{self._own_word()}.tmp")
        text = json.dumps({"format": FORMAT, "newest": name})
        try:
            write_synced(temporary, [text.encode("utf-8")])
            os.replace(temporary, os.path.join(self.folder, _POINTER))
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _pointed(self) -> str | None:
        try:
            data = json.loads((self.folder / _POINTER).read_bytes())
        except (OSError, ValueError):
            return None
        name = data.get("newest") if isinstance(data, dict) else None
        return name if isinstance(name, str) and _STATE.fullmatch(name) is not None else None

    def _temporary(self) -> str:
        return os.path.join(self.folder, f"{_TEMPORARY}{self._own_word()}")

    def _own_word(self) -> str:
        self._words += 1
        return f"{self._token}{self._words}"

    def _remove(self, number: int) -> bool:
        """Delete a state; return whether it is gone."""
        path, trash = os.path.join(self.folder, f"state-{number}"), self._temporary()
        try:
            # Renamed first, so that a kill leaves no half of it under a state's name.
            os.rename(path, trash)
            for name in os.listdir(trash):
                os.unlink(os.path.join(trash, name))
            os.rmdir(trash)
        except FileNotFoundError:
            # Somebody else has deleted it.
            return True
        except OSError as error:
            warnings.warn(f"'{path}' could not be deleted ({error}).", UserWarning, stacklevel=3)
            return not os.path.exists(path)
        return True

    def _sweep(self) -> None:
        for entry in self.folder.glob(f"{_TEMPORARY}*"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
        # What a kill leaves of the pointer.
        for entry in self.folder.glob(f".{_POINTER}.*.tmp"):
            entry.unlink(missing_ok=True)


def _seal(folder: str, facts: dict[str, dict[str, Any]] | None) -> None:
    if facts is None:
        facts = {}
        for name in sorted(os.listdir(folder)):
            path = Path(folder, name)
            with path.open("rb+") as file:
                os.fsync(file.fileno())
            facts[name] = {"size": path.stat().st_size, "sha256": _digest(path)}
    text = json.dumps({"format": FORMAT, "files": facts}, separators=(",", ":"))
    write_synced(os.path.join(folder, _MANIFEST), [text.encode("utf-8")])
    sync_folder(folder)


def _verify(folder: Path) -> None:
    try:
        data = json.loads((folder / _MANIFEST).read_bytes())
        if data["format"] != FORMAT:
            raise ValueError(f"its manifest has the format {data['format']!r}, and this oncue reads {FORMAT}.")
        files = {str(name): (fact["size"], fact["sha256"]) for name, fact in data["files"].items()}
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"its manifest can't be read ({type(error).__name__}).") from None
    for name, (size, digest) in files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise ValueError(f"the file {name!r} is missing.")
        if path.stat().st_size != size or _digest(path) != digest:
            raise ValueError(f"the file {name!r} is not what was saved.")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
