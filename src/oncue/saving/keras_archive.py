"""`.keras`: Keras 3's archive of a model's configuration, weights and optimizer."""

from __future__ import annotations

import datetime
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oncue.checkpoints.score_note import ending
from oncue.checkpoints.snapshot import Snapshot
from oncue.core.files import replacing
from oncue.models import Model
from oncue.saving import guard
from oncue.saving.assets import load_assets, refuse_stray_assets, taken_assets
from oncue.saving.compile_config import compile_config, compile_from_config
from oncue.saving.hdf5_file import follow, hdf5_pieces
from oncue.saving.legacy_weights import KERAS_VERSION
from oncue.saving.model_config import check_describable, model_config, model_from_written, to_json, warn_of_code
from oncue.saving.weights_h5 import read_weights, weights_tree


def prepare_archive(
    model: Any, include_optimizer: bool = True, snapshot: Snapshot | None = None, note: str | None = None
) -> Callable[[Path], None]:
    """Take the content of a `.keras` file from a model.

    Args:
        model: The model.
        include_optimizer: Whether to keep the arguments of `compile` and the optimizer's state.
        snapshot: Copies the tensors; None to refer to the model's own.
        note: What the archive's comment says.

    Returns:
        A function that writes the file; if it raises an OSError, the old file is untouched.

    Raises:
        ValueError: For a model that a configuration can't describe.
    """
    check_describable(model)
    config = model_config(model)
    own = type(model).get_compile_config is not Model.get_compile_config
    compiled = None if not include_optimizer else model.get_compile_config() if own else compile_config(model)
    config["compile_config"] = compiled
    if compiled is not None and not own and model._plan.precision is not None:
        # Not in `compile_config`, where Keras would refuse an unknown key.
        config["precision"] = model._plan.precision.name
    saved = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    metadata = {"keras_version": KERAS_VERSION, "date_saved": saved}
    description = to_json(config, model)
    warn_of_code(model, description)
    tree = weights_tree(model, with_optimizer=compiled is not None)
    assets = taken_assets(model)
    if snapshot is not None:
        tree.freeze(snapshot)
    if tree.follows:
        return lambda path: follow(tree)

    def write(path: Path) -> None:
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            archive.comment = ending(note)
            archive.writestr("metadata.json", json.dumps(metadata))
            archive.writestr("config.json", description)
            with archive.open("model.weights.h5", "w", force_zip64=True) as member:
                for piece in hdf5_pieces(tree):
                    member.write(piece)
            for name, kept in assets.items():
                archive.writestr(name, kept)

    return write


def read_archive(path: Path, custom_objects: dict[str, Any] | None = None, compile: bool = True) -> Any:
    """Make the model in a `.keras` file.

    Args:
        path: The file.
        custom_objects: Your own classes and functions by name.
        compile: Whether to compile it as it was, with its optimizer's state.

    Returns:
        The model.

    Raises:
        ValueError: For a file that breaks a rule of `guard`, or names what is not known.
    """
    with guard.opened(path) as file:
        members = guard.read_archive(file, path)
    guard.read_json(members["metadata.json"], path)
    config = guard.read_json(members["config.json"], path)
    compiled, precision = config.pop("compile_config", None), config.pop("precision", None)
    with guard.opened_hdf5(io.BytesIO(members["model.weights.h5"]), path) as content:
        model = model_from_written(config, path, custom_objects, numbers=guard.count_of_numbers(content, path))
        if compile and isinstance(compiled, dict) and compiled:
            if type(model).compile_from_config is not Model.compile_from_config:
                model.compile_from_config(compiled)
            else:
                compile_from_config(model, compiled, custom_objects, precision)
        read_weights(guard.Arrays([(content, path)]), model, path)
    load_assets(members, model, path)
    return model


def read_archive_weights(path: Path, model: Any, skip_mismatch: bool = False) -> None:
    """Set a model's weights from those in a `.keras` file."""
    with guard.opened(path) as file:
        members = guard.read_archive(file, path)
    refuse_stray_assets(members, model, path)
    with guard.opened_hdf5(io.BytesIO(members["model.weights.h5"]), path) as content:
        read_weights(guard.Arrays([(content, path)]), model, path, skip_mismatch)
