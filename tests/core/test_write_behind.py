"""WriteBehind: the bytes, their checksum, and errors of the disk that come on another thread."""

from __future__ import annotations

import itertools
import os
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oncue.core.write_behind import WriteBehind

SIZES = [0, 1, 1000, (1 << 20) + 1, (4 << 20) - 1, (4 << 20) + 1, (70 << 20) + 3]


def pieces(size: int) -> list[bytes]:
    content = np.random.default_rng(size).bytes(size)
    cuts = [0, size // 7, size // 3, size // 3, size]
    return [content[start:end] for start, end in itertools.pairwise(cuts)]


@pytest.mark.parametrize("size", SIZES)
def test_the_bytes_and_their_checksum(size: int, tmp_path: Path) -> None:
    content = b"".join(pieces(size))
    with WriteBehind(tmp_path / "a") as file:
        for piece in pieces(size):
            file.write(piece)
        assert file.checksum() == zlib.crc32(content)
        file.write(b"more")
        file.patch(0, b"")
        assert file.checksum() == zlib.crc32(content + b"more")
    assert (tmp_path / "a").read_bytes() == content + b"more"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("oncue")]


def test_a_patch_changes_bytes_and_continues_at_the_end(tmp_path: Path) -> None:
    with WriteBehind(tmp_path / "a") as file:
        file.write(b"abcdef")
        file.patch(1, b"XY")
        file.write(b"g")
    assert (tmp_path / "a").read_bytes() == b"aXYdefg"


@pytest.mark.parametrize("size", [33 << 20, 70 << 20, 200 << 20])
def test_a_disk_that_fails_in_the_background_is_an_error(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError, match="Input/output"), WriteBehind(tmp_path / "a") as file:
        piece = bytes(1 << 20)
        for _ in range(size >> 20):
            file.write(piece)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("oncue")]


def test_an_error_of_the_caller_comes_out_and_no_thread_stays(tmp_path: Path) -> None:
    def fail() -> Any:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"), WriteBehind(tmp_path / "a") as file:
        file.write(bytes(40 << 20))
        fail()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("oncue")]
