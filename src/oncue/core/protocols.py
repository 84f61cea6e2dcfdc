"""Protocols: all that callbacks, their list, the loop and the model may ask of each other beside hooks and contract.

An object that has the members of a protocol satisfies it; it need not inherit from it. `CallbackList` sorts its callbacks
by them once, in `oncue.callbacks.roles`. The functions at the end ask models and optimizers for what only some have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from oncue.core.journal import Journal
from oncue.core.monitor import Logged
from oncue.core.progress import Progress

if TYPE_CHECKING:
    from oncue.checkpoints.training_state import TrainingState

# What a callback may ask of the run --------------------------------------------------------------------------------


class Run(Protocol):
    """The run that a callback belongs to; `CallbackList` is one.

    Attributes:
        journal: What callbacks decide.
        progress: Where the run is, and what callbacks found out about the epoch.
        paused: Why the run stops in the middle, to continue when it is started again; None when it doesn't.
        run_state: Takes and restores the state of the run, in a loop that can; None otherwise.
    """

    journal: Journal
    progress: Progress
    paused: str | None
    run_state: TellsState | None

    @property
    def savers(self) -> Sequence[SavesRun]:
        """The callbacks that save the state of the run."""
        ...

    def costs(self) -> dict[str, dict[str, float]]:
        """Return the seconds by callback and hook."""
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

    def capture(self) -> TrainingState:
        """Return the state of this moment."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return what a run that continues this one must have in common with it."""
        ...

    def obstacle(self) -> str | None:
        """Return why it can't continue exactly in the middle of an epoch; None when it can."""
        ...

    @property
    def reads_again(self) -> bool:
        """Whether data that were used must be read again to continue after them."""
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


class ChoosesHooks(Protocol):
    """Doesn't need all the hooks that it has."""

    def listens_to(self, hook: str) -> bool:
        """Return whether a hook is to be called; asked once, before the run."""
        ...


class HasPlace(Protocol):
    """Declares when it is called at the end of a batch, an epoch or a run: in this order, after those that declare nothing.

    Attributes:
        runs_last: It saves or reports, so that the others come first.
        saves_run: It saves the state of all others, so that those that report come first.
        ends_run: It may end the process, so that those that save come first.
    """

    runs_last: bool
    saves_run: bool
    ends_run: bool


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
    """Keeps the state that each epoch ends with, after the hooks of all callbacks."""

    def keep_state(self) -> None:
        """Take the state of this moment."""
        ...


@runtime_checkable
class NeedsScore(Protocol):
    """A rule for the files that are kept, which declares that it compares their scores.

    Attributes:
        needs_score: Whether it does.
    """

    needs_score: bool


# What a model may be, beside the contract ----------------------------------------------------------------------------


@runtime_checkable
class SavesLater(Protocol):
    """A model whose state can be taken now and written in the background; oncue's models can."""

    def prepare_save(self, filepath: Any, *, weights_only: bool = False, snapshot: Any = None) -> Callable[[], None]:
        """Take all that a save needs, and return a function that writes it."""
        ...


@runtime_checkable
class TellsSize(Protocol):
    """A model that can estimate the size of its files; oncue's models can."""

    def size_of_save(self, filepath: Any, *, weights_only: bool = False) -> int:
        """Return about how many bytes a save takes."""
        ...


@runtime_checkable
class TellsSteps(Protocol):
    """A model that reports how its training steps ran.

    Attributes:
        step_account: One or more sentences.
    """

    step_account: str


@runtime_checkable
class RunsSeveralSteps(Protocol):
    """A model that may run several batches between two hooks.

    Attributes:
        steps_per_execution: How many.
    """

    steps_per_execution: int


@runtime_checkable
class CanStop(Protocol):
    """A model whose training can be stopped.

    Attributes:
        stop_training: Whether it is to be.
    """

    stop_training: bool


@runtime_checkable
class HasMetrics(Protocol):
    """A model with metrics, or a group of metrics."""

    @property
    def metrics(self) -> Any:
        """The metrics; None for none."""
        ...


@runtime_checkable
class HasDirection(Protocol):
    """A metric that may declare in which direction it gets better; Keras's metrics do too."""

    name: str
    _direction: str | None


@runtime_checkable
class HasOptimizer(Protocol):
    """A model with an optimizer."""

    optimizer: Any


@runtime_checkable
class CountsIterations(Protocol):
    """An optimizer that counts its updates."""

    @property
    def iterations(self) -> Any:
        """The number of updates; reads as an int."""
        ...


@runtime_checkable
class MayAverageWeights(Protocol):
    """An optimizer that may keep a moving average of the weights, and leave it in the model in the end.

    Attributes:
        use_ema: Whether it does.
    """

    use_ema: bool


@runtime_checkable
class HasWeightAverage(Protocol):
    """An optimizer that keeps a moving average of the weights and can show it in the model."""

    use_ema: bool
    average_in_model: bool

    def show_average(self, shown: bool) -> None:
        """Put the average into the model, or the trained weights back; nothing when that is so already."""
        ...


@runtime_checkable
class HasInnerOptimizer(Protocol):
    """An optimizer around another, such as one that scales the loss."""

    @property
    def inner_optimizer(self) -> Any:
        """The other."""
        ...


@runtime_checkable
class HasOptimizers(Protocol):
    """An optimizer of several, each with a name and a learning rate of its own."""

    @property
    def optimizers(self) -> Any:
        """The optimizers."""
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


def was_stopped(model: Any) -> bool:
    """Return whether a callback asked for the end of training; False for a model that can't be asked, or no model."""
    return isinstance(model, CanStop) and model.stop_training is True


def optimizer_of(model: Any) -> Any:
    """Return a model's optimizer; None for a model that has none, or no model."""
    return model.optimizer if isinstance(model, HasOptimizer) else None


def iterations_of(model: Any) -> Any:
    """Return how many updates a model's optimizer has made, which may be on the device; None when it doesn't count them."""
    optimizer = optimizer_of(model)
    return optimizer.iterations if isinstance(optimizer, CountsIterations) else None


def steps_per_execution_of(model: Any) -> int:
    """Return how many batches a model runs between two hooks."""
    return model.steps_per_execution if isinstance(model, RunsSeveralSteps) else 1


def step_account_of(model: Any) -> str:
    """Return how a model's training steps ran, in words; empty when it doesn't report that."""
    account = model.step_account if isinstance(model, TellsSteps) else ""
    return account if isinstance(account, str) else ""


def averages_weights(model: Any) -> bool:
    """Return whether a model's optimizer keeps a moving average of the weights."""
    optimizer = optimizer_of(model)
    return isinstance(optimizer, MayAverageWeights) and bool(optimizer.use_ema)


def optimizers_of(model: Any) -> list[tuple[str, Any]]:
    """Return the model's optimizers, each with its name; the name is empty where there is only one.

    Keras's `MultiOptimizer` has several in `optimizers`, each with a rate of its own.

    Example:
        >>> from types import SimpleNamespace
        >>> optimizers_of(SimpleNamespace(optimizer="sgd"))
        [('', 'sgd')]
    """
    optimizer = model.optimizer
    parts = optimizer.optimizers if isinstance(optimizer, HasOptimizers) else None
    return [("", optimizer)] if parts is None else [(str(part.name), part) for part in parts]


def directions_of(model: Any) -> dict[str, str]:
    """Return "up" or "down" by name for those of a model's metrics, in groups too, that declare which way is better."""
    groups = model.metrics if isinstance(model, HasMetrics) else None
    parts = [
        part for group in groups or () for part in (group, *(group.metrics if isinstance(group, HasMetrics) else ()))
    ]
    return {
        part.name: part._direction
        for part in parts
        if isinstance(part, HasDirection) and part._direction in ("up", "down")
    }
