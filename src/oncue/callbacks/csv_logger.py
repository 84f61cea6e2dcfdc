"""CSVLogger: the logs of every epoch as a row of a CSV file."""

from __future__ import annotations

import csv
import io
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.files import flush, has_its_name, reason_of, replace_file, require_file, sweep
from oncue.core.growing import GrowingText
from oncue.core.warn import warn

if TYPE_CHECKING:
    from oncue.checkpoints.lock import NameLock

_MISSING = "NA"
# Text that begins so is computed by spreadsheets.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# So much of the end of what was read shows that a file was only appended to.
_KNOWN = 4096


@builtin
class CSVLogger(Callback):
    """Writes the logs of every epoch to a CSV file, a row each, as soon as the epoch has ended.

    A row has what the callbacks before it in the list put into the logs. Those of oncue, such as `ReduceLROnPlateau`, may
    also stand behind it, as long as no callback of yours is between them. A name that appears in a later epoch gives a new
    column: the file is rewritten, completely or not at all. A value that an epoch doesn't have is `NA`. As in Keras, a run
    without validation has empty `val_` columns.

    Args:
        filename: The file; its folder is made.
        separator: The character between two values.
        append: Append to an existing file, instead of replacing it. Columns are matched by their names. The torn last row of a
            CSVLogger whose run was killed is removed with a warning; of a file that isn't written as it writes, every
            row stays.

    Raises:
        ValueError: For a separator that isn't a single character; before the first step, for a file that can't be appended to.
        RuntimeError: Before the first step, when a run of another process writes to the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     logger = CSVLogger(os.path.join(folder, "log.csv"))
        ...     logger.on_train_begin()
        ...     logger.on_epoch_end(0, {"loss": 0.5, "val_loss": 0.75})
        ...     logger.on_train_end()
        ...     print(Path(folder, "log.csv").read_text())
        epoch,loss,val_loss
        0,0.5,0.75
        <BLANKLINE>
    """

    makes_way = True
    main_process_only = True
    state_fields = ("text",)

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        super().__init__()
        if not isinstance(separator, str) or len(separator) != 1 or separator in '"\r\n':
            raise ValueError(f"`separator` of CSVLogger must be one character such as ',' or '\\t'; got {separator!r}.")
        self.filename = os.fspath(filename)
        self.sep = separator
        self.append = append
        self.keys: list[str] | None = None
        self._file: TextIO | None = None
        self._read: tuple[tuple[int, int, int], GrowingText] | None = None
        self._end = b""
        self._lock: NameLock | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no open file.
        return {**super().__getstate__(), "_file": None, "_read": None, "_end": b"", "_lock": None}

    def check_saved(self, state: Mapping[str, Any]) -> None:
        """Refuse a state that has no log of epochs.

        Args:
            state: A saved state.

        Raises:
            ValueError: For such a state.
        """
        text = state["text"]
        rows = self._rows(text) if isinstance(text, str) else None
        if rows is None or (rows and rows[0][:1] != ["epoch"]):
            raise ValueError(f"The state of CSVLogger must have the rows of epochs as text; got {str(text)[:100]!r}.")

    def left_in_fork(self) -> tuple[str, ...]:
        """Return what a fork begins without: it adds its rows to a file that others may have added to."""
        return ("text",) if self.append else ()

    @property
    def text(self) -> GrowingText:
        """What is in the file: a resumed run continues it, whatever was written after its state was saved."""
        try:
            found = os.stat(self.filename)
        except FileNotFoundError:
            return GrowingText()
        # States are saved more often than rows are written, and rows are appended.
        now = (found.st_size, found.st_mtime_ns, found.st_ino)
        if self._read is None or self._read[0] != now:
            text = self._appended(found.st_ino)
            if text is None:
                content = Path(self.filename).read_bytes()
                text, self._end = GrowingText(content.decode("utf-8")), content[-_KNOWN:]
            self._read = now, text
        return self._read[1]

    @text.setter
    def text(self, value: GrowingText | str) -> None:
        value = str(value)
        self._shut()
        replace_file(self.filename, value.encode("utf-8"))
        rows = self._rows(value)
        self.keys = list(map(_bare, rows[0][1:])) if rows else None
        self._file = open(self.filename, "a", newline="", encoding="utf-8")  # closed by close()

    def _appended(self, inode: int) -> GrowingText | None:
        """Return what was read, with what was appended to it since; None if that isn't all that has happened."""
        if self._read is None or self._read[0][2] != inode or not self._end:
            return None
        with open(self.filename, "rb") as file:
            file.seek(self._read[0][0] - len(self._end))
            content = file.read()
        if not content.startswith(self._end):
            return None
        self._read[1].append(content[len(self._end) :].decode("utf-8"))
        self._end = content[-_KNOWN:]
        return self._read[1]

    def mark_files(self) -> dict[str, Any] | None:
        """Return what the file that is appended to has before this run."""
        if not self.append:
            return None
        path = Path(self.filename)
        require_file(path)
        # A torn row is removed when the file is opened.
        whole = self._whole(_text(path.read_bytes() if path.exists() else b""))
        content, rows = whole.encode("utf-8"), self._rows(whole)
        return {
            "file": os.path.abspath(self.filename),
            "exists": path.exists(),
            "size": len(content),
            "crc32": zlib.crc32(content),
            "rows": len(rows),
            "columns": len(rows[0]) if rows else 0,
        }

    def take_back(self, mark: dict[str, Any]) -> None:
        """Remove the rows of a run that begins anew; those before them stay as they were.

        Args:
            mark: What `mark_files` returned when that run began.
        """
        path = Path(self.filename)
        if mark["file"] != os.path.abspath(self.filename) or not path.exists():
            return
        self.close()
        content = path.read_bytes()
        kept = content[: mark["size"]]
        rows = self._rows(self._whole(_text(content)))
        if zlib.crc32(kept) != mark["crc32"]:
            # A new column has been written into the older rows too.
            lines = [self._line(row[: mark["columns"]]) for row in rows[: mark["rows"]]]
            kept = "".join(lines).encode("utf-8")
        if kept == content:
            return
        # The first row of a file that was empty has the names.
        added = [row[0] for row in rows[max(mark["rows"], 1) :]]
        if zlib.crc32(kept) != mark["crc32"] or not _follow_each_other(added):
            warn(
                f"`{self.filename}` has changed since the run began that was interrupted before its first backup: the rows "
                "which that run wrote can't be told from others, and stay."
            )
        elif mark["exists"]:
            replace_file(path, kept)
        else:
            path.unlink()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open the file; a path that can't be written is reported now.

        Raises:
            OSError: When the file can't be opened.
            ValueError: When the file to append to is no log of epochs.
            RuntimeError: When a run of another process writes to it.
        """
        from oncue.checkpoints.lock import alone_with

        self.close()
        # What a run that was killed left of a rewriting.
        path = Path(self.filename)
        with suppress(OSError):
            # Where it can't be made, opening the file says why.
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent.is_dir():
            sweep(path.parent, re.escape(path.name[:50]))
        require_file(path)
        self._lock = alone_with(path, "CSVLogger")
        try:
            self.keys, unended = self._read_header() if self.append else (None, False)
            self._file = open(
                self.filename, "a" if self.append else "w", newline="", encoding="utf-8"
            )  # closed by close()
            if unended:
                # The last line of another program's file, which many of them don't end.
                self._file.write("\r\n")
        except OSError as error:
            why = f"CSVLogger can't write to its `filename` ({reason_of(error, path)}). Give one that can be written to"
            raise type(error)(error.errno, why, self.filename) from None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the epoch's row."""
        logs = dict(logs or {})
        if self.keys is None:
            self.keys = _columns(logs)
            self._write_line(["epoch", *map(_plain, self.keys)])
        new = sorted(name for name in logs if name not in self.keys)
        if new:
            self._widen(new)
        self._write_line([epoch, *(_cell(logs.get(name, _MISSING)) for name in self.keys)])

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file, whose rows have reached the disk then, and let other runs write to it."""
        try:
            self._shut()
        finally:
            lock, self._lock = self._lock, None
            if lock is not None:
                lock.release()

    def after_close(self) -> None:
        """Close the file, also when a second Ctrl-C has ended `close` too early."""
        self.close()

    def _shut(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with file:
                file.flush()
                flush(file.fileno())
                lost = not has_its_name(file, self.filename)
            if lost:
                warn(f"`{self.filename}` was removed or replaced during the run; rows that CSVLogger wrote are lost.")

    def _write_line(self, cells: Iterable[Any]) -> None:
        if self._file is None:
            raise ValueError("CSVLogger has no open file: `on_epoch_end` was called before `on_train_begin`.")
        # One write of a whole line: a kill leaves it there or not.
        self._file.write(self._line(cells))
        self._file.flush()

    def _line(self, cells: Iterable[Any]) -> str:
        buffer = io.StringIO(newline="")
        csv.writer(buffer, delimiter=self.sep).writerow(cells)
        return buffer.getvalue()

    def _rows(self, text: str) -> list[list[str]]:
        """Return the rows of a CSV file, without empty lines.

        Raises:
            ValueError: For a text that can't be read so.
        """
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.sep, strict=True)
        try:
            return [row for row in reader if row]
        except csv.Error as error:
            raise ValueError(
                f"`{self.filename}` can't be read as CSV, so nothing is appended to it: line {reader.line_num}: {error}. Mend "
                "it, give another `filename`, or `append=False` to replace it."
            ) from None

    def _whole(self, text: str) -> str:
        """Return a text without the torn row at its end, where it is one that a CSVLogger has written; else all of it."""
        end = 0
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=self.sep)
        try:
            for row in rows:
                line = self._line(row)
                if not text.startswith(line, end):
                    break
                end += len(line)
            # A row that others follow is whole, and so another program's.
            torn = next(rows, None) is None and (not text.endswith(("\r", "\n")) or self._is_open(text[end:]))
            return text[:end] if torn else text
        except csv.Error:
            return text

    def _is_open(self, text: str) -> bool:
        """Return whether a text ends within quotation marks."""

        def read(end: str) -> list[list[str]]:
            return list(csv.reader(io.StringIO(text + end, newline=""), delimiter=self.sep, strict=True))

        try:
            read("")
        except csv.Error:
            return bool(read('"'))
        return False

    def _widen(self, new: list[str]) -> None:
        assert self.keys is not None
        self._shut()
        rows = self._rows(Path(self.filename).read_bytes().decode("utf-8"))
        self.keys += new
        lines = [self._line(["epoch", *map(_plain, self.keys)])]
        lines += [self._line(row + [_MISSING] * (len(self.keys) + 1 - len(row))) for row in rows[1:]]
        replace_file(self.filename, "".join(lines).encode("utf-8"))
        self._file = open(self.filename, "a", newline="", encoding="utf-8")  # closed by close()

    def _read_header(self) -> tuple[list[str] | None, bool]:
        """Return the names in the file, and whether its last line still has to be ended."""
        path = Path(self.filename)
        if not path.exists() or not path.stat().st_size:
            return None, False
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"`{self.filename}` is no CSV file in UTF-8, so nothing is appended to it: {error}."
            ) from None
        whole = self._whole(text)
        rows = self._rows(whole)
        if rows and rows[0][:1] != ["epoch"]:
            raise ValueError(
                f"`{self.filename}` is no log that CSVLogger(separator={self.sep!r}) can append to: its first column is "
                f"{rows[0][0] if rows[0] else ''!r}, not 'epoch'. Give another `filename`, or `append=False` to replace it."
            )
        if whole != text:
            warn(f"`{self.filename}` ended in a torn row, {text[len(whole) :]!r}, which was removed.")
            replace_file(path, whole.encode("utf-8"))
        return (list(map(_bare, rows[0][1:])) if rows else None), bool(whole) and not whole.endswith(("\r", "\n"))


def _columns(logs: dict[str, Any]) -> list[str]:
    names = sorted(logs)
    if not any(name.startswith("val_") for name in names):
        names += [f"val_{name}" for name in names]
    return names


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return _plain(value)
    if getattr(value, "ndim", None) == 0 or not isinstance(value, Iterable):
        return value
    return f'"[{", ".join(map(str, value))}]"'


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _bare(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def _text(content: bytes) -> str:
    # What is no text was not written here; it is refused when the file is opened.
    return content.decode("utf-8", errors="replace")


def _follow_each_other(epochs: list[str]) -> bool:
    numbers = [int(epoch) if epoch.isdigit() else -1 for epoch in epochs]
    return -1 not in numbers and numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
