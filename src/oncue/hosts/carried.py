"""The state of callbacks as other loops' checkpoints can carry it: as text and tensors, or as a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from oncue.checkpoints.encoding import decode, encode, json_of
from oncue.checkpoints.training_state import TrainingState
from oncue.core.files import replacing


def packed(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return parts of a state as "text", which JSON can have, and "tensors" by name, which are copies on the CPU.

    Example:
        >>> unpacked(packed({"seen": (1, 2)}))
        {'seen': (1, 2)}
    """
    tensors: dict[str, Any] = {}
    text = b"".join(json_of(encode(dict(parts), tensors, "the state of callbacks"))).decode("ascii")
    # They go on being trained while the checkpoint is written.
    return {"text": text, "tensors": {name: one.detach().to("cpu", copy=True) for name, one in tensors.items()}}


def unpacked(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of what `packed` returned."""
    parts: dict[str, Any] = decode(json.loads(state["text"]), state["tensors"])
    return parts


def write(filepath: str | os.PathLike[str], parts: Mapping[str, Any]) -> None:
    """Write parts of a state into a file that is whole or not there.

    Raises:
        OSError: When it can't be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(f"{folder}/a.safetensors", {"seen": (1, 2)})
        ...     read(f"{folder}/a.safetensors")
        {'seen': (1, 2)}
    """
    with replacing(filepath) as temporary:
        TrainingState({}, parts=dict(parts)).write(temporary)


def read(filepath: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the parts of a state that `write` has written.

    Raises:
        ValueError: When they can't be read.
    """
    try:
        return TrainingState.read(filepath).parts
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The checkpoint has a state of oncue's callbacks in '{os.fspath(filepath)}', which can't be used: {error}. Resume "
            "from another checkpoint, and leave its folder where it was made."
        ) from error
