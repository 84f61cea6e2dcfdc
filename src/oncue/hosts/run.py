"""HostedRun: a run of callbacks in a loop that calls hooks and says, or doesn't say, how it ends."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import torch

from oncue.callbacks import CallbackList, History
from oncue.callbacks.roles import check_needs
from oncue.checkpoints.encoding import decode, encode, json_of
from oncue.core.needs import Lacks
from oncue.core.warn import warn
from oncue.hosts.host import Host, HostRate, rates_of
from oncue.nested import first_leaf


class AbandonedRun(RuntimeError):
    """A loop ended without telling its callbacks how."""


class HostedRun:
    """Opens, calls and closes callbacks once each, whatever hooks a loop has.

    Args:
        callbacks: The callbacks; a History is added when there is none.
        lacks: What the loop can't give, so that callbacks that need it are refused now.

    Attributes:
        callbacks: The list of the run.
        history: Its History.
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
        self._block: AbstractContextManager[CallbackList] | None = None
        self._finalizer: Any = None

    @property
    def is_open(self) -> bool:
        """Whether a run has begun and not ended."""
        return self._block is not None

    def open(self, model: Any, owner: Any, writes: bool = True, **params: Any) -> None:
        """Open a run; one that was left open before, because its loop failed, is closed first.

        Args:
            model: The model that callbacks get.
            owner: When it is gone, a run that is still open is closed.
            writes: Whether this process writes files; those that only write them are left out elsewhere.
            **params: `verbose`, `epochs` and `steps`.
        """
        self.abandon()
        if not writes:
            self.callbacks.leave_out_writers()
        if isinstance(model, Host):
            for callback in self.callbacks.roles.setting_rate:
                for rate in rates_of(model):
                    rate.check_settable(type(callback).__name__)
        self.callbacks.set_params({"verbose": 0, "steps": None, **params})
        self.callbacks.set_model(model)
        self._block = self.callbacks.run()
        self._block.__enter__()
        self._finalizer = weakref.finalize(owner, self.abandon)

    def logged_rates(self, host: Host, scheduled: bool) -> list[HostRate]:
        """Return the learning rates that the epochs' logs have: those that a scheduler of the loop or a callback sets.

        Args:
            host: The model.
            scheduled: Whether the loop has schedulers.
        """
        return rates_of(host) if scheduled or self.callbacks.roles.setting_rate else []

    def samples_in(self, batch: Any) -> int:
        """Return how many samples a batch has: the length of the first tensor in it; 1 for a single number.

        Example:
            >>> import torch
            >>> HostedRun([], Lacks("This loop", {})).samples_in({"x": torch.ones(3, 2)})
            3
        """
        first = batch[0] if type(batch) in (list, tuple) and batch else batch
        # In most batches it is the first thing.
        leaf = first if isinstance(first, torch.Tensor) else first_leaf(batch)
        shape: Sequence[int] = getattr(leaf, "shape", ())
        return int(shape[0]) if shape else 1

    def begin(self, model: Any, owner: Any, **params: Any) -> None:
        """Open a run as `open` does, and call `on_train_begin`."""
        self.open(model, owner, **params)
        self.call("on_train_begin")

    def call(self, hook: str, *arguments: Any) -> None:
        """Call a hook; an error closes everything before it goes on to the loop, which may have no hook for errors."""
        try:
            getattr(self.callbacks, hook)(*arguments)
        except BaseException as error:
            self.fail(error)
            raise

    def end(self, logs: dict[str, Any] | None = None) -> None:
        """End the run as one that finished or was stopped; nothing when it has ended already."""
        if self._block is not None:
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

    # State, which travels in the loop's own checkpoints -------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the states of all callbacks: "text", which JSON can have, and "tensors" by name."""
        tensors: dict[str, Any] = {}
        parts = {
            "callbacks": {key: one.state_dict() for key, one in self.callbacks.roles.stateful.items()},
            "journal": self.callbacks.journal.state_dict(),
        }
        text = b"".join(json_of(encode(parts, tensors, "the state of callbacks"))).decode("ascii")
        # They go on being trained while the checkpoint is written.
        return {"text": text, "tensors": {name: one.detach().clone() for name, one in tensors.items()}}

    def restore(self, state: Mapping[str, Any], owner: str, epoch: int) -> None:
        """Put back what `state` returned, after `begin`, where callbacks reset themselves.

        Args:
            state: The state.
            owner: The adapter, for the journal.
            epoch: The epoch that comes next.
        """
        parts = decode(json.loads(state["text"]), state["tensors"])
        stateful = self.callbacks.roles.stateful
        for key, saved in parts["callbacks"].items():
            if key in stateful:
                stateful[key].load_state_dict(saved)
        other = sorted(set(parts["callbacks"]) ^ set(stateful))
        if other:
            warn(
                f"The checkpoint was made with other callbacks of oncue than these: {', '.join(other)}. What isn't in both "
                "begins with nothing."
            )
        self.callbacks.journal.load_state_dict(parts["journal"])
        self.callbacks.journal.write(
            owner, what="resumed", epoch=epoch, kind="resume", data={"stopped": False, "redone": 0}
        )

    def _close(self, error: BaseException | None) -> None:
        block, self._block = self._block, None
        if block is None:
            return
        if self._finalizer is not None:
            self._finalizer.detach()
        block.__exit__(None if error is None else type(error), error, None if error is None else error.__traceback__)


class Adapter:
    """What a callback of another loop shows of the run that it carries, and `with` around what that loop does."""

    _run: HostedRun

    @property
    def history(self) -> History:
        """The logs of every epoch, and `explain()`."""
        return self._run.history

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self._run.abandon()
        else:
            self._run.fail(error)
