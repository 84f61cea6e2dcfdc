"""The arguments of the TensorBoard callback, checked when it is made."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from oncue.core.numbers import whole_of
from oncue.core.suggest import nearest
from oncue.legacy.arguments import ARGUMENTS

_OLD = tuple(ARGUMENTS["TensorBoard"])
_KNOWN = """
    log_dir histogram_freq write_graph write_images write_steps_per_second update_freq profile_batch embeddings_freq
    embeddings_metadata write_grads
""".split()


def require_tensorboard() -> None:
    """Refuse to run without the `tensorboard` package."""
    try:
        importlib.import_module("tensorboard")
    except ImportError as error:
        raise ImportError(
            "The TensorBoard callback writes with the `tensorboard` package, which is not installed (TensorFlow is not "
            "needed). Run: pip install tensorboard"
        ) from error


def frequency(name: str, value: Any) -> int:
    """Return a number of epochs between two writes."""
    epochs = whole_of(value)
    if epochs is None or epochs < 0:
        raise ValueError(
            f"`{name}` must be a number of epochs, 0 for never; got {value!r} of type {type(value).__name__}."
        )
    return epochs


def update_frequency(value: Any) -> Any:
    """Return "epoch", or the number of batches between two writes."""
    if isinstance(value, str) and value == "batch":
        return 1
    if isinstance(value, str) and value == "epoch":
        return value
    batches = whole_of(value)
    if batches is not None and batches > 0:
        return batches
    near = nearest(value, ("batch", "epoch")) if isinstance(value, str) else None
    hint = "" if near is None else f" Did you mean {near!r}?"
    raise ValueError(
        f'`update_freq` must be "batch", "epoch" or a whole number of batches above 0; got {value!r}.{hint}'
    )


def profiled_range(value: Any, name: str = "profile_batch") -> tuple[int, int]:
    """Return the first and the last batch to profile, both 0 for none."""
    given = value
    if isinstance(value, str):
        # "start,stop", as Keras 2 takes it.
        parts = value.split(",")
        value = tuple(int(part) for part in parts) if all(part.strip().isdigit() for part in parts) else None
        value = value[0] if value is not None and len(value) == 1 else value
    numbers = value if isinstance(value, (tuple, list)) else (value, value)
    pair = [number for number in map(whole_of, numbers) if number is not None]
    if len(numbers) != 2 or len(pair) != 2 or pair[0] < 0 or pair[1] < pair[0] or (pair[0] == 0 and pair[1] > 0):
        raise ValueError(
            f"`{name}` must be a non-negative integer or a pair of positive integers, the first and the last "
            f"batch to profile; got {given!r}. Use `{name}=2`, or `{name}=(10, 20)`."
        )
    return pair[0], pair[1]


def old_names(old: Mapping[str, Any]) -> list[str]:
    """Return the arguments of Keras 2 that were given a value; refuse unknown ones."""
    for name in old:
        if name not in _OLD:
            near = nearest(name, (*_KNOWN, *_OLD))
            hint = "" if near is None else f" Did you mean `{near}`?"
            raise TypeError(f"TensorBoard has no argument `{name}`.{hint}")
    return [name for name, value in old.items() if value is not None]
