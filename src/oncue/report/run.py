"""Run: what is known of a run from its folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oncue.core.bounded_json import bounded_json
from oncue.core.files import require_file
from oncue.core.run_record import FILE, RunRecord

_MOST_BYTES = 16 << 20
_DOCUMENTS = ("config", "environment", "model")


@dataclass
class Run:
    r"""A run's record, and the documents beside it.

    Args:
        path: The folder, or the file, that was named.
        record: What happened.
        documents: The content of `config.json`, `environment.json` and `model.json`, where they are there.
        summary: The content of `summary.txt`.
        files: The other files of the folder, by name, with their sizes in bytes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "log.csv").write_text("epoch,loss\n0,0.5\n")
        ...     find_run(folder).record.history
        {'loss': [0.5]}
    """

    path: Path
    record: RunRecord
    documents: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    files: dict[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the run is called: its folder's name."""
        return (self.path if self.path.is_dir() else self.path.absolute().parent).resolve().name or str(self.path)


def find_run(path: str | os.PathLike[str]) -> Run:
    """Return the run that is in a folder, or whose journal or log a file is.

    Nothing in the files is run; what can't be read is said.

    Args:
        path: A folder with a `journal.jsonl`, or else with one CSV file of a `CSVLogger`; or either of these files.

    Raises:
        OSError: When it can't be read.
        ValueError: When there is no run, or more than one; for a link that leads out of the folder, as what is there could
            get into a page that is given to others.
    """
    place = Path(path)
    if not place.is_dir():
        if not place.exists():
            raise FileNotFoundError(f"There is no file or folder '{place}'.")
        require_file(place)
        record = RunRecord.of_csv(place) if place.suffix.lower() == ".csv" else RunRecord.read(place)
        return Run(place, record)
    for name in (FILE, *(f"{name}.json" for name in _DOCUMENTS), "summary.txt"):
        _refuse_link_out(place / name, place)
    run = Run(place, _record_in(place))
    for name in _DOCUMENTS:
        content = _content(place / f"{name}.json")
        if content:
            try:
                run.documents[name] = bounded_json(content)
            except ValueError as error:
                raise ValueError(f"'{place / name}.json' can't be read: {error}. Remove it to go on without.") from None
    run.summary = _content(place / "summary.txt").decode("utf-8", errors="replace")
    with os.scandir(place) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                run.files[entry.name] = entry.stat().st_size
    return run


def _record_in(folder: Path) -> RunRecord:
    journal = folder / FILE
    if journal.exists():
        return RunRecord.read(journal)
    logs = {}
    for path in sorted(folder.glob("*.csv")):
        if path.is_file():
            _refuse_link_out(path, folder)
            try:
                logs[path.name] = RunRecord.of_csv(path)
            except ValueError:
                # A table of another kind.
                continue
    if not logs:
        raise ValueError(
            f"There is no run in '{folder}': it has neither a {FILE}, as `RunFolder` writes it, nor the CSV file of a "
            "`CSVLogger`."
        )
    if len(logs) > 1:
        raise ValueError(f"There are several runs in '{folder}': {', '.join(logs)}. Name one of the files.")
    return next(iter(logs.values()))


def _refuse_link_out(path: Path, folder: Path) -> None:
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"'{path}' is a link that leads out of the run's folder, to '{path.resolve()}'. Remove it.")


def _content(path: Path) -> bytes:
    if not path.exists():
        return b""
    require_file(path)
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"'{path}' has {path.stat().st_size} bytes, and is read up to {_MOST_BYTES}.")
    return path.read_bytes()
