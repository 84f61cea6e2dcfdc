"""FolderLock: one owner at a time, however processes are scheduled, and never a dead one."""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from helpers import environment
from oncue.checkpoints.lock import FolderLock

SCRIPT = """
import sys, time
from oncue.checkpoints.lock import FolderLock
print(FolderLock(sys.argv[1]).acquire(), flush=True)
"""


def in_another_process(folder: Path) -> bool:
    """Return whether another process could take the lock; it gives it back by ending."""
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout == "True\n"


def test_one_owner_among_objects_threads_and_processes(tmp_path: Path) -> None:
    owner, other = FolderLock(tmp_path), FolderLock(tmp_path)
    assert owner.acquire() and owner.acquire()
    assert not other.acquire()
    assert not in_another_process(tmp_path)
    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(FolderLock(tmp_path).acquire()))
    thread.start()
    thread.join()
    assert taken == [False]
    other.release()
    assert not other.acquire()
    owner.release()
    assert os.listdir(tmp_path) == []
    assert in_another_process(tmp_path)
    assert other.acquire()
    other.release()


def test_a_lock_may_be_given_back_by_another_thread(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    assert lock.acquire()
    thread = threading.Thread(target=lock.release)
    thread.start()
    thread.join()
    assert in_another_process(tmp_path)


def test_an_owner_that_gives_it_back_between_open_and_lock_leaves_one_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = FolderLock(tmp_path), FolderLock(tmp_path), FolderLock(tmp_path)
    assert first.acquire()
    flock, calls = fcntl.flock, []

    def late(descriptor: Any, operation: int) -> None:
        calls.append(operation)
        if len(calls) == 1:
            # The second has opened the file; only now does the first remove it.
            first.release()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert second.acquire()
    monkeypatch.undo()
    assert len(calls) > 1
    assert os.path.samestat(os.stat(second.path), os.stat(tmp_path / ".oncue.lock"))
    assert not third.acquire()
    assert not in_another_process(tmp_path)
    second.release()


def test_a_folder_that_is_made_again_keeps_its_new_owner(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    folder.mkdir()
    old, new = FolderLock(folder), FolderLock(folder)
    assert old.acquire()
    (folder / ".oncue.lock").unlink()
    assert new.acquire()
    old.release()
    assert not in_another_process(folder)
    new.release()
    assert os.listdir(folder) == []


def test_an_owner_that_is_garbage_collected_releases_the_lock(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        assert FolderLock(tmp_path).acquire()
        gc.collect()
    assert len(os.listdir("/dev/fd")) == before


def test_a_change_of_the_working_folder_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lock = FolderLock(".")
    assert lock.acquire()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    lock.release()
    assert os.listdir(tmp_path) == ["other"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_neither_holds_the_lock_nor_gives_it_back(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
import os, sys, time
from oncue.checkpoints.lock import FolderLock
lock = FolderLock({str(tmp_path)!r})
assert lock.acquire()
ready, go = os.pipe()
child = os.fork()
if not child:
    lock.release()
    assert not lock.acquire()
    os.write(go, b"x")
    time.sleep(60)
os.read(ready, 1)
assert os.path.exists(lock.path)
print(child, flush=True)
time.sleep(60)
""",
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        try:
            assert not FolderLock(tmp_path).acquire()
            owner.kill()
            owner.wait()
            # The forked process is alive, as the worker of a DataLoader may be.
            os.kill(child, 0)
            again = FolderLock(tmp_path)
            assert again.acquire()
            again.release()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_pipe_or_a_link_in_its_place_is_an_error_and_no_wait(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / ".oncue.lock").symlink_to("target")
    with pytest.raises(OSError):
        FolderLock(tmp_path).acquire()
    assert (tmp_path / "target").read_text() == "mine"
