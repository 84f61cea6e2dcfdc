"""HostedRun: a run of callbacks in a loop that calls hooks and says, or doesn't say, how it ends."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

from oncue.callbacks import CallbackList, History
from oncue.callbacks.roles import check_needs
from oncue.core.needs import Lacks
from oncue.core.warn import warn
from oncue.hosts.carried import packed, unpacked
from oncue.hosts.host import Host, HostRate, rates_of
from oncue.hosts.lacks import SPREAD
from oncue.hosts.means import Means, samples_in
from oncue.hosts.processes import Processes
from oncue.training.loop import BatchLogs
from oncue.training.meter import Reading


class AbandonedRun(RuntimeError):
    """A loop ended without telling its callbacks how."""


class HostedRun:
    """Opens, calls and closes callbacks once each, whatever hooks a loop has; and keeps what the epoch's logs are made of.

    Args:
        callbacks: The callbacks; a History is added when there is none.
        lacks: What the loop can't give, so that callbacks that need it are refused now.

    Attributes:
        callbacks: The list of the run.
        history: Its History.
        model: The model that callbacks have; None before a run.
        epoch: The epoch that the run is in.
        done: How many of its batches are done.
        means: The running means of the epoch.
        given: What else the epoch's logs will have, by name.
        rates: The learning rates that the epochs' logs have: those that a scheduler of the loop or a callback sets.
        processes: The processes that train together.
        is_open: Whether a run has begun and not ended.

    Raises:
        ValueError: For a callback that needs what the loop lacks.
        TypeError: For what is no callback.

    Example:
        >>> class Tell:
        ...     def close(self): print("closed")
        ...     def on_train_begin(self, logs=None): print("begun")
        >>> run = HostedRun([Tell()], Lacks("This loop", {}))
        >>> run.begin(None, owner=run.callbacks, epochs=1)
        begun
        >>> run.end()
        closed
        >>> run.end()
    """

    def __init__(self, callbacks: Any, lacks: Lacks) -> None:
        self.callbacks = CallbackList(callbacks, add_history=True)
        check_needs(self.callbacks.callbacks, None, lacks)
        self.history: History = next(one for one in self.callbacks.callbacks if isinstance(one, History))
        self.model: Any = None
        self.epoch: int | None = None
        self.done = 0
        self.means = Means()
        self.given: dict[str, Any] = {}
        self.rates: list[HostRate] = []
        self.processes = Processes()
        self._whose, self._owner = lacks.whose, ""
        self._block: AbstractContextManager[CallbackList] | None = None
        self._finalizer: Any = None
        self._begin_batch: Callable[..., None] | None = None
        self._end_batch: Callable[..., None] | None = None
        self._may_be_kept = True
        # Whether a callback, of any process, stopped the epoch before.
        self._told_to_stop = False

    @property
    def is_open(self) -> bool:
        """Whether a run has begun and not ended."""
        return self._block is not None

    # The ends -------------------------------------------------------------------------------------------------------

    def open(self, model: Any, owner: Any, **params: Any) -> None:
        """Open a run; one that was left open before, because its loop failed, is closed first.

        Args:
            model: The model that callbacks get.
            owner: When it is gone, a run that is still open is closed. The journal has its class's name.
            **params: `verbose`, `epochs` and `steps`.

        Raises:
            ValueError: For a callback that needs what the model lacks.
        """
        self.abandon()
        self.model, self._owner, self._told_to_stop = model, type(owner).__name__, False
        self.epoch = None
        if isinstance(model, Host):
            self.processes = Processes(model.device)
            if not self.processes.alone and model.is_spread():
                check_needs(self.callbacks.callbacks, None, SPREAD)
            setting = self.callbacks.roles.setting_rate
            for callback in setting:
                for rate in rates_of(model):
                    rate.check_settable(type(callback).__name__)
            self.rates = rates_of(model) if model.scheduled or setting else []
        self.callbacks.group = self.processes
        if not self.processes.main:
            self.callbacks.leave_out_writers()
        self.callbacks.set_params({"verbose": 0, "steps": None, **params})
        self.callbacks.set_model(model)
        self._block = self.callbacks.run()
        self._block.__enter__()
        self._finalizer = weakref.finalize(owner, self.abandon)

    def begin(self, model: Any, owner: Any, **params: Any) -> None:
        """Open a run as `open` does, and call `on_train_begin`."""
        self.open(model, owner, **params)
        self.call("on_train_begin")

    def call(self, hook: str, *arguments: Any) -> None:
        """Call a hook in a run that is open.

        An error closes everything before it goes on to the loop, which may have no hook for errors.
        """
        if self._block is not None:
            self.guarded(getattr(self.callbacks, hook), *arguments)

    def guarded(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function; an error closes everything before it goes on."""
        try:
            function(*arguments)
        except BaseException as error:
            self.fail(error)
            raise

    def end(self, logs: dict[str, Any] | None = None) -> None:
        """End the run as one that finished or was stopped; nothing when it has ended already."""
        self.call("on_train_end", logs)
        self._close(None)

    def fail(self, error: BaseException) -> None:
        """End the run because of an error, which is not raised here; nothing when it has ended already."""
        self._close(error)

    def close(self) -> None:
        """Close a run that was no training."""
        self._close(None)

    def abandon(self) -> None:
        """End a run of which nobody has said how it ended."""
        if self._block is not None:
            self.fail(AbandonedRun("The loop ended without telling the callbacks why."))

    def _close(self, error: BaseException | None) -> None:
        block, self._block = self._block, None
        if block is None:
            return
        if self._finalizer is not None:
            self._finalizer.detach()
        block.__exit__(None if error is None else type(error), error, None if error is None else error.__traceback__)

    # An epoch -------------------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch, or go on with one whose state was restored."""
        if epoch != self.epoch:
            self.means.clear()
            self.given.clear()
        self.epoch, self.done = epoch, 0
        if self._told_to_stop:
            self._told_to_stop = self.model.stop_training = False
            self.callbacks.journal.write(self._owner, f"{self._whose} went on, though it was told to stop", epoch=epoch)
        self.call("on_epoch_begin", epoch)
        begin, end = "on_train_batch_begin", "on_train_batch_end"
        self._begin_batch, self._end_batch = self.callbacks.caller(begin), self.callbacks.caller(end)
        self._may_be_kept = self.callbacks.calls_others(end)

    def begin_batch(self, batch: Any, index: int | None = None) -> None:
        """Call the hooks of the beginning of a batch, where somebody listens, and take note of the rates of its update.

        Args:
            batch: The batch; None where the loop doesn't tell.
            index: Its index; counted in the epoch where the loop doesn't tell.
        """
        if index is not None:
            self.done = index
        if self._begin_batch is not None:
            logs = None if batch is None else BatchLogs(self.done, (batch, None, None))
            self.guarded(self._begin_batch, self.done, logs)
        # A scheduler may change them before the epoch ends.
        for rate in self.rates:
            rate.note_used()

    def step(self, batch: Any, values: Mapping[str, Any]) -> None:
        """Add what a batch measured to the means; nothing is read from the device."""
        self.means.add(values, samples_in(batch))

    def end_batch(self, batch: Any) -> None:
        """Call the hooks of the end of a batch, where somebody listens."""
        index, self.done = self.done, self.done + 1
        if self._end_batch is None:
            return
        logs = BatchLogs(index, (batch, None, None), source=self.means)
        try:
            self._end_batch(index, logs)
        except BaseException as error:
            self.fail(error)
            raise
        kept = weakref.ref(logs) if self._may_be_kept else None
        del logs
        # As in oncue's own loop: the next step changes what logs that are still referenced would read.
        if kept is not None and (held := kept()) is not None:
            held.own()

    def end_epoch(self, **values: Any) -> dict[str, Any]:
        """Call the hooks of the end of an epoch, with the means, what was given, and the learning rates.

        Several processes get the means of what all have, and stop together.

        Args:
            **values: What is given now, numbers or tensors.

        Returns:
            The logs.
        """
        reading = Reading.of({**self.given, **values})
        logs = dict(zip(self.means.names, self.means.read(), strict=True))
        logs.update(zip(reading.names, reading.read(), strict=True))
        for rate in self.rates:
            logs.setdefault(rate.key, rate.used)
        logs = self.processes.means(logs)
        self.call("on_epoch_end", self.epoch, dict(logs))
        self._told_to_stop = self.model.stop_training = self.processes.agree(self.model.stop_training)
        return logs

    @property
    def stops(self) -> bool:
        """Whether the loop is to end; several processes end together, when the epoch does."""
        return bool(self.model.stop_training) if self.processes.alone else self._told_to_stop

    # State, which travels in the loop's own checkpoints -------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the states of all callbacks, and of the epoch; nothing before the first run."""
        if self.model is None:
            return {}
        return {
            "callbacks": {key: one.state_dict() for key, one in self.callbacks.roles.stateful.items()},
            "journal": self.callbacks.journal.state_dict(),
            "epoch": [self.epoch, self.means.state(), dict(self.given)],
        }

    def restore(self, state: Mapping[str, Any], epoch: int) -> None:
        """Put back what `state` returned, after `begin`, where callbacks reset themselves.

        Args:
            state: The state.
            epoch: The epoch that comes next.
        """
        saved, stateful = state["callbacks"], self.callbacks.roles.stateful
        for key in set(saved) & set(stateful):
            stateful[key].load_state_dict(saved[key])
        other = sorted(set(saved) ^ set(stateful))
        # Other processes than the main one have fewer callbacks.
        if other and self.processes.main:
            warn(
                f"The checkpoint was made with other callbacks of oncue than these: {', '.join(other)}. What isn't in both "
                "begins with nothing."
            )
        self.epoch, means, self.given = state["epoch"]
        self.means.restore(means)
        self.callbacks.journal.load_state_dict(state["journal"])
        self.callbacks.journal.write(
            self._owner, what="resumed", epoch=epoch, kind="resume", data={"stopped": False, "redone": 0}
        )


class Adapter:
    """What a callback of another loop shows of the run that it carries, and `with` around what that loop does."""

    _run: HostedRun
    _saved: Mapping[str, Any] | None = None

    @property
    def history(self) -> History:
        """The logs of every epoch, and `explain()`."""
        return self._run.history

    def state_dict(self) -> dict[str, Any]:
        """Return the state of all callbacks."""
        return packed(self._run.state())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep a state until training begins."""
        self._saved = state_dict

    def _restore(self, epoch: int) -> None:
        """Put back the state that was kept, if any, before an epoch."""
        saved, self._saved = self._saved, None
        if saved and (state := unpacked(saved)):
            self._run.restore(state, epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._run.abandon()
        else:
            self._run.fail(error)
