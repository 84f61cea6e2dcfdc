"""RunState: the state of a run in progress, captured from the objects that hold it, and restored into them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch

from oncue.callbacks import CallbackList
from oncue.callbacks.roles import Roles, mark_files
from oncue.checkpoints.encoding import encode
from oncue.checkpoints.owed_waits import OwedWaits
from oncue.checkpoints.snapshot import Snapshot
from oncue.checkpoints.training_state import TrainingState
from oncue.core.console import print_message
from oncue.core.state import Stateful
from oncue.core.warn import warn
from oncue.feeding.batch import Batches, OtherDataError
from oncue.feeding.data_state import DataState
from oncue.feeding.parts import data_sets_of
from oncue.layers.modes import leave_in_eval, left_in_eval
from oncue.naming import without_number
from oncue.nested import flatten
from oncue.random_state import check_random_state, random_state, set_random_state
from oncue.shards import put
from oncue.training.kept_objects import KeptObjects
from oncue.training.layer_states import layer_states, set_layer_states
from oncue.training.settings import DataSettings, Settings
from oncue.training.trial_steps import TrialSteps
from oncue.training.validations import Validations

if TYPE_CHECKING:
    from oncue.training.trainer import Trainer


class RunState:
    """Captures and restores all that changes while a model is trained.

    Inside the `with` block the callbacks of the run find it as `run_state`. One that wants the run to go back sets
    `rollback` to a state and a function that is called when it has been restored.

    Args:
        model: A prepared model.
        batches: The training data.
        callbacks: The list of the run.
        validation: The data of validation, or None.
        validations: Says when validation is due; None where no state of it is kept.

    Example:
        >>> import numpy as np, oncue
        >>> class Look(oncue.callbacks.Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         state = self._run.run_state.capture()
        ...         print(state.epoch, state.batch, list(state.parts["weights"])[:1])
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1, name="only")])
        >>> model.compile("sgd", loss="mse")
        >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[Look()])
        1 0 ['only.kernel']
    """

    def __init__(
        self,
        model: Trainer,
        batches: Batches,
        callbacks: CallbackList,
        validation: Batches | None = None,
        validations: Validations | None = None,
    ) -> None:
        self._model = model
        self._batches = batches
        self._callbacks, self._owed = callbacks, OwedWaits()
        self._data = DataState(batches)
        self._validation = None if validation is None else DataState(validation, "validation")
        self._all_data = {"data": self._data, **({} if self._validation is None else {"validation": self._validation})}
        self._validations = validations if validations is not None and validations.amid else None
        # While the model is validated: what the state of the steps before it has instead of the present values.
        self._measured: tuple[int, dict[str, Any]] | None = None
        self._amid = False
        self._setup: dict[str, Any] | None = None
        self._settings: Settings | None = None
        self._data_settings: DataSettings | None = None
        self._objects: KeptObjects | None = None
        # What the data are, where a callback may save or resume the run.
        self._contents: dict[str, dict[str, str]] = {}
        # In which ways the data of a state that was restored have changed.
        self._changed: list[str] = []
        # The state whose data must be, once its epoch has begun, what was noted of them.
        self._awaited: TrainingState | None = None
        # What was noted of data at the beginning of the last epochs, by epoch.
        self._noted: dict[str, Any] = {}
        self.waiting: TrainingState | None = None
        self.restored: TrainingState | None = None
        self.rollback: tuple[TrainingState, Callable[[], None]] | None = None

    def __enter__(self) -> RunState:
        self._callbacks.run_state, self._callbacks.owed = self, self._owed
        return self

    def __exit__(self, *error: object) -> None:
        self._owed.end()
        self._callbacks.owed = None
        # The history keeps the list, and this would keep the data.
        self._callbacks.run_state = None

    # Where to resume ----------------------------------------------------------------------------------------------

    def pending(self) -> TrainingState | None:
        """Return the state that a callback has from an earlier run, the latest of several; None to start from scratch.

        The data are moved to its position at once: where that can't be done, the error comes before anything is changed.
        """
        asked = self._callbacks.roles.resuming
        if asked:
            self._batches.keep_position()
            self._contents["data"] = self._batches.contents()
            if self._validation is not None:
                self._validation.batches.keep_position()
                self._contents["validation_data"] = self._validation.batches.contents()
            # A callback may declare fields, or change the optimizer, when training begins.
            self.fingerprint()
            # What no file can hold is an error now, and not when the first epoch has been trained.
            encode(self._weights(), {}, "`weights`")
            encode(self._model.get_own_arrays(), {}, "`save_own_variables`")
        roles = self._callbacks.roles
        if asked or roles.saving or roles.keeping:
            # What is read for the first time above may have been opened only then.
            self._data_settings = DataSettings(self._data_sets())
        self.waiting = latest_state(roles, self._weights, self._batches.num_batches)
        if self.waiting is not None and not self.waiting.stopped:
            with unfit_state():
                self.restore_data(self.waiting)
        return self.waiting

    def _data_sets(self) -> dict[str, list[Any]]:
        validation = self._validation
        found = {"data": self._batches, **({} if validation is None else {"validation_data": validation.batches})}
        # What is read again changes by itself as it did.
        return {name: data_sets_of(one.source) for name, one in found.items() if not one.reads_again}

    def hooks(self) -> AbstractContextManager[None]:
        """Return a block in which hooks of callbacks are called, which may change data sets between epochs."""
        return nullcontext() if self._data_settings is None else self._data_settings.hooks()

    def begin(self) -> None:
        """Take note of the settings that the run begins with, and of what has a state, once callbacks have reset themselves."""
        roles = self._callbacks.roles
        if roles.resuming or roles.saving or roles.keeping:
            self._own_settings()
            self._objects = self._found_objects()

    @property
    def read_again(self) -> list[str]:
        """The parts of a state, of "data" and "validation", for which data must be read again up to a saved position."""
        validation = self._validation
        again = {
            "data": self._batches.reads_again,
            "validation": validation is not None and validation.batches.reads_again,
        }
        return [name for name, reads in again.items() if reads]

    def obstacle(self) -> str | None:
        """Return why a run can't be resumed exactly in the middle of an epoch, or None when it can."""
        if self._measured is not None and not self._amid:
            # The epoch's steps are done.
            return None
        model = self._model
        if not self._batches.exact_position:
            return self._batches.obstacle or (
                f"the data, of type {type(self._batches.source).__name__}, can't be resumed in the middle of an epoch"
            )
        batch = self._callbacks.progress.batch if self._measured is None else self._measured[0] - 1
        if model._overrides("train_step") and batch is not None and batch + 1 == self._batches.num_batches:
            return (
                "the epoch's last batch is done, and what a `train_step` of the model's own returned for it isn't kept"
            )
        unsavable = [type(metric).__name__ for metric in model.metrics if not _can_be_saved(metric)]
        return f"the state of the metric {unsavable[0]} can't be saved" if unsavable else None

    # Capturing ----------------------------------------------------------------------------------------------------

    def fingerprint(self) -> dict[str, Any]:
        """Return what a run that resumes this one must have in common with it, as it was when that was first asked."""
        if self._setup is None:
            self._setup = self._described()
        return self._setup

    def _described(self) -> dict[str, Any]:
        return {
            "weights": [
                [without_number(name), list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
                for name, tensor in self._weights().items()
            ],
            "optimizer": _described(self._model.optimizer),
            "batches": self._batches.num_batches,
            "batch_size": self._batches.batch_size,
            "callbacks": {
                key: list(callback.state_fields)
                for key, callback in self._callbacks.roles.stateful.items()
                if callback.state_fields
            },
            **self._contents,
        }

    def capture(self, returns: bool = False) -> TrainingState:
        """Return the state of this moment, after a batch or an epoch; tensors are the run's own, not copies.

        Args:
            returns: Whether this run may go back to it, so that streams must keep what they give from now on.
        """
        if returns:
            for data in self._all_data.values():
                data.batches.keep_batches()
        progress, model = self._callbacks.progress, self._model
        epoch = -1 if progress.epoch is None else progress.epoch
        inside = progress.batch is not None or self._measured is not None
        batch = 0 if progress.batch is None else progress.batch + 1
        parts = {**self._own_parts(inside), **self._data_parts((epoch, inside))}
        if self._measured is not None:
            batch, before = self._measured
            parts.update(before)
        return TrainingState(
            self.fingerprint(),
            epoch=epoch if inside else epoch + 1,
            batch=batch,
            stopped=bool(model.stop_training),
            parts=parts,
        )

    def _own_parts(self, inside: bool) -> dict[str, Any]:
        """Return the parts that don't depend on the data; `inside` says whether there are sums of an epoch."""
        model = self._model
        return {
            "settings": self._own_settings().state(),
            "in_eval": left_in_eval(model),
            "weights": self._weights(),
            "optimizer": model.optimizer.state_dict(),
            "callbacks": {key: callback.state_dict() for key, callback in self._callbacks.roles.stateful.items()},
            "metrics": self._gathered() if inside else None,
            "layers": layer_states(model),
            "own_arrays": model.get_own_arrays(),
            "loss_weights": _tensors_in_loss_weights(model),
            "objects": self._own_objects().state(),
            "journal": self._callbacks.journal.state_dict(),
            "validations": None if self._validations is None else self._validations.state_dict(),
        }

    def _gathered(self) -> Any:
        states, parallel = [metric.get_state() for metric in _measures(self._model)], self._model._parallel
        return states if parallel is None else parallel.metrics.states_of_all(states)

    def _data_parts(self, moment: tuple[int, bool]) -> dict[str, Any]:
        """Return the parts that drawing and reading data change; validation changes them, too.

        Args:
            moment: The epoch, and whether its batches are under way.
        """
        settings = {} if self._data_settings is None else self._data_settings.state()
        exactly = (*moment, str(settings))
        validation = None if self._validation is None else self._validation.capture(exactly)
        return {
            **self._data.capture(exactly),
            "validation": validation,
            "data_settings": settings,
            "random": random_state(),
        }

    @contextmanager
    def measuring(self, steps: int, results: dict[str, Any] | None) -> Iterator[None]:
        """Mark that the model is validated in the block: a state captured there is that of the steps before it.

        Args:
            steps: The epoch's batches that are done.
            results: What they have measured; None amid the epoch.
        """
        if self._callbacks.savers:
            epoch = self._callbacks.progress.epoch or 0
            self._amid = results is None
            known = {"metrics": self._gathered()} if results is None else {"metrics": None, "results": results}
            self._measured = steps, copy.deepcopy({**known, **self._data_parts((epoch, True))})
        try:
            yield
        finally:
            self._measured, self._amid = None, False

    def put_nothing_off(self) -> None:
        """Let what comes next wait for the copies that are under way, with weights that not only updates change."""
        self._owed.end()

    has_trial_steps = True

    def trial_steps(self) -> TrialSteps:
        """Return what trains steps beside the run."""
        self._owed.settle()
        return TrialSteps(self._model, self._callbacks, self._batches)

    # Restoring ----------------------------------------------------------------------------------------------------

    def restore(self, state: TrainingState, begun: bool = False) -> None:
        """Restore a state, all but the position in the data; its fingerprint was compared before.

        Args:
            state: The state.
            begun: Whether its epoch was under way, and has begun again, with the hooks of all callbacks.

        Raises:
            ValueError: If the data have changed, or a part isn't what any run has saved. Then all is as it was before.
        """
        forked = state.forked
        if forked is not None and self.restored is None:
            with unfit_state():
                state, others = self._of_fork(state)
        settings = state.parts.get("settings")
        with unfit_state():
            if self.restored is None and settings is not None:
                self._own_settings().check_replaced(settings, state.parts["optimizer"])
                if forked is None:
                    self._own_settings().compare(settings, state.parts["optimizer"])
            if self.restored is None:
                self._restore_all_or_nothing(state)
            else:
                # This run's own file was read once more, or its state kept in memory.
                self._restore_parts(state)
        if begun:
            self._check_data(state, begun)
        if forked is None:
            note_resumed(self._callbacks, state, **({"changed": self._changed} if self._changed else {}))
        elif others:
            self._callbacks.journal.write(
                "BackupAndRestore", what="fork_differs", epoch=state.epoch - 1, data={"settings": others}
            )
        self.restored = state

    def _of_fork(self, state: TrainingState) -> tuple[TrainingState, list[str]]:
        """Return the state of the run that this one was forked from as this one begins with it, and how settings differ."""
        parts, others = dict(state.parts), list[str]()
        parts["callbacks"] = callbacks_of_fork(self._callbacks.roles, parts["callbacks"])
        if parts.get("settings") is not None:
            settings, saved, others = self._own_settings().of_fork(parts["settings"], parts["optimizer"])
            parts.update(settings=settings, optimizer=saved)
        return replace(state, parts=parts), others

    def begun(self, epoch: int) -> None:
        """Compare data with what they were when this epoch had begun, or note what they are, once all hooks have run.

        Args:
            epoch: The epoch that has begun.

        Raises:
            ValueError: If they were others in the run that this one resumes.
        """
        state, self._awaited = self._awaited, None
        if state is not None:
            noted, validation = self._note_of(state) or {}, state.parts.get("validation")
            if validation is not None:
                validation = {**validation, "rows": noted.get("validation")}
            parts = {**state.parts, "rows": noted.get("data"), "validation": validation}
            self._check_data(replace(state, parts=parts), begun=True)
        keepers = self._callbacks.roles.noting
        before = {name: one.captured for name, one in self._all_data.items()} if keepers else {}
        if not keepers or None in before.values():
            return
        now = {name: one.batches.few_rows() for name, one in self._all_data.items()}
        if now != before:
            # States of this epoch's beginning are those before and after the hooks of its callbacks.
            last = {key: note for key, note in self._noted.items() if int(key) in (epoch - 1, epoch)}
            self._noted = {**last, str(epoch): {"before": before, "begun": now}}
            for keeper in keepers:
                keeper.note_data(self._noted)

    def keep(self) -> None:
        """Let callbacks keep the state of the end of an epoch, after the hooks of all of them."""
        for callback in self._callbacks.roles.keeping:
            callback.keep_state()

    def take_rollback(self) -> TrainingState | None:
        """Restore the state that a callback has asked for; return it, or None when none has."""
        if self.rollback is None:
            return None
        (asked, then), self.rollback = self.rollback, None
        # Data that can't be taken back are no reason to end the run.
        state = replace(asked, exact=False)
        self._restore_parts(state)
        self.restore_data(state)
        self._model.stop_training = False
        then()
        return state

    def _restore_all_or_nothing(self, state: TrainingState) -> None:
        parts = {**self._own_parts(inside=False), "data": None, "random": random_state()}
        parts["callbacks"] = {
            key: one for key, one in parts["callbacks"].items() if key not in self._callbacks.roles.checking
        }
        # Whatever a callback's own code finds wrong with its part is found after others were put back.
        before = TrainingState({}, stopped=bool(self._model.stop_training), parts=parts).freeze(Snapshot())
        try:
            self._restore_parts(state)
        except BaseException:
            self._restore_parts(before.thaw())
            raise

    def _restore_parts(self, state: TrainingState) -> None:
        self._owed.settle()
        # What callbacks and metrics do with their lists must not change the state, which may be restored once more.
        copied = {name: copy.deepcopy(state.parts[name]) for name in ("callbacks", "metrics", "layers")}
        parts, model = {**state.parts, **copied}, self._model
        weights, settings = parts["weights"], parts.get("settings")
        if settings is not None:
            # The optimizer's state belongs to the weights that were trained, with the averages and sums that it kept.
            self._own_settings().put_compiled(settings)
            self._own_settings().put(settings)
        if parts["optimizer"] is not None:
            if settings is not None:
                self._own_settings().put_parameters(settings)
                self._own_settings().put_rate(settings, parts["optimizer"]["learning_rate"])
            model.optimizer.load_state_dict(parts["optimizer"])
            # A script that was edited may train more than before.
            model.optimizer.build(model._optimized())
        if settings is not None:
            self._own_settings().put_groups(settings)
        leave_in_eval(model, parts.get("in_eval", ""))
        with torch.no_grad():
            saved_weights = weights.values() if isinstance(weights, dict) else weights
            for tensor, saved in zip(self._weights().values(), saved_weights, strict=True):
                if saved is not None:
                    put(tensor, saved)
            factors, saved_factors = _tensors_in_loss_weights(model), parts.get("loss_weights") or []
            if len(factors) == len(saved_factors):
                for factor, saved in zip(factors, saved_factors, strict=True):
                    factor.copy_(saved)
        model.set_own_arrays(parts.get("own_arrays") or {})
        self._own_objects().put(parts.get("objects") or {}, say=self.restored is None)
        roles = self._callbacks.roles
        for key, callback in roles.stateful.items():
            # A state that was adopted from another setup lacks some.
            if key in parts["callbacks"] and key not in roles.checking:
                callback.load_state_dict(parts["callbacks"][key])
        if parts["metrics"] is not None:
            parallel = model._parallel
            rank, size = (0, 1) if parallel is None else (parallel.group.rank, parallel.group.size)
            gathered = part_of_metrics(parts["metrics"], rank, size)
            if gathered is None:
                model.reset_metrics()
            else:
                for metric, saved in zip(_measures(model), gathered, strict=True):
                    metric.set_state(saved)
        set_layer_states(model, parts["layers"])
        self._callbacks.journal.load_state_dict(parts["journal"])
        if self._validations is not None:
            self._validations.begin()
            if parts.get("validations") is not None:
                self._validations.load_state_dict(parts["validations"])
        self._put_data_settings(state)
        self._data.restore_objects(parts)
        if self._validation is not None and parts.get("validation") is not None:
            self._validation.restore_objects(parts["validation"])
        model.stop_training = state.stopped
        set_random_state(parts["random"])
        # What changes files comes when nothing else can fail any more.
        for key in roles.checking:
            if key in parts["callbacks"]:
                roles.stateful[key].load_state_dict(parts["callbacks"][key])

    def restore_data(self, state: TrainingState) -> None:
        """Restore the positions in the data, for the passes that begin next; a state without one begins a new pass."""
        self._data.restore(state.parts)
        validation = state.parts.get("validation")
        if self._validation is not None and validation is not None:
            try:
                self._validation.restore(validation)
            except OtherDataError as error:
                # Steps of training don't depend on it.
                warn(
                    f"{error} The run goes on: the batches of training are those that would have come next, but those of "
                    "validation aren't, and neither is what callbacks decide by them."
                )
        # Hooks of data sets that were called again have begun with the settings of the script.
        self._put_data_settings(state)
        if not state.batch:
            self._check_data(state, begun=False)

    def _put_data_settings(self, state: TrainingState) -> None:
        saved = state.parts.get("data_settings")
        if self._data_settings is not None and saved is not None:
            self._data_settings.put(saved)

    def _check_data(self, state: TrainingState, begun: bool) -> None:
        """Refuse data that have changed, or say so where going on with them was asked for."""
        self._changed = []
        for data, saved in ((self._data, state.parts), (self._validation, state.parts.get("validation"))):
            # The hooks of the epoch that begins next may arrange data for it.
            if data is not None and saved is not None and (begun or not data.numbered):
                found = data.changed(saved)
                self._changed += [] if found is None else [found]
        if not self._changed:
            return
        if state.exact and not begun and self._note_of(state) is not None:
            # Callbacks arrange data for the epoch that begins next; then it is known what they must be.
            self._awaited, self._changed = state, []
            return
        if state.exact:
            raise ValueError(
                f"The run can't be resumed where it stopped, because {self._changed[0]}. Give a data set that changes between "
                "epochs `state_dict` and `load_state_dict`: they are asked then. Or go on with the data as they are now, with "
                "`BackupAndRestore(..., resume='epoch')`; or delete the backup, to start over."
            )
        print_message(f"Epoch {state.epoch + 1} begins with other data than before: {'; '.join(self._changed)}.")

    def _note_of(self, state: TrainingState) -> dict[str, Any] | None:
        """Return what data were when the epoch had begun that a state begins from; None where that isn't known."""
        validation = state.parts.get("validation")
        rows = {"data": state.parts.get("rows"), **({} if validation is None else {"validation": validation["rows"]})}
        return noted_data(self._callbacks.roles, state.epoch, rows)

    # Helpers ------------------------------------------------------------------------------------------------------

    def _own_objects(self) -> KeptObjects:
        if self._objects is None:
            self._objects = self._found_objects()
        return self._objects

    def _found_objects(self) -> KeptObjects:
        return KeptObjects(self._model, self._callbacks.callbacks)

    def _own_settings(self) -> Settings:
        if self._settings is None:
            self._settings = Settings(self._model)
        return self._settings

    def _weights(self) -> dict[str, torch.Tensor]:
        model = self._model
        return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def part_of_metrics(saved: Any, rank: int, size: int) -> list[Any] | None:
    """Return what the metrics of one of several processes have gathered, by a state that any number of processes has saved.

    As many processes as saved it go on with their own; of another number the first one has all of it.

    Args:
        saved: A list, of one process; or a dict whose "processes" are one for each.
        rank: The number of the process.
        size: How many there are now.

    Returns:
        The states of its metrics; None where it begins with nothing.

    Example:
        >>> saved = {"processes": [[{"variables": [1.0], "attributes": {}}], [{"variables": [2.0], "attributes": {}}]]}
        >>> part_of_metrics(saved, 1, 2), part_of_metrics(saved, 0, 3), part_of_metrics(saved, 1, 3)
        ([{'variables': [2.0], 'attributes': {}}], [{'variables': [3.0], 'attributes': {}}], None)
    """
    parts: list[list[Any]] = saved["processes"] if isinstance(saved, dict) else [saved]
    if len(parts) == size:
        return parts[rank]
    return reduce(_added, parts) if rank == 0 else None


def _added(first: Any, second: Any) -> Any:
    """Return what two processes have gathered together; what is no sum is the first one's."""
    if isinstance(first, dict):
        return {name: value if name == "attributes" else _added(value, second[name]) for name, value in first.items()}
    if isinstance(first, (list, tuple)):
        return [_added(one, other) for one, other in zip(first, second, strict=True)]
    return first + second


def latest_state(
    roles: Roles, weights: Callable[[], Mapping[str, torch.Tensor]], num_batches: int | None = None
) -> TrainingState | None:
    """Return the latest of the states that callbacks have from an earlier run, and mark the files that others write.

    Args:
        roles: The roles of the callbacks of the run.
        weights: Returns the weights that a state's would be put into.
        num_batches: The batches of an epoch, if they are known.

    Returns:
        The state; None to start from scratch.

    Raises:
        ValueError: When it isn't one that a run with these weights has saved.
    """
    # A mock object has whatever it is asked for.
    states = [state for state in (one.pending_state() for one in roles.resuming) if isinstance(state, TrainingState)]
    latest = max(states, key=lambda state: (state.epoch, state.batch), default=None)
    if latest is not None:
        with unfit_state():
            _check(latest, weights(), num_batches)
            for key, one in roles.checking.items():
                if key in latest.parts["callbacks"]:
                    one.check_saved(latest.parts["callbacks"][key])
    mark_files(roles, () if latest is None else latest.parts["callbacks"])
    return latest


@contextmanager
def unfit_state() -> Iterator[None]:
    """Make one kind of error, which says what to do, of whatever is raised in the block by a state that no run has saved."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(
            f"The state of the backup can't be restored, and nothing was changed: {type(error).__name__}: {error}. To "
            "start over, delete the folder."
        ) from error


def _check(state: TrainingState, weights: Mapping[str, torch.Tensor], num_batches: int | None) -> None:
    """Refuse what would be put into weights by halves, or by changing it."""
    parts = state.parts
    saved = list(parts["weights"].values() if isinstance(parts["weights"], dict) else parts["weights"])
    if len(saved) != len(weights):
        raise ValueError(f"The state of the backup has {len(saved)} weights, the model {len(weights)}.")
    for (name, tensor), value in zip(weights.items(), saved, strict=True):
        found = (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
        if value is not None and found != (tuple(tensor.shape), tensor.dtype):
            raise ValueError(
                f"The state of the backup has {found} for the weight {name!r}, and the model's is of the shape "
                f"{tuple(tensor.shape)} and of {tensor.dtype}."
            )
    if num_batches is not None and state.batch > num_batches:
        raise ValueError(f"The state of the backup is of batch {state.batch} of an epoch that has {num_batches}.")
    for key, own in parts["callbacks"].items():
        if not isinstance(own, dict):
            raise ValueError(f"The state of the backup has {own!r} for the callback {key!r}.")
    check_random_state(parts["random"])


def noted_data(roles: Roles, epoch: int, before: Any) -> dict[str, Any] | None:
    """Return what was noted of the data when an epoch had begun; None where that isn't known.

    Args:
        roles: The roles of the callbacks of the run.
        epoch: The epoch.
        before: What the data were before it began, as a state has it; a note of others is none.
    """
    for keeper in roles.noting:
        note = keeper.noted_data().get(str(epoch))
        if isinstance(note, dict) and note.get("before") == before and isinstance(note.get("begun"), dict):
            begun: dict[str, Any] = note["begun"]
            return begun
    return None


def callbacks_of_fork(roles: Roles, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of callbacks for a run that is forked from the one that saved them: what is a run's own stays so.

    Args:
        roles: The roles of the callbacks of the run.
        saved: Their states by key.
    """
    found = dict(saved)
    for key, callback in roles.stateful.items():
        names = callback.left_in_fork() if key in found and isinstance(callback, Stateful) else ()
        if names:
            present = callback.state_dict()
            found[key] = {**found[key], **{name: present[name] for name in names}}
    return found


def note_resumed(callbacks: CallbackList, state: TrainingState, **data: Any) -> None:
    """Say in the journal where a run continues.

    Args:
        callbacks: The list of the run.
        state: The state that it continues from.
        **data: What else is to be said.
    """
    # What is noted before the next epoch begins, or when none is left, belongs to the last one that ended.
    done = state.epoch if state.batch else state.epoch - 1
    callbacks.progress.epoch = done if done >= 0 else None
    callbacks.journal.write(
        "BackupAndRestore",
        what="resumed",
        epoch=state.epoch,
        batch=state.batch or None,
        kind="resume",
        data={"stopped": state.stopped, "redone": state.redone, **data},
    )


def _described(optimizer: Any) -> dict[str, Any] | None:
    if optimizer is None:
        return None
    state = optimizer.state_dict()
    inner = getattr(optimizer, "_inner", None)
    return {
        "class": type(optimizer).__name__,
        "torch": None if inner is None else type(inner).__name__,
        "ema": state["ema"] is not None,
        "gradient_accumulation": state["gradient_accumulators"] is not None,
    }


def _measures(model: Trainer) -> list[Any]:
    """Return the metrics; of single losses that the first batch of a `train_step` of the model's own makes, all as one."""
    found, losses = model.metrics, model._plan.losses
    if losses is None or not model._overrides("train_step"):
        return found
    return [*(one for one in found if not any(one is metric for metric in losses.metrics)), losses]


def _tensors_in_loss_weights(model: Trainer) -> list[torch.Tensor]:
    """Return the factors of losses that a callback can fill with other numbers."""
    losses = model._plan.losses
    return [] if losses is None else [part for part in flatten(losses.weights) if isinstance(part, torch.Tensor)]


def _can_be_saved(metric: Any) -> bool:
    try:
        encode(metric.get_state(), {})
    except TypeError:
        return False
    return True
