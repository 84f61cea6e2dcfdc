"""Manifest: records of the files that a ModelCheckpoint saved, in a small file beside them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from oncue.checkpoints.record import Record
from oncue.checkpoints.retention import Rule, by_score, kept
from oncue.checkpoints.store import Store, newest_state
from oncue.core.bounded_json import MEGABYTE, bounded_json
from oncue.core.files import replace_file, require_file, sweep
from oncue.core.remote import RemoteFolder
from oncue.core.warn import warn

FORMAT = 1
"""The version of the manifest's format."""


_LONGEST, _MOST = 16 * MEGABYTE, 50_000


class Manifest:
    """The records of the files in a folder, kept in `<name>.oncue.json` there.

    A file is announced before it is written and recorded afterwards, so that the state is clear even if the run is killed
    in between: the announced record counts if the file no longer matches the recorded one. Only recorded files of the same
    run are ever deleted, and only after the new one has been recorded.

    Args:
        path: The manifest's own path. An existing file is read.
        fits: Whether a name can be that of a file of the run; others are never deleted.

    Attributes:
        records: The records, in the order in which the files were saved.

    Raises:
        ValueError: If the existing file is not a manifest.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = Manifest(Path(folder) / "m.oncue.json")
        ...     manifest.announce(Record("m.keras", epoch=1, score=0.5, monitor="val_loss", run="a"))
        ...     _ = (Path(folder) / "m.keras").write_bytes(b"weights")
        ...     manifest.record()
        ...     Manifest(manifest.path).best("val_loss", "down").score
        0.5
    """

    def __init__(self, path: str | os.PathLike[str], fits: Callable[[str], bool] = lambda file: True) -> None:
        self.path = Path(path)
        self._fits = fits
        self.folder = self.path.parent
        self.records: list[Record] = []
        self._announced: Record | None = None
        content = self._content()
        if content is not None:
            self._read(content)
            self._settle()

    @property
    def where(self) -> str:
        """The manifest's own path, as users know it."""
        return str(self.path)

    def file_of(self, path: str) -> str:
        """Return the name by which a file is recorded.

        Args:
            path: Its path.
        """
        return os.path.relpath(path, self.folder).replace(os.sep, "/")

    def path_of(self, file: str) -> str:
        """Return the path of a recorded file."""
        return str(self.folder / file)

    def announce(self, record: Record) -> None:
        """Announce the next file before it is written.

        Args:
            record: Its record, without size and digest, which `record` adds.
        """
        self._announced = record
        self._write()

    def record(self) -> None:
        """Record the announced file, now that it is there."""
        assert self._announced is not None
        self._take(self._announced)
        self._write()

    def take_back(self, records: Sequence[dict[str, Any]], run: str) -> None:
        """Forget what a run has saved since, of which only these records were known; its files stay and come again.

        Args:
            records: The run's records, as `Record.as_json` gives them.
            run: Which run.
        """
        others = [record for record in self.records if record.run != run]
        known = [Record.from_json(record) for record in records]
        names = {record.file for record in known}
        self.records = [*(record for record in others if record.file not in names), *known]

    def wants(self, record: Record, rules: Sequence[Rule], direction: str | None) -> bool:
        """Return whether the rules would keep a file, were it saved now; True without rules."""
        own = [other for other in self.records if other.run == record.run and other.file != record.file]
        return not rules or record.file in kept(rules, [*own, record], direction)

    def prune(self, rules: Sequence[Rule], run: str, direction: str | None) -> list[str]:
        """Delete the files of a run that no rule keeps.

        A file whose size is no longer the recorded one has been replaced by another program, and stays. Deletions that
        fail give a warning, and are retried next time.

        Args:
            rules: The rules that decide which files are kept; all files if there are none.
            run: The run whose files are deleted.
            direction: The direction in which the score improves: "up", "down", or None if unknown.

        Returns:
            The names of the deleted files.
        """
        own = [record for record in self.records if rules and record.run == run]
        # The newest always stays, since the last hours of training may be lost without it.
        stays = kept(rules, own, direction) | {record.file for record in own[-1:]}
        before = len(self.records)
        deleted = []
        for record in own:
            if record.file in stays or not self._fits(record.file):
                continue
            try:
                unchanged = self._is_there(record.file) and self._size(record.file) == record.size
                if unchanged and self._delete(record.file):
                    deleted.append(record.file)
            except OSError as error:
                warn(f"'{self.path_of(record.file)}' could not be deleted ({error}); it will be tried again.")
                continue
            self.records.remove(record)
        if len(self.records) != before:
            self._write()
        return deleted

    def best(self, monitor: str, direction: str | None, besides: Collection[str] = ()) -> Record | None:
        """Return the record with the best score whose file is still what was saved.

        Args:
            monitor: The score's name.
            direction: "up" or "down", the direction in which it improves.
            besides: Files that aren't looked at.

        Returns:
            The record, or None if there is no such file; changed files give a warning.

        Raises:
            ValueError: If the files only have scores of other names.
        """
        records = [record for record in self.records if record.file not in besides]
        others = {record.monitor for record in records} - {monitor}
        if others and not any(record.monitor == monitor for record in records):
            raise ValueError(
                f"'{self.where}' has no score of `{monitor}`, but of {', '.join(f'`{name}`' for name in sorted(others))}. "
                "Give that as `monitor`, another file name, or `resume_best=False` to replace the files."
            )
        for record in by_score((record for record in records if record.monitor == monitor), direction):
            if self.is_intact(record):
                return record
            warn(
                f"'{self.path_of(record.file)}' is not the file that was saved with {monitor} {record.score:g}: its "
                "content has changed. Its score is not adopted."
            )
        return None

    def _take(self, record: Record) -> None:
        whole = replace(record, size=self._size(record.file), sha256=self._digest(record.file))
        self.records = [*(other for other in self.records if not self._is_same(other.file, record.file)), whole]
        self._announced = None

    def _is_same(self, one: str, other: str) -> bool:
        """Return whether two names are of one file, as names that differ in case alone are on disks of macOS and Windows."""
        if one == other:
            return True
        if one.casefold() != other.casefold():
            return False
        try:
            return os.path.samefile(self.folder / one, self.folder / other)
        except FileNotFoundError:
            return False

    def _settle(self) -> None:
        self.records = [record for record in self.records if self._is_there(record.file)]
        announced, self._announced = self._announced, None
        if announced is None or not self._is_there(announced.file):
            return
        before = next((record for record in self.records if record.file == announced.file), None)
        if before is None or not self.is_intact(before):
            self._take(announced)

    def is_intact(self, record: Record) -> bool:
        """Return whether a record's file is there and has the size and the digest that it was saved with."""
        file = record.file
        return self._is_there(file) and self._size(file) == record.size and self._digest(file) == record.sha256

    def _read(self, content: bytes) -> None:
        try:
            data = bounded_json(content) if len(content) <= _LONGEST else None
            if not isinstance(data, dict) or data.get("format") != FORMAT:
                found = data.get("format") if isinstance(data, dict) else None
                raise ValueError(f"its format is {found!r:.20}, and this oncue reads {FORMAT}")
            if not isinstance(data["files"], list) or len(data["files"]) > _MOST:
                raise ValueError(f"`files` must be a list of at most {_MOST}")
            self.records = [Record.from_json(item) for item in data["files"]]
            if len({record.file for record in self.records}) != len(self.records):
                raise ValueError("a file comes twice")
            self._announced = None if data["announced"] is None else Record.from_json(data["announced"])
        except (ValueError, KeyError, RecursionError) as error:
            raise ValueError(
                f"'{self.where}' can't be read as the manifest of saved files: {error}. Remove it to start over; the "
                "files that it lists stay."
            ) from None

    def _write(self) -> None:
        data: dict[str, Any] = {
            "format": FORMAT,
            "files": [record.as_json() for record in self.records],
            "announced": None if self._announced is None else self._announced.as_json(),
        }
        self._store(json.dumps(data, indent=1).encode("utf-8"))

    # The folder ----------------------------------------------------------------------------------------------------

    def _content(self) -> bytes | None:
        if self.folder.is_dir():
            sweep(self.folder, re.escape(self.path.name[:50]))
        require_file(self.path)
        if not self.path.exists():
            return None
        with self.path.open("rb") as file:
            return file.read(_LONGEST + 1)

    def _store(self, content: bytes) -> None:
        replace_file(self.path, content)

    def _is_there(self, file: str) -> bool:
        path = self.folder / file
        return path.is_file() or newest_state(path) is not None

    def _size(self, file: str) -> int:
        """Return how large a file is, or those in a folder together."""
        path = self.folder / file
        files = [path] if path.is_file() else [one for one in path.iterdir() if one.is_file()]
        return sum(one.stat().st_size for one in files)

    def _delete(self, file: str) -> bool:
        """Delete a file, or those of a save in a folder; return whether that was right."""
        path = self.folder / file
        # A parent folder may have become a link to somewhere else.
        if not path.resolve().is_relative_to(self.folder.resolve()):
            return False
        if path.is_file():
            path.unlink()
        else:
            # Nothing else in it, should there be something.
            Store(path).clear()
        return True

    def _digest(self, file: str) -> str:
        """Return the digest of a file; of a folder that of its main file, which names the others and no other save has."""
        path = self.folder / file
        path = path if path.is_file() else newest_state(path) or path
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()


class UrlManifest(Manifest):
    """A `Manifest` at a URL, of the files in its folder there.

    Args:
        url: The manifest's own.
        fits: As for `Manifest`.

    Example:
        >>> UrlManifest("memory://runs/m.oncue.json").records
        []
    """

    def __init__(self, url: str, fits: Callable[[str], bool] = lambda file: True) -> None:
        folder, _, self._name = url.rpartition("/")
        self._url, self._remote = folder, RemoteFolder(folder)
        super().__init__(self._name, fits)

    @property
    def where(self) -> str:
        """The manifest's URL."""
        return self.path_of(self._name)

    def file_of(self, path: str) -> str:
        """Return the name by which a file is recorded."""
        return path.removeprefix(f"{self._url}/")

    def path_of(self, file: str) -> str:
        """Return the URL of a recorded file."""
        return f"{self._url}/{file}"

    def _content(self) -> bytes | None:
        self._remote.sweep()
        if self._name not in self._remote.names():
            return None
        return self._remote.read(self._name)

    def _store(self, content: bytes) -> None:
        self._remote.write(self._name, content)

    def _is_there(self, file: str) -> bool:
        return self._remote.exists(file)

    def _size(self, file: str) -> int:
        return self._remote.size(file)

    def _delete(self, file: str) -> bool:
        self._remote.remove(file)
        return True

    def _digest(self, file: str) -> str:
        return self._remote.digest(file)

    def _is_same(self, one: str, other: str) -> bool:
        return one == other
