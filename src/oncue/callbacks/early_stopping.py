"""EarlyStopping: ends a run that doesn't get better any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oncue.callbacks.checks import is_ours
from oncue.callbacks.monitor_callback import MonitorCallback
from oncue.core.builtin import builtin
from oncue.core.console import print_message
from oncue.core.numbers import finite, whole
from oncue.core.protocols import copies_of_weights, has_parts_of_weights, own_arrays_of, stored_weights_of

if TYPE_CHECKING:
    from oncue.checkpoints.kept_weights import KeptWeights


@builtin
class EarlyStopping(MonitorCallback):
    """Stops training when a value has not improved for `patience` epochs.

    An improvement is a change by more than `min_delta` beyond the best value so far. A value that is not finite never
    is one. Only values measured in an epoch count: with `validation_freq=2` every other epoch neither improves nor adds
    to the wait. With `validation_freq="500 steps"` each validation counts as an epoch does, wherever it is.

    With `restore_best_weights`, the weights of the best epoch are put back at every end of the run: after a stop, after
    the last epoch, after an error and after Ctrl-C. One copy of the weights is kept for that: on a GPU it stays there while
    it takes no more than a quarter of the free memory, else it goes to page-locked memory; training waits for neither.

    Args:
        monitor: The name of the value in the logs.
        min_delta: The change that is not yet an improvement, in the value's unit; its sign doesn't matter.
        patience: Epochs in a row without improvement after which training stops.
        verbose: 1 to say when it stopped and which epoch's weights were put back.
        mode: "min", "max", or "auto" to take the metric's own direction.
        baseline: A value to beat: epochs that improve, but not on this, still add to the wait. None for none.
        restore_best_weights: Whether to put back the weights of the best epoch (whether or not it beat `baseline`).
        start_from_epoch: The index of the first epoch to look at.

    Attributes:
        best: The best value so far; None before the first.
        best_epoch: The index of its epoch.
        best_weights: The weights of that epoch as arrays, when `restore_best_weights`.
        wait: Epochs in a row without improvement.
        stopped_epoch: The index of the epoch after which it stopped, or in which; 0 when it didn't.
        best_batch: The index of the batch in `best_epoch` after which validation measured it; None for an epoch's end.
        stopped_batch: The index of the batch in `stopped_epoch` after which it stopped; None for an epoch's end.

    Raises:
        ValueError: For a negative or fractional `patience` or `start_from_epoch`, or a `baseline` or `min_delta` that
            is not finite.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile(oncue.optimizers.SGD(0.0), loss="mse")
        >>> stop = EarlyStopping(monitor="loss", patience=3)
        >>> history = model.fit(np.ones((4, 2)), np.ones((4, 1)), epochs=10, verbose=0, callbacks=[stop])
        >>> len(history.history["loss"]), stop.stopped_epoch
        (4, 3)
    """

    state_fields = ("best", "best_epoch", "best_weights", "stopped_epoch", "wait")
    later_fields = ("_best_arrays", "best_batch", "stopped_batch")

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        owner = type(self).__name__
        self.patience = whole(owner, "patience", patience)
        self.verbose = verbose
        self.baseline = None if baseline is None else finite(owner, "baseline", baseline)
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = whole(owner, "start_from_epoch", start_from_epoch)
        self._running = False
        self._reset()

    def _reset(self) -> None:
        self.best: float | None = None
        self.best_epoch = 0
        self._best_list: Any = None
        self._best_kept: KeptWeights | None = None
        self._best_arrays: dict[str, Any] = {}
        self.stopped_epoch = 0
        self.best_batch: int | None = None
        self.stopped_batch: int | None = None
        self.wait = 0

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no run whose end it waits for, nor memory of a device.
        return {**super().__getstate__(), "_running": False, "_best_list": self.best_weights, "_best_kept": None}

    @property
    def best_weights(self) -> Any:
        """The weights of the best epoch, as arrays; None without `restore_best_weights`, and before the first."""
        found = self._best()
        if found is None:
            return None
        from oncue.checkpoints.kept_weights import as_arrays

        return as_arrays(found)

    @best_weights.setter
    def best_weights(self, weights: Any) -> None:
        self._best_list, self._best_kept = weights, None

    def _best(self) -> Any:
        return self._best_list if self._best_kept is None else self._best_kept.tensors()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run gets back; the best weights as they are kept, without waiting for a device."""
        names = [name for name in (*self.state_fields, *self.later_fields) if name != "best_weights"]
        return {"best_weights": self._best(), **{name: getattr(self, name) for name in names}}

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("stop", "weights") if self.restore_best_weights else ("stop",)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing."""
        self._reset()
        self._running = True

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the value, and stop when it has not improved for too long."""
        self._look(self.get_monitor_value(logs), epoch, None)

    def on_validation_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Do the same with what a validation amid an epoch has measured."""
        if self._run is not None and self._reads.startswith("val_"):
            self._look(self.get_monitor_value(logs), self._run.progress.epoch or 0, batch)

    def _look(self, current: float | None, epoch: int, batch: int | None) -> None:
        if current is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self.watch.is_better(current, self.best):
            self._take(current, epoch, batch)
            if self.baseline is None or self.watch.is_better(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and (epoch > 0 or batch is not None):
            self.stopped_epoch, self.stopped_batch = epoch, batch
            self.model.stop_training = True
            self._decided(
                "stop",
                "no_improvement",
                monitor=self.monitor,
                value=current,
                best=self.best,
                wait=self.wait,
                patience=self.patience,
                min_delta=self.min_delta,
                baseline=self.baseline,
            )

    def get_monitor_value(self, logs: dict[str, Any] | None) -> float | None:
        """Return the value to look at, None to look at nothing; a subclass may make it from several logged values."""
        return self.watched(logs)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Say whether it stopped, and put the best weights back."""
        if self.stopped_batch is not None and self.verbose > 0:
            print_message(f"Epoch {self.stopped_epoch + 1}, batch {self.stopped_batch + 1}: early stopping")
        elif self.stopped_epoch > 0 and self.verbose > 0:
            print_message(f"Epoch {self.stopped_epoch + 1}: early stopping")
        self._restore()

    def close(self) -> None:
        """Put the best weights back after an error; not in `on_exception`, where others may save the latest ones."""
        self._restore()
        self._running = False
        if self._best_kept is not None:
            # The memory of a device is not held beyond the run.
            self.best_weights = self.best_weights

    def _take(self, value: float, epoch: int, batch: int | None) -> None:
        if self.restore_best_weights:
            # The old copy goes first, so that there are never two. Should copying fail or be interrupted, the run ends
            # with nothing to put back, and the model has these very weights.
            self._best_list = None
            self._best_arrays = own_arrays_of(self.model)
            if has_parts_of_weights(self.model) or not self._take_beside():
                self.best_weights = copies_of_weights(self.model)
            self._decided("best", "best_weights", monitor=self.monitor, value=value, before=self.best)
        self.best = value
        self.best_epoch, self.best_batch = epoch, batch

    def _take_beside(self) -> bool:
        """Copy the weights on their device, or beside its work; return whether that could be done."""
        weights = stored_weights_of(self.model)
        if not weights or not (is_ours(self.model, "get_weights") and is_ours(self.model, "set_weights")):
            return False
        from oncue.checkpoints.kept_weights import KeptWeights

        owed = None if self._run is None else self._run.owed
        kept, self._best_kept = self._best_kept or KeptWeights(owed), None
        if not kept.take(weights):
            return False
        self._best_kept = kept
        return True

    def _restore(self) -> None:
        # An error in `evaluate` or `predict` ends no training of ours.
        if not self._running or not self.restore_best_weights or self._best() is None:
            return
        self._running = False
        if self.verbose > 0:
            moment = "the end" if self.best_batch is None else f"batch {self.best_batch + 1}"
            print_message(f"Restoring model weights from {moment} of the best epoch: {self.best_epoch + 1}.")
        self.model.set_weights(self._best())
        if self._best_arrays:
            self.model.set_own_arrays(self._best_arrays)
        found: dict[str, Any] = {"epoch": self.best_epoch, "monitor": self.monitor, "value": self.best}
        if self.best_batch is not None:
            found["batch"] = self.best_batch
        self._decided("restore", "weights_restored", **found)
