"""Store: a state is there completely or not at all, whatever happens and when."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oncue.checkpoints.store import Store
from oncue.core.files import machine


def writer(text: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with path.open("w") as file:
            file.write(f"{text}.")
            file.flush()
            os.fsync(file.fileno())

    return write


def reader(path: Path) -> str:
    text = path.read_text()
    if not text.endswith("."):
        raise ValueError("it has no end")
    return text[:-1]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_the_newest_comes_back_and_the_one_before_stays(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "backup")
    assert store.newest(reader) is None
    for text in ("1", "2", "3", "4"):
        store.commit(writer(text))
    assert Store(store.folder).newest(reader) == "4"
    assert names(store.folder) == ["state-3.safetensors", "state-4.safetensors"]


@pytest.mark.parametrize("damage", ["cut", "a folder", "a pipe", "a link to nothing"])
@pytest.mark.filterwarnings("ignore:.*could not be deleted")
def test_a_damaged_state_is_reported_and_the_one_before_is_used(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    store.commit(writer("old"))
    store.commit(writer("new"))
    path = tmp_path / "state-2.safetensors"
    path.unlink()
    if damage == "cut":
        path.write_text("ne")
    elif damage == "a folder":
        path.mkdir()
    elif damage == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nothing")
    again = Store(tmp_path)
    with pytest.warns(UserWarning, match=r"state-2.safetensors' is damaged.*state-1.safetensors' is used instead"):
        assert again.newest(reader) == "old"
    # What was good stays until there are two good ones.
    again.commit(writer("newer"))
    left = ["state-2.safetensors"] if damage == "a folder" else []
    assert names(tmp_path) == ["state-1.safetensors", *left, "state-3.safetensors"]
    assert Store(tmp_path).newest(reader) == "newer"


def test_a_run_never_starts_over_silently(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(writer("only"))
    (tmp_path / "state-1.safetensors").write_text("")
    with pytest.raises(ValueError, match=r"No saved state.*it has no end.*delete the folder"):
        Store(tmp_path).newest(reader)


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
    assert fatal > 4 and outcomes == {"c", "d"}


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    script = f"""
import os, signal
from oncue.checkpoints.store import Store

def write(path):
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

store = Store({str(tmp_path)!r})
store.commit(lambda path: path.write_text("good."))
store.commit(write)
"""
    with subprocess.Popen([sys.executable, "-c", script]) as gone:
        assert gone.wait() == -signal.SIGKILL
    assert len(names(tmp_path)) == 2
    (tmp_path / ".state-mine.tmp").write_text("")
    # As the process that has just ended names what it puts beside the marks of a run.
    marks = f".beginning.json.{machine()}-{gone.pid}-x.tmp"
    (tmp_path / marks).write_text("half")
    again = Store(tmp_path)
    again.prepare()
    assert again.newest(reader) == "good"
    again.release()
    assert names(tmp_path) == [".state-mine.tmp", "state-1.safetensors"]


def test_only_numbers_as_oncue_writes_them_are_states(tmp_path: Path) -> None:
    (tmp_path / "state-\u0663.safetensors").write_text("other")
    (tmp_path / "state-1.safetensors").write_text("good.")
    assert Store(tmp_path).newest(reader) == "good"


@pytest.mark.parametrize("name", ["beginning.json", "data.json"])
def test_a_pipe_beside_the_states_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    store = Store(tmp_path)
    if name == "beginning.json":
        with pytest.warns(UserWarning, match="is damaged .*a pipe"):
            assert store.marks() is None
    else:
        assert store.note() == {}


def test_a_folder_that_is_deleted_meanwhile_is_created_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "backup")
    store.commit(writer("1"))
    shutil.rmtree(store.folder)
    store.commit(writer("2"))
    assert Store(store.folder).newest(reader) == "2"


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


def test_an_unwritable_folder_is_reported_at_once(tmp_path: Path) -> None:
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
