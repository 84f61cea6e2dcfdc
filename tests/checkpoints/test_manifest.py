"""Manifest: what is known of saved files after kills, changes and bad content; what is deleted and what never."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oncue.checkpoints import KeepLast
from oncue.checkpoints.manifest import Manifest
from oncue.checkpoints.record import Record
from oncue.core.file_name import FileName


def path_of(folder: Path) -> Path:
    return folder / "m.oncue.json"


def save(manifest: Manifest, file: str, score: float | None = None, run: str = "a", epoch: int = 1) -> None:
    manifest.announce(Record(file, epoch=epoch, score=score, monitor="val_loss", run=run))
    path = manifest.folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{file} {score} {run}")
    manifest.record()


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    manifest = Manifest(path_of(tmp_path))
    save(manifest, "run1/m.keras", 0.5)
    save(manifest, "run2/m.keras", float("nan"))
    again = Manifest(path_of(tmp_path)).records
    assert [(one.file, one.score, one.size) for one in again] == [("run1/m.keras", 0.5, 18), ("run2/m.keras", None, 18)]
    assert len(again[0].sha256) == 64


def test_only_own_files_are_pruned(tmp_path: Path) -> None:
    first = Manifest(path_of(tmp_path))
    save(first, "old.keras", run="earlier")
    (tmp_path / "m_3.keras").write_text("the user's own")
    second = Manifest(path_of(tmp_path))
    for name in ("m_1.keras", "m_2.keras", "m_4.keras"):
        save(second, name, run="now")
    assert second.prune([KeepLast(1)], "now", None) == ["m_1.keras", "m_2.keras"]
    assert files(tmp_path) == ["m.oncue.json", "m_3.keras", "m_4.keras", "old.keras"]
    assert [one.file for one in Manifest(path_of(tmp_path)).records] == ["old.keras", "m_4.keras"]


def test_a_record_of_a_file_that_the_run_cannot_have_saved_deletes_nothing(tmp_path: Path) -> None:
    manifest = Manifest(path_of(tmp_path), FileName("m_{epoch}.keras").fits)
    for name in ("notes.txt", "m_1.keras", "m_2.keras"):
        save(manifest, name)
    assert manifest.prune([KeepLast(1)], "a", None) == ["m_1.keras"]
    assert files(tmp_path) == ["m.oncue.json", "m_2.keras", "notes.txt"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("file", "a/./b"), ("file", "a//b"), ("file", "a\0b"), ("file", "\x1b[2J"), ("size", True), ("size", -1),
        ("epoch", True), ("step", -1), ("score", 10**400), ("score", True),
    ],
)  # fmt: skip
def test_records_that_no_run_has_written(field: str, value: Any) -> None:
    good = Record("m.keras", size=1, epoch=1, step=1, score=0.5, monitor="loss", run="a").as_json()
    assert Record.from_json(good).score == 0.5
    with pytest.raises(ValueError, match=f"`{field}`|record's file"):
        Record.from_json({**good, field: value})


def test_a_file_that_was_replaced_is_not_deleted(tmp_path: Path) -> None:
    manifest = Manifest(path_of(tmp_path))
    save(manifest, "m_1.keras")
    save(manifest, "m_2.keras")
    (tmp_path / "m_1.keras").write_text("something else entirely")
    assert manifest.prune([KeepLast(1)], "a", None) == []
    assert (tmp_path / "m_1.keras").exists()


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    manifest = Manifest(path_of(inside))
    save(manifest, "run1/m.keras")
    save(manifest, "run2/m.keras")
    (inside / "run1").rename(outside)
    (inside / "run1").symlink_to(outside)
    assert manifest.prune([KeepLast(1)], "a", None) == []
    assert (outside / "m.keras").exists()


def test_the_newest_stays_whatever_the_rules_say(tmp_path: Path) -> None:
    class Nothing:
        def kept(self, records: Any, direction: Any) -> list[str]:
            return ["m_1.keras"]

    manifest = Manifest(path_of(tmp_path))
    for name in ("m_1.keras", "m_2.keras", "m_3.keras"):
        save(manifest, name)
    assert manifest.prune([Nothing()], "a", None) == ["m_2.keras"]


def test_without_rules_nothing_is_deleted(tmp_path: Path) -> None:
    manifest = Manifest(path_of(tmp_path))
    save(manifest, "m_1.keras")
    save(manifest, "m_2.keras")
    assert manifest.prune([], "a", None) == []


def test_failed_deletions_are_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest(path_of(tmp_path))
    save(manifest, "m_1.keras")
    save(manifest, "m_2.keras")

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.warns(UserWarning, match=r"m_1\.keras' could not be deleted"):
            assert manifest.prune([KeepLast(1)], "a", None) == []
    assert manifest.prune([KeepLast(1)], "a", None) == ["m_1.keras"]


def test_killed_before_the_file_was_written(tmp_path: Path) -> None:
    manifest = Manifest(path_of(tmp_path))
    save(manifest, "m.keras", 0.5)
    manifest.announce(Record("m.keras", epoch=2, score=0.25, monitor="val_loss", run="a"))
    found = Manifest(path_of(tmp_path)).best("val_loss", "down")
    assert found is not None and found.score == 0.5


def test_killed_after_the_file_was_written(tmp_path: Path) -> None:
    manifest = Manifest(path_of(tmp_path))
    save(manifest, "m.keras", 0.5)
    manifest.announce(Record("m.keras", epoch=2, score=0.25, monitor="val_loss", run="a"))
    (tmp_path / "m.keras").write_text("the new weights")
    again = Manifest(path_of(tmp_path))
    found = again.best("val_loss", "down")
    assert found is not None and found.score == 0.25
    assert [one.file for one in again.records] == ["m.keras"]


def test_a_changed_file_is_no_best(tmp_path: Path) -> None:
    manifest = Manifest(path_of(tmp_path))
    save(manifest, "m_1.keras", 0.5)
    save(manifest, "m_2.keras", 0.25)
    changed = bytearray((tmp_path / "m_2.keras").read_bytes())
    changed[0] ^= 1
    (tmp_path / "m_2.keras").write_bytes(changed)
    with pytest.warns(UserWarning, match=r"m_2\.keras' is not the file that was saved with val_loss 0\.25"):
        found = Manifest(path_of(tmp_path)).best("val_loss", "down")
    assert found is not None and found.file == "m_1.keras"


def test_a_file_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    save(Manifest(path_of(tmp_path)), "m.keras", 0.5)
    (tmp_path / "m.keras").unlink()
    assert Manifest(path_of(tmp_path)).records == []


def test_a_metric_without_scores_is_refused(tmp_path: Path) -> None:
    manifest = Manifest(path_of(tmp_path))
    save(manifest, "m.keras", 0.5)
    with pytest.raises(ValueError, match="no score of `val_accuracy`, but of `val_loss`"):
        manifest.best("val_accuracy", "up")


def _with(**fields: Any) -> dict[str, Any]:
    record = {**Record("m.keras", size=1, epoch=1).as_json(), **fields}
    return {"format": 1, "files": [record], "announced": None}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"\xff\xfe",
        b"[]",
        {"format": 2, "files": [], "announced": None},
        {"format": 1, "files": {}, "announced": None},
        {"format": 1, "files": []},
        {"format": 1, "files": [{"file": "m.keras"}], "announced": None},
        _with(file="../m.keras"),
        _with(file="/etc/passwd"),
        _with(file="a/../../m.keras"),
        _with(file="C:\\m.keras"),
        _with(file="..\\m.keras"),
        _with(file=""),
        _with(file=3),
        _with(size="1"),
        _with(score="best"),
        _with(more=1),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: Any) -> None:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    path_of(tmp_path).write_bytes(raw)
    with pytest.raises(ValueError, match=r"m\.oncue\.json' can't be read as the manifest"):
        Manifest(path_of(tmp_path))
    assert path_of(tmp_path).read_bytes() == raw
