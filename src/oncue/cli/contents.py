"""Contents: what is in a file that a run leaves, whatever kind of file it is; read with the checks that loading has."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oncue.checkpoints.score_note import read_note

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_OPTIMIZERS = ("optimizer", "optimizer_weights")


@dataclass
class Contents:
    """What is in a file.

    Args:
        path: The file.
        what: What kind of file it is, in words.
        facts: What is known of it, by the words for it.
        layers: The model's layers, from outside in: the name, the class, and how deep it is inside others.
        arrays: The shape and the type of each array, by name.
        config: The model's configuration, and what it is compiled with, where the file has them.
        checked: Whether the file carries a checksum, which was found right; a wrong one is an error.
    """

    path: Path
    what: str
    facts: dict[str, Any] = field(default_factory=dict)
    layers: list[tuple[str, str, int]] = field(default_factory=list)
    arrays: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    checked: bool = False

    @property
    def parameters(self) -> int:
        """How many numbers the weights have, without the optimizer's."""
        return sum(_size(shape) for name, (shape, _) in self.arrays.items() if not _is_optimizers(name))

    @classmethod
    def read(cls, path: Path) -> Contents:
        """Read a file.

        Args:
            path: A model, weights, or the state of a run.

        Raises:
            ValueError: When it is damaged, or none of these.
            OSError: When it can't be read.
        """
        from oncue.saving import guard

        with guard.opened(path) as file:
            start = file.read(8)
        if start.startswith(_ZIP):
            found = _archive(path)
        elif start == _HDF5:
            found = _hdf5(path)
        elif path.suffix == ".safetensors" and path.name.startswith("state-"):
            found = _state(path)
        elif path.suffix == ".safetensors":
            found = _tensors(path)
        else:
            known = ".keras, .h5, .hdf5, .weights.h5, .safetensors"
            empty = "it is empty" if not start else f"it begins with {start!r}"
            raise ValueError(f"'{path}' is no file of a model, of weights or of a run's state ({known}): {empty}.")
        found.facts["size"] = path.stat().st_size
        with open(path, "rb") as file:
            found.facts["SHA-256"] = hashlib.file_digest(file, "sha256").hexdigest()
        note = read_note(path)
        if note is not None:
            found.facts["saved as the best by"] = f"{note.what}, {note.score:g}"
        return found


def arrays_of(path: Path) -> dict[str, NDArray[Any]]:
    """Return all arrays of a file by name, with their numbers.

    Args:
        path: A file that `Contents.read` takes, but the state of a run.

    Raises:
        ValueError: When it is damaged, or another file.
    """
    from oncue.saving import guard

    with guard.opened(path) as file:
        start = file.read(8)
        file.seek(0)
        if start.startswith(_ZIP):
            weights = guard.read_archive(file, path)["model.weights.h5"]
            with guard.opened_hdf5(io.BytesIO(weights), path) as content:
                return _numbers(content, path)
        if start == _HDF5:
            with guard.opened_hdf5(file, path) as content:
                return _numbers(content, path)
    from oncue.checkpoints.tensors_file import read_tensors

    with guard.opened_tensors(path) as (opened, _):
        tensors = read_tensors(opened)
    if tensors is None:
        guard.refuse(path, guard.CHANGED)
    # NumPy has no numbers of 8 bits nor bfloat16, and float32 holds them exactly.
    wide = {name: one.float() if one.is_floating_point() and one.itemsize < 4 else one for name, one in tensors.items()}
    return {name: one.numpy() for name, one in wide.items()}


def _numbers(content: Any, path: Path) -> dict[str, NDArray[Any]]:
    from oncue.saving import guard

    return {
        name: guard.read_array(guard.dataset_at(content, name, path))
        for name in sorted(guard.paths_of_arrays(content, path))
    }


def _archive(path: Path) -> Contents:
    from oncue.saving import guard

    with guard.opened(path) as file:
        members = guard.read_archive(file, path)
    metadata = guard.read_json(members["metadata.json"], path)
    config = guard.read_json(members["config.json"], path)
    found = Contents(path, "a model, in the archive of Keras 3", checked=True)
    with guard.opened_hdf5(io.BytesIO(members["model.weights.h5"]), path) as content:
        _take_arrays(found, content)
    compiled = config.pop("compile_config", None)
    found.config = {"model": config, "compile": compiled}
    found.layers = list(_layers(config))
    found.facts["saved"] = str(metadata.get("date_saved", "not known"))
    found.facts["written for Keras"] = str(metadata.get("keras_version", "not known"))
    _take_compiled(found, compiled)
    return found


def _hdf5(path: Path) -> Contents:
    from oncue.saving import guard

    with guard.opened(path) as file:
        mark = guard.trailer(0)
        file.seek(max(0, path.stat().st_size - len(mark)))
        checked = file.read().startswith(mark[:-8])
        file.seek(0)
        with guard.opened_hdf5(file, path) as content:
            found = Contents(path, "weights, in the HDF5 file of Keras 3", checked=checked)
            _take_arrays(found, content)
            attributes = {
                name: content.attrs.get(name) for name in ("model_config", "training_config", "keras_version")
            }
            old = guard.group_at(content, "model_weights", path) is not None or "layer_names" in content.attrs
    texts = {name: _text(value) for name, value in attributes.items() if value is not None}
    if "model_config" in texts:
        found.what = "a model, in the HDF5 file of Keras 1 and 2"
        config = guard.read_json(texts["model_config"], path)
        compiled = guard.read_json(texts["training_config"], path) if "training_config" in texts else None
        found.config = {"model": config, "compile": compiled}
        found.layers = list(_layers(config))
        _take_compiled(found, compiled)
    elif old:
        found.what = "weights, in the HDF5 file of Keras 1 and 2"
    if "keras_version" in texts:
        found.facts["written for Keras"] = texts["keras_version"]
    return found


def _tensors(path: Path) -> Contents:
    from oncue.checkpoints.tensors_file import CHECKSUM, read_tensors
    from oncue.saving import guard

    with guard.opened_tensors(path) as (file, tensors):
        metadata = tensors.metadata() or {}
        found = Contents(path, "weights, in a safetensors file", checked=CHECKSUM in metadata)
        for name in tensors.keys():
            part = tensors.get_slice(name)
            found.arrays[name] = tuple(part.get_shape()), str(part.get_dtype())
        if read_tensors(file) is None:
            guard.refuse(path, guard.CHANGED)
    return found


def _state(path: Path) -> Contents:
    from oncue.checkpoints.training_state import TrainingState

    try:
        state = TrainingState.read(path)
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged: {error}.") from None
    found = Contents(path, "the state of a run, of BackupAndRestore", checked=True)
    weights = state.parts.get("weights")
    for name, tensor in weights.items() if isinstance(weights, dict) else ():
        found.arrays[str(name)] = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    found.facts["epoch that comes next"] = state.epoch + 1
    if state.batch:
        found.facts["batches of it that are done"] = state.batch
    optimizer = state.parts.get("optimizer")
    if isinstance(optimizer, dict) and "iterations" in optimizer:
        found.facts["optimizer step"] = int(optimizer["iterations"])
    described = state.fingerprint.get("optimizer")
    if isinstance(described, dict):
        found.facts["optimizer"] = str(described.get("class"))
    found.facts["callbacks"] = ", ".join(state.parts.get("callbacks", {})) or "none with a state"
    if state.stopped:
        found.facts["the run"] = "had been stopped"
    return found


def _take_arrays(found: Contents, content: Any) -> None:
    from oncue.saving import guard

    for name in sorted(guard.paths_of_arrays(content, found.path)):
        array = guard.dataset_at(content, name, found.path)
        found.arrays[name] = tuple(array.shape), "bfloat16" if array.dtype.kind == "V" else str(array.dtype)
    step = next(
        (name for name in found.arrays if name in _STEPS or name.endswith(("/iteration", "/iteration:0"))), None
    )
    if step is not None and not found.arrays[step][0]:
        found.facts["optimizer step"] = int(guard.read_array(guard.dataset_at(content, step, found.path)))


_STEPS = ("optimizer/vars/0",)


def _take_compiled(found: Contents, compiled: Any) -> None:
    if not isinstance(compiled, dict):
        found.facts["compiled"] = "no"
        return
    optimizer = compiled.get("optimizer") or compiled.get("optimizer_config")
    if isinstance(optimizer, dict):
        found.facts["optimizer"] = str(optimizer.get("class_name"))
    elif optimizer:
        found.facts["optimizer"] = str(optimizer)
    loss = compiled.get("loss")
    if loss:
        named = loss.get("config", {}).get("name") if isinstance(loss, dict) and "config" in loss else None
        found.facts["loss"] = str(named or (loss if isinstance(loss, str) else json.dumps(loss)))[:200]


def _layers(config: Any, depth: int = 0) -> Iterator[tuple[str, str, int]]:
    inner = config.get("config") if isinstance(config, dict) else None
    parts = inner.get("layers") if isinstance(inner, dict) else inner if isinstance(inner, list) else None
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, dict):
            own = part.get("config")
            name = part.get("name") or (own.get("name") if isinstance(own, dict) else None)
            yield str(name), str(part.get("class_name")), depth
            if depth < 50:
                yield from _layers(part, depth + 1)


def _is_optimizers(name: str) -> bool:
    return name.split("/")[0] in _OPTIMIZERS


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)


def states_in(folder: Path) -> list[Path]:
    """Return the states in a folder of BackupAndRestore: those to resume from, the newest first, then those that are kept."""
    from oncue.checkpoints.store import kept_epochs, kept_state

    numbers = [path.stem.removeprefix("state-") for path in folder.glob("state-*.safetensors") if path.is_file()]
    newest = [folder / f"state-{number}.safetensors" for number in sorted(filter(str.isdigit, numbers), key=int)[::-1]]
    return newest + [kept_state(folder, epochs) for epochs in kept_epochs(folder)[::-1]]
