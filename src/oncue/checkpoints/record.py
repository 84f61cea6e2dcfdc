"""Record: the metadata of one saved file."""

from __future__ import annotations

import math
import re
import sys
from dataclasses import asdict, dataclass
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
        if not isinstance(data, dict) or data.keys() != cls.__dataclass_fields__.keys():
            raise ValueError(
                f"a record must have the fields {', '.join(cls.__dataclass_fields__)}; got {str(data)[:200]}"
            )
        for name, kind, may_be_none in _KINDS:
            value: Any = data[name]
            if type(value) is kind and (not isinstance(value, int) or 0 <= value < _MOST):
                continue
            if value is None and may_be_none:
                continue
            what = "text" if kind is str else "a whole number from 0 on"
            raise ValueError(f"`{name}` of a record must be {what}; got {str(value)[:100]!r}")
        score = data["score"]
        if score is not None:
            # Whole numbers may be larger than any float.
            if type(score) not in (int, float) or not -_MOST_FLOAT <= score <= _MOST_FLOAT:
                raise ValueError(f"`score` of a record must be a number or null; got {str(score)[:100]!r}")
            data = {**data, "score": float(score)}
        check_inside(data["file"])
        return cls(**data)


_MOST, _MOST_FLOAT = 1 << 62, sys.float_info.max
_KINDS = (
    ("file", str, False),
    ("size", int, False),
    ("sha256", str, False),
    ("epoch", int, False),
    ("step", int, True),
    ("monitor", str, False),
    ("run", str, False),
)
# Whatever a file system, or a terminal, takes for something else than a part of a name.
_ODD = re.compile("[\x00-\x1f\x7f-\x9f\\\\]|^[A-Za-z]:")


def check_inside(file: str) -> None:
    """Refuse a path that leads out of its folder.

    Raises:
        ValueError: For an absolute path, one with `.`, `..`, nothing or control characters as a part, or a drive.
    """
    if _ODD.search(file) or any(part in ("", ".", "..") for part in file.split("/")):
        raise ValueError(f"a record's file must be in the folder of its manifest; got {file[:200]!r}")
