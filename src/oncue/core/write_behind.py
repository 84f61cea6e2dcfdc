"""WriteBehind: a file that reaches the disk, and whose checksum is computed, while it is still being written.

No library does that. Writing, checksum and flush one after the other take 1.6 to 2.1 times as long where a second core is free,
and about as long where none is (`python benchmarks/own_code.py writes`).
"""

from __future__ import annotations

import os
import queue
import threading
import zlib
from types import TracebackType
from typing import Any

from oncue.core.files import flush
from oncue.core.interrupts import undivided

_PIECE = 1 << 20
_BATCH = 32 << 20
# Below this, threads cost more than they save.
_SMALL = 4 << 20
# So many pieces the systems take in one call.
_AT_ONCE = 1000
# What waits for the checksum is kept alive; so much of it is enough that neither side stands still.
_WAITING = 128


class WriteBehind:
    """Writes a file from its beginning to its end.

    One thread flushes what was written to the disk while another computes its CRC-32; plain writing would do this one
    after the other. A file of less than 4 MB is written in one go instead.

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
        self._written = self._flushed = 0
        self._failure: BaseException | None = None
        self._pieces: queue.Queue[memoryview | None] = queue.Queue(_WAITING)
        self._threads: dict[str, threading.Thread] = {}
        # What was given of a file that is small until now.
        self._held: list[memoryview] | None = []

    def __enter__(self) -> WriteBehind:
        return self

    @undivided
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._write_held()
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
        self.size += len(view)
        if self._held is None:
            self._write_behind(view)
            return
        self._held.append(view)
        if self.size > _SMALL:
            held, self._held = self._held, None
            for one in held:
                self._write_behind(one)

    def checksum(self) -> int:
        """Return the CRC-32 of all that `write` was given."""
        if self._held is not None:
            self._write_held()
        else:
            # The disk needs not wait for what is still to be summed up.
            self._flush()
            self._finish_checksum()
        return self._checksum

    def patch(self, offset: int, content: bytes) -> None:
        """Write over bytes that are there; the checksum stays that of what was there before."""
        self._write_held()
        if hasattr(os, "pwrite"):
            os.pwrite(self._file.fileno(), content, offset)
            return
        self._file.seek(offset)
        self._write_all(memoryview(content))
        self._file.seek(0, os.SEEK_END)

    def synchronise(self) -> None:
        """Return when all that was written is on the disk."""
        self._write_held()
        flush(self._file.fileno())

    def _write_held(self) -> None:
        held = self._held
        if not held:
            return
        self._held = []
        for start in range(0, len(held), _AT_ONCE):
            pieces = held[start : start + _AT_ONCE]
            written = os.writev(self._file.fileno(), pieces) if hasattr(os, "writev") else 0
            for piece in pieces:
                self._checksum = zlib.crc32(piece, self._checksum)
                # It may have taken only a part.
                self._write_all(piece[written:])
                written = max(0, written - len(piece))

    def _write_behind(self, view: memoryview) -> None:
        if "checksum" not in self._threads:
            self._start("checksum", self._sum_up)
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            self._hand_on(piece)
            self._write_all(piece)
            self._written += len(piece)
            if self._written - self._flushed >= _BATCH:
                self._flush()

    def _write_all(self, content: memoryview) -> None:
        # An unbuffered write may take only a part.
        while len(content):
            content = content[self._file.write(content) :]

    def _flush(self) -> None:
        thread = self._threads.get("flush")
        if thread is not None and thread.is_alive():
            # Anything written during the flush belongs to the next one.
            return
        self._finish("flush")
        if self._failure is not None:
            # The system reports a failed flush once; a later one may report success.
            raise self._failure
        self._flushed = self._written
        self._start("flush", self._flush_now)

    def _flush_now(self) -> None:
        try:
            getattr(os, "fdatasync", os.fsync)(self._file.fileno())
        except OSError as error:
            self._failure = error

    def _sum_up(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._checksum = zlib.crc32(piece, self._checksum)

    def _finish_checksum(self) -> None:
        if "checksum" in self._threads:
            self._hand_on(None)
            self._finish("checksum")

    @undivided
    def _hand_on(self, piece: memoryview | None) -> None:
        # Ctrl-C within a queue, which is Python code, may leave it locked for good.
        self._pieces.put(piece)

    @undivided
    def _start(self, name: str, work: Any) -> None:
        self._threads[name] = threading.Thread(target=work, name=f"oncue-{name}", daemon=True)
        self._threads[name].start()

    @undivided
    def _finish(self, name: str) -> None:
        thread = self._threads.pop(name, None)
        if thread is not None:
            thread.join()
