"""`save_model`, `load_model`, `save_weights`, `load_weights`: the extension of the file decides the format."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from oncue.checkpoints.score_note import ending
from oncue.checkpoints.snapshot import Snapshot
from oncue.core import remote
from oncue.core.files import OF_PARTS
from oncue.core.protocols import HasFiles, optimizer_of
from oncue.core.warn import warn
from oncue.legacy import take_ignored
from oncue.models import Model
from oncue.optimizers import Optimizer
from oncue.saving import (
    guard,
    keras_archive,
    legacy_h5,
    legacy_weights,
    safetensors_file,
    shards_folder,
    weights_h5,
    weights_json,
)
from oncue.saving.arguments import (
    UNREADY,
    may_write,
    path_and_kind,
    refuse_rest,
    require_built,
    require_model,
)
from oncue.saving.hdf5_file import follow, write_hdf5
from oncue.saving.optimizer_arrays import optimizer_tensors
from oncue.saving.tree import Tree
from oncue.shards import follows

MODELS = {".keras": "Keras 3's archive", ".h5": "the file of Keras 1 and 2", ".hdf5": "the same"}
_WEIGHTS = {
    ".weights.h5": "Keras 3's weights",
    ".safetensors": "the weights of any torch module",
    ".h5": "the weights of Keras 1 and 2",
    ".hdf5": "the same",
    OF_PARTS: "a folder with a file of each process, which has its parts of the weights",
}
_IN_FILES = {weights_json.ENDING: "Keras 3's weights in several files"}
_SKIP = "`objects_to_skip` is only for .weights.h5 and .weights.json files; got {!r}."


def save_model(
    model: Any, filepath: str | os.PathLike[str], overwrite: bool = True, zipped: bool | None = None, **kwargs: Any
) -> None:
    """Save a whole model: architecture, weights, the arguments of `compile`, and the optimizer's state.

    Real Keras reads the file too.

    Args:
        model: A Sequential or functional model of layers, or one of your own class with `get_config`.
        filepath: A name that ends in `.keras` (recommended), or in `.h5` or `.hdf5` for the format of Keras 1 and 2.
        overwrite: False to be asked before a file is overwritten; without a terminal this is an error.
        zipped: For compatibility with Keras; must be None or True.
        **kwargs: `include_optimizer`, False to leave out the arguments of `compile`; `save_format`, an argument of Keras 2 that
            the extension has replaced.

    Raises:
        ValueError: For another extension, or a model that no configuration describes, such as a torch module.
        FileExistsError: When the file is there and `overwrite` is False.

    Example:
        >>> import tempfile
        >>> from oncue import Sequential, layers
        >>> model = Sequential([layers.Input((2,)), layers.Dense(3)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(model, f"{folder}/model.keras")
        ...     load_model(f"{folder}/model.keras").count_params()
        9
    """
    include_optimizer = bool(kwargs.pop("include_optimizer", True))
    take_ignored("save", kwargs)
    refuse_rest("save", kwargs)
    if zipped is False:
        raise ValueError("`zipped=False` is not supported: a .keras file is always an archive. Leave it out.")
    _, kind = path_and_kind(filepath, MODELS, "a whole model", "model.save('model.keras')")
    _save(model, filepath, overwrite, lambda path: _prepared_model(model, kind, include_optimizer, None)(path))


def load_model(
    filepath: str | os.PathLike[str],
    custom_objects: dict[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> Any:
    """Load a model that oncue or real Keras saved; training continues where it stopped.

    Classes are found among oncue's and yours only, never by a path in the file.

    Args:
        filepath: A `.keras`, `.h5` or `.hdf5` file.
        custom_objects: Your own classes and functions by name.
        compile: Whether to compile it as it was, with its optimizer's state.
        safe_mode: For compatibility with Keras; code in a file is never run in any case.

    Returns:
        The model.

    Raises:
        ValueError: For another extension, a file that is not whole or not safe, or names that are not known.
    """
    if remote.is_url(filepath):
        path_and_kind(filepath, MODELS, "a whole model", "load_model('model.keras')")
        with remote.downloaded(str(filepath)) as local:
            return load_model(local, custom_objects, compile, safe_mode)
    path, kind = path_and_kind(filepath, MODELS, "a whole model", "load_model('model.keras')")
    read = keras_archive.read_archive if kind == ".keras" else legacy_h5.read_model
    return read(path, custom_objects, compile)


def save_weights(
    model: Any,
    filepath: str | os.PathLike[str],
    overwrite: bool = True,
    max_shard_size: float | None = None,
    **kwargs: Any,
) -> None:
    """Save a model's weights.

    Args:
        model: A built model; for `.safetensors` any torch module.
        filepath: A name that ends in `.weights.h5` (Keras 3's, with the optimizer's state), `.safetensors` (any torch
            module), `.h5` or `.hdf5` (the layout of Keras 1 and 2), or `.shards`: a folder, in which each process of a run
            writes its parts of the weights; with `max_shard_size` in `.weights.json`.
        overwrite: False to be asked before a file is overwritten; without a terminal this is an error.
        max_shard_size: The most gigabytes of arrays in one file. The weights go to as many files beside `filepath` as they
            need, `name_00000.weights.h5` and so on, and `filepath` says what is in which. Default: one file.
        **kwargs: `objects_to_skip`, layers that are left out, or the optimizer, for its state; `save_format`, an argument of
            Keras 2 that the extension has replaced.

    Raises:
        ValueError: For another extension, a model without weights yet, or one array that is larger than a file may be.
        FileExistsError: When the file is there and `overwrite` is False.
    """
    take_ignored("save", kwargs)
    skipped = _skipped(model, kwargs)
    refuse_rest("save_weights", kwargs)
    limit = None if max_shard_size is None else weights_json.bytes_of(max_shard_size)
    known = _WEIGHTS if limit is None and not _is_map(filepath) else _WEIGHTS | _IN_FILES
    path, kind = path_and_kind(filepath, known, "weights", "model.save_weights('model.weights.h5')")
    require_built(model, "save_weights")
    if limit is None:
        if kind in _IN_FILES:
            raise ValueError(
                f"{os.fspath(filepath)!r} is for weights in several files: say how many gigabytes go into each, as in "
                "`model.save_weights('model.weights.json', max_shard_size=5)`, or name one file, 'model.weights.h5'."
            )
        if skipped and kind != ".weights.h5":
            raise ValueError(_SKIP.format(os.fspath(filepath)))
        if kind == OF_PARTS:
            check_parts(model, filepath)
            _save(model, filepath, overwrite, lambda path: shards_folder.prepare_weights(model, path)())
        else:
            _save(model, filepath, overwrite, lambda path: _prepared_weights(model, kind, None, skipped=skipped)(path))
        return
    if remote.is_url(filepath):
        raise ValueError(
            f"The files of `max_shard_size` can't be at a URL, of which one file is replaced at a time; got {filepath!r}. "
            "Leave `max_shard_size` out, or save them to a folder."
        )
    if kind == ".weights.h5":
        path = path.with_suffix(".json")
        warn(f"Weights in several files are named by a map; '{path}' is written in place of '{os.fspath(filepath)}'.")
    elif kind not in _IN_FILES:
        raise ValueError(f"`max_shard_size` is for {weights_json.ENDING} files; got {os.fspath(filepath)!r}.")
    own = _own_files(model)
    if own is None:
        require_model(model, kind)
        tree = weights_h5.weights_tree(model, all(one is not model.optimizer for one in skipped), skipped)
    else:
        tree = own.weights_tree(skipped)
    _save(model, path, overwrite, lambda path: weights_json.write_files(tree, path, limit))


def _save(model: Any, filepath: str | os.PathLike[str], overwrite: bool, write: Callable[[Path], None]) -> None:
    if _follows(model):
        write(Path(os.fspath(filepath)))
    elif may_write(filepath, overwrite):
        if remote.is_url(filepath):
            with remote.uploading(str(filepath)) as local:
                write(local)
        else:
            write(Path(os.fspath(filepath)))


def _is_map(filepath: Any) -> bool:
    return isinstance(filepath, (str, os.PathLike)) and os.fspath(filepath).endswith(weights_json.ENDING)


def _skipped(model: Any, kwargs: dict[str, Any]) -> list[Any]:
    """Take `objects_to_skip` out of a call's arguments."""
    skipped = list(kwargs.pop("objects_to_skip", None) or ())
    for one in skipped:
        if isinstance(one, (str, int, float)):
            raise ValueError(
                f"`objects_to_skip` must be layers of the model, or its optimizer; got {one!r}. Use `model.get_layer(...)`."
            )
    return skipped


def prepare_save(
    model: Any,
    filepath: str | os.PathLike[str],
    *,
    weights_only: bool = False,
    snapshot: Snapshot | None = None,
    note: str | None = None,
) -> Callable[[], None]:
    """Take everything that a save needs from a model, and write it later.

    With a snapshot, the returned function is independent of the model: it may run on another thread while training
    continues, until the snapshot is used again.

    Args:
        model: The model, as for `save_model` or `save_weights`.
        filepath: The file; its extension decides the format.
        weights_only: Whether to save the weights alone.
        snapshot: Copies the tensors, into memory that it reuses; None to refer to the model's own tensors, for a save
            before the next step.
        note: What `oncue.checkpoints.score_note` finds in the file.

    Returns:
        A function without arguments that writes the file, completely or not at all.

    Raises:
        ValueError: As `save_model` and `save_weights`.

    Example:
        >>> import tempfile
        >>> from oncue import Sequential, layers
        >>> from oncue.checkpoints.snapshot import Snapshot
        >>> model = Sequential([layers.Input((2,)), layers.Dense(1)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save = prepare_save(model, f"{folder}/a.weights.h5", weights_only=True, snapshot=Snapshot())
        ...     model.set_weights([weight * 0 for weight in model.get_weights()])
        ...     save()
        ...     model.load_weights(f"{folder}/a.weights.h5")
        >>> bool(model.get_weights()[0].any())
        True
    """
    if weights_only:
        path, kind = path_and_kind(filepath, _WEIGHTS, "weights", "model.save_weights('model.weights.h5')")
        require_built(model, "save_weights")
        if kind == OF_PARTS:
            check_parts(model, filepath)
            return shards_folder.prepare_weights(model, path, snapshot, note)
        write = _prepared_weights(model, kind, snapshot, note)
    else:
        path, kind = path_and_kind(filepath, MODELS, "a whole model", "model.save('model.keras')")
        write = _prepared_model(model, kind, True, snapshot, note)

    follower = _follows(model)

    def save() -> None:
        if follower:
            if snapshot is None:
                write(path)
            return
        if remote.is_url(filepath):
            with remote.uploading(str(filepath)) as local:
                write(local)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)

    return save


def size_of_save(model: Any, filepath: str | os.PathLike[str], *, weights_only: bool = False) -> int:
    """Return the approximate size of a save in bytes: that of the arrays, without metadata.

    Args:
        model: The model, as for `save_model` or `save_weights`.
        filepath: The file; its extension decides the format.
        weights_only: Whether to save the weights alone.

    Example:
        >>> from oncue import Sequential, layers
        >>> size_of_save(Sequential([layers.Input((2,)), layers.Dense(3)]), "a.keras")
        36
    """
    kind = path_and_kind(filepath, _WEIGHTS if weights_only else MODELS, "a model", "'model.keras'")[1]
    own = _own_files(model)
    if own is not None:
        return own.size(kind, weights_only)
    tensors = [*model.parameters(), *model.buffers()]
    if isinstance(optimizer_of(model), Optimizer) and (not weights_only or kind == ".weights.h5"):
        tensors += [stored.tensor for stored in optimizer_tensors(model)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if not isinstance(tensor, UNREADY))


def _prepared_model(
    model: Any, kind: str, include_optimizer: bool, snapshot: Snapshot | None, note: str | None = None
) -> Callable[[Path], None]:
    own = _own_files(model)
    if own is not None:
        return own.prepare_model(kind, include_optimizer, note)
    if kind == ".keras":
        return keras_archive.prepare_archive(model, include_optimizer, snapshot, note)
    return _prepared_tree(legacy_h5.model_tree(model, include_optimizer), snapshot, note)


def _prepared_weights(
    model: Any, kind: str, snapshot: Snapshot | None, note: str | None = None, skipped: Sequence[Any] = ()
) -> Callable[[Path], None]:
    own = _own_files(model)
    if own is not None:
        return own.prepare_weights(kind, snapshot, note, skipped)
    if kind == ".safetensors":
        return safetensors_file.prepare_weights(model, snapshot, note)
    require_model(model, kind)
    if kind == ".weights.h5":
        with_optimizer = all(one is not model.optimizer for one in skipped)
        return _prepared_tree(weights_h5.weights_tree(model, with_optimizer, skipped), snapshot, note)
    tree = Tree()
    legacy_weights.write_weights(tree, model)
    return _prepared_tree(tree, snapshot, note)


def check_parts(model: Any, filepath: str | os.PathLike[str]) -> None:
    """Refuse a folder of parts for what it can't hold, or where it can't be.

    Raises:
        ValueError: For a URL, and a model that writes its files itself.
    """
    if remote.is_url(filepath):
        raise ValueError(
            f"A {OF_PARTS} folder must be on a disk that all processes see, not at a URL; got {filepath!r}."
        )
    if _own_files(model) is not None:
        raise ValueError(
            f"A {OF_PARTS} folder is for models of oncue's layers and torch modules; this is a model of the real Keras. Name "
            "the file 'model.weights.h5'."
        )


def _own_files(model: Any) -> HasFiles | None:
    return model.own_files if isinstance(model, Model) else None


def _follows(model: Any) -> bool:
    """Return whether this process only brings its parts of the weights, which the main process writes."""
    return isinstance(model, torch.nn.Module) and follows(model.parameters())


def _prepared_tree(tree: Tree, snapshot: Snapshot | None, note: str | None) -> Callable[[Path], None]:
    if snapshot is not None:
        tree.freeze(snapshot)
    if tree.follows:
        return lambda path: follow(tree)
    return lambda path: write_hdf5(tree, path, ending(note))


def load_weights(model: Any, filepath: str | os.PathLike[str], skip_mismatch: bool = False, **kwargs: Any) -> None:
    """Load weights into a model, all of them or none.

    Args:
        model: A built model; for `.safetensors` any torch module.
        filepath: A file of weights, or of a whole model, in any format that oncue or real Keras writes.
        skip_mismatch: Whether layers that don't fit are left as they are, with a warning.
        **kwargs: `by_name`, for `.h5` files of Keras 1 and 2: match layers by their names instead of their order.
            `objects_to_skip`, for `.weights.h5` and `.weights.json`: layers that are left as they are, or the optimizer.

    Raises:
        ValueError: When weights are missing, unknown or of another shape, or the file is not whole or not safe.
    """
    by_name = bool(kwargs.pop("by_name", False))
    skipped = _skipped(model, kwargs)
    refuse_rest("load_weights", kwargs)
    known = {**_WEIGHTS, ".keras": "Keras 3's archive", **_IN_FILES}
    path, kind = path_and_kind(filepath, known, "weights", "model.load_weights('model.weights.h5')")
    if skipped and kind != ".weights.h5" and kind not in _IN_FILES:
        raise ValueError(_SKIP.format(os.fspath(filepath)))
    if kind == OF_PARTS:
        check_parts(model, filepath)
        require_built(model, "load_weights")
        shards_folder.read_weights(model, path, skip_mismatch)
        return
    if remote.is_url(filepath):
        if kind in _IN_FILES:
            raise ValueError(
                f"Weights in several files can't be read from a URL; got {filepath!r}. Copy them to a folder."
            )
        with remote.downloaded(str(filepath)) as local:
            load_weights(model, local, skip_mismatch, by_name=by_name, objects_to_skip=skipped)
        return
    if by_name and kind not in (".h5", ".hdf5"):
        raise ValueError(f"`by_name` is only for .h5 and .hdf5 files of Keras 1 and 2; got {os.fspath(filepath)!r}.")
    require_built(model, "load_weights")
    own = _own_files(model)
    if own is not None:
        own.read_weights(path, kind, skip_mismatch, by_name, skipped)
        return
    if kind == ".safetensors":
        safetensors_file.read_weights(model, path, skip_mismatch)
        return
    require_model(model, kind)
    if kind == ".keras":
        keras_archive.read_archive_weights(path, model, skip_mismatch)
        return
    if kind in _IN_FILES:
        with weights_json.opened_files(path) as arrays:
            weights_h5.read_weights(arrays, model, path, skip_mismatch, skipped)
        return
    with guard.opened(path) as file, guard.opened_hdf5(file, path) as content:
        # Both kinds of file may end in .h5; their layout distinguishes them.
        whole = guard.group_at(content, "model_weights", path)
        if whole is not None or "layer_names" in content.attrs or "layer_names0" in content.attrs:
            legacy_weights.read_weights(content if whole is None else whole, model, path, skip_mismatch, by_name)
        else:
            weights_h5.read_weights(guard.Arrays([(content, path)]), model, path, skip_mismatch, skipped)
