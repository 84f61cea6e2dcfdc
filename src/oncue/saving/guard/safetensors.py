"""The header of a safetensors file (https://huggingface.co/docs/safetensors): nothing is read before it is right."""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO

import numpy as np

from oncue.saving.guard.basics import MAX_ENTRIES, MAX_JSON_BYTES, read_json, refuse

_SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2}
_SIZES |= {"U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8}


def read_header(file: BinaryIO, source: Any) -> tuple[dict[str, dict[str, Any]], dict[str, str], int]:
    """Read and check the header of a safetensors file before any number is read.

    Args:
        file: The file.
        source: Its path, for messages.

    Returns:
        The entries (dtype, shape, data_offsets) by name, the metadata, and where the numbers begin.

    Raises:
        ValueError: When sizes, types, names or offsets are not what the format says.
    """
    size = os.fstat(file.fileno()).st_size
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MAX_JSON_BYTES, size - 8):
        refuse(source, f"its header says {length} bytes; the file has {size}.")
    header = file.read(length)
    if header.count(b'"data_offsets"') > MAX_ENTRIES:
        # Said before millions of entries are made from it.
        refuse(source, f"it has more than {MAX_ENTRIES} tensors.")
    entries = read_json(header, source)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        refuse(source, "its metadata must be a dict of strings.")
    if len(entries) > MAX_ENTRIES:
        refuse(source, f"it has {len(entries)} tensors, more than {MAX_ENTRIES}.")
    spans = [(*_span(name, entry, source), name) for name, entry in entries.items()]
    end = 0
    for first, last, name in sorted(spans):
        if first != end:
            refuse(source, f"its tensors overlap or leave gaps, at {name[:100]!r}.")
        end = last
    if 8 + length + end != size:
        refuse(source, f"its tensors need {8 + length + end} bytes; the file has {size}.")
    return entries, metadata, 8 + length


def _span(name: str, entry: Any, source: Any) -> tuple[int, int]:
    label = name[:100]
    if not name or len(name) > 1024 or not isinstance(entry, dict):
        refuse(source, f"it has a tensor named {label!r} that is none.")
    if set(entry) != {"dtype", "shape", "data_offsets"} or str(entry["dtype"]) not in _SIZES:
        refuse(source, f"the tensor {label!r} has a type or keys that are not known.")
    shape, span = entry["shape"], entry["data_offsets"]
    for numbers in (shape, span):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
            refuse(source, f"the tensor {label!r} has a shape or offsets that are not whole numbers.")
    if len(shape) > 64 or len(span) != 2:
        refuse(source, f"the tensor {label!r} has too many axes or offsets.")
    if int(np.prod(shape, dtype=object)) * _SIZES[entry["dtype"]] != span[1] - span[0]:
        refuse(source, f"the tensor {label!r} of shape {shape} does not fill its bytes.")
    return span[0], span[1]
