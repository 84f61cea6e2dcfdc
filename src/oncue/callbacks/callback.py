"""Callback: what happens on cue in a training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from oncue.core.builtin import builtin
from oncue.core.phrases import line
from oncue.core.protocols import Run
from oncue.core.ranks import Ranks
from oncue.core.state import Stateful
from oncue.legacy import HeldOut

_Method = TypeVar("_Method", bound=Callable[..., Any])


def default(method: _Method) -> _Method:
    """Mark a method as doing nothing, so that lists (ours and Keras's) needn't call it."""
    method._is_default = True  # type: ignore[attr-defined]  # the marker that Keras's lists read too
    return method


def _write(callback: Callback, text: str, what: str | None, kind: str, data: dict[str, Any]) -> None:
    run = callback._run
    if run is not None:
        epoch, batch = run.progress.epoch, run.progress.batch
        name = type(callback).__name__
        run.journal.write(name, text, what=what, epoch=epoch, batch=batch, kind=kind, data=data or None)


@builtin
class Callback(Stateful):
    """The base of all callbacks: override the hooks you want, and leave the others.

    A hook that is not overridden is never called. In every hook `self.model` is the model being trained and
    `self.params` the run's `verbose`, `epochs` and `steps`. `logs` is a dict of metric values as Python floats; values
    are read from the device only when a hook looks at one. Setting `self.model.stop_training = True` ends the run after
    the batch or the epoch.

    A run has three kinds of end. `on_train_end` is called when it finished or was asked to stop; `on_exception` when an
    error or Ctrl-C ended it; `close` always, last, so it is the place to release files and threads.

    Attributes:
        params: `{"verbose": ..., "epochs": ..., "steps": ...}`, once the callback belongs to a list.
        model: The model, once the callback belongs to a list.
        makes_way: Set to True in a subclass that saves or reports, and needs no place of its own in the list: at an end those
            of oncue that decide, such as `EarlyStopping`, are called first.
        finishes_files: Set to True in a subclass whose `on_train_end` only finishes files that were written in the background:
            it is called before all others there.
        runs_last: Set to True in a subclass that must be called after all others at an end.
        saves_run: Set to True in a subclass that saves the state of all others: it is called after those that run last.
        ends_run: Set to True in a subclass that may end the process: it is called after all of these.
        writes_learning_rate: Set to True in a subclass that sets the learning rate, so that a second one is pointed out.
        reads_batch_logs: Set to True in a subclass whose batch hooks look into the logs, so that each batch waits for the
            device; `print(callbacks.schedule())` marks it.
        main_process_only: Set to True in a subclass that writes what one process writes for all of a run: the others leave it
            out.
        writes_together: Set to True beside it in a subclass that writes weights: where each process has a part of them, the
            others run it too, to bring their parts.
        state_fields: The names of the attributes that a resumed run gets back.

    Example:
        >>> class PrintLoss(Callback):
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         print(f"epoch {epoch}: {logs['loss']:.2f}")
        >>> PrintLoss().on_epoch_end(0, {"loss": 0.25})
        epoch 0: 0.25
    """

    params: dict[str, Any] | None = None
    model: Any = None
    validation_data: Any = HeldOut()
    makes_way: ClassVar[bool] = False
    finishes_files: ClassVar[bool] = False
    runs_last: ClassVar[bool] = False
    saves_run: ClassVar[bool] = False
    ends_run: ClassVar[bool] = False
    writes_learning_rate: ClassVar[bool] = False
    reads_batch_logs: bool = False
    main_process_only: ClassVar[bool] = False
    writes_together: ClassVar[bool] = False
    _run: Run | None = None

    def __init__(self) -> None:
        self.params = None
        self.model = None

    def set_params(self, params: dict[str, Any]) -> None:
        """Receive the run's parameters: `verbose`, `epochs`, and `steps` (None when not known)."""
        self.params = params

    def set_model(self, model: Any) -> None:
        """Receive the model."""
        self.model = model

    def listens_to(self, hook: str) -> bool:
        """Return whether this run needs to call a hook that the class overrides; asked once, before the run.

        Args:
            hook: The hook's name.

        Returns:
            True; a subclass may return False to cost nothing where it has nothing to do.
        """
        return True

    def needs_of_model(self) -> Sequence[str]:
        """Return what the callback can't do without: keys of `oncue.core.needs.NEEDS`.

        The list asks when a run begins, and refuses a model or a loop that lacks it.

        Returns:
            Nothing; a subclass that needs something of its model names it.
        """
        return ()

    def set_run(self, run: Run) -> None:
        """Receive the list that the callback belongs to, whose journal `note` writes to."""
        self._run = run

    def __getstate__(self) -> dict[str, Any]:
        # A copy, or a saved one, belongs to no run.
        return {name: value for name, value in self.__dict__.items() if name != "_run"}

    @property
    def ranks(self) -> Ranks:
        """Which of the processes of the run this one is, and what they agree on; see `oncue.core.ranks.Ranks`.

        Example:
            >>> Callback().ranks.main
            True
        """
        return Ranks() if self._run is None else self._run.group

    def after_close(self) -> None:
        """Do what must wait until every callback of a run is closed, or a second Ctrl-C has cut that short.

        For callbacks that may end the process, and for releasing what others wait for. It must not take long.
        """

    def note(self, text: str, kind: str = "note", **data: Any) -> None:
        """Write a decision into the run's journal: what was decided and why, with the numbers.

        Args:
            text: The decision in words; `history.explain()` shows it.
            kind: For programs: "note", "stop", "learning_rate", "best", "restore", "save".
            **data: The numbers.

        Example:
            >>> Callback().note("lost without a run")
        """
        _write(self, text, None, kind, data)

    def _decided(self, kind: str, what: str, /, **data: Any) -> str:
        """Write a decision whose words `oncue.core.phrases` makes from the data, and return them."""
        _write(self, "", what, kind, data)
        return line(what, data)

    @property
    def _in_trial(self) -> bool:
        """Whether what is trained now will be taken back, as a finder's test: nothing is saved, told or decided by it."""
        return self._run is not None and self._run.progress.trial

    def _raise_at_end(self, error: Exception) -> None:
        """Raise an error when the run has ended well and everything is closed; at once in a loop that isn't oncue's."""
        if self._run is None:
            raise error
        self._run.raise_at_end(error)

    @default
    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called when `fit` starts.

        Args:
            logs: An empty dict.
        """

    @default
    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Called when `fit` has finished or was asked to stop; not after an error.

        Args:
            logs: The logs of the last epoch.
        """

    @default
    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called when `evaluate`, or the validation inside `fit`, starts.

        Args:
            logs: An empty dict.
        """

    @default
    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Called when `evaluate`, or the validation inside `fit`, has finished.

        Args:
            logs: The loss and the metrics.
        """

    @default
    def on_validation_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called after a validation amid an epoch, with `validation_freq="500 steps"`; else `on_epoch_end` has its values.

        Args:
            batch: The index of the batch in its epoch after which it was, from 0.
            logs: The loss and the metrics of the epoch so far, those of validation with `val_` before their names.
        """

    @default
    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called when `predict` starts.

        Args:
            logs: An empty dict.
        """

    @default
    def on_predict_end(self, logs: dict[str, Any] | None = None) -> None:
        """Called when `predict` has finished.

        Args:
            logs: An empty dict.
        """

    @default
    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called when an epoch of training starts.

        Args:
            epoch: The epoch's index, from 0.
            logs: An empty dict.
        """

    @default
    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called when an epoch of training, and its validation, have finished.

        Args:
            epoch: The epoch's index, from 0.
            logs: The loss and the metrics of the epoch, those of validation with `val_` before their names.
        """

    @default
    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called before a training batch.

        Args:
            batch: The batch's index in its epoch, from 0.
            logs: An empty dict.
        """
        self.on_batch_begin(batch, logs=logs)

    @default
    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called after a training batch.

        Args:
            batch: The batch's index in its epoch, from 0.
            logs: The loss and the metrics, as means over the epoch so far.
        """
        self.on_batch_end(batch, logs=logs)

    @default
    def on_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """The name of `on_train_batch_begin` in Keras 1 and 2."""

    @default
    def on_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """The name of `on_train_batch_end` in Keras 1 and 2."""

    @default
    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called before a batch of `evaluate` or validation.

        Args:
            batch: The batch's index, from 0.
            logs: An empty dict.
        """

    @default
    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called after a batch of `evaluate` or validation.

        Args:
            batch: The batch's index, from 0.
            logs: The loss and the metrics, as means so far.
        """

    @default
    def on_predict_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called before a batch of `predict`.

        Args:
            batch: The batch's index, from 0.
            logs: An empty dict.
        """

    @default
    def on_predict_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Called after a batch of `predict`.

        Args:
            batch: The batch's index, from 0.
            logs: `{"outputs": ...}`, what the model gave for the batch.
        """

    @default
    def on_exception(self, exception: BaseException) -> None:
        """Called when an error, or Ctrl-C, ends the run. The error is then passed on to the caller.

        Args:
            exception: The error.
        """

    @default
    def close(self) -> None:
        """Called once at every end of a run, last callback first: release files, threads and handlers here."""
