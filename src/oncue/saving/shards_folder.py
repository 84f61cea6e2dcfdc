"""`.shards`: a folder with a file of each process, which has its parts of the weights; nothing is gathered.

The files are those of a `Store`: that of the main process says which others belong to it, and comes last.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from oncue.checkpoints.shared_store import by_all
from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.store import OtherVersion, Store, newest_state
from oncue.checkpoints.training_state import PartOfSave, TrainingState
from oncue.core.process import process
from oncue.core.ranks import Ranks
from oncue.saving import guard
from oncue.saving.places import refuse_own_arrays
from oncue.saving.safetensors_file import named_tensors, set_tensors, without_twins
from oncue.shards import is_sharded


def prepare_weights(
    module: torch.nn.Module, path: Path, snapshot: Snapshot | None = None, note: str | None = None
) -> Callable[[], None]:
    """Take a module's weights; all processes that have parts of them must call it, and what it returns.

    Args:
        module: Any torch module.
        path: The folder, which all of them must see.
        snapshot: Copies the tensors, so that they may be written in another thread; None to take them when they are written.
        note: What the main file says beside.

    Returns:
        A function that writes this process's file; on the main process it ends when those of all others are there. If it
        raises an error, what was in the folder before stays.

    Raises:
        ValueError: For a layer that saves more than its weights.
    """
    refuse_own_arrays(module, path.suffix)
    tensors = without_twins(named_tensors(module))
    parts = {"weights": {name: tensor.detach() for name, tensor in tensors.items()}, "note": note}
    if snapshot is None:
        return lambda: _Save(path, parts, Snapshot()).write_now()
    return _Save(path, parts, snapshot).write_beside


class _Save:
    """This process's part of the weights, or all of them, and its place in a folder."""

    def __init__(self, path: Path, parts: dict[str, Any], snapshot: Snapshot) -> None:
        self._store = Store(path)
        self._ranks: Ranks = Ranks() if process.group is None else process.group
        self._part: PartOfSave | None = None
        if self._ranks.size > 1 and any(map(is_sharded, parts["weights"].values())):
            number, token = self._ranks.broadcast([self._store.next_number, os.urandom(16).hex()])
            self._part = PartOfSave(self._ranks.rank, self._ranks.size, number, token)
        self._frozen = TrainingState({}, parts=parts).freeze(snapshot, self._part)

    def write_now(self) -> None:
        """Write where all processes do."""

        def meet() -> None:
            # Nothing else tells soon that a process was killed: the message breaks then.
            self._ranks.agree(False)

        self._write(meet, meet)

    def write_beside(self) -> None:
        """Write in another thread."""
        part = self._part
        if part is None:
            self._write(lambda: None, lambda: None)
        else:
            self._write(
                lambda: self._ranks.wait_until_told(part.token, part.size - 1), lambda: self._ranks.tell(part.token)
            )

    def _write(self, wait_for_others: Callable[[], object], tell: Callable[[], object]) -> None:
        store, part = self._store, self._part
        store.folder.mkdir(parents=True, exist_ok=True)
        if part is not None and part.rank:
            store.commit_part(part.file, self._frozen.write)
            tell()
            return

        def write(path: Path) -> None:
            self._frozen.write(path)
            if part is not None:
                wait_for_others()

        store.commit(write)
        store.tidy()


def read_weights(module: torch.nn.Module, path: Path, skip_mismatch: bool = False) -> None:
    """Set a module's weights from a folder, as `safetensors_file.read_weights` does from a file.

    Args:
        module: Any torch module. Where processes have parts of its weights, each reads what it needs for its own.
        path: The folder.
        skip_mismatch: Whether tensors that don't fit are left as they are, with a warning.

    Raises:
        FileNotFoundError: When no weights were saved there.
        ValueError: When a file is missing, damaged or of another save, or the weights don't fit.
    """
    newest = newest_state(path)
    if newest is None:
        raise FileNotFoundError(
            f"No weights were saved in '{path}': it isn't there, or the save never came to its end."
        )
    own = named_tensors(module)
    # Of weights that are whole each process reads all.
    ranks = process.group if process.group is not None and any(map(is_sharded, own.values())) else Ranks()
    try:
        saved = by_all(ranks, lambda: TrainingState.read(newest, like=own.values())).parts["weights"]
    except OtherVersion as error:
        guard.refuse(path, f"{error}.")
    except (ValueError, KeyError) as error:
        guard.refuse(path, f"'{newest.name}': {error}.")
    set_tensors(own, saved, list(saved), path, skip_mismatch)
