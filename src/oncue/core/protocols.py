"""Protocols: all that callbacks, their list, the loop and the model may ask of each other beside hooks and contract.

An object that has the members of a protocol satisfies it; it need not inherit from it. `CallbackList` sorts its callbacks
by them once, in `oncue.callbacks.roles`. The functions at the end ask models and optimizers for what only some have. They
ask for the attributes: `isinstance` with a protocol doesn't see, since Python 3.12, those that a wrapper gets from what it
wraps by `__getattr__`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

from oncue.core.journal import Journal
from oncue.core.monitor import Logged
from oncue.core.progress import Progress
from oncue.core.ranks import Ranks

if TYPE_CHECKING:
    from oncue.checkpoints.owed_waits import OwedWaits
    from oncue.checkpoints.training_state import TrainingState

# What a callback may ask of the run --------------------------------------------------------------------------------


class Run(Protocol):
    """The run that a callback belongs to; `CallbackList` is one.

    Attributes:
        journal: What callbacks decide.
        progress: Where the run is, and what callbacks found out about the epoch.
        paused: Why the run stops in the middle, to continue when it is started again; None when it doesn't.
        run_state: Takes and restores the state of the run, in a loop that can; None otherwise.
        group: The processes of the run.
        held_out: The arrays that the run validates on; None without them.
        owed: What the next update waits for, of copies beside the work of a device; None in a loop that puts none off.
    """

    journal: Journal
    progress: Progress
    paused: str | None
    group: Ranks
    run_state: TellsState | None
    held_out: tuple[Any, Any, Any] | None
    owed: OwedWaits | None

    @property
    def savers(self) -> Sequence[SavesRun]:
        """The callbacks that save the state of the run."""
        ...

    @property
    def seconds(self) -> float:
        """How long the run took, or has taken so far, from before its first hook until after its last."""
        ...

    def costs(self) -> dict[str, dict[str, float]]:
        """Return the seconds by callback and hook."""
        ...

    def made_with(self) -> list[dict[str, Any]]:
        """Return the class and the plain arguments of each callback."""
        ...

    def raise_at_end(self, error: Exception) -> None:
        """Raise an error when the run has ended well and everything is closed."""
        ...

    def growing_files(self) -> list[str]:
        """Return the files that the states of callbacks speak of, which must be on the disk before a state is."""
        ...

    def others_follow(self, callback: Any, hook: str) -> bool:
        """Return whether code that isn't oncue's own is called after a callback in a hook."""
        ...


class TellsState(Protocol):
    """A training loop that can capture, and restore, all that it needs to continue; oncue's `fit` can.

    Attributes:
        waiting: The state of an earlier run that is about to be restored.
        restored: The state of an earlier run that was restored.
        rollback: A state to go back to, set by a callback, and a function that is called when that is done.
    """

    waiting: TrainingState | None
    restored: TrainingState | None
    rollback: tuple[TrainingState, Callable[[], None]] | None

    def capture(self, returns: bool = False) -> TrainingState:
        """Return the state of this moment; one that the run may go back to if it `returns`."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what a run that continues this one must have in common with it."""
        ...

    @property
    def has_trial_steps(self) -> bool:
        """Whether it knows how a step is made, for `trial_steps`."""
        ...

    def trial_steps(self) -> TriesSteps:
        """Return what trains steps beside the run; who asks for it goes back to a state afterwards."""
        ...

    def obstacle(self) -> str | None:
        """Return why it can't continue exactly in the middle of an epoch; None when it can."""
        ...

    @property
    def read_again(self) -> list[str]:
        """The parts of a state for which data that were used must be read again to continue after them."""
        ...


class TriesSteps(Protocol):
    """Trains steps with batches of any size."""

    @property
    def most(self) -> int | None:
        """How many rows the data have; None when that isn't known."""
        ...

    def train(self, rows: int, times: int, clock: Callable[[], float]) -> list[float] | None:
        """Train some steps with so many rows; return the seconds of each, or None when there was no memory for one."""
        ...


# What a callback may be, beside its hooks ----------------------------------------------------------------------------


class TakesParams(Protocol):
    """Is given the run's `verbose`, `epochs` and `steps`."""

    def set_params(self, params: dict[str, Any]) -> None:
        """Receive the run's parameters."""
        ...


class TakesModel(Protocol):
    """Is given the model."""

    def set_model(self, model: Any) -> None:
        """Receive the model."""
        ...


class MeetsCallbacks:
    """A model that stands for one of another library; to be derived from, and asked of models only.

    Callbacks of that library are shown its model, and their hooks may need something done around them.
    """

    def shown_to(self, callback: Any) -> Any:
        """Return the model that a callback is given."""
        return self

    def around_hook(self, callback: Any, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return what is called for a callback's hook: the method, or a function that calls it."""
        return method


class TakesRun(Protocol):
    """Is given the run."""

    def set_run(self, run: Run) -> None:
        """Receive the list that it belongs to."""
        ...


class ExpectsLogs(Protocol):
    """Needs to know before the first step what the run is going to log."""

    def expect(self, logged: Logged) -> None:
        """Receive what the run is going to log; may raise an error."""
        ...


class NeedsOfModel(Protocol):
    """Can do nothing without something of its model or of the loop, which not every loop has."""

    def needs_of_model(self) -> Sequence[str]:
        """Return what it needs as it was made: keys of `oncue.core.needs.NEEDS`; asked when a run begins."""
        ...


class ChoosesHooks(Protocol):
    """Doesn't need all the hooks that it has."""

    def listens_to(self, hook: str) -> bool:
        """Return whether a hook is to be called; asked once, before the run."""
        ...


class HasPlace(Protocol):
    """Declares when it is called at the end of a batch, an epoch or a run; see `oncue.callbacks.roles.in_turn`.

    Attributes:
        makes_way: It saves or reports, so that those of oncue's own that decide come first, up to the next of the user's.
        finishes_files: At the end of a run it only finishes files that it writes in the background, before all others.
        runs_last: It comes after all that don't declare that.
        saves_run: It saves the state of all others, so that they come first.
        ends_run: It may end the process, so that those that save come first.
    """

    makes_way: bool
    finishes_files: bool
    runs_last: bool
    saves_run: bool
    ends_run: bool


class BringsCallbacks(Protocol):
    """Brings others with it, which stand behind it in the list."""

    def brings(self) -> Sequence[Any]:
        """Return the callbacks, the same objects at each call."""
        ...


class WritesForAll(Protocol):
    """Declares that it writes what one process writes for all of a run."""

    main_process_only: bool


class WritesTogether(Protocol):
    """Declares that other processes run it too where each has a part of the weights, to bring their parts; it writes on one."""

    writes_together: bool


class HasStandIn(Protocol):
    """Writes for all what is computed from weights, so that other processes must bring theirs where each has a part of them."""

    def stand_in(self) -> Any:
        """Return the callback that they run in its place, or None."""
        ...


class WritesLearningRate(Protocol):
    """Declares that it sets the learning rate, so that a second one is pointed out."""

    writes_learning_rate: bool


class ReadsBatchLogs(Protocol):
    """Declares that it reads the logs of each batch, so that training waits for the device there."""

    reads_batch_logs: bool


class HasState(Protocol):
    """Has fields that a resumed run gets back."""

    state_fields: tuple[str, ...]

    def state_dict(self) -> dict[str, Any]:
        """Return the fields' values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over values that `state_dict` returned."""
        ...


class ResumesRun(Protocol):
    """Has the state of an earlier run to continue."""

    def pending_state(self) -> TrainingState | None:
        """Return the state, or None; the loop asks once, before `on_train_begin`."""
        ...


class AddsToFiles(Protocol):
    """Adds to files that were there before, so that a run which is killed before its first state leaves things behind."""

    def mark_files(self) -> dict[str, Any] | None:
        """Return where its files end before this run adds to them, as JSON can have it; None when it adds to none."""
        ...

    def take_back(self, mark: dict[str, Any]) -> None:
        """Take back what a run added since; the loop asks before `on_train_begin`.

        Args:
            mark: What `mark_files` returned when that run began.
        """
        ...


class ChecksState(Protocol):
    """Has a state that files on the disk are changed by, so that it is looked at before anything is restored."""

    def check_saved(self, state: Mapping[str, Any]) -> None:
        """Refuse a state that is none of its own, or names a file that isn't.

        Args:
            state: What `state_dict` is taken to have returned.

        Raises:
            ValueError: For such a state.
        """
        ...


class GrowsFiles(Protocol):
    """Has a state that says how long files are."""

    def growing_files(self) -> Sequence[str]:
        """Return the paths of the files that its state, as it is now, speaks of."""
        ...


class KeepsMarks(Protocol):
    """Keeps the marks of files from the beginning of a run until its first state is saved."""

    def marks(self) -> dict[str, Any] | None:
        """Return those of a run that saved no state; None when there was none."""
        ...

    def keep_marks(self, marks: dict[str, Any]) -> None:
        """Keep those of the run that begins."""
        ...


class NotesData(Protocol):
    """Keeps beside its states what data are when an epoch has begun, which the state that the epoch begins from can't know."""

    def noted_data(self) -> dict[str, Any]:
        """Return what an earlier run has noted; empty when that is nothing."""
        ...

    def note_data(self, note: dict[str, Any]) -> None:
        """Keep what this run notes, in place of what was noted before."""
        ...


class ChangesBatches(Protocol):
    """Changes each batch before it is trained on; in `fit` of oncue's models."""

    def change_batch(self, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
        """Return what is trained on instead of a batch, with as many rows.

        Args:
            x: Inputs: a tensor on the model's device, or nested tensors; of several processes its own rows.
            y: Targets, likewise; None where there are none.
            sample_weight: Factors for the loss of each sample, or None.
        """
        ...


class SavesRun(Protocol):
    """Saves the state of the run when another callback asks for it.

    Attributes:
        seconds: What the longest save of this run took; 0 before the first.
    """

    seconds: float

    def save_now(self, logs: dict[str, Any] | None = None) -> bool:
        """Save the state of this moment, and return whether it could."""
        ...


class KeepsState(Protocol):
    """Keeps the state that the run begins with, and that each epoch ends with, after the hooks of all callbacks."""

    def keep_state(self) -> None:
        """Take the state of this moment."""
        ...


class MakesTrial(Protocol):
    """Trains the first batches of an epoch for a test that is taken back; `Progress.trial` is set meanwhile."""

    def end_trial(self) -> None:
        """End the test, if it goes on: the epoch has no more batches, or something has stopped it."""
        ...


# What a model or its optimizer may be, beside the contract -----------------------------------------------------------


class SavesLater(Protocol):
    """A model whose state can be taken now and written in the background; oncue's models can."""

    def prepare_save(
        self, filepath: Any, *, weights_only: bool = False, snapshot: Any = None, note: str | None = None
    ) -> Callable[[], None]:
        """Take all that a save needs, and return a function that writes it, with a note in the file."""
        ...


class HasFiles(Protocol):
    """Writes and reads a model's files in a way of its own; `own_files` of a model of the real Keras is one."""

    def prepare_model(self, kind: str, include_optimizer: bool, note: str | None) -> Callable[[Path], None]:
        """Take all that a file of the whole model needs, and return a function that writes it, or leaves the old one.

        Args:
            kind: The file's ending, with the dot.
            include_optimizer: Whether to keep what the model is compiled with.
            note: What `oncue.checkpoints.score_note` finds in the file; None for nothing.
        """
        ...

    def prepare_weights(
        self, kind: str, snapshot: Any, note: str | None, skipped: Sequence[Any] = ()
    ) -> Callable[[Path], None]:
        """Do the same for a file of weights.

        Args:
            kind: The file's ending, with the dot.
            snapshot: Copies tensors that are written later; None where they are written before they change.
            note: As for `prepare_model`.
            skipped: Layers that are left out, or the optimizer.
        """
        ...

    def weights_tree(self, skipped: Sequence[Any]) -> Any:
        """Return the content of a `.weights.h5` file, to be written in another way.

        Args:
            skipped: Layers that are left out, or the optimizer.
        """
        ...

    def read_weights(
        self, path: Path, kind: str, skip_mismatch: bool, by_name: bool, skipped: Sequence[Any] = ()
    ) -> None:
        """Set the model's weights from a file, all of them or none."""
        ...

    def size(self, kind: str, weights_only: bool) -> int:
        """Return about how many bytes a file takes."""
        ...


class HasWeightAverage(Protocol):
    """An optimizer that keeps a moving average of the weights and can show it in the model."""

    use_ema: bool
    average_in_model: bool

    def show_average(self, shown: bool) -> None:
        """Put the average into the model, or the trained weights back; nothing when that is so already."""
        ...


def run_state_of(run: Run | None) -> TellsState | None:
    """Return what takes and restores the state of a run; None in a loop that can't, and without a run."""
    return None if run is None else run.run_state


def save_run(run: Run | None, logs: dict[str, Any] | None) -> bool:
    """Let every callback that saves the state of a run do so now.

    Args:
        run: The list of callbacks, or None.
        logs: The logs of the hook that this is called from.

    Returns:
        Whether there is one, and all could.
    """
    savers = () if run is None else run.savers
    # Each one saves, whether or not those before it could.
    return bool(savers) and all([saver.save_now(logs) for saver in savers])


# What only some models, optimizers and rules have ----------------------------------------------------------------------


def saves_later(model: Any) -> TypeGuard[SavesLater]:
    """Return whether a model's state can be taken now and written in the background."""
    return hasattr(model, "prepare_save")


def size_of_save(model: Any, filepath: Any, *, weights_only: bool = False) -> int:
    """Return about how many bytes a save of a model takes; 0 for a model that can't estimate it."""
    estimate: Callable[..., int] | None = getattr(model, "size_of_save", None)
    return 0 if estimate is None else estimate(filepath, weights_only=weights_only)


def tensors_of(model: Any) -> dict[str, Any]:
    """Return a model's parameters and buffers by name, not copied; nothing for a model that is no torch module and has none."""
    # What a host shows to callbacks has the module inside.
    module = model if hasattr(model, "named_parameters") else getattr(model, "module", None)
    if module is None or not hasattr(module, "named_parameters"):
        return {}
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def gpus_of(model: Any) -> list[str]:
    """Return the names of the devices of CUDA that a model's parameters and buffers are on, such as "cuda:1".

    Example:
        >>> gpus_of(None)
        []
    """
    return sorted({str(one.device) for one in tensors_of(model).values() if one.device.type == "cuda"})


def stored_weights_of(model: Any) -> list[Any]:
    """Return a model's weights as oncue has them, with `stored` and `to_keras`; nothing for a model of another kind."""
    weights = getattr(model, "weights", ())
    if not isinstance(weights, (list, tuple)):
        return []
    return list(weights) if all(hasattr(one, "stored") and hasattr(one, "to_keras") for one in weights) else []


def parts_of(model: Any) -> dict[str, Any]:
    """Return the layers and modules inside a model by the names that they have in it; nothing for one that has none."""
    found: dict[str, Any] = {}
    # A torch module has its own names in a model that is made of it, and in what a host shows to callbacks.
    for owner in (getattr(model, "module", None), model):
        if owner is not None and hasattr(owner, "named_modules"):
            found.update((name, part) for name, part in owner.named_modules() if name and name not in found)
    for layer in getattr(model, "layers", ()):
        found.setdefault(str(getattr(layer, "name", "")), layer)
    return {name: part for name, part in found.items() if name and hasattr(part, "parameters")}


def is_trainable(part: Any) -> bool | None:
    """Return the `trainable` of a layer; None for a module of torch, which has none."""
    found = getattr(part, "trainable", None)
    return None if found is None else bool(found)


def set_trainable(part: Any, trainable: bool | None) -> None:
    """Set the `trainable` of a layer; nothing for a module of torch, which has none."""
    if trainable is not None and is_trainable(part) is not None:
        part.trainable = trainable


def compiles_steps(model: Any) -> bool:
    """Return whether the steps of the run under way are compiled; False for a model that can't be asked."""
    return getattr(model, "compiles_steps", False) is True


def has_parts_of_weights(model: Any) -> bool:
    """Return whether each process of the run under way has a part of the model's weights; False for one that can't be asked."""
    return getattr(model, "has_parts_of_weights", False) is True


def copies_of_weights(model: Any) -> list[Any]:
    """Return copies of a model's weights, which its `set_weights` takes; of parts, where each process has some."""
    copies: list[Any] = model.copies_of_parts() if has_parts_of_weights(model) else model.get_weights()
    return copies


def told_to_compile(model: Any) -> bool:
    """Return whether a model was told to compile its steps, rather than left to choose."""
    return getattr(model, "jit_compile", None) is True


def own_arrays_of(model: Any) -> dict[str, Any]:
    """Return copies of what a model's layers save besides weights; nothing for a model that can't be asked."""
    ask: Callable[[], dict[str, Any]] | None = getattr(model, "get_own_arrays", None)
    return {} if ask is None else ask()


def needs_score(rule: Any) -> bool:
    """Return whether a rule for the files that are kept declares that it compares their scores."""
    return bool(getattr(rule, "needs_score", False))


def was_stopped(model: Any) -> bool:
    """Return whether a callback asked for the end of training; False for a model that can't be asked, or no model."""
    return getattr(model, "stop_training", False) is True


def optimizer_of(model: Any) -> Any:
    """Return a model's optimizer; None for a model that has none, or no model."""
    return getattr(model, "optimizer", None)


def inner_optimizer_of(optimizer: Any) -> Any:
    """Return the optimizer inside another, such as one that scales the loss; the optimizer itself when it has none."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def shows_average(optimizer: Any) -> TypeGuard[HasWeightAverage]:
    """Return whether an optimizer can show a moving average of the weights in the model, if it keeps one."""
    return all(hasattr(optimizer, name) for name in ("use_ema", "average_in_model", "show_average"))


def iterations_of(model: Any) -> Any:
    """Return how many updates a model's optimizer has made, which may be on the device; None when it doesn't count them."""
    return getattr(optimizer_of(model), "iterations", None)


def gradient_factor_of(model: Any) -> Callable[[], Any] | None:
    """Return what tells how the gradients that the next step leaves are scaled; None where they are as they were used."""
    found: Callable[[], Any] | None = getattr(optimizer_of(model), "factor_left", None)
    return found


def steps_per_execution_of(model: Any) -> int:
    """Return how many batches a model runs between two hooks; 1 for a model that doesn't say."""
    steps: int = getattr(model, "steps_per_execution", 1)
    return steps


def step_account_of(model: Any) -> str:
    """Return how a model's training steps ran, in words; empty when it doesn't report that."""
    account = getattr(model, "step_account", "")
    return account if isinstance(account, str) else ""


def configuration_of(model: Any) -> Any:
    """Return what a model's `get_config` says; None for a model that has none, or whose configuration can't be had."""
    ask: Callable[[], Any] | None = getattr(model, "get_config", None)
    return None if ask is None else _said(ask)


def compiled_with(model: Any) -> Any:
    """Return what a model's `get_compile_config` says; None for a model that has none, or can't say."""
    ask: Callable[[], Any] | None = getattr(model, "get_compile_config", None)
    return None if ask is None else _said(ask)


def summary_of(model: Any) -> str:
    """Return a model's summary as lines of text; what `repr` says of a module that has none."""
    ask: Callable[..., Any] | None = getattr(model, "summary", None)
    if ask is None:
        # What a host shows to callbacks has the module inside.
        return repr(getattr(model, "module", model))
    lines: list[str] = []
    ask(print_fn=lambda line, line_break=False: lines.append(str(line)))
    return "\n".join(lines)


def _said(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except (NotImplementedError, TypeError, ValueError):
        # A class of the user's may have arguments that no configuration can have.
        return None


def averages_weights(model: Any) -> bool:
    """Return whether a model's optimizer keeps a moving average of the weights."""
    return bool(getattr(optimizer_of(model), "use_ema", False))


def optimizers_of(model: Any) -> list[tuple[str, Any]]:
    """Return the model's optimizers, each with its name; the name is empty where there is only one.

    Keras's `MultiOptimizer` has several in `optimizers`, each with a rate of its own.

    Example:
        >>> from types import SimpleNamespace
        >>> optimizers_of(SimpleNamespace(optimizer="sgd"))
        [('', 'sgd')]
    """
    optimizer = model.optimizer
    parts = getattr(optimizer, "optimizers", None)
    return [("", optimizer)] if parts is None else [(str(part.name), part) for part in parts]


def follows_schedule(optimizer: Any) -> bool:
    """Return whether an optimizer's rate is that of a schedule, which no number can replace; False where it doesn't say."""
    return getattr(optimizer, "has_schedule", False) is True


def directions_of(model: Any) -> dict[str, str]:
    """Return "up" or "down" by name for those of a model's metrics, in groups too, that declare which way is better.

    Keras's metrics declare it in `_direction`, as oncue's do.
    """
    groups = getattr(model, "metrics", None) or ()
    parts = [part for group in groups for part in (group, *getattr(group, "metrics", ()))]
    directions = [(part, getattr(part, "_direction", None)) for part in parts]
    return {part.name: direction for part, direction in directions if direction in ("up", "down")}
