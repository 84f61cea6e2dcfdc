"""A training script whose k-th call to a file goes wrong, and images of power cuts, each resumed and compared.

    python tests/crash/faults.py FOLDER COUNT [SEED [NAME ...]]

The names are those of functions in variants.py; by default all of them, in turn. A small library that stands before the C
library's calls lets one of them fail (EIO, a disk that is full from then on), write only a part, write a part and end the
process, or end it before. Power cuts are kills after which the end of every file that had not reached the disk is cut off,
or zeros; names that had not reached it are gone. The script is then started again, and everything that it leaves is
compared with what an unbroken run leaves. It prints a line that sums up, and exits with 1 when anything differed, or when
something was left behind.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from campaign import kill, outcome, start, train, unbroken, wait
from variants import VARIANTS, Variant

from oncue.checkpoints.lock import FolderLock

COUNT, ERROR, FULL, SHORT, TORN, KILL = range(6)
"""What the library can do, as faults.c numbers it."""
KINDS = {
    "EIO": (ERROR, errno.EIO),
    "disk full": (FULL, errno.ENOSPC),
    "short write": (SHORT, 0),
    "torn write": (TORN, 0),
}
KINDS["kill"] = KILL, 0


def build(folder: Path) -> Path:
    """Compile the library; return its path."""
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def arm(kind: int, number: int, place: int, folder: Path) -> None:
    """Let the calls of this process that change files below a folder go wrong."""
    ctypes.CDLL(None).faults_arm(kind, number, ctypes.c_long(place), os.fsencode(folder))


def calls_of(variant: Variant, folder: Path) -> int:
    """Return how many calls change files in an unbroken run."""
    folder.mkdir()
    counted = folder.with_suffix(".calls")

    def count() -> None:
        arm(COUNT, 0, 0, folder)

    def tell() -> None:
        counted.write_text(str(ctypes.CDLL(None).faults_seen()))

    status = wait(start(variant, folder, count, tell))
    assert status == 0, (folder / "log").read_text()
    return int(counted.read_text())


def broken(variant: Variant, folder: Path, what: tuple[int, int], place: int) -> tuple[str, bool]:
    """Run a script whose call at a place goes wrong, then to its end.

    Returns:
        What the first start came to, and whether the script refused to go on as it may.
    """
    folder.mkdir()

    def tell() -> None:
        kept = ctypes.CDLL(None).faults_kept
        kept.restype = ctypes.c_char_p
        not_removed(folder).write_bytes(kept())

    status = wait(start(variant, folder, lambda: arm(*what, place, folder), tell))
    first = "killed" if os.WIFSIGNALED(status) else "failed" if status else "went on"
    return first, bool(status) and finish(variant, folder)


def not_removed(folder: Path) -> Path:
    """Return where the name of the file stands that a run would have removed, had that call not gone wrong."""
    return folder.with_name(f"{folder.name}.kept")


def finish(variant: Variant, folder: Path) -> bool:
    """Start a script again, and let it come to its end; return whether it refused to go on as it may."""
    (folder / "error").unlink(missing_ok=True)
    if wait(start(variant, folder)) == 0:
        return False
    said = (folder / "error").read_text() if (folder / "error").exists() else (folder / "log").read_text()
    if variant.refused is None or variant.refused not in said:
        raise RuntimeError(said)
    return True


def differences(whole: dict[str, str], folder: Path) -> list[str]:
    """Return the names of parts that aren't those of an unbroken run, and of temporary files that were left."""
    found, note = outcome(folder), not_removed(folder)
    spared = Path(os.fsdecode(note.read_bytes())) if note.exists() else None
    left = [path for path in folder.rglob(".*") if path.name.endswith((".tmp", ".lock"))]
    # What can't be removed stays, and locks nobody out.
    wrong = [f"left behind: {path.name}" for path in left if path != spared or locks(path)]
    return [name for name in sorted({*whole, *found}) if whole.get(name) != found.get(name)] + wrong


def locks(path: Path) -> bool:
    """Return whether a file that was left keeps a run out."""
    lock = FolderLock(path.parent, path.name)
    free = not path.name.endswith(".lock") or lock.acquire()
    lock.release()
    return not free


# Power cuts -----------------------------------------------------------------------------------------------------------


def noting(log: Path) -> Callable[[], None]:
    """Return a function that makes this process note how long files are, and which names folders have, that reach the disk."""

    def begin() -> None:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def wrapped(sync: Callable[[int], None]) -> Callable[[int], None]:
            def call(file: int) -> None:
                before = os.fstat(file)
                names = os.listdir(file) if os.path.isdir(f"/proc/self/fd/{file}") else None
                sync(file)
                os.write(descriptor, json.dumps([before.st_ino, before.st_size, names]).encode() + b"\n")

            return call

        os.fsync, os.fdatasync = wrapped(os.fsync), wrapped(os.fdatasync)

    return begin


def power_cut(folder: Path, log: Path, chance: random.Random) -> None:
    """Take from files what had not reached the disk."""
    sizes: dict[int, int] = {}
    names: dict[int, list[str]] = {}
    for line in log.read_text().splitlines() if log.exists() else ():
        inode, size, listed = json.loads(line)
        if listed is None:
            sizes[inode] = max(size, sizes.get(inode, 0))
        else:
            names[inode] = listed
    for path in sorted(folder.rglob("*"), reverse=True):
        if not path.is_file() or path.name in ("log", "result", "error"):
            continue
        known, found = names.get(path.parent.stat().st_ino), path.stat()
        safe = min(sizes.get(found.st_ino, 0), found.st_size)
        if (known is None or path.name not in known) and chance.random() < 0.5:
            path.unlink()
        elif safe < found.st_size:
            kept = chance.randint(safe, found.st_size)
            with path.open("r+b") as file:
                file.truncate(kept)
                if chance.random() < 0.5:
                    file.truncate(found.st_size)


def cut_off(variant: Variant, folder: Path, seconds: float, chance: random.Random) -> tuple[str, bool]:
    """Kill a script at some moment, take what a power cut takes, and let it come to its end.

    Returns:
        What it came to, and whether the script refused to go on as it may.
    """
    folder.mkdir()
    log = folder.with_suffix(".synced")
    child = start(variant, folder, noting(log))
    time.sleep(chance.uniform(0.0, seconds))
    kill(child)
    if not os.WIFSIGNALED(wait(child)):
        return "went on", False
    power_cut(folder, log, chance)
    return "power cut", finish(variant, folder)


class Tally:
    """What the runs of a variant came to.

    Args:
        variant: The script.
        root: Where it runs.
        chance: Chooses the calls and the moments.
    """

    def __init__(self, variant: Variant, root: Path, chance: random.Random) -> None:
        self.variant, self.root, self.chance = variant, root, chance
        self.whole, self.seconds = unbroken(variant, root / f"{variant.name}-unbroken")
        self.calls = calls_of(variant, root / f"{variant.name}-counted")
        self.ends = {"killed": 0, "failed": 0, "went on": 0, "power cut": 0}
        self.compared = self.refusals = 0
        self.wrong: list[str] = []

    def one_call(self, turn: int) -> None:
        """Let a call go wrong."""
        name, what = list(KINDS.items())[turn % len(KINDS)]
        place = self.chance.randint(1, self.calls)
        self._compare(f"{name} at call {place}, {turn}", lambda folder: broken(self.variant, folder, what, place))

    def one_cut(self, turn: int) -> None:
        """Cut the power."""
        self._compare(f"power cut {turn}", lambda folder: cut_off(self.variant, folder, self.seconds, self.chance))

    def _compare(self, label: str, run: Callable[[Path], tuple[str, bool]]) -> None:
        folder = self.root / f"{self.variant.name}-{label.replace(' ', '-')}"
        try:
            end, refused = run(folder)
            self.ends[end] += 1
            self.refusals += refused
            self.compared += 0 if refused else len(self.whole)
            found = [] if refused else differences(self.whole, folder)
        except (RuntimeError, TimeoutError, OSError) as error:
            found = [str(error)[-300:]]
        self.wrong += [f"{self.variant.name}, {label}: {one}" for one in found]
        if not found:
            shutil.rmtree(folder, ignore_errors=True)


def main(root: Path, count: int, seed: int, names: list[str]) -> int:
    """Let some calls go wrong, and cut the power as often."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    root.mkdir(parents=True, exist_ok=True)
    # So that the children have every module that a run imports when it needs it.
    (root / "first").mkdir()
    train(VARIANTS[0], root / "first")
    variants = [one for one in VARIANTS if not names or one.name in names]
    tallies, each = [], -(-count // len(variants))
    for number, variant in enumerate(variants):
        tally = Tally(variant, root, random.Random(f"{seed} {variant.name}"))
        # Fewer turns than kinds: each variant begins with another kind.
        for turn in range(number, number + each):
            tally.one_call(turn)
            tally.one_cut(turn)
        for line in tally.wrong:
            print(f"seed {seed}: {line}", flush=True)
        tallies.append(tally)
    wrong = [line for tally in tallies for line in tally.wrong]
    ends = {end: sum(tally.ends[end] for tally in tallies) for end in tallies[0].ends}
    parts = sum(tally.compared for tally in tallies)
    refusing = ", ".join(sorted(tally.variant.name for tally in tallies if tally.refusals)) or "none"
    calls = ends["killed"] + ends["failed"] + ends["went on"]
    print(
        f"seed {seed}: {calls} calls to files that went wrong ({ends['killed']} killed the run, {ends['failed']} ended it, "
        f"{ends['went on']} let it go on) and {ends['power cut']} power cuts in {len(tallies)} variants; {len(wrong)} "
        f"differences in the {parts} parts that were compared with those of unbroken runs; refused to go on, as they may: "
        f"{refusing}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    if "faults.so" not in os.environ.get("LD_PRELOAD", ""):
        made = Path(sys.argv[1])
        made.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "LD_PRELOAD": str(build(made))}
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=environment).returncode)
    given = sys.argv[3:]
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(given[0]) if given else 0, given[1:]))
