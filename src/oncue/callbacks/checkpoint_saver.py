"""CheckpointSaver: what ModelCheckpoint does with a file once it is decided: write it, record it, delete older ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from oncue.callbacks.checks import is_ours
from oncue.core.files import OF_PARTS, check_target
from oncue.core.protocols import saves_later, size_of_save, tensors_of
from oncue.core.remote import is_url

if TYPE_CHECKING:
    from oncue.checkpoints.lock import NameLock
    from oncue.checkpoints.manifest import Manifest
    from oncue.checkpoints.owed_waits import OwedWaits
    from oncue.checkpoints.record import Record
    from oncue.checkpoints.retention import Rule
    from oncue.checkpoints.snapshot import Snapshot
    from oncue.checkpoints.writer import Writer
    from oncue.core.ranks import Ranks


class CheckpointSaver:
    """Saves the files of one ModelCheckpoint, at once or in the background.

    In the background the tensors are copied first, so that training changes none that is written; one file is written at
    a time, and a second save waits for the first.

    Args:
        asynchronous: Whether to write in the background.
        page_locked: The most bytes of page-locked memory for the copies; None for no limit.

    Attributes:
        manifest: The manifest that records the files; None for no records.
        follows: Whether this process only brings its parts of the weights, which the main process writes.

    Example:
        >>> CheckpointSaver(asynchronous=False).manifest is None
        True
    """

    def __init__(self, asynchronous: bool, page_locked: int | None = None) -> None:
        self.manifest: Manifest | None = None
        self.follows = False
        self._asynchronous, self._page_locked = asynchronous, page_locked
        self._writer: Writer | None = None
        self._snapshot: Snapshot | None = None
        self._unsaid: Callable[[], None] | None = None
        self._ranks: Ranks | None = None
        # Whether the processes haven't met since the main one began to wait for the parts of others.
        self._unmet = False
        self._lock: NameLock | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy begins anew: it has neither the manifest nor what is being written.
        return vars(CheckpointSaver(self._asynchronous, self._page_locked))

    def begin(self, model: Any, ranks: Ranks | None = None, owed: OwedWaits | None = None) -> None:
        """Get ready for a run.

        Args:
            model: The model.
            ranks: The processes that have parts of the weights; None where each has all of them.
            owed: As for `Snapshot`.

        Raises:
            ValueError: When the model can't be saved in the background.
        """
        self.manifest, self._ranks, self._unmet = None, ranks, False
        self.follows = ranks is not None and not ranks.main
        if not self._asynchronous:
            return
        from oncue.checkpoints.snapshot import Snapshot
        from oncue.checkpoints.writer import Writer

        if not saves_later(model):
            raise ValueError(
                f"ModelCheckpoint can't save a {type(model).__name__} in the background: it has no `prepare_save`, as "
                "oncue's models have. Leave out `asynchronous=True`."
            )
        self._writer = Writer("a checkpoint")
        self._snapshot = Snapshot(True, self._page_locked, owed)

    @property
    def busy(self) -> bool:
        """Whether a file is being written."""
        return self._writer is not None and self._writer.busy

    def reserve(self, model: Any, path: str, weights_only: bool) -> None:
        """Get the memory for the copies of a model on a GPU in the background."""
        if self._writer is not None and self._snapshot is not None:
            self._snapshot.reserve(
                tensors_of(model).values(),
                lambda: size_of_save(model, path, weights_only=weights_only),
                self._writer.prepare,
            )

    def try_save(self, model: Any, path: str, weights_only: bool) -> None:
        """Take all that a save needs, without writing it, to find out before training that it can be done.

        Raises:
            ValueError: When the format of the file can't hold the model.
        """
        if self._asynchronous or saves_as_oncue(model, weights_only):
            try:
                model.prepare_save(path, weights_only=weights_only)
            except (ValueError, TypeError, NotImplementedError) as error:
                advice = " For weights alone, give ModelCheckpoint `save_weights_only=True` and another ending of `filepath`."
                raise ValueError(
                    f"ModelCheckpoint can't save this model as '{path}', so training doesn't begin. {error}"
                    f"{'' if weights_only else advice}"
                ) from error

    def open_manifest(self, path: str, fits: Callable[[str], bool]) -> Manifest:
        """Read the manifest, and keep other processes from saving the files that it speaks of.

        Args:
            path: The manifest's path.
            fits: Whether a name can be that of a file that is saved.

        Raises:
            RuntimeError: When another process does that already.
            ValueError: When it can't be read.
        """
        from oncue.checkpoints.lock import NameLock
        from oncue.checkpoints.manifest import Manifest, UrlManifest

        if is_url(path):
            # Stores have no locks.
            self.manifest = UrlManifest(path, fits)
            return self.manifest
        self._lock = NameLock(path)
        if not self._lock.acquire():
            raise RuntimeError(
                f"Another run that is still going on saves the files of '{path}'. Wait for its end, stop it, or give "
                "another `filepath`."
            )
        self.manifest = Manifest(path, fits)
        return self.manifest

    def end(self) -> None:
        """Wait for the file that is being written, and let others save files of these names."""
        try:
            # However the run ended: others may not come.
            self._unmet = False
            self.wait()
        finally:
            self.release()

    def release(self) -> None:
        """Let others save files of these names as soon as no file is being written; never waits."""
        lock, self._lock = self._lock, None
        if lock is not None and self._writer is not None:
            lock.release(self._writer.when_idle)
        elif lock is not None:
            lock.release()

    def save(
        self,
        model: Any,
        path: str,
        weights_only: bool,
        note: str | None,
        commit: Callable[[Callable[[], object]], None],
        finished: Callable[[], None],
    ) -> None:
        """Save a file.

        Args:
            model: The model.
            path: The file.
            weights_only: Whether to save the weights alone.
            note: What the file says of its score. A model that saves in its own way writes none.
            commit: Calls the function that it is given, which writes the file, with what comes before and after that.
            finished: Is called in this thread when the file is there.

        Raises:
            OSError: When it can't be written; in the background, at a later call.
        """
        if self._writer is None:
            if note is not None and saves_as_oncue(model, weights_only):
                commit(lambda: model.prepare_save(path, weights_only=weights_only, note=note)())
            else:
                save = model.save_weights if weights_only else model.save
                commit(lambda: save(path))
            finished()
            return
        # The copies of the save before may still be read until here.
        self.wait()
        assert self._snapshot is not None
        snapshot = self._snapshot
        write = model.prepare_save(path, weights_only=weights_only, snapshot=snapshot, note=note)

        def job() -> None:
            snapshot.finish()
            commit(write)

        self._writer.submit(job)
        self._unsaid = finished
        self._unmet = self._ranks is not None and path.endswith(OF_PARTS)

    def check(self) -> None:
        """Raise what went wrong in the background, and report a file that is finished; never waits."""
        if self._writer is not None and not self._writer.busy:
            unsaid, self._unsaid = self._unsaid, None
            self._writer.check()
            if unsaid is not None:
                unsaid()

    def wait(self) -> None:
        """Wait for the file that is being written; raise what went wrong. Where it is of parts, all processes must call it."""
        if self._writer is None:
            return
        unmet, self._unmet = self._unmet, False
        # The main process waits for the others in a message: one that is killed breaks it, and nothing else.
        if unmet and self._ranks is not None and self._ranks.main:
            self._ranks.agree(False)
        self._writer.wait()
        if unmet and self._ranks is not None and not self._ranks.main:
            self._ranks.agree(False)
        self.check()

    def commit(
        self,
        write: Callable[[], object],
        path: str,
        record: Record | None,
        rules: tuple[Rule, ...],
        direction: str | None,
    ) -> None:
        """Write a file and record it; then delete those that no rule keeps.

        Args:
            write: Writes the file.
            path: The file.
            record: What is known of it; None without a manifest.
            rules: Which files are kept.
            direction: Which way the score gets better.
        """
        if self.follows:
            write()
            return
        if not is_url(path):
            if not path.endswith(OF_PARTS):
                check_target(path)
            if os.path.dirname(path):
                os.makedirs(os.path.dirname(path), exist_ok=True)
        if self.manifest is None or record is None:
            write()
            return
        self.manifest.announce(record)
        write()
        self.manifest.record()
        self.manifest.prune(rules, record.run, direction)


def saves_as_oncue(model: Any, weights_only: bool) -> bool:
    """Return whether a model is saved by oncue's own code, rather than by a method of the user's."""
    return saves_later(model) and is_ours(model, "save_weights" if weights_only else "save")
