"""Record: the metadata of one saved file."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any


@dataclass(frozen=True)
class Record:
    """The metadata of a file that a run saved.

    Args:
        file: Its path, from the folder of the manifest, with `/` between parts.
        size: Its size in bytes.
        sha256: The digest of its content, in hexadecimal.
        epoch: The epoch in which it was saved, counted from 1 as in file names.
        step: Batches that the run had trained by then; None if unknown.
        score: The monitored value; None if there was none.
        monitor: The value's name.
        run: The run that saved it.

    Example:
        >>> Record("m_01.keras", size=10, epoch=1, score=0.5, monitor="val_loss").file
        'm_01.keras'
    """

    file: str
    size: int = 0
    sha256: str = ""
    epoch: int = 0
    step: int | None = None
    score: float | None = None
    monitor: str = ""
    run: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data; a score that isn't finite becomes None, which JSON can express."""
        finite = self.score is not None and math.isfinite(self.score)
        return {**asdict(self), "score": self.score if finite else None}

    @classmethod
    def from_json(cls, data: Any) -> Record:
        """Return the record that `as_json` described.

        Raises:
            ValueError: For other fields, values of another type, and a path that leads out of its folder.
        """
        if not isinstance(data, dict) or set(data) != set(cls.__dataclass_fields__):
            raise ValueError(f"a record must have the fields {', '.join(cls.__dataclass_fields__)}; got {data!r}")
        for names, kind in ((("file", "sha256", "monitor", "run"), str), (("size", "epoch"), int)):
            for name in names:
                if not isinstance(data[name], kind):
                    raise ValueError(f"`{name}` of a record must be of type {kind.__name__}; got {data[name]!r}")
        if not isinstance(data["step"], int | None) or not isinstance(data["score"], int | float | None):
            raise ValueError(f"`step` and `score` of a record must be numbers or null; got {data!r}")
        check_inside(data["file"])
        return cls(**data)


def check_inside(file: str) -> None:
    """Refuse a path that leads out of its folder.

    Raises:
        ValueError: For an absolute path, one with `..` or a drive, and an empty one.
    """
    path = PurePosixPath(file)
    windows = PureWindowsPath(file)
    if not path.parts or path.is_absolute() or windows.drive or windows.root or ".." in (*path.parts, *windows.parts):
        raise ValueError(f"a record's file must be in the folder of its manifest; got {os.fspath(file)!r}")
