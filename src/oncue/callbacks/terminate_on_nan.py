"""TerminateOnNaN: ends a run whose loss is no number any more, or takes it back to where it was one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from oncue.callbacks.callback import Callback
from oncue.callbacks.rates import require_settable
from oncue.core.builtin import builtin
from oncue.core.console import print_message
from oncue.core.monitor import Logged, as_number, find_monitor
from oncue.core.numbers import number_of, whole
from oncue.core.protocols import TellsState, run_state_of
from oncue.core.warn import warn

if TYPE_CHECKING:
    from oncue.checkpoints.snapshot import Snapshot
    from oncue.checkpoints.training_state import FrozenState

_ACTIONS = ("stop", "raise", "rollback")


@builtin
class TerminateOnNaN(Callback):
    """Stops training after a batch whose loss is NaN or infinite, or goes back to the last good state.

    It reads the logs after every batch, so every batch waits for the device. On an accelerator, `every=50` looks only
    at each 50th batch, and at the end of the epoch: the logs are means over the epoch so far, so that a value which was
    not finite stays so until then.

    The weights of an epoch in which it stops count as best for no callback.

    With `action="rollback"` a copy of the whole state is kept in memory at the end of every epoch: weights, optimizer,
    callbacks, random generators and the place in the data. When a value is not finite, the run goes back there, with the
    learning rate times `factor`, and does the epoch again.

    Args:
        raise_error: Keras's word for `action="raise"`.
        monitor: The name of the value to look at, a list of names, or "*" for every logged value. Names with `val_`
            are looked at when the epoch has ended.
        every: Look at each so many batches.
        action: "stop"; "raise" for a RuntimeError, so that no `on_train_end` is called; or "rollback".
        factor: What the learning rate is multiplied with at each rollback, above 0 and at most 1.
        limit: So many rollbacks to the same state are tried; then training stops.

    Raises:
        ValueError: For a `monitor` that isn't a name, an `every` or a `limit` below 1, another `action` or `factor`. Before
            the first step, for a name that the run can't log, and for "rollback" in a loop that can't capture its state.
        TypeError: Before the first step, for "rollback" with a `factor` below 1 where a `LearningRateSchedule` sets the rate.
        RuntimeError: With "raise", when a value is not finite.

    Example:
        >>> import numpy as np, oncue
        >>> model = oncue.Sequential([oncue.layers.Input((2,)), oncue.layers.Dense(1)])
        >>> model.compile("sgd", loss="mse")
        >>> y = np.array([[1.0], [np.nan], [1.0]])
        >>> stop = TerminateOnNaN()
        >>> history = model.fit(np.ones((3, 2)), y, batch_size=1, shuffle=False, verbose=0, callbacks=[stop])
        Batch 1: Invalid loss, terminating training
    """

    later_fields = ("_unseen",)

    def __init__(
        self,
        raise_error: bool = False,
        *,
        monitor: str | Iterable[str] = "loss",
        every: int = 1,
        action: str = "stop",
        factor: float = 0.5,
        limit: int = 3,
    ) -> None:
        super().__init__()
        if action not in _ACTIONS:
            raise ValueError(f"`action` of TerminateOnNaN must be 'stop', 'raise' or 'rollback'; got {action!r}.")
        share = number_of(factor)
        if share is None or not 0 < share <= 1:
            raise ValueError(f"`factor` of TerminateOnNaN must be a number above 0 and at most 1; got {factor!r}.")
        names = [monitor] if isinstance(monitor, str) else list(monitor) if isinstance(monitor, Iterable) else []
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError(
                "`monitor` of TerminateOnNaN must be the name of a logged value, a list of names, or '*'; got "
                f"{monitor!r}."
            )
        self.action = "raise" if raise_error else action
        self.factor = float(share)
        self.limit = whole("TerminateOnNaN", "limit", limit, least=1)
        self.monitor = names
        self.every = whole("TerminateOnNaN", "every", every, least=1)
        self.reads_batch_logs = self.every == 1
        self._reads = names
        self._unseen = 0
        self._fired = False
        self._good: FrozenState | None = None
        self._snapshots: list[Snapshot] = []
        self._tried = 0

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no state of a run to go back to.
        return {**super().__getstate__(), "_good": None, "_snapshots": []}

    @property
    def raise_error(self) -> bool:
        """Whether it raises an error instead of stopping."""
        return self.action == "raise"

    @raise_error.setter
    def raise_error(self, value: bool) -> None:
        self.action = "raise" if value else "stop"

    def expect(self, logged: Logged) -> None:
        """Find the names in this run's logs; refuse those that can't appear.

        Args:
            logged: What the run is going to log.

        Raises:
            MonitorError: For a near-miss that no callback of the user's own could add.
        """
        found = [
            (name, None) if name == "*" else find_monitor(name, logged, type(self).__name__) for name in self.monitor
        ]
        self._reads = [name for name, _ in found]
        for _, warning in found:
            if warning is not None:
                warn(warning)

    def needs_of_model(self) -> tuple[str, ...]:
        """Return what it can't do without."""
        return ("stop", "batch_values", "run_state") if self.action == "rollback" else ("stop", "batch_values")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start with nothing."""
        self._unseen = 0
        self._fired = False
        self._good = None
        self._tried = 0
        if self.action == "rollback":
            self._needed_state()
            if self.factor != 1:
                require_settable(
                    self.model,
                    f"TerminateOnNaN(action='rollback', factor={self.factor})",
                    "use `factor=1.0`, which goes back without another rate",
                )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Take the state that a resumed run begins with as the good one."""
        restored = self._needed_state().restored if self.action == "rollback" else None
        # The one that was kept when training began, before the restored state was there, is of another place in the data.
        if restored is not None and (self._good is None or self._good.plain["epoch"] <= restored.epoch):
            self._good = restored.freeze(self._snapshot())

    def on_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the values, when it is their turn."""
        self._unseen += 1
        if self._unseen >= self.every:
            self._unseen = 0
            self._look("batch", batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the values of validation, and at those of batches that were skipped."""
        if not self._fired:
            self._look("epoch", epoch, logs)

    def _look(self, what: str, index: int, logs: dict[str, Any] | None) -> None:
        if self._in_trial:
            # A test may diverge.
            return
        ranks = self.ranks
        found = self._not_finite(logs)
        if ranks.size > 1:
            # The values of a batch are each process's own: all act after the step that follows.
            if found is not None and what == "batch":
                ranks.ask("not_finite")
                found = None
            if ranks.asked("not_finite"):
                ranks.settled("not_finite")
                found = found or (self._reads[0] if self._reads[0] != "*" else "loss", math.nan)
        if found is not None:
            ranks.ending = True
            self._act(what, index, *found)

    def _not_finite(self, logs: dict[str, Any] | None) -> tuple[str, float] | None:
        numbers = ((name, as_number(value)) for name, value in self._values(logs))
        return next(((name, one) for name, one in numbers if one is not None and not math.isfinite(one)), None)

    def _act(self, what: str, index: int, name: str, number: float) -> None:
        self._fired = True
        where = f"{what} {index}" if what == "batch" else f"{what} {index + 1}"
        if self._run is not None:
            self._run.progress.not_finite = name
        found = {"not_finite": name, "value": str(number), "unit": what, "index": index}
        self._decided("stop", "not_finite", **found)
        if self.action == "rollback" and self._tried < self.limit:
            self._go_back(found)
            return
        if self.action == "raise":
            raise RuntimeError(
                f"NaN or Inf {name} encountered at {where}. {name.capitalize()} value: {number}. Terminating "
                "training immediately."
            )
        print_message(f"{where.capitalize()}: Invalid {name}, terminating training")
        self.model.stop_training = True

    # Going back ----------------------------------------------------------------------------------------------------

    def _go_back(self, found: dict[str, Any]) -> None:
        good, number = self._good, self._tried + 1
        assert good is not None

        def then() -> None:
            self._tried = number
            self._fired = False
            before = float(self.model.optimizer.learning_rate)
            rate = before
            if self.factor != 1:
                # Each try begins from the state's own rate, so that the factor counts once for each.
                rate = self.model.optimizer.learning_rate = before * self.factor**number
            text = self._decided(
                "rollback",
                "rolled_back",
                rollback=number,
                epochs=good.plain["epoch"],
                factor=self.factor,
                before=before,
                learning_rate=rate,
                **found,
            )
            print_message(f"{type(self).__name__}: {text}")

        self._needed_state().rollback = (good.thaw(), then)
        self.model.stop_training = True

    def keep_state(self) -> None:
        """Take the state of the run as the good one; the loop calls it after the `on_epoch_end` of all callbacks."""
        if self.action == "rollback" and not self._fired:
            self._tried = 0
            self._good = self._needed_state().capture(returns=True).freeze(self._snapshot())

    def _snapshot(self) -> Snapshot:
        from oncue.checkpoints.snapshot import Snapshot

        # Two by turns: the good state stays readable while the next is taken.
        self._snapshots = [*self._snapshots, Snapshot()] if len(self._snapshots) < 2 else self._snapshots[::-1]
        return self._snapshots[-1]

    def _needed_state(self) -> TellsState:
        found = run_state_of(self._run)
        if found is None:
            raise ValueError(
                f"`action='rollback'` of TerminateOnNaN works in `fit` of oncue's models; this loop, around a "
                f"{type(self.model).__name__}, can't capture its state. Use action='stop' or action='raise'."
            )
        return found

    def _values(self, logs: dict[str, Any] | None) -> list[tuple[str, Any]]:
        if logs is None:
            return []
        if "*" in self._reads:
            return list(logs.items())
        return [(name, logs[name]) for name in self._reads if name in logs]
