"""Store: a state is there completely or not at all, whatever happens and when."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oncue.checkpoints.store import Store


def writer(text: str) -> Callable[[Path], object]:
    def write(place: Path) -> None:
        (place / "a.txt").write_text(text)
        (place / "b.txt").write_text(text)

    return write


def reader(place: Path) -> str:
    one, other = ((place / name).read_text() for name in ("a.txt", "b.txt"))
    assert one == other, "never a mix"
    return one


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_the_newest_comes_back_and_the_one_before_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "backup")
    assert store.newest(reader) is None
    for text in ("1", "2", "3", "4"):
        store.commit(writer(text))
    assert Store(store.folder).newest(reader) == "4"
    assert names(store.folder) == ["latest.json", "state-3", "state-4"]


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "manifest", "no manifest"])
def test_a_damaged_state_is_told_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.commit(writer("old"))
    store.commit(writer("new"))
    place = tmp_path / "state-2"
    if damage == "flip":
        (place / "b.txt").write_text("neW")
    elif damage == "cut":
        (place / "b.txt").write_text("ne")
    elif damage == "missing":
        (place / "b.txt").unlink()
    elif damage == "manifest":
        (place / "manifest.json").write_text("[1")
    else:
        (place / "manifest.json").unlink()
    again = Store(tmp_path)
    with pytest.warns(UserWarning, match="state-2' is damaged.*state-1' is used instead"):
        assert again.newest(reader) == "old"
    # What was good stays until there are two good ones.
    again.commit(writer("newer"))
    assert names(tmp_path) == ["latest.json", "state-1", "state-3"]
    assert Store(tmp_path).newest(reader) == "newer"


def test_nothing_is_started_over_silently(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(writer("only"))
    (tmp_path / "state-1" / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"No saved state.*not what was saved.*delete the folder"):
        Store(tmp_path).newest(reader)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1, "newest": "../other"}', '{"format": 1, "newest": 3}']
)
def test_a_damaged_pointer_does_no_harm(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    store.commit(writer("old"))
    store.commit(writer("new"))
    (tmp_path / "latest.json").write_text(content)
    assert Store(tmp_path).newest(reader) == "new"


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
@pytest.mark.filterwarnings("ignore:.*could not be deleted")
def test_a_failure_at_every_operation_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    operations = ["rename", "replace", "fsync", "open", "mkdir", "chmod", "unlink", "rmdir"]
    originals = {name: getattr(os, name) for name in operations}
    outcomes = set()
    for fatal in range(1, 200):
        folder = tmp_path / f"{fatal}"
        store = Store(folder)
        for text in ("a", "b", "c"):
            store.commit(writer(text))
        store.release()
        count = 0

        def failing(name: str, fatal: int = fatal) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == fatal:
                    raise kind(28, "no space left")
                return originals[name](*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in operations:
                patch.setattr(os, name, failing(name))
            failed = False
            try:
                store.commit(writer("d"))
            except kind:
                failed = True
        found = Store(folder)
        text = found.newest(reader)
        assert text in (("c", "d") if failed else ("d",))
        outcomes.add(text)
        found.prepare()
        found.release()
        assert not [name for name in names(folder) if name.startswith(".")]
        found.clear()
        assert not folder.exists()
        if count < fatal:
            break
    else:
        pytest.fail("the operations have no end")
    assert fatal > 8 and outcomes == {"c", "d"}


def test_what_a_killed_run_left_half_done_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(writer("good"))
    (tmp_path / ".latest.json.0123.tmp").write_text("")
    half = tmp_path / ".tmp-0123"
    half.mkdir()
    (half / "a.txt").write_text("half")
    # Complete, but the run was killed before it moved the pointer.
    shutil.copytree(tmp_path / "state-1", tmp_path / "state-2")
    again = Store(tmp_path)
    again.prepare()
    assert again.newest(reader) == "good" and not half.exists()
    again.commit(writer("better"))
    again.release()
    assert names(tmp_path) == ["latest.json", "state-1", "state-3"]


def test_clearing_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    store = Store(tmp_path / "backup")
    store.commit(writer("1"))
    mine = store.folder / "notes.txt"
    mine.write_text("mine")
    store.clear()
    assert names(store.folder) == ["notes.txt"]
    mine.unlink()
    store.commit(writer("2"))
    store.clear()
    assert not store.folder.exists()
    store.clear()


def test_a_folder_that_cannot_be_written_to_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="training doesn't begin"):
        Store(tmp_path / "file").prepare()


def test_a_second_run_is_kept_out_until_the_first_has_ended(tmp_path: Path) -> None:
    first, second = Store(tmp_path), Store(tmp_path)
    first.prepare()
    with pytest.raises(RuntimeError, match="Another run that is still going on saves to"):
        second.prepare()
    first.release()
    second.prepare()
    second.release()
    assert names(tmp_path) == []


def test_another_process_is_kept_out_and_a_killed_one_is_not_waited_for(tmp_path: Path) -> None:
    script = f"""
import time
from oncue.checkpoints.store import Store
store = Store({str(tmp_path)!r})
store.prepare()
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "ready\n"
        with pytest.raises(RuntimeError, match="Another run"):
            Store(tmp_path).prepare()
        owner.kill()
        owner.wait()
    again = Store(tmp_path)
    again.prepare()
    again.release()
