"""`.safetensors`: the weights of any torch module by the names of its state dict, readable by every other library."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from oncue import torch_private
from oncue.checkpoints.score_note import KEY
from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.tensors_file import entries_of, read_tensors, write_tensors
from oncue.core.builtin import kind_of
from oncue.core.files import replacing
from oncue.saving import guard
from oncue.saving.places import refuse_own_arrays
from oncue.saving.values import converted
from oncue.saving.weights_h5 import settle
from oncue.shards import follows, is_sharded, like, part_of, put, whole

FORMAT_VERSION = "1"


def named_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's tensors by the names of its state dict.

    The names are the module's own, without the prefixes of `torch.compile`, `DataParallel`, `DistributedDataParallel` and
    oncue's `Model`.

    Args:
        module: Any torch module.

    Returns:
        The tensors themselves, not copies.

    Raises:
        ValueError: If the state dict has anything but tensors.

    Example:
        >>> from oncue import Model
        >>> list(named_tensors(Model(torch.nn.Linear(2, 1))))
        ['weight', 'bias']
    """
    from oncue.models import Model

    wrapped = True
    while wrapped:
        inner = torch_private.uncompiled(module)
        parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
        if inner is None and (isinstance(module, parallel) or kind_of(module) is Model):
            inner = getattr(module, "module", None)
        wrapped = isinstance(inner, torch.nn.Module)
        module = inner if isinstance(inner, torch.nn.Module) else module
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(
                f"The state of {type(module).__name__} can't be kept in a .safetensors file: {name!r} is of type "
                f"{type(tensor).__name__}. Return tensors from `state_dict`."
            )
        found[torch_private.uncompiled_name(name)] = tensor
    return found


def prepare_weights(
    module: torch.nn.Module, snapshot: Snapshot | None = None, note: str | None = None
) -> Callable[[Path], None]:
    """Take a module's weights; a tensor with several names is saved under the first.

    Args:
        module: Any torch module.
        snapshot: Copies the tensors; None to refer to the module's own.
        note: What the metadata say beside.

    Returns:
        A function that writes the file; if it raises an OSError, the old file is untouched.

    Raises:
        ValueError: For a tensor of a type that the format doesn't have, and a layer that saves more than its weights.
    """
    refuse_own_arrays(module, ".safetensors")
    tensors = without_twins(named_tensors(module))
    entries_of(tensors)
    follower = follows(tensors.values())
    if snapshot is not None:
        # Not on another thread, while other processes wait for something else. What is gathered is a copy already.
        gathered = _gathered(tensors, follower)
        alone = {name: tensor for name, tensor in tensors.items() if not is_sharded(tensor)}
        copies = {} if follower else {**gathered, **snapshot.take(alone)}
        tensors = {name: copies[name] for name in tensors if name in copies}

    def write(path: Path) -> None:
        if follower:
            for tensor in tensors.values():
                whole(tensor)
            return
        metadata = {"format": "pt", "oncue_format": FORMAT_VERSION, "order": "\n".join(tensors)}
        if note is not None:
            metadata[KEY] = note
        with replacing(path) as temporary:
            write_tensors(temporary, tensors, metadata)

    return write


def _gathered(tensors: dict[str, torch.Tensor], follower: bool) -> dict[str, torch.Tensor]:
    """Return what was sharded whole, in the host's memory; the processes that don't write keep nothing of it."""
    found = {}
    for name, tensor in tensors.items():
        if is_sharded(tensor):
            all_of_it = whole(tensor)
            if not follower:
                found[name] = all_of_it.cpu()
    return found


def without_twins(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors without the further names of those that have several."""
    first: dict[Any, str] = {}
    for name, tensor in tensors.items():
        first.setdefault(_identity(tensor), name)
    return {name: tensors[name] for name in first.values()}


def _identity(tensor: torch.Tensor) -> Any:
    where = tensor.data_ptr() or id(tensor)
    return (tensor.device, where, tensor.dtype, tuple(tensor.shape), tensor.stride())


def read_weights(module: torch.nn.Module, path: Path, skip_mismatch: bool = False) -> None:
    """Set a module's weights from a file; nothing is set unless everything fits.

    Args:
        module: Any torch module.
        path: The file.
        skip_mismatch: Whether tensors that don't fit are left as they are, with a warning.

    Raises:
        ValueError: When tensors are missing, unknown, or of another shape or type, or the file is not whole.
    """
    own = named_tensors(module)
    with guard.opened_tensors(path) as (file, tensors):
        metadata = tensors.metadata() or {}
        if metadata.get("oncue_format", FORMAT_VERSION) != FORMAT_VERSION:
            guard.refuse(
                path, f"its format is {metadata['oncue_format'][:20]!r}, and this oncue reads {FORMAT_VERSION!r}."
            )
        try:
            found = read_tensors(file)
        except ValueError as error:
            guard.refuse(path, f"{error}.")
        if found is None:
            guard.refuse(path, guard.CHANGED)
        set_tensors(own, found, metadata.get("order", "").split("\n"), path, skip_mismatch)


def set_tensors(
    own: dict[str, torch.Tensor], found: dict[str, torch.Tensor], order: list[str], source: Path, skip_mismatch: bool
) -> None:
    """Set tensors to those of a file; none is set unless all fit.

    Args:
        own: A module's tensors by name.
        found: Those of the file; where processes have parts of a module's, they may have them of these, too.
        order: The names in the file, in the order of the module that was saved.
        source: The file, for messages.
        skip_mismatch: Whether those that don't fit are left as they are, with a warning.

    Raises:
        ValueError: When some don't fit.
    """
    problems: list[str] = []
    saved = _renamed(found, order, own)
    there = {_identity(own[name]) for name in saved if name in own}
    for name, tensor in own.items():
        if name not in saved and _identity(tensor) not in there:
            problems.append(f"{name}: missing in the file; its shape is {tuple(tensor.shape)}")
    fitting = {}
    for name, value in saved.items():
        wrong = _wrong(own.get(name), value)
        if wrong is None:
            try:
                part = converted(part_of(value), own[name].dtype)
                fitting[name] = like(part, value) if is_sharded(value) else part
            except ValueError as error:
                wrong = f"the model's is of the type {own[name].dtype}, and {error}"
        if wrong is not None:
            problems.append(f"{name}: {wrong}")
    settle(problems, source, skip_mismatch)
    with torch.no_grad():
        for name, value in fitting.items():
            put(own[name], value)


def _renamed(found: dict[str, torch.Tensor], saved: list[str], own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a file's tensors under the model's names, if only the numbers of automatic layer names differ.

    A second model of the same code has `dense_2` where the first has `dense`; then weights are matched by their order.
    """
    names = list(without_twins(own))
    if set(saved) != set(found) or set(names) == set(found):
        return found

    def bare(name: str) -> str:
        return re.sub(r"_\d+(?=\.)", "", name)

    if [bare(name) for name in saved] != [bare(name) for name in names]:
        return found
    return {name: found[old] for old, name in zip(saved, names, strict=True)}


def _wrong(tensor: torch.Tensor | None, value: torch.Tensor) -> str | None:
    if tensor is None:
        return "the model has no such weight"
    if tensor.shape != value.shape:
        return f"the model's has the shape {tuple(tensor.shape)}, the file's {tuple(value.shape)}"
    if value.dtype != tensor.dtype and not (value.dtype.is_floating_point and tensor.dtype.is_floating_point):
        return f"the model's is of the type {tensor.dtype}, the file's of {value.dtype}"
    return None
