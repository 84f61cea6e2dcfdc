"""`oncue inspect`, `verify` and `diff`: what is in files, whether they are what was saved, and in what two differ."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncue.cli.contents import Contents, arrays_of, states_in
from oncue.cli.output import say, say_json, table
from oncue.cli.runs import facts_of

if TYPE_CHECKING:
    from oncue.core.run_record import RunRecord
    from oncue.report import Run

_MODELS = (".keras", ".h5", ".hdf5", ".safetensors")
_MANIFEST = ".oncue.json"
_MOST_LAYERS = 60


def inspect(options: Namespace) -> int:
    """Say what a file, a backup or a run is."""
    place = Path(options.path)
    if not place.exists():
        raise FileNotFoundError(f"There is no file or folder '{place}'.")
    if place.is_dir() and states_in(place):
        newest = states_in(place)[0]
        return _show(Contents.read(newest), options)
    if place.name.endswith(_MANIFEST):
        return _show_manifest(place, options)
    if place.is_dir() or place.suffix.lower() in (".csv", ".jsonl"):
        from oncue.report import find_run

        return _show_run(find_run(place), options)
    return _show(Contents.read(place), options)


def _show(found: Contents, options: Namespace) -> int:
    facts = {
        **found.facts,
        "checksum": "right" if found.checked else "it carries none",
        "arrays": len(found.arrays),
        "parameters": found.parameters,
    }
    if options.json:
        layers = [{"name": name, "class": kind, "depth": depth} for name, kind, depth in found.layers]
        arrays = {name: {"shape": shape, "type": kind} for name, (shape, kind) in found.arrays.items()}
        say_json({"file": str(found.path), "contents": found.what, **facts, "layers": layers, "weights": arrays})
        return 0
    say(f"{found.path}: {found.what}")
    shown = {**facts, "size": _bytes(facts["size"]), "parameters": f"{facts['parameters']:,}"}
    table("", ["", ""], list(shown.items()))
    layers_shown = [("  " * depth + name, kind) for name, kind, depth in found.layers[:_MOST_LAYERS]]
    if layers_shown:
        table("", ["layer", "class"], layers_shown)
    if len(found.layers) > _MOST_LAYERS:
        say(f"and {len(found.layers) - _MOST_LAYERS} more layers")
    if not found.layers:
        arrays_shown = [(name, str(shape), kind) for name, (shape, kind) in list(found.arrays.items())[:_MOST_LAYERS]]
        table("", ["array", "shape", "type"], arrays_shown)
        if len(found.arrays) > _MOST_LAYERS:
            say(f"and {len(found.arrays) - _MOST_LAYERS} more arrays")
    return 0


def _show_manifest(path: Path, options: Namespace) -> int:
    from oncue.checkpoints import Checkpoints

    manifest = Checkpoints(path).manifest
    records = [record.as_json() for record in manifest.records]
    if options.json:
        say_json({"file": str(path), "contents": "the manifest of a ModelCheckpoint", "files": records})
        return 0
    say(f"{path}: the manifest of a ModelCheckpoint")
    rows = [
        (
            record.file,
            record.epoch,
            "" if record.score is None else f"{record.monitor} {record.score:g}",
            _bytes(record.size),
        )
        for record in manifest.records
    ]
    table("", ["file", "epoch", "score", "size"], rows, right=(1, 3))
    return 0


def _show_run(run: Run, options: Namespace) -> int:
    if options.json:
        say_json({"file": str(run.path), "contents": "a run", **facts_of(run), "files": run.files, **run.documents})
        return 0
    say(f"{run.path}: a run")
    say(run.record.explain())
    if run.files:
        table("", ["file", "size"], [(name, _bytes(size)) for name, size in run.files.items()], right=(1,))
    return 0


def verify(options: Namespace) -> int:
    """Say whether files are what was saved."""
    found: list[tuple[str, str, str]] = []
    for path in options.path:
        found += _verified(Path(path))
    if options.json:
        say_json({"files": [{"file": file, "state": state, "why": why} for file, state, why in found]})
    else:
        width = max(len(state) for _, state, _ in found)
        for file, state, why in found:
            say(f"{state:<{width}}  {file}" + (f": {why}" if why else ""))
    return 1 if any(state == "DAMAGED" for _, state, _ in found) else 0


def states_of(run: Run) -> dict[str, str]:
    r"""Return what `verify` says of the files in a run's folder that it can check, by their names there.

    Example:
        >>> import tempfile
        >>> from oncue.report import find_run
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "log.csv").write_text("epoch,loss\n0,0.5\n")
        ...     _ = Path(folder, "model.keras").write_bytes(b"PK")
        ...     [(name, state[:7]) for name, state in states_of(find_run(folder)).items()]
        [('model.keras', 'DAMAGED')]
    """
    if not run.path.is_dir() or not _checked_in(run.path):
        return {}
    found = _verified(run.path, {run.record.path: run.record})
    return {
        os.path.relpath(file, run.path): f"{state}: {why}" if why else state
        for file, state, why in found
        # What a link leads to is no file of the folder.
        if not os.path.islink(file)
    }


def _checked_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_checked(path)]


def _verified(place: Path, read: Mapping[Path, RunRecord] | None = None) -> list[tuple[str, str, str]]:
    """Return each file with "sound", "DAMAGED" or "unchecked", and why; of journals that were read it is known."""
    if place.is_dir():
        paths = _checked_in(place)
        listed = {str(file): one for path in paths if path.name.endswith(_MANIFEST) for file, *one in _listed(path)}
        others = [path for path in paths if not path.name.endswith(_MANIFEST) and str(path) not in listed]
        if not paths:
            raise ValueError(
                f"There is nothing in '{place}' that can be checked: {', '.join(_MODELS)}, journal.jsonl, or {_MANIFEST}."
            )
        own = [(file, state, why) for file, (state, why) in listed.items()]
        return own + [_one(path, read or {}) for path in others]
    if place.name.endswith(_MANIFEST) or not place.exists():
        # The `filepath` of a ModelCheckpoint leads to its manifest.
        return list(_listed(place))
    return [_one(place, {})]


def _is_checked(path: Path) -> bool:
    return not path.name.startswith(".") and path.name.endswith((*_MODELS, _MANIFEST, ".jsonl"))


def _listed(place: Path) -> Iterator[tuple[str, str, str]]:
    from oncue.checkpoints import Checkpoints

    for file, sound in Checkpoints(place).verify().items():
        missing = not Path(file).is_file()
        why = "" if sound else "it is missing" if missing else "its content isn't what the manifest says"
        yield file, "sound" if sound else "DAMAGED", why


def _one(path: Path, read: Mapping[Path, RunRecord]) -> tuple[str, str, str]:
    if path.suffix == ".jsonl":
        return _journal(path, read.get(path))
    try:
        found = Contents.read(path)
    except ValueError as error:
        return str(path), "DAMAGED", str(error)
    if found.checked:
        return str(path), "sound", ""
    return str(path), "unchecked", "it can be read, and carries no checksum"


def _journal(path: Path, record: RunRecord | None) -> tuple[str, str, str]:
    from oncue.core.run_record import RunRecord

    try:
        record = record or RunRecord.read(path)
    except ValueError as error:
        return str(path), "DAMAGED", str(error)
    if record.damaged:
        return str(path), "DAMAGED", f"{record.damaged} lines can't be read"
    return str(path), "unchecked", "all its lines can be read; it carries no checksum"


def diff(options: Namespace) -> int:
    """Say in what two files, or two runs, differ."""
    one, other = Path(options.one), Path(options.other)
    for path in (one, other):
        if not path.exists():
            raise FileNotFoundError(f"There is no file or folder '{path}'.")
    if one.is_dir() != other.is_dir():
        raise ValueError(f"'{one}' and '{other}' can't be compared: one is a folder, and one a file.")
    rows = _run_differences(one, other) if one.is_dir() else _file_differences(one, other)
    if options.json:
        say_json({"differences": [dict(zip(("what", "one", "other"), row, strict=True)) for row in rows]})
    elif rows:
        table("", ["", str(one), str(other)], [(what, _short(left), _short(right)) for what, left, right in rows])
    else:
        say("They don't differ.")
    return 1 if rows else 0


def _file_differences(one: Path, other: Path) -> list[tuple[str, Any, Any]]:
    import numpy as np

    left, right = Contents.read(one), Contents.read(other)
    rows = [row for row in differences(left.config, right.config) if not _numbered_names(*row)]
    numbers, others = arrays_of(one), arrays_of(other)
    if [_bare(name) for name in numbers] == [_bare(name) for name in others]:
        # A second model of the same code has `dense_2` where the first has `dense`.
        others = dict(zip(numbers, others.values(), strict=True))
    for name in [*numbers, *(name for name in others if name not in numbers)]:
        if name not in numbers or name not in others:
            rows.append((name, _shape(numbers.get(name)), _shape(others.get(name))))
        elif numbers[name].shape != others[name].shape:
            rows.append((name, _shape(numbers[name]), _shape(others[name])))
        else:
            mine, theirs = numbers[name], others[name]
            different = mine != theirs
            if mine.dtype.kind in "fc":
                different &= ~(np.isnan(mine) & np.isnan(theirs))
            if different.any():
                gap = float(np.abs(mine.astype(complex if mine.dtype.kind == "c" else float) - theirs).max())
                words = f"{int(different.sum())} of {mine.size} numbers differ, by {gap:.3g} at most"
                rows.append((name, _shape(mine), words))
    return rows


def _bare(name: str) -> str:
    return re.sub(r"_\d+(?=\.|/|$)", "", name)


def _numbered_names(where: str, one: Any, other: Any) -> bool:
    """Return whether two texts are names that layers got by themselves, and differ in their numbers only."""
    named = where.endswith((".name", ".keras_history.0"))
    return named and isinstance(one, str) and isinstance(other, str) and _bare(one) == _bare(other)


def _run_differences(one: Path, other: Path) -> list[tuple[str, Any, Any]]:
    from oncue.report import find_run

    left, right = find_run(one), find_run(other)
    rows = differences(left.documents, right.documents)
    for name in sorted({*left.record.history, *right.record.history}):
        mine, theirs = (run.record.history.get(name, [None])[-1] for run in (left, right))
        if mine != theirs:
            rows.append((f"last {name}", mine, theirs))
    ours, others = len(left.record.epochs), len(right.record.epochs)
    return rows if ours == others else [*rows, ("epochs", ours, others)]


def differences(one: Any, other: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """Return where two plain values differ, with both; what only one of them has is None in the other.

    Example:
        >>> differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "c": [1]})
        [('a.b', 1, 2)]
    """
    if isinstance(one, list) and isinstance(other, list):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, dict) and isinstance(other, dict):
        names = [*one, *(name for name in other if name not in one)]
        return [
            row
            for name in names
            for row in differences(one.get(name), other.get(name), f"{where}.{name}" if where else str(name))
        ]
    return [] if one == other else [(where, one, other)]


def _shape(array: Any) -> str:
    return "not there" if array is None else f"{array.dtype} {tuple(array.shape)}"


def _short(value: Any) -> str:
    text = "not there" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
