"""BackupAndRestore: a run that was interrupted continues when the same script is started again."""

from __future__ import annotations

import math
import os
import time
from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from oncue.callbacks.backup_arguments import are_for, check_choice, folder_of, period_of, rules_of
from oncue.callbacks.callback import Callback
from oncue.core.builtin import builtin
from oncue.core.console import print_message
from oncue.core.every import Every
from oncue.core.files import sync_file
from oncue.core.logs import Logs
from oncue.core.monitor import as_number
from oncue.core.numbers import whole
from oncue.core.protocols import TellsState, has_parts_of_weights, run_state_of, size_of_save, tensors_of
from oncue.core.warn import warn

if TYPE_CHECKING:
    from pathlib import Path

    from oncue.checkpoints.shared_store import SharedStore
    from oncue.checkpoints.snapshot import Snapshot
    from oncue.checkpoints.training_state import PartOfSave, TrainingState
    from oncue.checkpoints.writer import Writer


@builtin
class BackupAndRestore(Callback):
    """Saves the state of training, so that the same script, started again after any interruption, continues where it was.

    All that changes in a run is saved: weights, the optimizer's state, the callbacks' (what EarlyStopping has waited, the
    rows of CSVLogger), the History, the random generators and the place in the data. On the CPU a run that was
    interrupted therefore ends bit for bit as one that was not. The state is saved as JSON and safetensors, with a checksum,
    in a way that a kill at any moment leaves it readable; the state before the newest is kept, in case a disk damages it.
    Training waits only while tensors are copied; they are written in the background, one state at a time. An error there
    comes at the next hook, and `fit` returns when all is written.

    After a run that finished, or that a callback stopped, the backup is deleted. After an error, Ctrl-C or a kill, and
    after TerminateOnNaN, it stays, and the next `fit` begins from it. A state whose loss is not finite is never saved.
    It is called after all other callbacks, wherever it stands in the list.

    Args:
        backup_dir: The folder, for this run only; or its URL, such as "s3://bucket/backup", which fsspec reaches. There
            are no locks: a second run that saves to the same place ends the first one with an error.
        save_freq: "epoch", or a number of batches. After batches needs data that can be resumed in the middle of an
            epoch; almost all can.
        double_checkpoint: Kept from Keras, which keeps the state before the newest only with this; here it always stays.
        delete_checkpoint: Whether to delete the backup when the run has ended. If not, the same script started again
            returns at once with the run's History, or continues when `epochs` has grown.
        every: The period in words, instead of `save_freq`: "2 epochs", "500 steps", "10 minutes".
        resume: "exact" continues at the batch that would have come next; a stream without a position (a generator) is read
            again up to there. "epoch" starts the interrupted epoch again, with the weights of the newest state and
            whatever the data yield now: for data that aren't the same each time, or costly to read again.
        when_busy: What to do when a state is due and the one before isn't on the disk yet: "wait" for it, or "skip" the new
            one, which the journal notes; the next is due a period later. The state of a run that ends before its time is
            always waited for.
        page_locked: The most bytes of page-locked memory, which a GPU copies to while it works; a state that is larger goes
            through ordinary memory. 0 for none, None for no limit.
        on_mismatch: What to do with a backup of another setup: "raise" an error that names what has changed; "restart"
            training, the first state of which takes the backup's place; "adopt" what fits, and print what doesn't.
        keep: Which states of the ends of epochs stay, when the run has ended, too, for `oncue fork` to begin other runs from:
            "all", a number (so many of the last), "every 5" (epochs), a rule, or a list of these; None for none. The run that
            begins from scratch in the folder next takes their place.

    Raises:
        ValueError: For an argument that can't be; and before the first step, when the model, the optimizer, the data or
            the callbacks are no longer those of the backup, naming what has changed, and when the data can't be taken
            up where they were.
        OSError: Before the first step, when the folder can't be written to; and when a state can't be saved.
        RuntimeError: Before the first step, when another run is using the folder; when another has begun to save to its URL.

    Attributes:
        seconds: What the longest save of this run took, from taking the state until it was on the disk.

    Example:
        >>> import numpy as np, oncue, tempfile
        >>> from oncue.callbacks import LambdaCallback
        >>> x = np.ones((8, 2))
        >>> def train(folder, interrupt):
        ...     model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        ...     model.compile("adam", loss="mse")
        ...     callbacks = [BackupAndRestore(folder), LambdaCallback(on_epoch_begin=interrupt)]
        ...     return model.fit(x, x[:, :1], epochs=4, verbose=0, callbacks=callbacks)
        >>> def power_cut(epoch, logs):
        ...     if epoch == 3:
        ...         raise KeyboardInterrupt
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     try:
        ...         train(os.path.join(folder, "backup"), power_cut)
        ...     except KeyboardInterrupt:
        ...         pass
        ...     begun = []
        ...     history = train(os.path.join(folder, "backup"), lambda epoch, logs: begun.append(epoch))
        >>> begun, history.epoch
        ([3], [0, 1, 2, 3])
    """

    runs_last = True
    saves_run = True
    state_fields = ("waited",)

    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
        *,
        every: str | Every | None = None,
        resume: str = "exact",
        on_mismatch: str = "raise",
        when_busy: str = "wait",
        page_locked: int | None = None,
        keep: Any = None,
    ) -> None:
        super().__init__()
        self.backup_dir = folder_of(backup_dir)
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self.every = period_of(save_freq, every)
        self.resume = check_choice("resume", resume, ("exact", "epoch"))
        self.on_mismatch = check_choice("on_mismatch", on_mismatch, ("raise", "restart", "adopt"))
        self.when_busy = check_choice("when_busy", when_busy, ("wait", "skip"))
        self.page_locked = None if page_locked is None else whole("BackupAndRestore", "page_locked", page_locked)
        self.keep = keep
        self._rules = rules_of(keep)
        self._from_scratch = True
        self._store: SharedStore | None = None
        self._writer: Writer | None = None
        self._snapshot: Snapshot | None = None
        # This process's part of the state before, with the plan that was made for it.
        self._part: PartOfSave | None = None
        self._postponed = self._left_out = False
        self.seconds = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # A copy has neither the folder nor what is being written.
        own = {
            "_store": None,
            "_writer": None,
            "_snapshot": None,
            "_part": None,
            "_postponed": False,
            "_left_out": False,
        }
        return {**super().__getstate__(), **own, "every": copy(self.every)}

    @property
    def waited(self) -> dict[str, Any]:
        """How much of the period has passed: what a resumed run gets back."""
        return self.every.state_dict()

    @waited.setter
    def waited(self, state: dict[str, Any]) -> None:
        self.every.load_state_dict(state)

    def listens_to(self, hook: str) -> bool:
        """Skip the batches when the period is one of epochs."""
        return self.every.unit != "epoch" if hook == "on_train_batch_end" else True

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("run_state",)

    def pending_state(self) -> TrainingState | None:
        """Return the state that an earlier run left; the loop asks once, before `on_train_begin`.

        Returns:
            None when there is none.

        Raises:
            ValueError: When this run is set up in another way, or no state in the folder can be read.
            OSError: When the folder can't be written to.
        """
        from oncue.checkpoints.shared_store import SharedStore
        from oncue.checkpoints.snapshot import Snapshot
        from oncue.checkpoints.training_state import TrainingState
        from oncue.checkpoints.writer import Writer

        run = self._needed_state()
        owed = None if self._run is None else self._run.owed
        self._writer, self._snapshot = Writer("the state of the run"), Snapshot(True, self.page_locked, owed)
        self._store = SharedStore(self.backup_dir, self.ranks)
        self._store.prepare()
        like = list(tensors_of(self.model).values())
        read = partial(TrainingState.read, files=self._store, like=like)
        state = self._store.newest(read, by_all=has_parts_of_weights(self.model))
        if state is not None:
            state = self._fitting(state, run)
        self._from_scratch = state is None
        if self.resume == "epoch":
            return None if state is None else state.at_epoch(without=run.read_again)
        # One that was saved in validation has the results of the epoch's steps, all of which are done.
        amid = state is not None and state.batch > 0 and state.parts.get("results") is None
        inside = self.every.unit != "epoch" or amid
        obstacle = run.obstacle() if inside else None
        if obstacle is not None:
            raise ValueError(
                f"BackupAndRestore can't save every {self.every}, in the middle of epochs, because {obstacle}. Use "
                "resume='epoch', to start an interrupted epoch again; or `save_freq='epoch'` (and delete the "
                "folder, if it has a backup from the middle of an epoch)."
            )
        return state

    def _fitting(self, state: TrainingState, run: TellsState) -> TrainingState | None:
        # Callbacks that write for all are in the list of the main process only.
        fingerprint = self.ranks.broadcast(run.fingerprint())
        changed = state.changed(fingerprint)
        if state.forked is not None:
            # Its data are whatever the script gives.
            state = replace(state, exact=False)
        if not changed:
            return state
        if state.forked is not None:
            adopted, left = state.adopted(fingerprint)
            print_message(
                f"BackupAndRestore: what the run was forked from had another setup. Not taken over: {'; '.join(left)}."
            )
            return adopted
        if self.on_mismatch == "raise":
            state.check(fingerprint, self.backup_dir)
        words = f"the setup has changed ({', '.join(f'`{name}`' for name in changed)})"
        if self.on_mismatch == "restart":
            assert self._store is not None
            self._store.start_over()
            print_message(f"BackupAndRestore: {words}, so training starts from scratch.")
            return None
        adopted, left = state.adopted(fingerprint)
        print_message(f"BackupAndRestore: {words}. Not taken over: {'; '.join(left)}.")
        return adopted

    def marks(self) -> dict[str, Any] | None:
        """Return where files ended before a run that saved no state; the loop asks after `pending_state`."""
        return None if self._store is None else self._store.marks()

    def keep_marks(self, marks: dict[str, Any]) -> None:
        """Keep where files end, until the first state is saved.

        Args:
            marks: By callback what its `mark_files` returned.

        Raises:
            OSError: When it can't be kept.
        """
        if self._store is not None:
            self._store.keep_marks(marks)

    def noted_data(self) -> dict[str, Any]:
        """Return what the run that left the states has noted; the loop asks after `pending_state`."""
        return {} if self._store is None else self._store.note()

    def note_data(self, note: dict[str, Any]) -> None:
        """Keep what data are when an epoch has begun.

        Args:
            note: What JSON can express.

        Raises:
            OSError: When it can't be kept.
        """
        if self._store is not None:
            self._store.keep_note(note)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Let the period begin.

        Raises:
            ValueError: In a loop that can't capture its state.
        """
        self._needed_state()
        self.every = Every(self.every)
        self.every.begin()
        self._postponed = self._left_out = False
        if self._snapshot is not None and self._writer is not None and self._store is not None and self._store.writes:
            self._snapshot.reserve(
                tensors_of(self.model).values(), lambda: size_of_save(self.model, "state.keras"), self._writer.prepare
            )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save when the period is due; after the last batch of an epoch, when the epoch has been measured too."""
        if self._writer is not None:
            self._writer.check()
        if self._due(batch):
            steps = (self.params or {}).get("steps")
            if self.model.stop_training or (steps is not None and batch + 1 >= steps):
                self._postponed = True
            else:
                self._save(logs, may_skip=True)

    def _due(self, batch: int) -> bool:
        ranks = self.ranks
        if ranks.size == 1 or self.every.unit != "second":
            return self.every.after_batch(batch)
        # The clock of the main process decides for all.
        if ranks.main and self.every.after_batch(batch):
            ranks.ask("save")
        if not ranks.asked("save"):
            return False
        ranks.settled("save")
        return True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save when the period is due, and the last epoch when the backup is to stay."""
        last = self.model.stop_training or epoch + 1 == (self.params or {}).get("epochs")
        kept = are_for(self._rules, epoch + 1)
        due = self.every.after_epoch() or self._postponed or kept
        self._postponed = False
        if due or (last and not self.delete_checkpoint):
            self._save(logs, may_skip=not (last or kept))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Delete the backup, unless the run is to be continued, or was stopped because a value was not finite."""
        paused = self._run is not None and self._run.paused is not None
        if not self.delete_checkpoint or self._store is None or paused or self._cut_short():
            self._wait_with_others()
            return
        try:
            self._wait_with_others()
        except OSError as error:
            warn(f"The last state of the run could not be saved ({error}); the run has ended, so that nobody needs it.")
        self._store.clear()

    def close(self) -> None:
        """Wait until the current state is written, and let other runs use the folder."""
        try:
            self._wait()
        finally:
            self.after_close()

    def after_close(self) -> None:
        """Let other runs use the folder as soon as no state is being written, also if `close` was never called."""
        if self._store is not None and self._writer is not None:
            self._writer.when_idle(self._store.release)

    def save_now(self, logs: dict[str, Any] | None = None) -> bool:
        """Save the state of this moment, and return when it is on the disk; for a hook that runs after all others.

        Args:
            logs: The hook's logs.

        Returns:
            False when the run can't be resumed exactly from this moment, or a value is not finite: the backup before stays.
        """
        run = run_state_of(self._run)
        if run is None or self._store is None:
            # In `evaluate` there is nothing to resume.
            return False
        inside = self._run is not None and self._run.progress.batch is not None
        if inside and self.resume == "exact" and run.obstacle() is not None:
            return False
        return self._save(logs) and self._wait_with_others()

    def _save(self, logs: dict[str, Any] | None, may_skip: bool = False) -> bool:
        if self._in_trial:
            return False
        # Values that nobody has read yet are read by the thread that writes: here training would wait for the device.
        unread = logs.kept() if isinstance(logs, Logs) and not logs.fetched and self.ranks.size == 1 else None
        # What one process alone sees, in its rows of a batch, is so for all: each would wait for the others in a save.
        if self._cut_short() or self.ranks.agree(unread is None and not _is_finite(logs)):
            self._decided("note", "no_backup")
            return False
        assert self._store is not None and self._writer is not None and self._snapshot is not None
        if may_skip and self.when_busy == "skip" and self.ranks.broadcast(self._writer.busy):
            self._decided("note", "backup_skipped")
            return False
        # The copies of the state before are read until it is written.
        self._wait_with_others()
        before = time.monotonic()
        run, store = self._needed_state(), self._store
        taken = run.capture()
        together = self._together
        if not store.writes and not together:
            return True
        part = self._part_of_save() if together else None
        rules, first, self._from_scratch = self._rules, self._from_scratch, False
        epochs = taken.epoch if taken.batch == 0 and are_for(rules, taken.epoch) else 0
        if self.resume == "epoch":
            taken = taken.at_epoch(without=run.read_again)
        snapshot, state = self._snapshot, taken.freeze(self._snapshot, part)
        files, ranks = [] if self._run is None else self._run.growing_files(), self.ranks

        def write(path: Path) -> None:
            state.write(path)
            if part is not None:
                # It gets its name when the parts of all others have theirs.
                ranks.wait_until_told(part.token, part.size - 1)

        def commit() -> None:
            for path in files:
                # One that was removed meanwhile is missed by who has written it.
                with suppress(FileNotFoundError):
                    sync_file(path)
            snapshot.finish()
            if unread is not None and not _is_finite(unread):
                self._from_scratch, self._left_out = first, True
                return
            if part is None or not part.rank:
                store.commit(write, rules, epochs, first)
            else:
                store.commit_part(part.file, state.write)
                ranks.tell(part.token)
            self.seconds = max(self.seconds, time.monotonic() - before)

        self._writer.submit(commit)
        return True

    @property
    def _together(self) -> bool:
        """Whether each process has a part of the weights, and writes it."""
        return self.ranks.size > 1 and has_parts_of_weights(self.model)

    def _part_of_save(self) -> PartOfSave:
        from oncue.checkpoints.training_state import PartOfSave

        assert self._store is not None
        number, token = self.ranks.broadcast([self._store.next_number, os.urandom(16).hex()])
        if self._part is None:
            self._part = PartOfSave(self.ranks.rank, self.ranks.size, number, token)
        self._part = replace(self._part, number=number, token=token)
        return self._part

    def _wait(self) -> bool:
        """Wait for the state that is being written; return whether it wasn't left out for a loss that is not finite."""
        if self._writer is not None:
            self._writer.wait()
        return self._tell_of_left_out()

    def _wait_with_others(self) -> bool:
        """Wait where all processes do. While the main one waits for the parts of others it takes part in a message of all.

        The message ends soon with an error when another process is killed; nothing else tells that it is.
        """
        together = self._together
        if together and self.ranks.main:
            self.ranks.agree(False)
        if self._writer is not None:
            self._writer.wait()
        if together and not self.ranks.main:
            self.ranks.agree(False)
        return self._tell_of_left_out()

    def _tell_of_left_out(self) -> bool:
        # Asked where the writer was waited for, and nowhere else: the journal doesn't depend on how quick a disk is.
        left_out, self._left_out = self._left_out, False
        if left_out:
            self._decided("note", "no_backup")
        return not left_out

    def _cut_short(self) -> bool:
        return self._run is not None and self._run.progress.cut_short(self.model)

    def _needed_state(self) -> TellsState:
        found = run_state_of(self._run)
        if found is None:
            raise ValueError(
                f"BackupAndRestore works in `fit` of oncue's models; this loop, around a {type(self.model).__name__}, "
                "can't capture all that it needs to continue. With a Keras model use `keras.callbacks.BackupAndRestore`."
            )
        return found


def _is_finite(logs: dict[str, Any] | None) -> bool:
    loss = as_number((logs or {}).get("loss"))
    return loss is None or math.isfinite(loss)
