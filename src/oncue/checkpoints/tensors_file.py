"""Safetensors files (https://huggingface.co/docs/safetensors): the same tensors give the same bytes.

The library `safetensors` checks the headers of files that are read. It doesn't write them, because it puts the metadata into
an order that changes from process to process, copies tensors that aren't contiguous all at once, and has no place for a
checksum, which would mean reading the file again. A save that is waited for takes 1.02 times a plain write here, checksum
included, and 1.1 to 4.6 times with the library (`python benchmarks/saving.py --parameters 100000000`). It doesn't read the
tensors either, because it maps the file: when another program cuts it meanwhile, the system kills the process.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from oncue.core.write_behind import WriteBehind

if TYPE_CHECKING:
    import torch

CHECKSUM = "oncue_crc32"
"""The key in the metadata of the CRC-32 of the file, with zeros in the checksum's place, as eight hexadecimal digits."""
_ZEROS = "0" * 8
_PIECE = 1 << 20
_BEGINNING = f'{{"__metadata__":{{"{CHECKSUM}":"'.encode()
# The library has this table, too, but keeps it to itself.
_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32",
    "int64": "I64", "uint64": "U64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "complex64": "C64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
_KINDS = {short: name for name, short in _NAMES.items()}


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors into a safetensors file, with a checksum of all of it.

    The bytes go from the tensors' own memory to the file.

    Args:
        path: The file; one that is there is written over.
        tensors: Tensors by name; those of a GPU, or not contiguous, are copied one at a time, and so are those of which other
            processes have parts.
        metadata: Texts by name.

    Raises:
        OSError: When it can't be written.
        ValueError: For a type of numbers that the format doesn't have.

    Example:
        >>> import tempfile, torch
        >>> from safetensors.torch import load_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_tensors(f"{folder}/a.safetensors", {"weight": torch.ones(2)})
        ...     load_file(f"{folder}/a.safetensors")
        {'weight': tensor([1., 1.])}
    """
    from oncue.shards import whole

    beginning = header_of(entries_of(tensors), metadata=metadata)
    with WriteBehind(path) as file:
        file.write(beginning)
        for tensor in tensors.values():
            file.write(bytes_of(whole(tensor)))
        seal(file)


def seal(file: WriteBehind) -> None:
    """Put the checksum into a file that begins with a header of `header_of` and was written to its end."""
    file.patch(8 + len(_BEGINNING), f"{file.checksum():08x}".encode())


def read_tensors(
    file: Any,
    required: bool = False,
    wanted: Callable[[str], bool] | None = None,
    take: Callable[[str, torch.Tensor], object] | None = None,
) -> dict[str, torch.Tensor] | None:
    """Read the tensors of an open safetensors file whose header was found right.

    Args:
        file: The file.
        required: Whether it must carry a checksum.
        wanted: Says of a name whether the tensor is wanted; the bytes of others are only looked at. By default all are.
        take: Is called with each name and tensor in place of returning it, before it is known whether the file is sound.

    Returns:
        The tensors by name, in the order of the header; None if the file is shorter than its header says, or doesn't have
        the checksum that it carries.

    Raises:
        ValueError: For a type of numbers that torch doesn't have.
    """
    header, beginning = _header(file)
    metadata = header.pop("__metadata__", {})
    carried = metadata.get(CHECKSUM)
    rest = 8 + len(_BEGINNING) + len(_ZEROS)
    checksum = zlib.crc32(beginning[:8] + _BEGINNING + _ZEROS.encode() + beginning[rest:])
    names = [name for name in header if wanted is None or wanted(name)]
    kept = {} if take is not None else {name: _empty(name, header[name]) for name in names}
    passing = memoryview(bytearray(_PIECE if len(names) < len(header) else 0))
    taken = frozenset(names)
    # One follows the other in the file, but the header may be in another order.
    for name in sorted(header, key=lambda name: tuple(header[name]["data_offsets"])):
        found = None
        if name in taken:
            found = _empty(name, header[name]) if take is not None else kept[name]
        memory = None if found is None else bytes_of(found)
        begin, end = header[name]["data_offsets"]
        # In pieces, each of which is still in the processor's cache when it is added up.
        for place in range(0, end - begin, _PIECE):
            length = min(_PIECE, end - begin - place)
            piece = passing[:length] if memory is None else memory[place : place + length]
            if file.readinto(piece) != length:
                return None
            if carried is not None:
                checksum = zlib.crc32(piece, checksum)
        if take is not None and found is not None:
            take(name, found)
    sound = not required if carried is None else beginning[8:rest] == _BEGINNING + f"{checksum:08x}".encode()
    return kept if sound else None


def pick_tensors(file: Any, wanted: Callable[[str], bool]) -> dict[str, torch.Tensor] | None:
    """Read some tensors of an open safetensors file whose header was found right, and look at nothing else.

    Args:
        file: The file.
        wanted: Says of a name whether the tensor is wanted.

    Returns:
        The tensors by name; None if the file is shorter than its header says.

    Raises:
        ValueError: For a type of numbers that torch doesn't have.
    """
    header, beginning = _header(file)
    found = {name: _empty(name, entry) for name, entry in header.items() if name != "__metadata__" and wanted(name)}
    for name, tensor in found.items():
        memory = bytes_of(tensor)
        file.seek(len(beginning) + header[name]["data_offsets"][0])
        if file.readinto(memory) != len(memory):
            return None
    return found


def _header(file: Any) -> tuple[dict[str, Any], bytes]:
    """Return the header of a file, decoded, and all bytes before its tensors."""
    file.seek(0)
    start: bytes = file.read(8)
    text: bytes = file.read(struct.unpack("<Q", start)[0])
    return json.loads(text), start + text


def _empty(name: str, entry: Mapping[str, Any]) -> torch.Tensor:
    import torch

    kind = getattr(torch, _KINDS.get(entry["dtype"], ""), None)
    if kind is None:
        raise ValueError(f"its tensor {name[:100]!r} is of the type {entry['dtype']!r}, which torch doesn't have")
    return torch.empty(entry["shape"], dtype=kind)


def header_of(*entries: str, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return how a safetensors file begins: a length and a JSON header, with zeros in the checksum's place.

    Args:
        *entries: The entries of its tensors, from `entries_of`.
        metadata: Texts by name.

    Example:
        >>> header_of("")[8:]
        b'{"__metadata__":{"oncue_crc32":"00000000"}}     '
    """
    texts = json.dumps({CHECKSUM: _ZEROS, **(metadata or {})}, separators=(",", ":"))
    members = ",".join(filter(None, [f'"__metadata__":{texts}', *entries]))
    text = f"{{{members}}}".encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def entries_of(tensors: Mapping[str, torch.Tensor], start: int = 0) -> str:
    """Return the header entries of tensors that are stored one after the other: JSON without its outer braces.

    Args:
        tensors: Tensors by name.
        start: How many bytes of other tensors precede them.

    Raises:
        ValueError: For a type of numbers that the format doesn't have.

    Example:
        >>> import torch
        >>> entries_of({"weight": torch.ones(2)})
        '"weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    """
    entries: dict[str, Any] = {}
    end = start
    for name, tensor in tensors.items():
        kind = _NAMES.get(str(tensor.dtype).removeprefix("torch."))
        if kind is None:
            raise ValueError(
                f"A .safetensors file can't hold {name!r}, whose numbers are of the type {tensor.dtype}."
                + (" Save it as `.weights.h5`, which can." if tensor.is_complex() else "")
            )
        start, end = end, end + tensor.nbytes
        entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    return json.dumps(entries, separators=(",", ":"))[1:-1]


def is_known(kind: torch.dtype) -> bool:
    """Return whether a file can hold numbers of a type.

    Example:
        >>> import torch
        >>> is_known(torch.bfloat16), is_known(torch.complex128)
        (True, False)
    """
    return str(kind).removeprefix("torch.") in _NAMES


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return a tensor's numbers as bytes, without a copy where they are contiguous on the CPU."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy().data) if flat.numel() else memoryview(b"")
