"""JournalLogger: the account of a run, written to a file as it happens."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from oncue.callbacks.brings_parts import BringsParts
from oncue.callbacks.callback import Callback
from oncue.core.account import Ending
from oncue.core.builtin import builtin
from oncue.core.costs import added
from oncue.core.files import flush, has_its_name, machine, reason_of, require_file, try_beside
from oncue.core.journal import Entry
from oncue.core.numbers import whole
from oncue.core.protocols import averages_weights, step_account_of, was_stopped
from oncue.core.run_record import FORMAT, decision_of, line_of, weight_lines
from oncue.core.warn import warn

if TYPE_CHECKING:
    from oncue.checkpoints.lock import NameLock
    from oncue.named_weights import Weight

_FLUSHED_EVERY = 30.0
_COSTS_EVERY = 10.0
_LONGEST_TAIL = 1 << 16


@builtin
class JournalLogger(Callback):
    """Writes what `history.explain()` tells to a file, a line of JSON at a time, as soon as it happens.

    Every decision of a callback is a line, and every epoch with its logs; the last line says how the run ended, and what
    callbacks cost. `oncue explain`, `oncue report` and `oncue tail` read the file, while the run goes on too. A kill leaves
    whole lines, and at most a torn last one, which readers leave out. In a run that is resumed from a backup the file goes on
    where that was saved. A run that starts from scratch replaces the file.

    Args:
        filename: The file, usually `journal.jsonl` beside the run's other files; its folder is made.
        weights_freq: Every so many epochs a line says of each weight the mean, the standard deviation, the share of zeros,
            the least and the greatest number, computed on its device; 0 (default) for never.

    Raises:
        ValueError: When `weights_freq` is no number of epochs.
        OSError: Before the first step, when the file can't be written.
        RuntimeError: Before the first step, when a run of another process writes it.

    Example:
        >>> import tempfile
        >>> from oncue.callbacks import CallbackList
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "journal.jsonl")
        ...     callbacks = CallbackList([JournalLogger(path)])
        ...     with callbacks.run():
        ...         callbacks.on_train_begin()
        ...         callbacks.on_epoch_end(0, {"loss": 0.5})
        ...         callbacks.on_train_end()
        ...     [line.split(b",")[0] for line in path.read_bytes().splitlines()]
        [b'{"line":"begin"', b'{"line":"epoch"', b'{"line":"end"']
    """

    makes_way = True
    main_process_only = True
    state_fields = ("written", "earlier")

    def __init__(self, filename: str | os.PathLike[str], weights_freq: int = 0) -> None:
        super().__init__()
        self.filename = os.fspath(filename)
        self.weights_freq = whole("JournalLogger", "weights_freq", weights_freq)
        self._file: BinaryIO | None = None
        self._lock: NameLock | None = None
        self._reset()

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no open file.
        return {**super().__getstate__(), "_file": None, "_lock": None}

    def _reset(self) -> None:
        # What has reached the disk, and what was written since.
        self._size = self._checksum = 0
        self._tail = b""
        self._flushed = self._told_costs = time.monotonic()
        # Where this process began to write.
        self._own_start: int | None = None
        self._ending: Ending | None = None
        self._earlier: dict[str, Any] = {"seconds": 0.0, "costs": {}}

    # State --------------------------------------------------------------------------------------------------------

    @property
    def written(self) -> dict[str, Any]:
        """What is in the file: a resumed run continues it, whatever was written after its state was saved."""
        return {"size": self._size, "crc32": self._checksum, "tail": self._tail.decode("ascii")}

    @written.setter
    def written(self, value: dict[str, Any]) -> None:
        size, tail = value["size"], value["tail"].encode("ascii")
        self._shut()
        path = Path(self.filename)
        path.parent.mkdir(parents=True, exist_ok=True)
        require_file(path)
        file = open(path, "r+b" if path.exists() else "x+b", buffering=0)  # closed by close()
        self._file = file
        if zlib.crc32(file.read(size)) != value["crc32"] or file.tell() != size:
            warn(
                f"`{self.filename}` isn't what the run that is resumed had written. It is begun anew, with the decisions that "
                "the backup has and without the epochs before it."
            )
            file.seek(0)
            file.truncate()
            self._size, self._checksum, self._tail, self._own_start = 0, 0, b"", None
            return
        file.truncate()
        self._size, self._checksum, self._tail = size, value["crc32"], b""
        if self._own_start is not None and self._own_start >= size + len(tail):
            self._own_start = None
        self._put(tail)

    @property
    def earlier(self) -> dict[str, Any]:
        """How long the run took up to now, and what its callbacks cost."""
        return {"seconds": self._seconds(), "costs": self._costs()}

    @earlier.setter
    def earlier(self, value: dict[str, Any]) -> None:
        if self._run is not None and self._run.progress.epoch is None:
            # Going back to an earlier state of the same run doesn't turn back the clock.
            self._earlier = value

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it needs of the model."""
        return ("numbers",) if self.weights_freq else ()

    def stand_in(self) -> BringsParts | None:
        """Return what other processes run in its place where each has a part of the weights."""
        return BringsParts(self._bring) if self.weights_freq else None

    def _bring(self, model: Any, epoch: int) -> None:
        if epoch % self.weights_freq == 0:
            from oncue.named_weights import statistics_of, weights_of

            statistics_of(weights_of(model, "`weights_freq`"))

    # Hooks --------------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Prepare to write; a path that can't be written is reported now, and what is there stays until the first epoch.

        Raises:
            OSError: When it can't be.
            TypeError: When the weights of the model can't be looked at, and `weights_freq` asks for that.
            RuntimeError: When a run of another process writes to the file.
        """
        from oncue.checkpoints.lock import alone_with

        self._shut()
        self._let_go()
        self._reset()
        path = Path(self.filename)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            require_file(path)
            try_beside(path)
            self._lock = alone_with(path, "JournalLogger")
            open(path, "ab").close()
        except OSError as error:
            why = f"JournalLogger can't write to its `filename` ({reason_of(error, path)}). Give one that can be written to"
            raise type(error)(error.errno, why, self.filename) from None
        if self.weights_freq:
            self._weights()
        run = self._run
        if run is not None:
            run.journal.readers.append(self._decided_by_one)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Begin the file, unless a run that is resumed has gone on with the one that is there."""
        self._ready()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the epoch's line, and now and then what callbacks have cost."""
        now = time.monotonic()
        if now - self._told_costs > _COSTS_EVERY:
            self._told_costs = now
            self._write("costs", costs=self._costs())
        self._write("epoch", epoch=epoch, time=time.time(), seconds=self._seconds(), logs=dict(logs or {}))
        if self.weights_freq and epoch % self.weights_freq == 0:
            from oncue.named_weights import statistics_of

            for line in weight_lines(epoch, statistics_of(self._weights())):
                self._put(line)
        if now - self._flushed > _FLUSHED_EVERY or len(self._tail) > _LONGEST_TAIL:
            self._flush()

    def _weights(self) -> list[Weight]:
        from oncue.named_weights import weights_of

        return weights_of(self.model, "`weights_freq`")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Note that the run finished, or was asked to stop."""
        planned = (self.params or {}).get("epochs")
        self._ending = Ending(
            "asked" if was_stopped(self.model) else "finished",
            planned=planned,
            averaged=averages_weights(self.model),
        )
        if self._run is None:
            # A loop that calls no `close`, as Keras's.
            self.close()

    def on_exception(self, exception: BaseException) -> None:
        """Note what ended the run."""
        progress = None if self._run is None else self._run.progress
        self._ending = Ending.of(exception, None if progress is None else progress.epoch)

    def close(self) -> None:
        """Write how the run ended, and close the file, whose lines have reached the disk then; other runs may write it."""
        try:
            self._end()
        finally:
            self._let_go()

    def after_close(self) -> None:
        """Close the file, also when a second Ctrl-C has ended `close` too early."""
        self._shut()
        self._let_go()

    def _end(self) -> None:
        ending, self._ending = self._ending, None
        run = self._run
        if run is not None and self._decided_by_one in run.journal.readers:
            run.journal.readers.remove(self._decided_by_one)
        if ending is None or (self._file is None and ending.how not in ("finished", "asked")):
            # Nothing began, as when another callback refused the run: the file of the run before stays.
            self._shut()
            return
        self._write(
            "end",
            **{"how": ending.how, "error": ending.error, "epoch": ending.epoch, "planned": ending.planned},
            averaged=ending.averaged,
            time=time.time(),
            seconds=self._seconds(),
            costs=self._costs(),
            steps=step_account_of(self.model),
        )
        self._flush()
        self._shut()

    # Writing ------------------------------------------------------------------------------------------------------

    def _ready(self) -> None:
        """Open the file, if it isn't, and write who writes from here on, unless that was written."""
        if self._file is None:
            self._file = open(self.filename, "wb", buffering=0)  # closed by close()
        if self._own_start is not None:
            return
        self._own_start = self._size + len(self._tail)
        params = self.params or {}
        begun = {"format": FORMAT, "time": time.time(), "machine": machine(), "process": os.getpid()}
        self._put(line_of("begin", {**begun, "epochs": params.get("epochs"), "steps": params.get("steps")}))
        if not self._own_start and self._run is not None:
            for entry in self._run.journal:
                self._put(line_of("decision", decision_of(entry)))

    def _decided_by_one(self, entry: Entry) -> None:
        # Until the file is open, the journal keeps it.
        if self._file is not None:
            known = self._own_start is not None or self._size + len(self._tail) > 0
            self._ready()
            if known:
                self._put(line_of("decision", decision_of(entry)))

    def _write(self, what: str, /, **fields: Any) -> None:
        self._ready()
        self._put(line_of(what, fields))

    def _put(self, content: bytes) -> None:
        assert self._file is not None
        # One write of a whole line: a kill leaves it there or not.
        try:
            rest = content
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            why = f"JournalLogger can't go on writing to its `filename` ({error.strerror})"
            raise type(error)(error.errno, why, self.filename) from None
        self._tail += content

    def _flush(self) -> None:
        assert self._file is not None
        flush(self._file.fileno())
        self._size += len(self._tail)
        self._checksum = zlib.crc32(self._tail, self._checksum)
        self._tail = b""
        self._flushed = time.monotonic()

    def _shut(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            lost = not has_its_name(file, self.filename)
            file.close()
            if lost:
                warn(f"`{self.filename}` was removed or replaced during the run; what JournalLogger wrote is lost.")

    def _let_go(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    # What it took -------------------------------------------------------------------------------------------------

    def _seconds(self) -> float:
        seconds: float = self._earlier["seconds"]
        return seconds + (0.0 if self._run is None else self._run.seconds)

    def _costs(self) -> dict[str, dict[str, float]]:
        return added(self._earlier["costs"], {} if self._run is None else self._run.costs())
