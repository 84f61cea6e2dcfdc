"""Walks a tutorial as a reader does: files are written, commands are typed.

    python docs/site/walk.py docs/tutorials/first_run.md

prints how long each command took. In a page of docs/tutorials a block with a title is a file, `sh` is typed, and `text` after
it shows lines of what came. `console` is only shown.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r'^```(\w+)(?: title="([\w.]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass
class Typed:
    """Commands that were typed.

    Args:
        commands: The commands.
        said: What came, on stdout.
        shown: The blocks of the page that show lines of it.
        seconds: How long they took.
        processor: How many seconds of processor time that was.
    """

    commands: str
    said: str
    shown: list[str]
    seconds: float
    processor: float


def walk(page: Path, folder: Path) -> Iterator[Typed]:
    """Do what a page says.

    Args:
        page: The page.
        folder: An empty folder.

    Yields:
        Each block of commands.

    Raises:
        RuntimeError: When a command fails.
    """
    reader, place = _reader(folder / "bin"), folder / "walk"
    place.mkdir()
    typed: Typed | None = None
    for language, title, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        if title:
            (place / title).write_text(text, encoding="utf-8")
        elif language == "text" and typed is not None:
            typed.shown.append(text)
        elif language == "sh":
            if typed is not None:
                yield typed
            typed = _type(text, place, reader)
    if typed is not None:
        yield typed


def _type(commands: str, place: Path, reader: dict[str, str]) -> Typed:
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(["bash", "-e", "-c", commands], cwd=place, env=reader, capture_output=True, text=True)
    after, took = os.times(), time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{commands}{done.stdout}{done.stderr}")
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return Typed(commands, done.stdout, [], took, processor)


def _reader(folder: Path) -> dict[str, str]:
    """Return the environment of somebody who has installed oncue: `python` and `oncue` are commands."""
    folder.mkdir()
    for name, words in (("python", ""), ("oncue", "-m oncue ")):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n', encoding="utf-8")
        command.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "src")}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for one in walk(Path(sys.argv[1]), Path(scratch)):
            print(
                f"{one.seconds:6.1f} s  {one.processor:6.1f} s of a processor  {one.commands.splitlines()[0]}",
                flush=True,
            )
