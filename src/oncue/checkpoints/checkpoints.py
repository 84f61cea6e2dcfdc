"""Checkpoints: finds the files that a ModelCheckpoint saved, by its manifest."""

from __future__ import annotations

import os
from pathlib import Path

from oncue.checkpoints.manifest import Manifest
from oncue.checkpoints.record import Record
from oncue.checkpoints.retention import by_score
from oncue.core.file_name import FileName
from oncue.core.files import replace
from oncue.core.monitor import Monitor
from oncue.core.remote import is_url
from oncue.core.warn import warn


class NoSoundCheckpointError(ValueError):
    """All files are missing, damaged or changed."""


class Checkpoints:
    """Finds the newest and the best file that is verifiably what was saved.

    A file whose size or SHA-256 digest differs from the manifest is renamed to end in `.damaged`, with a warning, and the
    next one is used: an older file is never returned silently.

    Args:
        filepath: The `filepath` of the `ModelCheckpoint`, which had `keep` or `resume_best`; or its manifest,
            `<file name>.oncue.json`.

    Attributes:
        manifest: What is known of the files.

    Raises:
        FileNotFoundError: When there is no manifest.
        ValueError: When it can't be read, and for a URL.

    Example:
        >>> import numpy as np, oncue, tempfile
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = os.path.join(folder, "{epoch}.weights.h5")
        ...     saver = oncue.callbacks.ModelCheckpoint(files, monitor="loss", save_weights_only=True, keep=[2, "best 1"])
        ...     _ = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=4, verbose=0, callbacks=[saver])
        ...     os.path.basename(Checkpoints(files).last())
        '4.weights.h5'
    """

    def __init__(self, filepath: str | os.PathLike[str]) -> None:
        if is_url(filepath):
            raise ValueError(
                f"Checkpoints looks at files on a disk; got {filepath!r}. Copy the folder to a disk, or read a file at a URL "
                "by its own name, as `keras.models.load_model('s3://bucket/m_03.keras')`."
            )
        path = Path(os.fspath(filepath))
        if not path.name.endswith(".oncue.json"):
            name = FileName(os.fspath(filepath), type(self).__name__)
            path = Path(name.folder) / f"{name.plain_name}.oncue.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no manifest '{path}'. ModelCheckpoint writes one with `keep` or `resume_best`; give its "
                "`filepath` as it was given there."
            )
        self.manifest = Manifest(path)

    def last(self) -> str:
        """Return the path of the file that was saved last.

        Raises:
            NoSoundCheckpointError: When no file is what was saved.
        """
        return self._first_sound(self.manifest.records[::-1])

    def best(self, mode: str = "auto") -> str:
        """Return the path of the file with the best score.

        Args:
            mode: "min" or "max", the direction in which the score improves; "auto" to infer it from the monitored name.

        Raises:
            NoSoundCheckpointError: When no file is what was saved.
            ValueError: If the files have no scores, or the direction can't be inferred.
        """
        scored = [record for record in self.manifest.records if record.score is not None]
        if not scored:
            raise ValueError(f"The files of '{self.manifest.path}' have no scores to find the best by. Use `last()`.")
        monitor = scored[-1].monitor
        watch = Monitor(monitor, mode, 0.0, type(self).__name__)
        watch.resolve({})
        ordered = by_score((record for record in scored if record.monitor == monitor), watch.direction)
        return self._first_sound(ordered)

    def verify(self) -> dict[str, bool]:
        """Return for each file whether it is what was saved."""
        return {
            str(self.manifest.folder / record.file): self.manifest.is_intact(record) for record in self.manifest.records
        }

    def _first_sound(self, records: list[Record]) -> str:
        damaged = []
        for record in records:
            path = self.manifest.folder / record.file
            if self.manifest.is_intact(record):
                return str(path)
            aside = path.with_name(f"{path.name}.damaged")
            damaged.append(str(path))
            if path.is_file():
                replace(path, aside)
                warn(
                    f"'{path}' is not what was saved: it was damaged or changed. It was set aside as '{aside.name}', and "
                    "the next one is taken."
                )
        raise NoSoundCheckpointError(
            f"None of the files of '{self.manifest.path}' is what was saved: {', '.join(damaged) or 'it has none'}."
        )
