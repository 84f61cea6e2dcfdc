"""Control: a run that can be spoken to while it goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oncue.callbacks.callback import Callback
from oncue.core import commands
from oncue.core.builtin import builtin
from oncue.core.console import print_message
from oncue.core.files import machine, reason_of, replace_file
from oncue.core.protocols import follows_schedule, optimizers_of, run_state_of, save_run

_EVERY, _SLEEP = 0.25, 0.1
_DONE = "done.json"
_EPOCH_END = 1 << 40


@builtin
class Control(Callback):
    """Listens for commands in a folder: `oncue control RUN stop`, `save`, `pause`, `go`, `rate 1e-4` and `rate x0.5`.

    - `stop` ends the run as `model.stop_training = True` does: the epoch is measured and ended.
    - `save` lets every `BackupAndRestore` save the state of this moment.
    - `pause` waits after the step, until `go` or `stop`; `save` and `rate` are done meanwhile.
    - `rate` sets the learning rate, or multiplies it.

    Nothing but these words is understood. Each command is done once, after the step that is under way, and is in the journal
    with the time and the user whose file it is. Between steps the clock is asked, and the folder four times a second. A run
    that is resumed from a state before a `rate` or `stop` does it again at the same place, so that it ends as the run that was
    interrupted; one that begins anew forgets what it was told.

    Of several processes the main one listens, and all do what it was told after the same step.

    Args:
        folder: The folder, for this run only; it is made. `RunFolder(..., control=True)` brings one.

    Raises:
        OSError: Before the first step, when the folder can't be written to.

    Example:
        >>> import itertools, numpy as np, oncue, tempfile
        >>> from oncue.callbacks import LambdaCallback
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +ELLIPSIS
        ...     def ask(epoch, logs):
        ...         if epoch == 2:
        ...             commands.tell(folder, commands.command_of("stop"))
        ...     callbacks = [LambdaCallback(on_epoch_begin=ask), Control(folder, clock=itertools.count().__next__)]
        ...     history = model.fit(np.ones((8, 2)), np.ones((8, 1)), epochs=50, verbose=0, callbacks=callbacks)
        <BLANKLINE>
        Control: stopped: ... said so
        >>> history.epoch
        [0, 1, 2]
    """

    # Before those that save, so that a state has what was done before it.
    runs_last = True
    later_fields = ("done",)

    def __init__(self, folder: str | os.PathLike[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.folder = os.fspath(folder)
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        # The names of the commands that were done.
        self.done: list[str] = []
        # Those that were done after the state that a run goes on from, with their places.
        self._again: list[dict[str, Any]] = []
        self._written: list[dict[str, Any]] = []
        self._looked = self._clock() - _EVERY
        self._epoch = 0
        self._listens = self._paused = False

    def left_in_fork(self) -> tuple[str, ...]:
        """Return what a fork begins without: it has a folder of its own."""
        return ("done",)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Make the folder, and forget the commands of a run before this one.

        Raises:
            OSError: When it can't be written to.
        """
        self._reset()
        if not self.ranks.main:
            return
        state = run_state_of(self._run)
        path = Path(self.folder)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if state is None or state.waiting is None:
                for name in (*commands.waiting(path), _DONE):
                    path.joinpath(name).unlink(missing_ok=True)
            replace_file(path / commands.LISTENS, _document({"machine": machine(), "process": os.getpid()}))
        except OSError as error:
            why = f"Control can't write to its `folder` ({reason_of(error, path)}). Give one that can be written to"
            raise type(error)(error.errno, why, self.folder) from None
        self._listens = True
        self._written = _read_done(path / _DONE)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take note of the epoch, and of what is to be done again in a run that goes on."""
        self._epoch = epoch
        again = [one for one in self._written if one["name"] not in self.done]
        self._again = self.ranks.broadcast(again)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Do what the run was told meanwhile."""
        self._look(batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Do what the run was told meanwhile."""
        self._look(_EPOCH_END, logs)

    def close(self) -> None:
        """Listen no more."""
        if self._listens:
            self._listens = False
            Path(self.folder, commands.LISTENS).unlink(missing_ok=True)

    def _look(self, place: int, logs: dict[str, Any] | None) -> None:
        if self._in_trial:
            # What is done now would be taken back.
            return
        ranks = self.ranks
        while self._again and (self._again[0]["epoch"], self._again[0]["batch"]) <= (self._epoch, place):
            command = self._again.pop(0)
            self.done.append(command["name"])
            if command["word"] in ("rate", "stop"):
                self._do(command, logs)
        if ranks.main:
            now = self._clock()
            if now - self._looked >= _EVERY:
                self._looked = now
                if commands.waiting(self.folder):
                    ranks.ask("control")
        if not ranks.asked("control"):
            return
        ranks.settled("control")
        while True:
            for command in ranks.broadcast(self._taken(place) if ranks.main else []):
                self.done.append(command["name"])
                self._do(command, logs)
            if not self._paused or self.model.stop_training:
                self._paused = False
                return
            begun = time.perf_counter()
            time.sleep(_SLEEP)
            if self._run is not None:
                self._run.progress.paused += time.perf_counter() - begun

    def _taken(self, place: int) -> list[dict[str, Any]]:
        """Take the commands out of the folder, and write down where they are done."""
        found = []
        for name in commands.waiting(self.folder):
            path = Path(self.folder, name)
            command = commands.read(path) or {"word": "", "user": "somebody"}
            found.append({**command, "name": name, "epoch": self._epoch, "batch": place})
        if found:
            self._written += found
            # Before the files go: a kill between leaves none of them undone.
            replace_file(Path(self.folder, _DONE), _document(self._written))
            for one in found:
                Path(self.folder, one["name"]).unlink(missing_ok=True)
        return [one for one in found if one["name"] not in self.done]

    def _do(self, command: dict[str, Any], logs: dict[str, Any] | None) -> None:
        word, user = command["word"], command["user"]
        if word == "stop":
            self.model.stop_training = self.ranks.ending = True
            text = self._decided("stop", "told_to_stop", user=user)
        elif word == "rate":
            text = self._set_rate(command["value"], user)
        elif word == "save":
            text = self._decided("note", "told_to_save", user=user, saved=save_run(self._run, logs))
        elif word in ("pause", "go"):
            self._paused = word == "pause"
            found = {"user": user}
            text = (
                self._decided("note", "told_pause", **found)
                if self._paused
                else self._decided("note", "told_go", **found)
            )
        else:
            text = self._decided("note", "told_nonsense", file=command["name"])
        print_message(f"\nControl: {text}")

    def _set_rate(self, value: str, user: str) -> str:
        found = commands.factor_or_rate(value)
        assert found is not None
        multiplies, number = found
        texts = []
        for name, optimizer in optimizers_of(self.model):
            if follows_schedule(optimizer):
                texts.append(self._decided("note", "told_in_vain", user=user, value=value))
                continue
            before = float(optimizer.learning_rate)
            optimizer.learning_rate = after = before * number if multiplies else number
            texts.append(
                self._decided("learning_rate", "told_rate", optimizer=name, before=before, after=after, user=user)
            )
        return "; ".join(texts)


def _document(content: Any) -> bytes:
    return json.dumps(content).encode("ascii")


def _read_done(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    known = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    fields = {"name": str, "word": str, "user": str, "epoch": int, "batch": int}
    whole = [one for one in known if all(isinstance(one.get(name), kind) for name, kind in fields.items())]
    return [one for one in whole if one["word"] != "rate" or commands.factor_or_rate(one.get("value")) is not None]
