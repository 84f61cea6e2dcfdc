"""Checks of the arguments of `save_model`, `load_model`, `save_weights` and `load_weights`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from oncue.core import remote
from oncue.layers.layer import Layer
from oncue.models import Model

UNREADY = (UninitializedParameter, UninitializedBuffer)
"""The types of tensors that have no shape yet."""


def path_and_kind(filepath: Any, known: dict[str, str], what: str, example: str) -> tuple[Path, str]:
    """Return a path, and the extension that decides its format.

    Args:
        filepath: The path.
        known: A description of each extension.
        what: What the file is for.
        example: A correct call, for the message.

    Raises:
        ValueError: For another extension, with the list of those that are known.
    """
    if not isinstance(filepath, (str, os.PathLike)):
        raise ValueError(
            f"`filepath` must be a path, such as in `{example}`; got {filepath!r} of type {type(filepath).__name__}."
        )
    path = Path(os.fspath(filepath))
    kind = next((extension for extension in known if path.name.endswith(extension)), None)
    if kind is None:
        listed = ", ".join(f"{extension} ({meaning})" for extension, meaning in known.items())
        raise ValueError(
            f"The extension of `filepath` says what is in the file; for {what}: {listed}. Got {str(path)!r}. Use "
            f"`{example}`."
            + (
                ""
                if path.suffix
                else " TensorFlow's SavedModel, a folder, is not written here; `torch.export` is torch's form."
            )
        )
    return path, kind


def may_write(filepath: Any, overwrite: bool) -> bool:
    """Return whether a file may be written, and create its folder.

    Raises:
        FileExistsError: If it exists, `overwrite` is False, and there is no terminal to ask the user.
    """
    path = Path(os.fspath(filepath))
    if not overwrite and (remote.exists(str(filepath)) if remote.is_url(filepath) else path.exists()):
        path = filepath
        if not sys.stdin.isatty():
            raise FileExistsError(f"{str(path)!r} is there already. Pass `overwrite=True`, or another name.")
        if input(f"{str(path)!r} is there already. Overwrite it? [y/n] ").strip().lower() not in ("y", "yes"):
            return False
    if not remote.is_url(filepath):
        Path(os.fspath(filepath)).parent.mkdir(parents=True, exist_ok=True)
    return True


def refuse_rest(method: str, kwargs: dict[str, Any]) -> None:
    """Refuse arguments that are left over.

    Raises:
        ValueError: Naming one.
    """
    if kwargs:
        raise ValueError(f"`{method}` has no argument `{next(iter(kwargs))}`.")


def require_model(model: Any, kind: str) -> None:
    """Refuse a module that a format can't describe.

    Raises:
        ValueError: Naming what can hold it.
    """
    if not isinstance(model, Model):
        raise ValueError(
            f"A {kind} file holds the weights of an oncue model; got a {type(model).__name__}. Wrap it as `Model(module)`, "
            "or use the extension .safetensors."
        )


def require_built(model: Any, method: str) -> None:
    """Refuse what has no weights yet.

    Raises:
        ValueError: Saying how it gets them.
    """
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"`model` must be a model or a torch module; got {model!r} of type {type(model).__name__}.")
    lazy = any(isinstance(tensor, UNREADY) for tensor in (*model.parameters(), *model.buffers()))
    module = getattr(model, "module", None)
    if lazy or (isinstance(model, Layer) and module is None and not model.built):
        raise ValueError(
            f"`{method}` needs weights, and '{getattr(model, 'name', 'the model')}' has none yet. Begin it with "
            "`Input(shape)`, build it with `model.build(shape)`, or run it once on data."
        )
