"""ScoreNote: the score that a checkpoint was saved with, kept in the file itself, where no format minds it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass

from oncue.core.bounded_json import bounded_json

MARK = b"\noncue-score:"
"""What stands before a note at the end of a file."""
KEY = "oncue_score"
"""The name of a note in the metadata of a safetensors file."""

_END_OF_FILE = 4096
_LONGEST_HEADER = 16_000_000


@dataclass(frozen=True)
class ScoreNote:
    """What a file was the best by.

    Args:
        monitor: The name of the value.
        direction: "up" or "down", the way in which it gets better.
        score: The value.

    Example:
        >>> ScoreNote("val_loss", "down", 0.5).as_text()
        '{"monitor": "val_loss", "direction": "down", "score": 0.5}'
    """

    monitor: str
    direction: str | None
    score: float

    @property
    def what(self) -> str:
        """What it is the best by, in words."""
        mode = {"up": "max", "down": "min"}.get(self.direction or "", "auto")
        return f"`{self.monitor}` with mode='{mode}'"

    def as_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))


def ending(note: str | None) -> bytes:
    r"""Return a note as the end of a file; nothing for None.

    HDF5 reads nothing after its content, and a zip archive may end in a comment.

    Example:
        >>> ending("{}"), ending(None)
        (b'\noncue-score:{}', b'')
    """
    return b"" if note is None else MARK + note.encode("ascii")


def read_note(path: str | os.PathLike[str]) -> ScoreNote | None:
    """Return the note in a file; None when it has none.

    Args:
        path: A file in any format that oncue saves models or weights in.

    Raises:
        OSError: When it can't be read.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(b"weights" + ending(ScoreNote("val_loss", "down", 0.5).as_text()))
        ...     file.flush()
        ...     read_note(file.name).score
        0.5
    """
    if os.path.isdir(path):
        text: str | bytes | None = _in_folder(path)
    else:
        text = _in_header(path) if os.fspath(path).endswith(".safetensors") else _at_end(path)
    try:
        data = json.loads(text or "null")
        note = ScoreNote(**data) if isinstance(data, dict) else None
    except (ValueError, TypeError, RecursionError):
        return None
    if note is None or not isinstance(note.monitor, str) or note.direction not in ("up", "down", None):
        return None
    number = isinstance(note.score, (int, float)) and not isinstance(note.score, bool) and math.isfinite(note.score)
    return note if number else None


def _in_folder(path: str | os.PathLike[str]) -> str | None:
    from oncue.checkpoints.state_file import read_state
    from oncue.checkpoints.store import newest_state

    newest = newest_state(path)
    try:
        data = None if newest is None else read_state(newest)[0]
        note = None if data is None else data["parts"]["note"]
    except (ValueError, KeyError, TypeError):
        return None
    return note if isinstance(note, str) else None


def _at_end(path: str | os.PathLike[str]) -> bytes | None:
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _END_OF_FILE))
        _, mark, note = file.read(_END_OF_FILE).rpartition(MARK)
    # A checksum may follow.
    return note.split(b"\n", 1)[0] if mark else None


def _in_header(path: str | os.PathLike[str]) -> str | None:
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length <= _LONGEST_HEADER else b""
    try:
        metadata = bounded_json(header).get("__metadata__", {})
        note = metadata.get(KEY)
    except (ValueError, AttributeError, RecursionError):
        return None
    return note if isinstance(note, str) else None
