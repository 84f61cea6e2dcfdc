"""Assets: the files that layers keep in a `.keras` archive beside their weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oncue.saving import guard
from oncue.saving.places import places_of

_FOLDER = "assets"


def taken_assets(model: Any) -> dict[str, bytes]:
    """Return the files that the layers of a model keep, by their names in the archive.

    Args:
        model: The model.
    """
    found: dict[str, bytes] = {}
    for place in places_of(model):
        if place.keeper is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            place.keeper.save_assets(folder)
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file():
                    inside = file.relative_to(folder).as_posix()
                    found["/".join(filter(None, (_FOLDER, place.path, inside)))] = file.read_bytes()
    return found


def refuse_assets(model: Any, ending: str) -> None:
    """Refuse a model whose layers keep files, for a format of whole models that has no place for them.

    Args:
        model: The model.
        ending: That of the format's files.

    Raises:
        ValueError: When there are such files.
    """
    found = next(iter(taken_assets(model)), None)
    if found is not None:
        raise ValueError(
            f"{model.name!r} can't be kept in a {ending} file: a layer in it keeps files of its own, such as {found!r}. Name "
            "the file 'model.keras'."
        )


def refuse_stray_assets(members: Mapping[str, bytes], model: Any, source: Any) -> None:
    """Refuse files in an archive that belong to no layer of a model.

    Args:
        members: What `guard.read_archive` gave.
        model: The model.
        source: The path, for messages.

    Raises:
        ValueError: When there are such files.
    """
    files = [name for name in members if name.startswith(f"{_FOLDER}/")]
    known = tuple(f"{path}/" for path, _ in _keepers(model)) if files else ()
    stray = next((name for name in files if not name.startswith(known)), None)
    if stray is not None:
        guard.refuse(source, f"its member {stray[:200]!r} belongs to no layer that keeps files.")


def _keepers(model: Any) -> list[tuple[str, Any]]:
    return [("/".join(filter(None, (_FOLDER, place.path))), place.keeper) for place in places_of(model) if place.keeper]


def load_assets(members: Mapping[str, bytes], model: Any, source: Any) -> None:
    """Let the layers of a model read their files.

    Args:
        members: What `guard.read_archive` gave.
        model: The model, with its weights.
        source: The path, for messages.

    Raises:
        ValueError: When there are files of no layer.
    """
    refuse_stray_assets(members, model, source)
    files = {name: content for name, content in members.items() if name.startswith(f"{_FOLDER}/")}
    if not files:
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        for path, keeper in _keepers(model):
            keeper.load_assets(str(Path(folder, path)))
