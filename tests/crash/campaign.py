"""Training scripts, killed at random moments until they are done, and compared with runs that nobody killed.

    python tests/crash/campaign.py FOLDER KILLS [SEED [NAME ...]]

The names are those of functions in variants.py; by default all of them, in turn. It prints a line that sums up, and exits with
1 when a run that was killed didn't end as one that was not.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub import errors
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

sys.path.insert(0, str(Path(__file__).parent))

from variants import VARIANTS, Variant

PATIENCE = 600.0
"""Seconds that one start of a script may take."""


def digest(content: bytes) -> str:
    """Return the SHA-256 digest of bytes."""
    return hashlib.sha256(content).hexdigest()


def told(value: Any) -> str:
    """Return what a run came to as text: arrays by their digests."""
    if isinstance(value, (list, tuple)) and value and all(isinstance(part, np.ndarray) for part in value):
        return digest(b"".join(part.tobytes() for part in value))
    return repr(value)


def outcome(folder: Path) -> dict[str, str]:
    """Return everything that a run left, part by part: files by their digests, events without their times."""
    parts = dict(line.split(": ", 1) for line in (folder / "result").read_text().splitlines())
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_dir() or "backup" in name.parts or name.name in ("result", "log"):
            continue
        if "tfevents" in path.name:
            key = f"events {name.parent}"
            parts[key] = parts.get(key, "") + f"{digest(b''.join(events(path)))} "
        else:
            # A record of files says by an identifier which run has written them.
            parts[f"file {name}"] = digest(re.sub(rb'"run": "\w+"', b"", path.read_bytes()))
    return parts


def events(path: Path) -> list[bytes]:
    """Return the events of a file, without their times."""
    reader, found = PyRecordReader_New(str(path)), []
    while True:
        try:
            reader.GetNext()
        except errors.OutOfRangeError:
            return found
        event = Event.FromString(reader.record())
        event.wall_time = 0.0
        found.append(event.SerializeToString(deterministic=True))


def train(variant: Variant, folder: Path) -> None:
    """Run a script, and write down what it came to."""
    result = variant.run(folder)
    (folder / "result").write_text("\n".join(f"{name}: {told(value)}" for name, value in result.items()))


def start(
    variant: Variant,
    folder: Path,
    before: Callable[[], object] | None = None,
    after: Callable[[], object] | None = None,
) -> int:
    """Train in a process of its own, which needs no imports; return its number. What it says goes to the file `log`.

    Args:
        variant: The script.
        folder: Where it runs.
        before: What is called in that process before it.
        after: What is called in it afterwards, when it came to its end.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        # A group of its own, so that its worker processes can be killed with it.
        os.setpgid(0, 0)
        log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if before is not None:
            before()
        train(variant, folder)
        if after is not None:
            after()
        code = 0
    except Exception as error:
        (folder / "error").write_text(f"{type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def kill(child: int) -> None:
    """Kill a process, and the worker processes that it has started."""
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        # It has not made its group yet, or has just ended.
        os.kill(child, signal.SIGKILL)


def wait(child: int) -> int:
    """Return how a process has ended.

    Raises:
        TimeoutError: When it doesn't end.
    """
    begin = time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() - begin > PATIENCE:
            kill(child)
            os.waitpid(child, 0)
            raise TimeoutError(f"process {child} did not end within {PATIENCE} s")
        time.sleep(0.002)


def unbroken(variant: Variant, folder: Path) -> tuple[dict[str, str], float]:
    """Return what a run leaves that nobody kills, and the seconds that it takes."""
    folder.mkdir(parents=True)
    begin = time.monotonic()
    status = wait(start(variant, folder))
    if status:
        raise RuntimeError(f"{variant.name} fails without a kill: {(folder / 'error').read_text()}")
    return outcome(folder), time.monotonic() - begin


def killed(variant: Variant, folder: Path, kills: int, chance: random.Random, seconds: float) -> tuple[int, bool]:
    """Run a script, and kill it some times, at moments of a whole run.

    Args:
        variant: The script.
        folder: Where it runs.
        kills: How often to kill it, at the most.
        chance: Chooses the moments.
        seconds: What a whole run takes.

    Returns:
        How often it was killed, and whether it refused to go on as it may.

    Raises:
        RuntimeError: When it failed otherwise.
    """
    folder.mkdir()
    done = 0
    while True:
        child = start(variant, folder)
        if done < kills:
            time.sleep(chance.uniform(0.0, 0.8 * seconds))
            kill(child)
        status = wait(child)
        if os.WIFSIGNALED(status):
            done += 1
            continue
        if status == 0:
            return done, False
        said = (folder / "error").read_text()
        if variant.refused is not None and variant.refused in said:
            return done, True
        raise RuntimeError(said)


def main(root: Path, kills: int, seed: int, names: list[str]) -> int:
    """Kill scripts a number of times in all, and compare each with an unbroken run."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    unknown = set(names) - {variant.name for variant in VARIANTS}
    if unknown:
        sys.exit(f"There is no variant {', '.join(sorted(unknown))}. There are: {', '.join(v.name for v in VARIANTS)}")
    variants = [variant for variant in VARIANTS if not names or variant.name in names]
    chance, done, runs, parts = random.Random(seed), 0, 0, 0
    refusals, wrong = set[str](), list[str]()
    # So that the children have every module that a run imports when it needs it.
    (root / "first").mkdir(parents=True)
    train(variants[0], root / "first")
    expected = {variant.name: unbroken(variant, root / f"{variant.name}-unbroken") for variant in variants}
    least = -(-kills // len(variants))
    for variant in variants:
        whole, seconds = expected[variant.name]
        of_this = 0
        while of_this < least:
            runs += 1
            folder = root / f"{variant.name}-{runs}"
            try:
                times, refused = killed(variant, folder, least - of_this, chance, seconds)
            except (RuntimeError, TimeoutError) as error:
                times, refused = least, False
                wrong.append(f"{variant.name}, run {runs}: {error}")
            else:
                if refused:
                    refusals.add(variant.name)
                else:
                    found = outcome(folder)
                    parts += len(whole)
                    for name in sorted({*whole, *found}):
                        if whole.get(name) != found.get(name):
                            wrong.append(f"{variant.name}, run {runs}: {name}")
                            print(
                                f"  {variant.name} {name}\n    unbroken: {whole.get(name)}\n    killed:   {found.get(name)}"
                            )
            of_this += times
            if not wrong:
                shutil.rmtree(folder)
        done += of_this
    for line in wrong:
        print(f"seed {seed}: {line}")
    refusing = ", ".join(sorted(refusals)) or "none"
    print(
        f"seed {seed}: {done} kills in {runs} runs of {len(variants)} variants; {len(wrong)} differences in the {parts} parts "
        f"that were compared with those of unbroken runs; refused to go on, as they may: {refusing}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    given = sys.argv[3:]
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(given[0]) if given else 0, given[1:]))
