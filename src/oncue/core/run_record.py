"""RunRecord: a run as its file has it, `journal.jsonl`, a line of JSON for each decision, epoch and ending."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from oncue.core.account import Ending, explain
from oncue.core.files import is_alive, machine, require_file
from oncue.core.journal import Entry

FORMAT = 1
"""The version of the file's format."""
FILE = "journal.jsonl"
"""The name of the file in a run's folder."""
STATISTICS = ("mean", "std", "zeros", "min", "max")
"""What is noted of a weight: the mean, the standard deviation, the share of zeros, the least and the greatest number."""

_MOST_BYTES = 256 << 20
_MOST_VALUES = 6_000_000
"""Each value takes dozens of bytes, however few characters it has."""
_MOST_OF_WEIGHTS, _MOST_DECISIONS, _MOST_NAMES, _MOST_DAMAGED = 2_000_000, 50_000, 10_000, 10_000
_LONGEST_LINE = 1 << 20
_WEIGHTS_IN_A_LINE = 500
_HOW = ("forked", "finished", "asked", "interrupted", "preempted", "failed")
_decode = json.JSONDecoder().decode
_MOST_EPOCHS = 1 << 53
_OF_A_LINE = 4
"""A line takes as much time as so many values."""
_OF_WEIGHTS = b'{"line":"weights",'
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def line_of(what: str, fields: Mapping[str, Any]) -> bytes:
    r"""Return a line of the file: JSON that every reader takes, so that values which are not finite are words.

    Args:
        what: What the line is about: "begin", "decision", "epoch", "weights", "costs" or "end".
        fields: The rest; what JSON can't have is written as text.

    Example:
        >>> line_of("epoch", {"epoch": 0, "logs": {"loss": float("nan")}})
        b'{"line":"epoch","epoch":0,"logs":{"loss":"nan"}}\n'
    """
    plain = {"line": what, **{name: _plain(value) for name, value in fields.items()}}
    return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def document_of(content: Any) -> bytes:
    """Return a file of JSON, made as `line_of` makes a line, for readers of both kinds."""
    return json.dumps(_plain(content), indent=1, allow_nan=False, ensure_ascii=False).encode("utf-8") + b"\n"


def decision_of(entry: Entry) -> dict[str, Any]:
    """Return the fields of a decision's line, with its words: a reader needs no table of them."""
    return {**entry.plain(), "text": entry.text, "cited": entry.cited}


def weight_lines(epoch: int, found: Mapping[str, Sequence[float]]) -> Iterator[bytes]:
    """Yield the lines of the weights' statistics; of many weights several, as a line is read up to a length.

    Args:
        epoch: The index of the epoch after which they were so.
        found: By the weight's name, the values of `STATISTICS`.

    Example:
        >>> next(weight_lines(0, {"w": [0.5, 0.1, 0.0, 0.0, 1.0]}))
        b'{"line":"weights","epoch":0,"of":["mean","std","zeros","min","max"],"weights":{"w":[0.5,0.1,0.0,0.0,1.0]}}...'
    """
    names = list(found)
    for first in range(0, len(names), _WEIGHTS_IN_A_LINE):
        part = names[first : first + _WEIGHTS_IN_A_LINE]
        rows = {name: [float(f"{value:.6g}") for value in found[name]] for name in part}
        yield line_of("weights", {"epoch": epoch, "of": STATISTICS, "weights": rows})


def _plain(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Mapping) and depth < 8:
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and depth < 8:
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, int):
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else str(number)


@dataclass
class RunRecord:
    """What is known of a run from its file; of one that is still going on, up to now.

    Args:
        path: The file.
        epochs: The indices of the epochs that were finished.
        history: The logged values by name.
        logged_in: The epochs in which each name was logged.
        times: When each epoch ended, in seconds since 1970.
        weights: Of each weight, the epochs in which it was looked at, each with the values of `STATISTICS`.
        entries: The decisions.
        costs: Seconds by callback and hook.
        ending: How it ended; "running" while it goes on, "killed" where its process is gone without a word.
        seconds: How long it took.
        steps: A sentence on how the training steps ran.
        began: When it began, in seconds since 1970; None when not known.
        updated: When the last line was written.
        parts: How often it was begun or resumed.
        damaged: How many lines can't be read.
        left_out: How many statistics of weights and decisions aren't kept, because there are too many.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, FILE)
        ...     _ = path.write_bytes(line_of("epoch", {"epoch": 0, "seconds": 2.0, "logs": {"loss": 0.5}}))
        ...     print(RunRecord.read(path).explain().splitlines()[0])
        1 epoch in 2.0 s; the last one logged loss 0.5.
    """

    path: Path
    epochs: list[int] = field(default_factory=list)
    history: dict[str, list[Any]] = field(default_factory=dict)
    logged_in: dict[str, list[int]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    weights: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    costs: dict[str, dict[str, float]] = field(default_factory=dict)
    ending: Ending = field(default_factory=Ending)
    seconds: float = 0.0
    steps: str = ""
    began: float | None = None
    updated: float | None = None
    parts: int = 0
    damaged: int = 0
    left_out: int = 0

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunRecord:
        """Read a file; nothing in it is run, and what isn't of the expected kind is left out.

        A last line that is torn, as a kill leaves it, is left out too.

        Args:
            path: The file.

        Raises:
            OSError: When it can't be read.
            ValueError: When no line of it is that of a run, it is of a later version, or too large: more than 256 MB, 6 million
                values, or 10,000 names of logged values.
        """
        record = cls(Path(path))
        require_file(path)
        record._check_size("a run's journal")
        process: tuple[str, int] | None = None
        known = 0
        for fields in _lines(record):
            take = _TAKE.get(_text(fields.get("line")))
            if take is None or not take(record, fields):
                record._note_damage()
                continue
            known += 1
            if fields["line"] == "begin":
                process = _text(fields.get("machine")), _whole(fields.get("process")) or 0
        if not known and os.path.getsize(path):
            raise ValueError(f"'{path}' is no journal of a run: none of its lines is one of `JournalLogger`'s.")
        if record.ending.how == "running" and process is not None and process[0] == machine():
            if not is_alive(process[1]):
                last = record.epochs[-1] + 1 if record.epochs else 0
                record.ending = Ending("killed", epoch=last, planned=record.ending.planned)
        return record

    @classmethod
    def of_csv(cls, path: str | os.PathLike[str], separator: str | None = None) -> RunRecord:
        r"""Read the file of a `CSVLogger`, which has the logs of a run and nothing else.

        Args:
            path: The file.
            separator: The character between two values; detected if None (default).

        Raises:
            OSError: When it can't be read.
            ValueError: If the file is not a log of epochs.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     _ = Path(folder, "log.csv").write_text("epoch,loss\n0,0.5\n1,NA\n")
            ...     RunRecord.of_csv(Path(folder, "log.csv")).logged_in
            {'loss': [0]}
        """
        require_file(path)
        record = cls(Path(path), updated=os.path.getmtime(path))
        record._check_size("a log")
        try:
            with open(path, newline="", encoding="utf-8") as file:
                record._take_rows(file, separator)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"`{os.fspath(path)}` is not a log of epochs: {error}.") from None
        if not record.epochs:
            raise ValueError(
                f"`{os.fspath(path)}` is not a log of epochs: it needs a column 'epoch' and a row of values."
            )
        record.ending = Ending("unknown", "there is no journal of the run, which `RunFolder` and `JournalLogger` write")
        return record

    def explain(self) -> str:
        """Return the account of the run that `history.explain()` gives."""
        return (
            explain(self.epochs, self.history, self.entries, self.costs, self.ending, self.seconds, steps=self.steps)
            + self._said_of_the_file()
        )

    def _take_rows(self, file: TextIO, separator: str | None) -> None:
        header = file.readline(_LONGEST_LINE)
        file.seek(0)
        rows = filter(None, csv.reader(file, delimiter=separator or max(",\t;|", key=header.count)))
        names = next(rows, [])
        if "epoch" not in names:
            return
        place, values = names.index("epoch"), 0
        for index, row in enumerate(rows):
            values += len(row) + 1
            self._check_amount(values, "a log")
            number = _number(row[place]) if place < len(row) else None
            # Text, and what no run counts up to, stand for their places.
            epoch = int(number) if number is not None and abs(number) < _MOST_EPOCHS else index
            self.epochs.append(epoch)
            for name, cell in zip(names, row, strict=False):
                value = _number(cell)
                if name != "epoch" and value is not None:
                    self._add(name, epoch, value)

    def _said_of_the_file(self) -> str:
        text = f"\n{self.damaged} lines of '{self.path}' can't be read." if self.damaged else ""
        if self.left_out:
            text += f"\n{self.left_out:,} lines of '{self.path}' with decisions or weights are left out: there are too many."
        return text

    def _add(self, name: str, epoch: int, value: Any) -> None:
        if name not in self.history:
            if len(self.history) >= _MOST_NAMES:
                raise ValueError(f"'{self.path}' has more than {_MOST_NAMES:,} names of logged values.")
            self.history[name], self.logged_in[name] = [], []
        self.history[name].append(value)
        self.logged_in[name].append(epoch)

    def _check_size(self, what: str) -> None:
        size = os.path.getsize(self.path)
        if size > _MOST_BYTES:
            raise ValueError(f"'{self.path}' has {size} bytes, and {what} is read up to {_MOST_BYTES}.")

    def _note_damage(self) -> None:
        self.damaged += 1
        if self.damaged > _MOST_DAMAGED:
            raise ValueError(
                f"'{self.path}' is no journal of a run: more than {_MOST_DAMAGED:,} of its lines can't be read."
            )

    def _check_amount(self, values: int, what: str) -> None:
        if values > _MOST_VALUES:
            raise ValueError(f"'{self.path}' has more than {_MOST_VALUES:,} values, and {what} is read up to that.")


def _lines(record: RunRecord) -> Iterator[dict[str, Any]]:
    values = of_weights = 0
    with open(record.path, "rb") as file:
        while line := file.readline(_LONGEST_LINE):
            if not line.endswith(b"\n"):
                if len(line) < _LONGEST_LINE:
                    # Torn by a kill, or still being written.
                    return
                record.damaged += 1
                while line and not line.endswith(b"\n"):
                    line = file.readline(_LONGEST_LINE)
                continue
            amount = _OF_A_LINE + line.count(b",") + line.count(b"[") + line.count(b"{")
            if line.startswith(_OF_WEIGHTS):
                of_weights += amount
                if of_weights > _MOST_OF_WEIGHTS:
                    record.left_out += 1
                    continue
            else:
                values += amount
                record._check_amount(values, "a run's journal")
            try:
                fields = _decode(line.decode("utf-8"))
            except (ValueError, RecursionError):
                fields = None
            if isinstance(fields, dict):
                yield fields
            else:
                record._note_damage()


def _begin(record: RunRecord, fields: dict[str, Any]) -> bool:
    version = _whole(fields.get("format"))
    if version is None:
        return False
    if version > FORMAT:
        raise ValueError(f"'{record.path}' can't be read: its format is {version}, and this oncue reads {FORMAT}.")
    record.parts += 1
    record.ending = Ending(planned=_whole(fields.get("epochs")))
    if record.began is None:
        record.began = _moment(fields.get("time"))
    record.updated = _moment(fields.get("time"))
    return True


def _decision(record: RunRecord, fields: dict[str, Any]) -> bool:
    text, when = fields.get("text"), _moment(fields.get("time"))
    if not isinstance(text, str) or when is None:
        return False
    if len(record.entries) >= _MOST_DECISIONS:
        record.left_out += 1
        return True
    data = fields.get("data")
    kept = {name: _value_of(name, value) for name, value in data.items()} if isinstance(data, dict) else {}
    kept = {name: value for name, value in kept.items() if value is not None or name not in _KINDS}
    words = {"line": text, "cited": _text(fields.get("cited"), text)}
    entry = Entry(
        when,
        _whole(fields.get("epoch")),
        _whole(fields.get("batch")),
        _text(fields.get("callback"), "?"),
        kind=_text(fields.get("kind"), "note"),
        data={**kept, **words},
        what="earlier_version",
    )
    record.entries.append(entry)
    record.updated = when
    return True


def _epoch(record: RunRecord, fields: dict[str, Any]) -> bool:
    epoch, logs = _whole(fields.get("epoch")), fields.get("logs")
    if epoch is None or not isinstance(logs, dict):
        return False
    record.epochs.append(epoch)
    for name, value in logs.items():
        record._add(name, epoch, _logged(value))
    record.seconds = _finite(fields.get("seconds")) or record.seconds
    record.updated = _moment(fields.get("time")) or record.updated
    record.times.append(record.updated or 0.0)
    return True


def _weights(record: RunRecord, fields: dict[str, Any]) -> bool:
    epoch, weights = _whole(fields.get("epoch")), fields.get("weights")
    if epoch is None or not isinstance(weights, dict) or fields.get("of") != list(STATISTICS):
        return False
    for name, values in weights.items():
        numbers = [_real(value) for value in values] if isinstance(values, list) else []
        known = [one for one in numbers if one is not None]
        if len(known) != len(STATISTICS) or len(numbers) != len(known):
            return False
        record.weights.setdefault(name, {})[epoch] = known
    return True


def _costs(record: RunRecord, fields: dict[str, Any]) -> bool:
    costs = fields.get("costs")
    if not isinstance(costs, dict):
        return False
    record.costs = {
        name: {hook: found for hook, seconds in hooks.items() if (found := _finite(seconds)) is not None}
        for name, hooks in costs.items()
        if isinstance(hooks, dict)
    }
    return True


def _end(record: RunRecord, fields: dict[str, Any]) -> bool:
    how = fields.get("how")
    if how not in _HOW:
        return False
    epoch, planned = _whole(fields.get("epoch")), _whole(fields.get("planned"))
    planned = record.ending.planned if planned is None else planned
    record.ending = Ending(how, _text(fields.get("error")), epoch, planned, fields.get("averaged") is True)
    record.seconds = _finite(fields.get("seconds")) or record.seconds
    record.steps = _text(fields.get("steps"))
    record.updated = _moment(fields.get("time")) or record.updated
    return _costs(record, fields)


_TAKE = {"begin": _begin, "decision": _decision, "epoch": _epoch, "weights": _weights, "costs": _costs, "end": _end}
_KINDS: dict[str, Any] = {"path": str, "epoch": int, "before": float, "after": float, "monitor": str, "optimizer": str}
"""What the account reads of a decision's data, and must be what it says."""


def _value_of(name: str, value: Any) -> Any:
    kind = _KINDS.get(name)
    if kind is float:
        found = number_of(value)
        return found if isinstance(found, (int, float)) else None
    if kind is int:
        return _whole(value)
    return value if kind is None or isinstance(value, kind) else None


def number_of(value: Any) -> Any:
    """Return a value of the file as it was logged: the words for what is not finite as numbers, all others as they are.

    Example:
        >>> number_of("inf"), number_of(0.5)
        (inf, 0.5)
    """
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _logged(value: Any) -> Any:
    """Return a logged value; a whole number that no float holds, which no metric has, as text."""
    huge = isinstance(value, int) and _finite(value) is None and not isinstance(value, bool)
    return str(value)[:100] if huge else number_of(value)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST_EPOCHS else None


def _finite(value: Any) -> float | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # JSON can have integers of any length.
    return float(value) if number and abs(value) < 1e300 else None


def _real(value: Any) -> float | None:
    """Return a number, which may be one that isn't finite, or None."""
    number = number_of(value)
    return number if isinstance(number, float) else _finite(number)


def _moment(value: Any) -> float | None:
    """Return a time in seconds since 1970, or None; Windows' calendar ends with the year 3000."""
    seconds = _finite(value)
    return seconds if seconds is not None and 0 <= seconds < 3.25e10 else None


def _text(value: Any, instead: str = "") -> str:
    return value if isinstance(value, str) else instead
