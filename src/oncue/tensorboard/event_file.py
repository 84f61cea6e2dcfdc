"""EventFile: one file of events in a run's folder, as TensorBoard reads them."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from collections.abc import Iterable
from typing import Any, BinaryIO

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.record_writer import RecordWriter

from oncue.core.files import sync_file, sync_folder

_SECONDS_UNWRITTEN = 10.0
_VERSION = "brain.Event:2"
_serials = itertools.count()


class EventFile:
    """Appends summaries to a new event file, on the calling thread: a failed write is an error where it happens.

    The file always ends with a whole record once `flush` or `close` returned, and is on the disk once `close` did. Between two
    flushes at most 10 seconds of events are held back.

    Args:
        folder: The folder of the run; made when it is not there. A URL such as `memory://logs` goes through fsspec.
        label: A part of the file's name that identifies the run.
        resume: The name of a file in the folder to continue, and the size that it is cut to first; None for a new file.

    Raises:
        OSError: When the folder can't be made or written.

    Example:
        >>> import tempfile
        >>> from oncue.tensorboard.summaries import scalar
        >>> file = EventFile(tempfile.mkdtemp())
        >>> file.add(0, [scalar("loss", 0.5)])
        >>> file.close()
    """

    def __init__(self, folder: str, label: str = "0", resume: tuple[str, int] | None = None) -> None:
        self._flushed = moment = time.time()
        if resume is not None:
            self.path = os.path.join(folder, resume[0])
            self._file = open(self.path, "r+b")  # closed by close()
            self._file.truncate(resume[1])
            self._file.seek(resume[1])
            self._records = RecordWriter(self._file)
            if not resume[1]:
                self._write(Event(wall_time=moment, file_version=_VERSION))
            return
        serial = f"{os.getpid()}.{next(_serials)}.{label}"
        name = f"events.out.tfevents.{int(moment):010d}.{socket.gethostname()}.{serial}.v2"
        self.path = folder.rstrip("/") + "/" + name if "://" in folder else os.path.join(folder, name)
        self._file = _opened(folder, self.path)
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=moment, file_version=_VERSION))
        self.flush()

    def add(self, step: int, values: Iterable[Any]) -> None:
        """Write summaries.

        Args:
            step: The step that they belong to.
            values: Values as `oncue.tensorboard.summaries` makes them.
        """
        now = time.time()
        self._write(Event(wall_time=now, step=step, summary=Summary(value=values)))
        if now - self._flushed > _SECONDS_UNWRITTEN:
            self.flush()

    def add_graph(self, graph_def: bytes) -> None:
        """Write the graph of the run.

        Args:
            graph_def: A serialized GraphDef.
        """
        self._write(Event(wall_time=time.time(), graph_def=graph_def))

    def flush(self) -> None:
        """Put everything written so far where readers see it."""
        self._records.flush()
        self._flushed = time.time()

    def size(self) -> int:
        """Return the bytes written so far, all of which readers see then."""
        self.flush()
        return int(self._file.tell())

    def close(self) -> None:
        """Flush, let it reach the disk, and close; a second call does nothing.

        Raises:
            FileNotFoundError: When the file was removed meanwhile.
        """
        if not self._records.closed:
            self._records.close()
            if "://" not in self.path:
                sync_file(self.path)

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())


_LENGTH, _SUM = struct.Struct("<Q"), struct.Struct("<I")


def whole_until(path: str, size: int) -> int:
    """Return where the last whole record ends that begins in the first bytes of a file.

    After a power cut a file may be shorter than it was, or have zeros at its end.

    Args:
        path: The file.
        size: Where a record ended once: how many of its bytes count.

    Example:
        >>> import tempfile
        >>> file = EventFile(tempfile.mkdtemp())
        >>> size = file.size()
        >>> file.close()
        >>> whole = whole_until(file.path, size)
        >>> os.truncate(file.path, size - 1)
        >>> whole == size, whole_until(file.path, size)
        (True, 0)
    """
    ends = [0]
    with open(path, "rb") as file:
        there = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        if size <= there and file.read(1) != b"\0":
            # To go through millions of records would take minutes.
            return size
        size = min(size, there)
        while (end := _end_of_record(file, ends[-1])) is not None and end <= size:
            ends.append(end)
        # Their lengths are right; what the disk lacks of numbers is at the end.
        while len(ends) > 1 and not _has_its_sum(file, ends[-2], ends[-1]):
            ends.pop()
    return ends[-1]


def _end_of_record(file: BinaryIO, start: int) -> int | None:
    file.seek(start)
    head = file.read(_LENGTH.size + _SUM.size)
    length = head[: _LENGTH.size]
    if len(head) < _LENGTH.size + _SUM.size or _SUM.pack(masked_crc32c(length)) != head[_LENGTH.size :]:
        return None
    return start + len(head) + int(_LENGTH.unpack(length)[0]) + _SUM.size


def _has_its_sum(file: BinaryIO, start: int, end: int) -> bool:
    file.seek(start + _LENGTH.size + _SUM.size)
    content = file.read(end - start - _LENGTH.size - _SUM.size)
    return _SUM.pack(masked_crc32c(content[: -_SUM.size])) == content[-_SUM.size :]


def _opened(folder: str, path: str) -> Any:
    if "://" not in folder:
        made = [folder]
        while made[-1] and not os.path.isdir(made[-1]):
            made.append(os.path.dirname(made[-1]))
        os.makedirs(folder, exist_ok=True)
        for one in made[1:]:
            # The name of a folder that was made is in the one around it.
            sync_folder(one or ".")
        return open(path, "xb")
    import fsspec

    file = fsspec.open(path, "wb", auto_mkdir=True).open()
    return file
