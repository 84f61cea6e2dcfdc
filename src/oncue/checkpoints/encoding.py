"""Plain containers, numbers and tensors as JSON plus a file of tensors; reading them never runs code.

Our own code because `json` has no tuples, tensors, NaN or keys that aren't strings, and the packages that add these, such as
jsonpickle, import classes that the file names.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from typing import Any

from oncue.checkpoints.tensors_file import is_known
from oncue.core.growing import Growing, GrowingText

_PLAIN = frozenset((bool, int, float, str, type(None)))
_MARKS = ("$tensor", "$complex", "$array", "$scalar", "$tuple", "$dict", "$float")


def encode(value: Any, tensors: dict[str, Any], where: str = "state") -> Any:
    """Return a value in a form that JSON can express; tensors and arrays are put into a dict and replaced by their keys.

    Args:
        value: None, a bool, number, string, tensor, NumPy array or scalar, or lists, tuples and dicts of these.
        tensors: Gets the tensors themselves, and copies of the arrays.
        where: What the value is, for the message.

    Returns:
        What `decode` makes the same value of.

    Raises:
        TypeError: For anything else, naming where it was.

    Example:
        >>> encode({"best": 0.5, "seen": (1, 2)}, {})
        {'best': 0.5, 'seen': {'$tuple': [1, 2]}}
    """
    try:
        return _encoded(value, tensors)
    except _UnencodableError as error:
        raise TypeError(
            f"{where}{''.join(reversed(error.path))} is of type {error.kind}, which a backup can't keep: numbers, strings, "
            "tensors, arrays, and lists, tuples and dicts of them can be kept."
        ) from None


class _UnencodableError(TypeError):
    """A value can't be encoded; `path` says where it is, from the inside out."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind
        self.path: list[str] = []


# Training waits while this runs, thousands of times in a run: the most frequent types come first, and the path to a value is
# only worked out for the message.
def _encoded(value: Any, tensors: dict[str, Any]) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, dict):
        return _encoded_pairs(value, tensors)
    if isinstance(value, (list, tuple)):
        return _encoded_items(value, tensors)
    return _encoded_other(value, tensors)


def _encoded_pairs(value: Mapping[Any, Any], tensors: dict[str, Any]) -> Any:
    found: dict[Any, Any] = {}
    for key, part in value.items():
        try:
            found[key] = _encoded(part, tensors)
        except _UnencodableError as error:
            error.path.append(f"[{key!r}]")
            raise
    if all(isinstance(key, str) and not key.startswith("$") for key in found):
        return found
    return {"$dict": [[_encoded(key, tensors), part] for key, part in found.items()]}


class Written:
    """A long list, or a long text, that is JSON already.

    Args:
        pieces: The JSON of a list without brackets, in pieces that are to be joined by commas; of a text without quotation
            marks.
        is_text: Whether it is that of a text.
    """

    def __init__(self, pieces: list[bytes], is_text: bool = False) -> None:
        self._pieces = pieces
        self._form = (b'"', b"", b'"') if is_text else (b"[", b",", b"]")

    def text(self) -> bytes:
        """Return the JSON of it."""
        begin, between, end = self._form
        return begin + between.join(self._pieces) + end


def _text_of(item: Any) -> bytes | None:
    """Return the JSON of a plain value; None for other values, which may be changed."""
    kind = type(item)
    if item is None or kind in (bool, int, str) or (kind is float and math.isfinite(item)):
        return json.dumps(item).encode("ascii")
    return json.dumps({"$float": str(item)}).encode("ascii") if kind is float else None


def _text_of_fixed(item: Any) -> bytes | None:
    """Return the JSON of a value without tensors that is never changed; None for others."""
    tensors: dict[str, Any] = {}
    try:
        found = _encoded(item, tensors)
    except _UnencodableError:
        return None
    return None if tensors else json.dumps(found, allow_nan=False).encode("ascii")


def _encoded_items(value: list[Any] | tuple[Any, ...], tensors: dict[str, Any]) -> Any:
    if isinstance(value, Growing):
        texts = value.texts(_text_of_fixed if value.fixed else _text_of)
        if texts is not None:
            return Written(texts)
    if type(value) is list:
        kinds = set(map(type, value))
        if kinds in ({str}, {int}) or (kinds == {float} and math.isfinite(sum(value))):
            # A long one.
            return value.copy()
    parts: list[Any] = []
    try:
        for part in value:
            parts.append(_encoded(part, tensors))
    except _UnencodableError as error:
        error.path.append(f"[{len(parts)}]")
        raise
    return {"$tuple": parts} if isinstance(value, tuple) else parts


def _encoded_other(value: Any, tensors: dict[str, Any]) -> Any:
    import numpy as np
    import torch

    if isinstance(value, GrowingText):
        return Written(value.texts(), is_text=True)
    if isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_meta:
            raise _UnencodableError("Tensor on meta" if value.is_meta else f"Tensor of {value.layout}")
        if not is_known(value.dtype) and not value.is_complex():
            raise _UnencodableError(f"Tensor of {value.dtype}")
        return _encoded_tensor(value, tensors)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "biufc":
        if value.dtype.itemsize > (16 if value.dtype.kind == "c" else 8):
            raise _UnencodableError(f"array of {value.dtype}")
        # `array` copies, and keeps the shape of an array without axes.
        mark = "$array" if isinstance(value, np.ndarray) else "$scalar"
        kept = _encoded_tensor(torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C")), tensors)
        return {mark: kept.get("$tensor", kept)}
    if isinstance(value, Mapping):
        return _encoded_pairs(value, tensors)
    raise _UnencodableError(type(value).__name__)


def decode(value: Any, tensors: Mapping[str, Any]) -> Any:
    """Return the value that `encode` was given.

    Args:
        value: What `encode` returned.
        tensors: The tensors that it put aside.

    Raises:
        ValueError: For a mark that isn't known.
        KeyError: When a tensor is missing.

    Example:
        >>> decode({"$tuple": [1, {"$float": "nan"}]}, {})
        (1, nan)
    """
    if isinstance(value, Written):
        value = json.loads(value.text())
    if isinstance(value, list):
        # Most are long lists of numbers.
        return value if _PLAIN.issuperset(map(type, value)) else [decode(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    mark = next(iter(value), "")
    if len(value) != 1 or not mark.startswith("$"):
        return {key: decode(part, tensors) for key, part in value.items()}
    content = value[mark]
    if mark == "$tensor":
        return tensors[content]
    if mark == "$complex":
        import torch

        return torch.view_as_complex(tensors[content])
    if mark in ("$array", "$scalar"):
        array = (tensors[content] if isinstance(content, str) else decode(content, tensors)).numpy()
        return array if mark == "$array" else array[()]
    if mark == "$tuple":
        return tuple(decode(part, tensors) for part in content)
    if mark == "$dict":
        return {decode(key, tensors): decode(part, tensors) for key, part in content}
    if mark == "$float":
        return float(content)
    raise ValueError(f"the mark {mark!r} is none of {', '.join(_MARKS)}")


def json_of(value: Any) -> list[bytes]:
    """Return the JSON of what `encode` returned, in pieces.

    Example:
        >>> b"".join(json_of({"a": [1, "b"], "rows": Written([b"0.5,0.25", b"0.75"])}))
        b'{"a": [1, "b"], "rows": [0.5,0.25,0.75]}'
    """
    written: list[Written] = []
    # Stands where a list that is JSON already belongs; nobody can have written this text.
    mark = secrets.token_hex(16)

    def placed(part: Written) -> str:
        written.append(part)
        return mark

    text = json.dumps(value, allow_nan=False, default=placed).encode("ascii")
    first, *others = text.split(f'"{mark}"'.encode("ascii"))
    pieces = [first]
    for one, other in zip(written, others, strict=True):
        pieces += [one.text(), other]
    return pieces


def _encoded_tensor(tensor: Any, tensors: dict[str, Any]) -> dict[str, str]:
    if is_known(tensor.dtype):
        return {"$tensor": _keep(tensor, tensors)}
    import torch

    # Complex numbers of types that files don't have.
    return {"$complex": _keep(torch.view_as_real(tensor.resolve_conj()), tensors)}


def _keep(tensor: Any, tensors: dict[str, Any]) -> str:
    key = str(len(tensors))
    tensors[key] = tensor
    return key
