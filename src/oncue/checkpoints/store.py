"""Store: a folder of saved states, each a single file that is written completely or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from oncue.checkpoints.lock import FolderLock
from oncue.checkpoints.record import Record
from oncue.checkpoints.retention import Rule
from oncue.core.bounded_json import bounded_json
from oncue.core.files import reason_of, replace, replace_file, require_file, sweep, sync_file, sync_folder
from oncue.core.interrupts import undivided
from oncue.core.warn import warn

_T = TypeVar("_T")
_STATE = re.compile(r"state-([0-9]+)\.safetensors")
_FORMER = re.compile(r"state-[0-9]+")
_KEPT = re.compile(r"state-epoch-([0-9]{1,15})\.safetensors")
_PART = re.compile(r"state-([0-9]+)\.part-[0-9]+\.safetensors")
_KEPT_PART = re.compile(r"state-epoch-([0-9]{1,15})(\.part-[0-9]+\.safetensors)")
_MARKS = "beginning.json"
_NOTE = "data.json"
_TEMPORARY = re.compile(r"\.state-[0-9a-f]{32}[0-9]+\.tmp")


class OtherVersion(ValueError):
    """A state that is whole, and was written by an oncue whose format this one doesn't read.

    Example:
        >>> raise OtherVersion("its format is 4, and this oncue reads 3")
        Traceback (most recent call last):
        oncue.checkpoints.store.OtherVersion: its format is 4, and this oncue reads 3
    """


class Store:
    """Keeps the newest state and the one before it, for one run at a time.

    A state is written to a temporary file in the same folder, flushed to disk, and renamed to its final name, which has
    the next number. Only then are older states deleted. A kill at any moment leaves the old state or the new one.

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
        self._marked = False
        self.run = ""
        """Says whose folder it is, where that needs to be said: a folder on a disk has a lock."""
        self._lock = FolderLock(folder)
        # The numbers of the existing states, once they have been listed, and what makes this store's temporary names unique.
        self._known: list[int] | None = None
        self._token, self._temporaries = uuid.uuid4().hex, 0

    def prepare(self) -> None:
        """Create the folder, lock it, check that it is writable, and remove leftovers.

        Raises:
            OSError: If nothing can be written there; the message names the folder.
            RuntimeError: If another run is using it.
        """
        try:
            self._take_folder()
            self._sweep()
            self._known = None
            self._try()
        except OSError as error:
            raise OSError(
                error.errno or errno.EIO,
                f"Nothing can be saved to this folder ({reason_of(error, self.where)}), so training doesn't "
                "begin. Give a folder that can be written to",
                self.where,
            ) from None

    def _take_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._lock.acquire():
            raise RuntimeError(
                f"Another run that is still going on saves to '{self.folder}'. Wait for its end, stop it, or give "
                "another folder."
            )

    @undivided
    def _try(self) -> None:
        probe = self._temporary()
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.unlink(probe)

    def release(self) -> None:
        """Unlock the folder."""
        self._lock.release()

    def commit(
        self, write: Callable[[Path], object], keep: Sequence[Rule] = (), epochs: int = 0, first: bool = False
    ) -> None:
        """Save a state.

        Args:
            write: Writes the state into the file at a given path, and flushes it to disk.
            keep: The rules by which states of the ends of epochs stay, beside the newest; none to keep none.
            epochs: After how many epochs it is, where it is of the end of one.
            first: Whether it is the first of a run that began from scratch: then those that were kept before go.

        Raises:
            OSError: If it can't be saved; older states remain, and no part of the new one does.
        """
        # Training waits here, so this uses as few Python operations as possible.
        known = self._numbers() if self._known is None else self._known
        number = max(known, default=0) + 1
        temporary = self._temporary()
        try:
            try:
                write(Path(temporary))
            except FileNotFoundError:
                os.makedirs(self.folder, exist_ok=True)
                write(Path(temporary))
            self._put(temporary, _name(number))
            if keep and epochs:
                self._keep(number, epochs)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        self._known = [*known, number]
        # Nothing is deleted before the new name has reached the disk too.
        self._sync()
        if self._marked:
            self._marked = False
            self._unlink(_MARKS)
        if keep or first:
            self._prune(keep, epochs, first)
        before, self._good = self._good, number
        self._known = [one for one in self._known if one in (number, before) or not self._remove(one)]

    @property
    def next_number(self) -> int:
        """The number of the state that is saved next."""
        return max(self._numbers() if self._known is None else self._known, default=0) + 1

    def commit_part(self, name: str, write: Callable[[Path], object]) -> None:
        """Save the part of a process of a state that isn't committed yet.

        Args:
            name: The name of its file.
            write: Writes it into the file at a given path, and flushes it to disk.

        Raises:
            OSError: If it can't be saved.
        """
        temporary = Path(self._temporary())
        try:
            write(temporary)
            self._put(str(temporary), name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._sync()

    def newest(self, read: Callable[[Path], _T]) -> _T | None:
        """Return the newest intact state, with a warning if it isn't the one that was saved last.

        Args:
            read: Reads a state from its file, or raises a ValueError or OSError.

        Returns:
            The state, or None if none was ever saved.

        Raises:
            ValueError: If there are states but none can be read, since starting from scratch would lose them; if the newest
                is of a version that isn't read, as an older one would lose what came after it.
        """
        return self.newest_by_name(lambda name, path: read(path))

    def newest_by_name(self, read: Callable[[str, Path], _T]) -> _T | None:
        """Return the newest intact state as `newest`, read by a function that gets the name of its file, too.

        Args:
            read: As for `newest`; the path may be that of a copy.
        """
        failures = []
        for number in sorted(self._numbers(), reverse=True):
            path = self._shown(_name(number))
            try:
                with self.opened(_name(number)) as local:
                    found = read(_name(number), local)
            except OtherVersion as error:
                raise ValueError(
                    f"'{path}' can't be continued from: {error}. Use the oncue that wrote it. Or, to start over, delete the "
                    "folder or give another."
                ) from None
            except (ValueError, OSError) as error:
                failures.append(f"'{path}' is damaged: {error}.")
                continue
            self._good = number
            if failures:
                warn(f"{' '.join(failures)} '{path}' is used instead.")
            return found
        if failures:
            raise ValueError(
                f"No saved state in '{self.where}' can be read. {' '.join(failures)} To start over, delete the folder."
            )
        self._refuse_format_1()
        return None

    def _refuse_format_1(self) -> None:
        """Refuse a folder whose states are folders."""
        for name in sorted(filter(_FORMER.fullmatch, self._names())):
            if (self.folder / name / "manifest.json").is_file():
                raise ValueError(
                    f"'{self.folder / name}' can't be continued from: it is a folder, as states of format 1 are, and this "
                    "oncue reads files. Use the oncue that wrote it. Or, to start over, delete the folder or give another."
                )

    def keep_marks(self, marks: dict[str, Any]) -> None:
        """Keep what is to be known of a run until its first state is saved, and replace what was kept before.

        Args:
            marks: What JSON can express; empty for nothing.

        Raises:
            OSError: When it can't be kept.
        """
        self._marked = bool(marks)
        if marks:
            # A state that is newer than these marks makes them void, also when it was saved right before a kill.
            kept = {"after": max(self._numbers(), default=0), "marks": marks}
            self._write(_MARKS, json.dumps(kept).encode("utf-8"))
        else:
            self._unlink(_MARKS)

    def marks(self) -> dict[str, Any] | None:
        """Return the marks of a run that has saved no state since; None when there are none."""
        try:
            kept = bounded_json(self._content(_MARKS))
            after, marks = kept["after"], kept["marks"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            warn(
                f"'{self._shown(_MARKS)}' is damaged ({error}): what an interrupted run has written stays in its files."
            )
            return None
        return marks if after == max(self._numbers(), default=0) and isinstance(marks, dict) else None

    def keep_note(self, note: dict[str, Any]) -> None:
        """Keep what the states don't have, and replace what was kept before.

        Args:
            note: What JSON can express.

        Raises:
            OSError: When it can't be kept.
        """
        self._write(_NOTE, json.dumps(note).encode("utf-8"))

    def note(self) -> dict[str, Any]:
        """Return what `keep_note` was given last; empty when that is nothing, or damaged."""
        try:
            found = bounded_json(self._content(_NOTE))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def tidy(self) -> None:
        """Remove what saves that never came to their end have left; while nothing is being saved there."""
        self._sweep()

    def start_over(self) -> None:
        """Let the next state replace all existing ones, instead of all but the newest."""
        self._good = None

    def clear(self) -> None:
        """Delete all states, the newest last, and the folder if nothing else is in it and it can be deleted.

        What can't be deleted stays, with a warning for a state: a run that has ended well isn't to fail because of it.
        """
        for number in sorted(self._numbers()):
            self._remove(number, " The next run would continue from it; delete it yourself.")
        self._good = self._known = None
        self._marked = False
        with suppress(OSError):
            self._unlink(_MARKS)
            self._unlink(_NOTE)
            self._sweep()
        self.release()
        # Other files may be in it; it may be a link, a mount point, the current folder, or in a folder that is read-only.
        with suppress(OSError):
            self._remove_folder()

    def _numbers(self) -> list[int]:
        return [int(match[1]) for match in map(_STATE.fullmatch, self._names()) if match is not None]

    def _keep(self, number: int, epochs: int) -> None:
        kept = kept_state("", epochs)
        parts = [name for name, one in self._parts() if one == number]
        named = {name: f"{kept.stem}.{name.split('.', 1)[1]}" for name in parts}
        # Those of other processes first: it counts when all are there.
        for name, new in named.items():
            self._link(name, new)
        self._link(_name(number), kept.name)
        self._remove_kept_parts({epochs}, but=set(named.values()))

    def _link(self, name: str, other: str) -> None:
        temporary = self._temporary()
        try:
            # Another name of the same file, where there are such.
            os.link(self.folder / name, temporary)
        except OSError:
            shutil.copyfile(self.folder / name, temporary)
            sync_file(temporary)
        try:
            replace(temporary, self.folder / other)
        finally:
            # Of two names of the same file `replace` leaves both.
            Path(temporary).unlink(missing_ok=True)

    def _prune(self, keep: Sequence[Rule], epochs: int, first: bool) -> None:
        found = self._kept()
        gone = [one for one in found if one != epochs] if first else []
        if keep:
            records = [Record(kept_state("", one).name, epoch=one) for one in found if one not in gone]
            stays = {name for rule in keep for name in rule.kept(records, None)}
            gone += [record.epoch for record in records if record.file not in stays]
        for one in gone:
            name = kept_state("", one).name
            try:
                self._unlink(name)
            except OSError as error:
                warn(f"'{self._shown(name)}' could not be deleted ({error}); it will be tried again.")
            else:
                self._remove_kept_parts({one})

    def _kept(self) -> list[int]:
        return _epochs_of(self._names())

    # The folder ----------------------------------------------------------------------------------------------------

    @property
    def where(self) -> str:
        """The folder, as users know it."""
        return str(self.folder)

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        """Give a path on this machine's disk to read a file from.

        Raises:
            ValueError: When it is no file.
            OSError: When it isn't there, or can't be read.
        """
        path = os.path.join(self.folder, name)
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise ValueError("it is no file")
        yield Path(path)

    def size(self, name: str) -> int:
        """Return how large a file is.

        Raises:
            ValueError: When it is no file.
            OSError: When it isn't there, or can't be looked at.
        """
        found = os.lstat(os.path.join(self.folder, name))
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no file")
        return found.st_size

    def _shown(self, name: str) -> str:
        return os.path.join(self.where, name)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _put(self, temporary: str, name: str) -> None:
        """Give a file its name, in place of one that has it, completely or not at all."""
        replace(temporary, os.path.join(self.folder, name))

    def _sync(self) -> None:
        sync_folder(self.folder)

    def _unlink(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)

    def _content(self, name: str) -> bytes:
        require_file(self.folder / name)
        return (self.folder / name).read_bytes()

    def _write(self, name: str, content: bytes) -> None:
        replace_file(self.folder / name, content)

    def _remove_folder(self) -> None:
        self.folder.rmdir()

    def _temporary(self) -> str:
        self._temporaries += 1
        return os.path.join(self.folder, f".state-{self._token}{self._temporaries}.tmp")

    def _remove(self, number: int, advice: str = "") -> bool:
        """Delete a state; return whether it is gone."""
        try:
            # Another process may have deleted it.
            self._unlink(_name(number))
        except OSError as error:
            warn(f"'{self._shown(_name(number))}' could not be deleted ({error}).{advice}")
            return False
        self._remove_parts({number})
        return True

    def _remove_parts(self, numbers: Collection[int]) -> None:
        """Delete the parts of states that aren't there any more."""
        for name, number in self._parts():
            if number in numbers:
                with suppress(OSError):
                    self._unlink(name)

    def _parts(self, pattern: re.Pattern[str] = _PART) -> list[tuple[str, int]]:
        """Return the names of the parts of other processes, each with the number that its pattern finds."""
        return [(name, int(match[1])) for name in self._names() if (match := pattern.fullmatch(name)) is not None]

    def _remove_kept_parts(self, epochs: Collection[int], but: Collection[str] = ()) -> None:
        """Delete the parts of kept states that aren't there any more."""
        for name, one in self._parts(_KEPT_PART):
            if one in epochs and name not in but:
                with suppress(OSError):
                    self._unlink(name)

    def _sweep(self) -> None:
        self._sweep_temporaries()
        # Those of a state that was never committed, or kept.
        self._remove_parts({number for _, number in self._parts()} - set(self._numbers()))
        self._remove_kept_parts({epochs for _, epochs in self._parts(_KEPT_PART)} - set(self._kept()))

    def _sweep_temporaries(self) -> None:
        sweep(self.folder, "|".join(map(re.escape, (_MARKS, _NOTE))))
        for name in self._names():
            if _TEMPORARY.fullmatch(name):
                with suppress(OSError):
                    self._unlink(name)


def newest_state(folder: str | os.PathLike[str]) -> Path | None:
    """Return the file of the newest state in a folder; None where there is none.

    Args:
        folder: The folder of the states; one that isn't there has none.
    """
    numbers = Store(folder)._numbers()
    return Path(folder, _name(max(numbers))) if numbers else None


def kept_state(folder: str | os.PathLike[str], epochs: int) -> Path:
    """Return the file of the state that is kept after so many epochs.

    Args:
        folder: The folder of the states.
        epochs: How many epochs.

    Example:
        >>> kept_state("backup", 7).name
        'state-epoch-7.safetensors'
    """
    return Path(folder, f"state-epoch-{epochs}.safetensors")


def kept_epochs(folder: str | os.PathLike[str]) -> list[int]:
    """Return after how many epochs the states are that are kept in a folder, in order.

    Args:
        folder: The folder of the states; one that isn't there has none.
    """
    try:
        return _epochs_of(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _epochs_of(names: Iterable[str]) -> list[int]:
    found = map(_KEPT.fullmatch, names)
    return sorted(int(match[1]) for match in found if match is not None and not match[1].startswith("0"))


def _name(number: int) -> str:
    return f"state-{number}.safetensors"
