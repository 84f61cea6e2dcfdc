"""A note of a score in a file: what isn't one is none, whatever is in the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oncue.checkpoints.score_note import KEY, MARK, ScoreNote, ending, read_note

NOTE = ScoreNote("val_loss", "down", 0.1)


def header(metadata: object) -> bytes:
    text = json.dumps({"__metadata__": metadata}).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize("after", [b"", b"\noncue-crc32:12345678"])
def test_the_last_note_counts(after: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    path.write_bytes(b"x" * 10_000 + ending(ScoreNote("loss", "up", 2).as_text()) + ending(NOTE.as_text()) + after)
    assert read_note(path) == NOTE


def test_it_is_in_the_metadata_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(header({KEY: NOTE.as_text()}) + b"numbers")
    assert read_note(path) == NOTE


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "7", "{}", '{"monitor": "a", "direction": "up"}', '{"a": 1}', "[" * 4000,
        '{"monitor": 1, "direction": "up", "score": 1}', '{"monitor": "a", "direction": "x", "score": 1}',
        '{"monitor": "a", "direction": "up", "score": NaN}', '{"monitor": "a", "direction": "up", "score": true}',
        '{"monitor": "a", "direction": [], "score": 1}',
    ],
)  # fmt: skip
def test_what_is_not_one_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(MARK + text.encode())
    assert read_note(tmp_path / "m.h5") is None
    (tmp_path / "m.safetensors").write_bytes(header({KEY: text}))
    assert read_note(tmp_path / "m.safetensors") is None


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, header([]), header({KEY: 3}), b"\x02" + bytes(7) + b"[]"])
def test_what_is_no_safetensors_file_has_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    assert read_note(tmp_path / "m.safetensors") is None
