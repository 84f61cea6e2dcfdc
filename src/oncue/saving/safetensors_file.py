"""`.safetensors`: the weights of any torch module by the names of its state dict, readable by every other library."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from oncue import torch_private
from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.tensors_file import is_sound, write_tensors
from oncue.core.files import replacing
from oncue.saving import guard
from oncue.saving.weights_h5 import settle

FORMAT_VERSION = "1"
_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16,
    "I32": torch.int32, "U32": torch.uint32, "I64": torch.int64, "U64": torch.uint64, "F16": torch.float16,
    "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def named_tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's tensors by the names of its state dict.

    The names are the module's own: what `torch.compile`, `DataParallel`, `DistributedDataParallel` and oncue's `Model`
    wrap around it leaves no trace.

    Args:
        module: Any torch module.

    Returns:
        The tensors themselves, not copies.

    Raises:
        ValueError: When the state dict holds something else than tensors.

    Example:
        >>> from oncue import Model
        >>> list(named_tensors(Model(torch.nn.Linear(2, 1))))
        ['weight', 'bias']
    """
    wrapped = True
    while wrapped:
        inner = torch_private.uncompiled(module)
        parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
        if inner is None and (isinstance(module, parallel) or type(module).__module__.startswith("oncue.models")):
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


def prepare_weights(module: torch.nn.Module, snapshot: Snapshot | None = None) -> Callable[[Path], None]:
    """Take a module's weights; tensors that several names share are taken under the first of them.

    Args:
        module: Any torch module.
        snapshot: Makes copies of the tensors; None to keep the module's own.

    Returns:
        A function that writes the file; it raises an OSError when that can't be done, and the old file is untouched then.
    """
    tensors = _without_twins(named_tensors(module))
    if snapshot is not None:
        tensors = snapshot.take(tensors)

    def write(path: Path) -> None:
        metadata = {"format": "pt", "oncue_format": FORMAT_VERSION, "order": "\n".join(tensors)}
        with replacing(path) as temporary:
            write_tensors(temporary, tensors, metadata)

    return write


def _without_twins(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
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
    problems: list[str] = []
    with guard.opened(path) as file:
        entries, metadata, start = guard.read_header(file, path)
        if metadata.get("oncue_format", FORMAT_VERSION) != FORMAT_VERSION:
            guard.refuse(
                path, f"its format is of version {metadata['oncue_format'][:20]!r}; this oncue reads version 1."
            )
        if not is_sound(file):
            guard.refuse(path, guard.CHANGED)
        entries = _renamed(entries, metadata, own)
        there = {_identity(own[name]) for name in entries if name in own}
        for name, tensor in own.items():
            if name not in entries and _identity(tensor) not in there:
                problems.append(f"{name}: missing in the file; its shape is {tuple(tensor.shape)}")
        fitting = []
        for name, entry in entries.items():
            wrong = _wrong(own.get(name), entry)
            if wrong is None:
                fitting.append(name)
            else:
                problems.append(f"{name}: {wrong}")
        settle(problems, path, skip_mismatch)
        values = {name: _read(file, start, entries[name], path) for name in fitting}
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)


def _renamed(
    entries: dict[str, dict[str, Any]], metadata: dict[str, str], own: dict[str, torch.Tensor]
) -> dict[str, dict[str, Any]]:
    """Return the entries under the model's names where only the numbers of automatic layer names differ.

    A second model of the same code has `dense_2` where the first has `dense`; the order of the weights then tells which
    is which.
    """
    names, saved = list(_without_twins(own)), metadata.get("order", "").split("\n")
    if set(saved) != set(entries) or set(names) == set(entries):
        return entries

    def bare(name: str) -> str:
        return re.sub(r"_\d+(?=\.)", "", name)

    if [bare(name) for name in saved] != [bare(name) for name in names]:
        return entries
    return {name: entries[old] for old, name in zip(saved, names, strict=True)}


def _wrong(tensor: torch.Tensor | None, entry: dict[str, Any]) -> str | None:
    if tensor is None:
        return "the model has no such weight"
    if tuple(tensor.shape) != tuple(entry["shape"]):
        return f"the model's has the shape {tuple(tensor.shape)}, the file's {tuple(entry['shape'])}"
    kind = _DTYPES[entry["dtype"]]
    if kind != tensor.dtype and not (kind.is_floating_point and tensor.dtype.is_floating_point):
        return f"the model's is of the type {tensor.dtype}, the file's of {kind}"
    return None


def _read(file: Any, start: int, entry: dict[str, Any], source: Any) -> torch.Tensor:
    first, last = entry["data_offsets"]
    file.seek(start + first)
    content = bytearray(file.read(last - first))
    if len(content) != last - first:
        guard.refuse(source, "it ends too early.")
    kind = _DTYPES[entry["dtype"]]
    if math.prod(entry["shape"]) == 0:
        return torch.empty(entry["shape"], dtype=kind)
    return torch.frombuffer(content, dtype=kind).reshape(entry["shape"])
