"""KerasBackup: Keras's own `BackupAndRestore`, with the state of oncue's callbacks beside its backups."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oncue.core.warn import warn
from oncue.hosts import carried
from oncue.hosts.run import HostedRun

_NAME = "oncue_callbacks-{}.safetensors"


class KerasBackup:
    """Calls Keras's backup at the ends of a run and of epochs, and keeps the state of oncue's callbacks beside it.

    The state is written first, under the number of the epoch that the backup will name. So each backup finds its own, wherever
    the process was killed.

    Args:
        backup: A `keras.callbacks.BackupAndRestore` that saves at the end of epochs.
        run: The run whose state is kept.

    Raises:
        ValueError: For one that saves after some batches, where Keras goes on from the beginning of the epoch.
    """

    def __init__(self, backup: Any, run: HostedRun) -> None:
        if backup.save_freq != "epoch":
            raise ValueError(
                f"`save_freq` of the `BackupAndRestore` for `hosts.Keras` must be 'epoch'; got {backup.save_freq!r}. Keras "
                "goes on at the beginning of an epoch, so that what callbacks saw in it would count twice."
            )
        self._backup, self._run, self._folder = backup, run, Path(backup.backup_dir)

    def begin(self, model: Any, params: Any) -> None:
        """Let Keras restore the model, and give the callbacks the state that belongs to it."""
        self._backup.set_params(params)
        self._backup.set_model(model)
        self._backup.on_train_begin()
        epoch = self._saved_epoch()
        if epoch is None:
            return
        if not self._file(epoch).exists():
            warn(
                f"The backup in '{self._folder}' has no state of oncue's callbacks for epoch {epoch}: it was made without "
                "`hosts.Keras`. They begin with nothing."
            )
            return
        self._run.restore(carried.read(self._file(epoch)), epoch)

    def end_epoch(self, epoch: int) -> None:
        """Save the state, then let Keras save the model."""
        self._folder.mkdir(parents=True, exist_ok=True)
        before = {self._file(epoch + 1), self._file(self._saved_epoch())}
        carried.write(self._file(epoch + 1), self._run.state())
        self._backup.on_epoch_end(epoch)
        for old in set(self._folder.glob(_NAME.format("*"))) - before:
            old.unlink()

    def end(self) -> None:
        """Let Keras delete its backup, if it was told to."""
        self._backup.on_train_end()

    def _file(self, epoch: int | None) -> Path:
        return self._folder / _NAME.format(epoch)

    def _saved_epoch(self) -> int | None:
        """Return the epoch with which Keras goes on; None without a backup."""
        described = self._folder / "training_metadata.json"
        return int(json.loads(described.read_text(encoding="utf-8"))["epoch"]) if described.exists() else None


def apart(callbacks: Iterable[Any]) -> tuple[list[Any], Any]:
    """Return callbacks, lists flattened, without Keras's `BackupAndRestore`; and that one, or None."""
    import keras

    found: list[Any] = []
    backup = None
    for one in callbacks:
        others, inner = apart(one) if isinstance(one, (list, tuple)) else ([one], None)
        if isinstance(one, keras.callbacks.BackupAndRestore):
            others, inner = [], one
        if inner is not None and backup is not None:
            raise ValueError("`hosts.Keras` takes one `keras.callbacks.BackupAndRestore`; got two.")
        found, backup = [*found, *others], backup if inner is None else inner
    return found, backup
