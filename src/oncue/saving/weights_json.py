"""`.weights.json`: Keras 3's weights in several files, none larger than the user says, and the map of what is where."""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from oncue.core.files import replace_file
from oncue.saving import guard
from oncue.saving.hdf5_file import follow, write_hdf5
from oncue.saving.tree import Stored, Tree

ENDING = ".weights.json"
_GIGABYTE = 2**30
_MOST_FILES = 10_000


def bytes_of(max_shard_size: Any) -> int:
    """Return a size in gigabytes as bytes.

    Args:
        max_shard_size: The size.

    Raises:
        ValueError: When it is no positive number.

    Example:
        >>> bytes_of(0.5)
        536870912
    """
    if not isinstance(max_shard_size, (int, float)) or isinstance(max_shard_size, bool) or not max_shard_size > 0:
        raise ValueError(f"`max_shard_size` must be a positive number of gigabytes, such as 5; got {max_shard_size!r}.")
    return int(float(max_shard_size) * _GIGABYTE)


def write_files(tree: Tree, path: Path, limit: int) -> None:
    """Write weights to several files; those that are there are replaced all at once, or not at all.

    The files are named after the map: `m_00000.weights.h5` and so on for `m.weights.json`. While those of an earlier save have
    these names, the new ones have another number behind, because it is the map that replaces all of them in one moment.

    Args:
        tree: The weights.
        path: The map's file.
        limit: The most bytes of arrays in one file.

    Raises:
        ValueError: For an array that is larger than a file may be; nothing is written then.
        OSError: When a file can't be written; what was there before is untouched then.
    """
    files, groups = _divided(tree, limit)
    if tree.follows:
        for one in files:
            follow(one)
        return
    base = path.name.removesuffix(ENDING)
    ours = re.compile(re.escape(base) + r"_\d{5}(-[0-9a-f]{12})?\.weights\.h5")
    before = [one for one in path.parent.iterdir() if ours.fullmatch(one.name)]
    mark = f"-{uuid.uuid4().hex[:12]}" if before else ""
    paths = [path.with_name(f"{base}_{number:05}{mark}.weights.h5") for number in range(len(files))]
    written: list[Path] = []
    try:
        for one, part in zip(files, paths, strict=True):
            written.append(part)
            write_hdf5(one, part)
        content = {
            "metadata": {"total_size": sum(map(_size, files))},
            "weight_map": {group: [paths[number].name for number in numbers] for group, numbers in groups.items()},
        }
        replace_file(path, json.dumps(content, indent=4).encode("utf-8"))
    except BaseException:
        for part in written:
            part.unlink(missing_ok=True)
        raise
    for old in before:
        old.unlink(missing_ok=True)


@contextmanager
def opened_files(path: Path) -> Iterator[guard.Arrays]:
    """Open all files that a map names, for reading.

    Args:
        path: The map's file.

    Yields:
        The arrays in all of them.

    Raises:
        ValueError: For a map or a file that breaks a rule of `guard`.
        FileNotFoundError: When a file is missing.
    """
    with guard.opened(path) as file:
        content = guard.read_json(file.read(), path)
    with ExitStack() as stack:
        files = []
        for name in _names(content, path):
            part = path.with_name(name)
            files.append((stack.enter_context(guard.opened_hdf5(stack.enter_context(guard.opened(part)), part)), part))
        yield guard.Arrays(files)


def _names(content: Any, path: Path) -> list[str]:
    groups = content.get("weight_map") if isinstance(content, dict) else None
    found: dict[str, None] = {}
    for names in groups.values() if isinstance(groups, dict) else [None]:
        for name in names if isinstance(names, list) else [names]:
            if not isinstance(name, str):
                guard.refuse(path, "it is no map of weights, which names its files.")
            if Path(name).name != name or re.search(r"[\\/:\0]", name) or not name.endswith(".weights.h5"):
                guard.refuse(path, f"it names {name[:100]!r}, which is no file of weights of its own folder.")
            found[name] = None
            if len(found) > _MOST_FILES:
                guard.refuse(path, f"it names more than {_MOST_FILES} files.")
    return list(found)


def _divided(tree: Tree, limit: int) -> tuple[list[Tree], dict[str, list[int]]]:
    """Return the content of each file, and the numbers of the files that have arrays of a group."""
    files, groups, used = [Tree()], dict[str, list[int]](), 0
    for place, group in _groups(tree, ""):
        made: Tree | None = None
        for name, member in group.members.items():
            if not isinstance(member, Stored):
                continue
            if member.nbytes > limit:
                raise ValueError(
                    f"`max_shard_size` allows {limit:,} bytes in a file, and '{place}/{name}' alone has "
                    f"{member.nbytes:,} bytes. Allow at least {math.ceil(member.nbytes / _GIGABYTE * 1e6) / 1e6:g} gigabytes."
                )
            used += member.nbytes
            if used > limit:
                files.append(Tree())
                made, used = None, member.nbytes
            if made is None:
                made = files[-1].create_group(place)
                made.attrs.update(group.attrs)
                groups.setdefault(f"/{place}", []).append(len(files) - 1)
            made[name] = member
    return files, groups


def _groups(tree: Tree, place: str) -> Iterator[tuple[str, Tree]]:
    yield place, tree
    for name, member in tree.members.items():
        if isinstance(member, Tree):
            yield from _groups(member, f"{place}/{name}" if place else name)


def _size(tree: Tree) -> int:
    members: Sequence[Any] = list(tree.members.values())
    return sum(one.nbytes if isinstance(one, Stored) else _size(one) for one in members)
