"""ModelCheckpoint: saves the model, or its weights, during training."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oncue.callbacks.checkpoint_arguments import (
    absolute,
    check_all_saved,
    check_measured,
    check_recorded,
    existing_files,
    note_in,
    read_path,
    read_period,
    read_rules,
    read_threshold,
    read_when_busy,
    try_path,
)
from oncue.callbacks.checkpoint_saver import CheckpointSaver
from oncue.callbacks.monitor_callback import MonitorCallback
from oncue.core.builtin import builtin
from oncue.core.console import print_message
from oncue.core.every import Every
from oncue.core.file_name import FileName
from oncue.core.files import OF_PARTS
from oncue.core.logs import Logs
from oncue.core.monitor import Logged, as_number
from oncue.core.numbers import whole
from oncue.core.protocols import has_parts_of_weights, needs_score, was_stopped
from oncue.core.remote import is_url

if TYPE_CHECKING:
    from oncue.checkpoints.manifest import Manifest
    from oncue.checkpoints.record import Record
    from oncue.checkpoints.score_note import ScoreNote


@builtin
class ModelCheckpoint(MonitorCallback):
    """Saves the model, or its weights, after every epoch or another period; or only when a value is the best so far.

    A best file is replaced only by a finite, strictly better value that was measured in the same epoch. Where the value is
    never measured, the model is saved all the same, with a warning: no run ends with nothing. Nothing is saved in an epoch that
    TerminateOnNaN cut short. Paths are tried before the first step: the folder is made, and a file that
    can't be written there, a disk without room for one, a placeholder that nothing will fill, and an ending that names no
    format are reported at once.

    With `validation_freq="500 steps"` in `fit`, what decides by a value of validation decides at each of them, wherever it is.

    The best value outlives a run: a second `fit` with the same object continues from it, as in Keras.

    Args:
        filepath: The file; placeholders such as `{epoch:02d}`, `{val_loss:.4f}` and, where it saves amid epochs, `{batch}` are
            filled, with epochs and batches counted from 1; at the end of an epoch it is the epoch's last batch. Whole models
            end in .keras (or .h5, .hdf5), weights in .weights.h5 (or .h5, .hdf5, .safetensors; .shards with `sharded`).
        monitor: The name of the value that decides what is best.
        verbose: 1 to print what is saved.
        save_best_only: Whether to save only what is better than everything before.
        save_weights_only: Whether to save the weights alone.
        mode: "min", "max", or "auto" to take the metric's own direction.
        save_freq: "epoch", or a number of batches, counted over the ends of epochs. A period of batches looks at the
            means over the epoch so far.
        initial_value_threshold: A value to beat before anything is the best; None for none.
        every: The period in words, instead of `save_freq`: "2 epochs", "500 steps", "10 minutes".
        keep: Which files stay, when the file name has placeholders: a number for so many of the last, "best 3", a rule
            of `oncue.checkpoints`, or a list of them. The others of the same run are deleted once a new one is safe.
        resume_best: Whether to continue from the best value of an earlier run, instead of replacing its file with the first
            of this run. The file says its score itself; one that doesn't, because Keras or a method of yours wrote it, is an
            error before the first step, unless `initial_value_threshold` is given. `keep` then also counts earlier files.
        asynchronous: Whether to write in the background: training waits only while the tensors are copied. One file is
            written at a time; an error comes at the next hook, and `fit` returns when everything is on the disk. For a
            callback of yours that follows in the list, in the same hook, and for any at the end of the run, the file is waited
            for; elsewhere it may still be on its way.
        when_busy: In the background, what to do when a save is due and the one before isn't on the disk yet: "wait" for it, or
            "skip" the new one, which the journal notes. The last epoch's is always waited for.
        page_locked: In the background, the most bytes of page-locked memory, which a GPU copies to while it works; more goes
            through ordinary memory. 0 for none, None for no limit.
        sharded: Whether each process writes its own parts of the weights, where it has such, as torch's
            `distributed.checkpoint` plans them: nothing is gathered. `filepath` is then a folder that ends in .shards, on a
            disk that all processes see, and `load_weights` reads it on any number of processes. With `save_weights_only=True`.
        period: The word of Keras 2 for a number of epochs; use `every`.

    Every file that is saved as the best has its score in it. With `keep` or `resume_best`, what was saved is recorded beside
    the files, too, in `<file name>.oncue.json`: sizes, SHA-256 digests, epochs and scores.

    Attributes:
        best: The best value so far; None before the first.

    Raises:
        ValueError: For an argument that can't be right, and before the first step for a placeholder or a monitored name
            that this run can't log, and for a best file of an earlier run whose score isn't known.
        OSError: Before the first step, when nothing can be written to the path, it is a folder, or there is no room for a
            file; and when a save fails.

    Example:
        >>> import numpy as np, oncue, tempfile
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     saver = ModelCheckpoint(os.path.join(folder, "{epoch}.weights.h5"), save_weights_only=True, keep=2)
        ...     _ = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=4, verbose=0, callbacks=[saver])
        ...     sorted(os.listdir(folder))
        ['3.weights.h5', '4.weights.h5', 'epoch.weights.h5.oncue.json']
    """

    makes_way = True
    main_process_only = True
    writes_together = True
    finishes_files = True
    state_fields = ("best", "waited", "run_id", "records")
    later_fields = ("batches",)
    _without = "it can't tell the best, and saves every time as long as it knows of none"

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
        *,
        every: str | Every | None = None,
        keep: Any = None,
        resume_best: bool = False,
        asynchronous: bool = False,
        when_busy: str = "wait",
        page_locked: int | None = None,
        sharded: bool = False,
        period: int | None = None,
    ) -> None:
        super().__init__(monitor, mode)
        self.sharded = sharded
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.filepath = filepath
        self.save_freq = save_freq
        self.best = read_threshold(initial_value_threshold)
        self.every = read_period(save_freq, every, period)
        self.keep = keep
        self.resume_best = resume_best
        self.asynchronous = asynchronous
        self.run_id = uuid.uuid4().hex
        self._begun_again: str | None = None
        self._epoch = 0
        # Those of the epoch by now, where the file name has them.
        self.batches = 0
        self._names_logged: frozenset[str] = frozenset()
        self.when_busy = read_when_busy(when_busy, asynchronous)
        self.page_locked = None if page_locked is None else whole("ModelCheckpoint", "page_locked", page_locked)
        self._saver = CheckpointSaver(asynchronous, self.page_locked)
        self._rules = read_rules(keep)
        if self._watches:
            check_measured(monitor, self.every)
            check_all_saved(when_busy)
        if keep is not None or resume_best:
            check_recorded(self._name, keep is not None, resume_best and not self._watches)

    @property
    def filepath(self) -> str:
        """The file, with its placeholders."""
        return self._name.template

    @filepath.setter
    def filepath(self, path: str | os.PathLike[str]) -> None:
        self._name = FileName(read_path(path, self.save_weights_only, self.sharded), type(self).__name__)

    def __getstate__(self) -> dict[str, Any]:
        # A copy counts its own period, and has nothing that is being written.
        return {**super().__getstate__(), "every": copy(self.every), "_saver": copy(self._saver)}

    @property
    def _watches(self) -> bool:
        return self.save_best_only or any(needs_score(rule) for rule in self._rules)

    @property
    def _decides_amid(self) -> bool:
        """Whether it decides by a validation amid an epoch, where there is one."""
        return self._watches and self._reads.startswith("val_")

    @property
    def waited(self) -> dict[str, Any]:
        """How much of the period has passed: what a resumed run gets back."""
        return self.every.state_dict()

    @waited.setter
    def waited(self, state: dict[str, Any]) -> None:
        self.every.load_state_dict(state)

    def left_in_fork(self) -> tuple[str, ...]:
        """Return what a fork begins without: it saves files of its own, and has no best one yet."""
        return ("best", "run_id", "records")

    def check_saved(self, state: Mapping[str, Any]) -> None:
        """Refuse a state that names other files than this callback saves.

        Args:
            state: A saved state.

        Raises:
            ValueError: For such a state.
        """
        from oncue.checkpoints.record import Record

        for record in state.get("records", ()):
            if not self._name.fits(Record.from_json(record).file):
                raise ValueError(
                    f"The state of ModelCheckpoint has a file {record['file']!r}, which it can't have saved."
                )

    @property
    def records(self) -> list[dict[str, Any]]:
        """What is recorded of this run's files: a resumed run decides by what was known then."""
        manifest = self._saver.manifest
        return [] if manifest is None else [one.as_json() for one in manifest.records if one.run == self.run_id]

    @records.setter
    def records(self, records: list[dict[str, Any]]) -> None:
        if self._saver.manifest is not None:
            self._saver.manifest.take_back(records, self.run_id)

    def mark_files(self) -> dict[str, Any] | None:
        """Return under which name the files of this run are recorded, for `keep` to delete those that go."""
        if not self._rules or self.resume_best:
            return None
        return {"manifest": absolute(self._manifest_path), "run": self.run_id}

    def take_back(self, mark: dict[str, Any]) -> None:
        """Let this run be the one that begins anew: it saves the files of that run again, and `keep` counts them.

        Args:
            mark: What `mark_files` returned when that run began.
        """
        if mark["manifest"] == absolute(self._manifest_path):
            self.run_id = self._begun_again = mark["run"]

    def listens_to(self, hook: str) -> bool:
        """Skip the batches when the period is one of epochs, and no file name has them."""
        return hook != "on_train_batch_end" or self.every.unit != "epoch" or "batch" in self._name.names

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        kind = "whole_model"
        if self.save_weights_only:
            kind = "safetensors" if self.filepath.endswith((".safetensors", OF_PARTS)) else "weights_h5"
        return (kind, "background_save") if self.asynchronous else (kind,)

    def set_model(self, model: Any) -> None:
        """Receive the model; what was found for an earlier run is discarded."""
        super().set_model(model)
        self._names_logged = frozenset()

    def expect(self, logged: Logged) -> None:
        """Refuse a placeholder or a monitored value that can't appear in this run.

        Args:
            logged: What the run is going to log.

        Raises:
            ValueError: For a placeholder that nothing will fill.
            MonitorError: For a monitored name that is a near-miss.
        """
        if self._watches:
            super().expect(logged)
        self._names_logged = frozenset([*logged.names, *logged.old_names])
        self._name.check_numbers(self._names_logged)
        if logged.may_grow:
            return
        hint = "" if logged.validation else " This run has no validation data."
        if self.every.unit == "epoch":
            amid = ["batch"] if logged.amid and self._decides_amid else []
            known = ["epoch", *amid, *logged.names, *logged.old_names]
        else:
            known = ["epoch", "batch", *(name for name in self._names_logged if not name.startswith("val_"))]
            hint = f" Validation is measured when an epoch ends, and this saves every {self.every}."
        self._name.check_names(known, hint if any(name.startswith("val_") for name in self._name.names) else "")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Make the folder, try to write there, and read what an earlier run recorded."""
        self.every.begin()
        self._epoch = 0
        together = self._together
        if together and self.every.unit == "second":
            raise ValueError(
                f"ModelCheckpoint can't save every {self.every} where each process has a part of the weights, because each has "
                "a clock of its own. Use a period of steps or epochs, as every='1000 steps'."
            )
        owed = None if self._run is None else self._run.owed
        self._saver.begin(self.model, self.ranks if together else None, owed)
        if not self._saver.follows:
            try_path(self._name, self.model, self.save_weights_only)
        self._saver.try_save(self.model, self.filepath, self.save_weights_only)
        if not together:
            self._saver.reserve(self.model, self.filepath, self.save_weights_only)
        if (self._rules or self.resume_best) and not self._saver.follows:
            self._open_manifest()
        if together and self.resume_best:
            self.best = self.ranks.broadcast(self.best)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take note of the epoch; an error of a save in the background comes out here."""
        self._epoch = epoch
        self._saver.check()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save when the period is due."""
        self._saver.check()
        self.batches = batch + 1
        if self.every.after_batch(batch):
            self._consider(self._epoch, batch, logs, "on_train_batch_end")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save when the period is due."""
        if self.every.after_epoch():
            self._consider(epoch, None, logs, "on_epoch_end")

    def on_validation_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Save when a validation amid an epoch has measured what is better."""
        self._saver.check()
        if self._decides_amid:
            self._consider(self._epoch, batch, logs, "on_validation_end")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Wait until everything is written."""
        self._saver.wait()
        self._saver.end()

    def close(self) -> None:
        """Wait until everything is written, however the run ended."""
        self._saver.end()

    def after_close(self) -> None:
        """Let others save files of these names, also when `close` was never reached."""
        self._saver.release()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run gets back; what it speaks of is on the disk then."""
        # A run that is killed after a state was saved, and before the file, would resume with a best value that no file has,
        # and never save one that is worse; nor is the digest of a file known before it is written.
        self._saver.wait()
        return super().state_dict()

    @property
    def _together(self) -> bool:
        """Whether each process has a part of the weights, which all bring for a save."""
        return self.ranks.size > 1 and has_parts_of_weights(self.model)

    # Whether to save ---------------------------------------------------------------------------------------------

    def _consider(self, epoch: int, batch: int | None, logs: dict[str, Any] | None, hook: str) -> None:
        if self._in_trial:
            return
        # Keras's own loop gives a plain dict, which knows no old names.
        logs = logs if isinstance(logs, Logs) else Logs(logs or {})
        score = self.watched(logs) if self._watches else as_number(logs.get(self.monitor))
        if self._measured_amid():
            score = None
        cut_short = self._run is not None and self._run.progress.cut_short(self.model)
        if batch is not None and self._together:
            # Amid an epoch each process has the values of its own rows.
            score, cut_short = self.ranks.broadcast([score, cut_short])
        if cut_short:
            self._say(epoch, "not saving the model, because a value is not finite")
            self._decided("note", "no_file")
        elif self.save_best_only and score is not None:
            self._save_if_best(epoch, batch, logs, score, hook)
        elif self.save_best_only and (self.best is not None or (self._skipped(logs) and not self._is_last(epoch))):
            self._say(epoch, f"{self.monitor} was not measured, so the model is not saved")
        else:
            path = self._path(epoch, batch, logs)
            last = batch is None and self._is_last(epoch)
            if self.when_busy == "skip" and not last and self._is_busy():
                self._say(epoch, "not saving the model, because the file before is still being written")
                self._decided("note", "file_skipped", path=path)
                return
            # The manifest is the writer's until it is done.
            self._saver.wait()
            record, manifest = self._record(path, epoch, batch, score), self._saver.manifest
            unwanted = bool(manifest and record and not manifest.wants(record, self._rules, self.watch.direction))
            if self._rules and self._together:
                # The records are the main process's.
                unwanted = self.ranks.broadcast(unwanted)
            if unwanted:
                self._say(epoch, f"not saving the model, because `keep` would not keep it ({self.monitor}: {score})")
                return
            self._say(epoch, f"saving model to {path}")
            self._save(path, record, epoch, score, hook)
            self._decided("save", "file", path=path, monitor=self.monitor, score=score)

    def _is_busy(self) -> bool:
        busy = self._saver.busy
        return bool(self.ranks.broadcast(busy)) if self._together else busy

    def _is_last(self, epoch: int) -> bool:
        return was_stopped(self.model) or epoch + 1 == (self.params or {}).get("epochs")

    def _save_if_best(self, epoch: int, batch: int | None, logs: Logs, score: float, hook: str) -> None:
        before = "None" if self.best is None else f"{self.best:.5f}"
        if not self.watch.is_better(score, self.best):
            self._say(epoch, f"{self.monitor} did not improve from {before}")
            return
        path = self._path(epoch, batch, logs)
        self._say(epoch, f"{self.monitor} improved from {before} to {score:.5f}, saving model to {path}")
        self._save(path, self._record(path, epoch, batch, score), epoch, score, hook)
        self._decided("best", "best_file", path=path, monitor=self.monitor, score=score, before=self.best)
        self.best = score

    def _path(self, epoch: int, batch: int | None, logs: Logs) -> str:
        values = dict(logs)
        unmeasured = batch is None and not any(name.startswith("val_") for name in logs)
        for name in self._name.names:
            value = logs.get(name)
            if value is None and unmeasured and name in self._names_logged:
                # A run that validates every few epochs must not lose the files of the others to their names.
                value = math.nan
            if value is not None:
                values[name] = value
        values["epoch"] = epoch + 1
        if batch is not None or self.every.unit == "epoch":
            values["batch"] = self.batches if batch is None else batch + 1
        return self._name.fill(values)

    # Saving ------------------------------------------------------------------------------------------------------

    def _save(self, path: str, record: Record | None, epoch: int, score: float | None, hook: str) -> None:
        from oncue.checkpoints.score_note import ScoreNote

        rules, direction = self._rules, self.watch.direction
        note = ScoreNote(self.watch.name, direction, score).as_text() if self._watches and score is not None else None
        self._saver.save(
            self.model,
            path,
            self.save_weights_only,
            note,
            lambda write: self._saver.commit(write, path, record, rules, direction),
            lambda: self._say(epoch, f"finished saving model to {path}"),
        )
        if self._run is not None and self._run.others_follow(self, hook):
            # They would find no file, or that of an earlier save.
            self._saver.wait()

    def _record(self, path: str, epoch: int, batch: int | None, score: float | None) -> Record | None:
        manifest = self._saver.manifest
        if manifest is None:
            return None
        from oncue.checkpoints.record import Record

        file = manifest.file_of(path)
        steps = (self.params or {}).get("steps")
        step = None if steps is None else epoch * steps + (steps if batch is None else batch + 1)
        return Record(file, epoch=epoch + 1, step=step, score=score, monitor=self.monitor, run=self.run_id)

    def _say(self, epoch: int, text: str) -> None:
        if self.verbose > 0:
            print_message(f"\nEpoch {epoch + 1}: {text}")

    # What an earlier run left -------------------------------------------------------------------------------------

    @property
    def _manifest_path(self) -> str:
        return os.path.join(self._name.folder, f"{self._name.plain_name}.oncue.json")

    def _open_manifest(self) -> None:
        manifest = self._saver.open_manifest(self._manifest_path, self._name.fits)
        if self._begun_again is not None:
            manifest.take_back([], self._begun_again)
            self._begun_again = None
        if self.resume_best:
            self._take_best(manifest)

    def _take_best(self, manifest: Manifest) -> None:
        if self.watch.direction is None:
            self._decide_direction({})
        recorded = {record.file: record for record in manifest.records}
        existing = {manifest.file_of(path): path for path in existing_files(self._name)}
        scores: dict[str, float] = {}
        for file, path in existing.items():
            if is_url(path) and file in recorded:
                # Its record says the same, and need not be fetched with all the rest.
                continue
            note = note_in(path)
            if note is not None:
                self._check_note(note, path)
            if note is not None and (file not in recorded or recorded[file].score != note.score):
                # A run that keeps no records saved it.
                scores[file] = note.score
        # The others may be damaged, which their records tell.
        found = manifest.best(self.monitor, self.watch.direction, besides=scores)
        if found is not None and found.score is not None:
            scores[found.file] = found.score
        if scores:
            file = max(scores, key=lambda one: scores[one] if self.watch.direction == "up" else -scores[one])
            self.run_id = recorded[file].run if file in recorded else self.run_id
            if self.watch.is_better(scores[file], self.best):
                self.best = scores[file]
                self._decided("note", "best_resumed", path=file, monitor=self.monitor, score=self.best)
        if self.best is None and existing and self.save_best_only:
            path = next(iter(existing.values()))
            raise ValueError(
                f"ModelCheckpoint with resume_best=True doesn't know the {self.monitor} of '{path}', and could replace it by "
                "something worse. Give the value as `initial_value_threshold=...`, move the file, or use "
                "`resume_best=False` to replace it."
            )

    def _check_note(self, note: ScoreNote, path: str) -> None:
        own = replace(note, monitor=self.watch.name, direction=self.watch.direction)
        if note != own:
            raise ValueError(
                f"'{path}' is the best by {note.what}, and ModelCheckpoint with resume_best=True is to go on by {own.what}. "
                "Give the same `monitor` and `mode`, another file name, or `resume_best=False` to replace the file."
            )
