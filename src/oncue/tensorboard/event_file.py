"""EventFile: one file of events in a run's folder, as TensorBoard reads them."""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Iterable
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

_SECONDS_UNWRITTEN = 10.0
_serials = itertools.count()


class EventFile:
    """Appends summaries to a new event file, on the calling thread: a failed write is an error where it happens.

    The file always ends with a whole record once `flush` or `close` returned. Between two flushes at most 10 seconds of
    events are held back.

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
            return
        serial = f"{os.getpid()}.{next(_serials)}.{label}"
        name = f"events.out.tfevents.{int(moment):010d}.{socket.gethostname()}.{serial}.v2"
        self.path = folder.rstrip("/") + "/" + name if "://" in folder else os.path.join(folder, name)
        self._file = _opened(folder, self.path)
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=moment, file_version="brain.Event:2"))
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
        """Flush and close; a second call does nothing."""
        if not self._records.closed:
            self._records.close()

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())


def _opened(folder: str, path: str) -> Any:
    if "://" not in folder:
        os.makedirs(folder, exist_ok=True)
        return open(path, "xb")
    import fsspec

    file = fsspec.open(path, "wb", auto_mkdir=True).open()
    return file
