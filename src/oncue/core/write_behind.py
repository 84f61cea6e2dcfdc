"""WriteBehind: a file that reaches the disk, and whose checksum is computed, while it is still being written."""

from __future__ import annotations

import os
import queue
import threading
import zlib
from types import TracebackType
from typing import Any

_PIECE = 1 << 20
_BATCH = 32 << 20
# Below this, threads cost more than they save.
_SMALL = 4 << 20
# What waits for the checksum is kept alive; so much of it is enough that neither side stands still.
_WAITING = 128


class WriteBehind:
    """Writes a file from its beginning to its end.

    The disk and a second core are busy meanwhile: what was written is sent to the disk from a thread, and the CRC-32 of
    it is computed on another. Plain writing would do the one after the other.

    Args:
        path: The file; what is there is written over.

    Raises:
        OSError: From any method, when something can't be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with WriteBehind(f"{folder}/a") as file:
        ...         file.write(b"12345678")
        ...         file.write(b"9")
        ...         hex(file.checksum())
        '0xcbf43926'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.size = 0
        self._file = open(path, "wb", buffering=0)
        self._checksum = 0
        self._flushed = 0
        self._failure: BaseException | None = None
        self._pieces: queue.Queue[memoryview | None] = queue.Queue(_WAITING)
        self._threads: dict[str, threading.Thread] = {}

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._finish_checksum()
            self._finish("flush")
        finally:
            self._file.close()
        if error is None and self._failure is not None:
            raise self._failure

    def write(self, content: Any) -> None:
        """Write bytes behind those that are there.

        Args:
            content: Bytes, or any memory; it must stay as it is until `checksum` or the end.
        """
        view = memoryview(content).cast("B")
        if self.size + len(view) > _SMALL and "checksum" not in self._threads:
            self._start("checksum", self._sum_up)
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            if "checksum" in self._threads:
                self._pieces.put(piece)
            else:
                self._checksum = zlib.crc32(piece, self._checksum)
            self._write_all(piece)
            self.size += len(piece)
            if self.size - self._flushed >= _BATCH:
                self._flush()

    def checksum(self) -> int:
        """Return the CRC-32 of all that `write` was given."""
        if "checksum" in self._threads:
            # The disk needs not wait for what is still to be summed up.
            self._flush()
        self._finish_checksum()
        return self._checksum

    def patch(self, offset: int, content: bytes) -> None:
        """Write over bytes that are there; the checksum stays that of what was there before."""
        self._file.seek(offset)
        self._write_all(memoryview(content))
        self._file.seek(0, os.SEEK_END)

    def _write_all(self, content: memoryview) -> None:
        # An unbuffered write may take only a part.
        while len(content):
            content = content[self._file.write(content) :]

    def _flush(self) -> None:
        thread = self._threads.get("flush")
        if thread is not None and thread.is_alive():
            # What is written meanwhile belongs to the next turn.
            return
        self._finish("flush")
        if self._failure is not None:
            # The system tells of a failed flush once; a later one may be told that all is well.
            raise self._failure
        self._flushed = self.size
        self._start("flush", self._synchronise)

    def _synchronise(self) -> None:
        try:
            getattr(os, "fdatasync", os.fsync)(self._file.fileno())
        except OSError as error:
            self._failure = error

    def _sum_up(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._checksum = zlib.crc32(piece, self._checksum)

    def _finish_checksum(self) -> None:
        if "checksum" in self._threads:
            self._pieces.put(None)
            self._finish("checksum")

    def _start(self, name: str, work: Any) -> None:
        self._threads[name] = threading.Thread(target=work, name=f"oncue-{name}", daemon=True)
        self._threads[name].start()

    def _finish(self, name: str) -> None:
        thread = self._threads.pop(name, None)
        if thread is not None:
            thread.join()
