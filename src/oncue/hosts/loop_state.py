"""LoopState: all that a training loop of the user's own needs to continue after an interruption."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch

from oncue.callbacks.roles import wants
from oncue.checkpoints.encoding import encode
from oncue.checkpoints.training_state import TrainingState
from oncue.core.console import print_message
from oncue.feeding.batch import Batches
from oncue.feeding.data_state import DataState
from oncue.hosts.carried import packed, unpacked
from oncue.hosts.host import Host, rates_of
from oncue.hosts.run import HostedRun
from oncue.random_state import random_state, set_random_state
from oncue.training.kept_objects import KeptObjects
from oncue.training.run_state import callbacks_of_fork, latest_state, note_resumed, noted_data


@dataclass
class Held:
    """What the loop holds beside the module, where its random generators and states are looked for.

    Args:
        scheduler: The scheduler, or several.
        validation: The function that measures.
        keep: What the user named.
    """

    scheduler: Any
    validation: Any
    keep: tuple[Any, ...]


class LoopState:
    """Captures and restores a loop around a module; `BackupAndRestore` and `TerminateOnNaN` find it as `run_state`.

    Args:
        run: The run, with its callbacks, means and processes.
        host: The module and its optimizers, as callbacks see them.
        optimizers: The torch optimizers.
        held: What else the loop holds.
    """

    def __init__(self, run: HostedRun, host: Host, optimizers: Sequence[Any], held: Held) -> None:
        self._run, self._host, self._optimizers, self._held = run, host, list(optimizers), held
        self._callbacks, self._means = run.callbacks, run.means
        self._data: DataState | None = None
        self._objects: KeptObjects | None = None
        self._setup: dict[str, Any] | None = None
        self.waiting: TrainingState | None = None
        self.restored: TrainingState | None = None
        self.rollback: tuple[TrainingState, Callable[[], None]] | None = None

    # What the protocol `TellsState` asks for -----------------------------------------------------------------------

    @property
    def read_again(self) -> list[str]:
        """The parts for which data must be read again up to a saved position."""
        return ["data"] if self._data is not None and self._data.batches.reads_again else []

    def obstacle(self) -> str | None:
        """Return why the loop can't continue exactly in the middle of an epoch; the data are known in the first epoch only."""
        batches = None if self._data is None else self._data.batches
        if batches is None or batches.exact_position:
            return None
        return batches.obstacle or f"the data, of type {type(batches.source).__name__}, have no position"

    has_trial_steps = False

    def trial_steps(self) -> NoReturn:
        """Refuse: a step is the user's code."""
        raise ValueError("A loop of your own makes its steps itself.")

    def fingerprint(self) -> dict[str, Any]:
        """Return what a run that resumes this one must have in common with it."""
        if self._setup is None:
            kinds = [type(one).__name__ for one in self._optimizers]
            self._setup = {
                "weights": [
                    [name, list(one.shape), str(one.dtype).removeprefix("torch.")]
                    for name, one in self._host.tensors().items()
                ],
                "optimizer": kinds,
                "callbacks": {
                    key: list(one.state_fields)
                    for key, one in self._callbacks.roles.stateful.items()
                    if one.state_fields
                },
                **({} if self._run.processes.alone else {"processes": self._run.processes.size}),
            }
        return self._setup

    def capture(self, returns: bool = False) -> TrainingState:
        """Return the state of this moment; tensors are the run's own, not copies."""
        if returns and self._data is not None:
            self._data.batches.keep_batches()
        progress = self._callbacks.progress
        epoch = -1 if progress.epoch is None else progress.epoch
        inside = progress.batch is not None
        parts = {
            "weights": self._host.tensors(),
            "extra": _extra_state(self._host.module),
            "modes": [module.training for module in self._host.module.modules()],
            "optimizer": [one.state_dict() for one in self._optimizers],
            "rates": [rate.used for rate in rates_of(self._host)],
            "callbacks": {key: one.state_dict() for key, one in self._callbacks.roles.stateful.items()},
            "journal": self._callbacks.journal.state_dict(),
        }
        own = {
            "metrics": self._means.state() if inside else None,
            "objects": self._own_objects().state(),
            **({"data": None} if self._data is None else self._data.capture((epoch, inside))),
            "random": random_state(),
        }
        parts.update(own)
        if not self._run.processes.alone:
            # These differ from process to process; one of them writes for all.
            parts["processes"] = self._run.processes.gather(packed(own))
        return TrainingState(
            self.fingerprint(),
            epoch=epoch if inside else epoch + 1,
            batch=(progress.batch or 0) + 1 if inside else 0,
            stopped=self._host.stop_training,
            parts=parts,
        )

    # For the loop --------------------------------------------------------------------------------------------------

    def pending(self) -> TrainingState | None:
        """Return the state that a callback has from an earlier run, the latest of several; None to start from scratch."""
        roles = self._callbacks.roles
        if roles.resuming:
            # What no file can hold is an error now, and not when the first epoch has been trained.
            encode({"weights": self._host.tensors(), "extra": _extra_state(self._host.module)}, {}, "`weights`")
        found = latest_state(roles, self._host.tensors)
        self.waiting = None if found is None else self._own(found)
        return self.waiting

    def _own(self, state: TrainingState) -> TrainingState:
        """Return a state of several processes with the parts of this one."""
        parts = state.parts
        if "processes" not in parts:
            return state
        own = unpacked(parts["processes"][self._run.processes.rank])
        # What an epoch that is begun again leaves out is None.
        return replace(state, parts={**parts, **{name: one for name, one in own.items() if parts[name] is not None}})

    def bind(self, batches: Batches, saved: TrainingState | None) -> None:
        """Take the data of an epoch, and go to the position of a state.

        Args:
            batches: The data; the same object in each epoch with the same loader.
            saved: A state whose position is to be taken up; None to begin a pass.

        Raises:
            ValueError: When they aren't the data of the state, or can't be resumed where a callback asks for it.
        """
        roles = self._callbacks.roles
        if self._data is None or self._data.batches is not batches:
            self._data = DataState(batches)
            obstacle, amid = self.obstacle(), any(wants(one, "on_train_batch_end") for one in roles.resuming)
            if obstacle is not None and amid:
                raise ValueError(
                    f"A state can't be saved in the middle of epochs, because {obstacle}. Use `BackupAndRestore(folder)`, "
                    "which saves at the end of each, or `resume='epoch'`, to start an interrupted epoch again."
                )
            if roles.resuming:
                batches.keep_position()
        self._note_data()
        if saved is None:
            return
        changed = self._data.changed({"rows": self._noted_rows(saved)})
        if changed is not None and saved.exact:
            raise ValueError(
                f"The run can't be resumed where it stopped, because {changed}. Put the data back as they were; or go on with "
                "them as they are now, with `BackupAndRestore(..., resume='epoch')`; or delete the backup, to start over."
            )
        if changed is not None:
            print_message(f"Epoch {saved.epoch + 1} begins with other data than before: {changed}.")
        self._data.restore(saved.parts)

    def _note_data(self) -> None:
        """Let callbacks keep what the data of this epoch are, where they were arranged since a state was saved."""
        assert self._data is not None
        keepers, before = self._callbacks.roles.noting, self._data.captured
        now = self._data.batches.few_rows() if keepers and before is not None else before
        if now != before:
            for keeper in keepers:
                keeper.note_data({str(self._callbacks.progress.epoch): {"before": before, "begun": now}})

    def _noted_rows(self, saved: TrainingState) -> dict[str, str]:
        """Return what the data of a state's epoch must be."""
        rows: dict[str, str] = saved.parts.get("rows") or {}
        begun = None if saved.batch else noted_data(self._callbacks.roles, saved.epoch, rows)
        return rows if begun is None else begun

    def restore(self, state: TrainingState) -> None:
        """Put back everything but the position in the data.

        Args:
            state: A state with the fingerprint of this run, or what was adopted of another.
        """
        parts, host = state.parts, self._host
        if parts["optimizer"] is not None:
            for one, saved in zip(self._optimizers, parts["optimizer"], strict=True):
                one.load_state_dict(copy.deepcopy(saved))
            for rate, used in zip(rates_of(host), parts["rates"], strict=True):
                rate.used = used
        weights = parts["weights"]
        saved_weights = weights.values() if isinstance(weights, dict) else weights
        with torch.no_grad():
            for tensor, value in zip(host.tensors().values(), saved_weights, strict=True):
                if value is not None:
                    tensor.copy_(value)
        if parts.get("extra"):
            host.module.load_state_dict(parts["extra"], strict=False)
        for module, training in zip(host.module.modules(), parts.get("modes") or (), strict=False):
            module.training = training
        self._own_objects().put(copy.deepcopy(parts["objects"]), say=self.restored is None)
        forked, roles = state.forked is not None and self.restored is None, self._callbacks.roles
        callbacks = callbacks_of_fork(roles, parts["callbacks"]) if forked else parts["callbacks"]
        for key, callback in roles.stateful.items():
            # A state that was adopted from another setup lacks some.
            if key in callbacks:
                callback.load_state_dict(copy.deepcopy(callbacks[key]))
        self._means.restore(parts["metrics"] or {})
        self._callbacks.journal.load_state_dict(parts["journal"])
        host.stop_training = state.stopped
        set_random_state(parts["random"])

    def note_resumed(self, state: TrainingState) -> None:
        """Say in the journal where the run continues."""
        if state.forked is None:
            note_resumed(self._callbacks, state)
        self.restored = state

    def take_rollback(self) -> TrainingState | None:
        """Restore the state that a callback has asked for; return it, or None when none has."""
        if self.rollback is None:
            return None
        (asked, then), self.rollback = self.rollback, None
        state = replace(self._own(asked), exact=False)
        self.restore(state)
        self._host.stop_training = False
        then()
        return state

    def keep(self) -> None:
        """Let callbacks keep the state of the end of an epoch."""
        for callback in self._callbacks.roles.keeping:
            callback.keep_state()

    def _own_objects(self) -> KeptObjects:
        if self._objects is None:
            module = self._host.module
            self._objects = KeptObjects(module, [*self._callbacks.callbacks, self._held], module.named_modules())
        return self._objects


def _extra_state(module: torch.nn.Module) -> dict[str, Any]:
    """Return what a module says of itself in its state dict beside tensors."""
    return {name: value for name, value in module.state_dict().items() if not isinstance(value, torch.Tensor)}
